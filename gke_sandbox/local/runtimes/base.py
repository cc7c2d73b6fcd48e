"""The seam between the embedded cluster's kubelet and whatever runs a container.

Three things stand behind it: `gvisor.GVisorRuntime` (runsc), `process.ProcessRuntime` (a plain process) and
`scripted.ScriptedRuntime` (chunks at given times, for tests of faults, scale and time).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class ContainerSpec:
    """What the kubelet asks for: one container, with every reference already resolved.

    `env` holds literal values (``configMapKeyRef`` resolved, ``$(X)`` expanded). `files` are the read-only
    files of mounted ConfigMaps by absolute path in the container (``/app/runner.py``); `scratch` the
    writable emptyDirs by mount path, with their size limit in bytes (None: no limit). Sizes are bytes.
    """

    namespace: str
    pod: str
    pod_uid: str
    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    scratch: Mapping[str, int | None] = field(default_factory=dict)
    memory_limit: int | None = None
    cpu_limit: float | None = None
    ephemeral_limit: int | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None


@dataclass(frozen=True)
class ContainerExit:
    """How a container ended, as the kubelet reports it: ``state.terminated``.

    `reason` is ``Completed``, ``Error``, ``OOMKilled``, or ``Evicted``: the node took the container away, and
    the kubelet reports the whole pod as evicted, with `message` as the cause. `message` stays empty otherwise.
    """

    exit_code: int
    reason: str
    message: str = ""


class ContainerStartError(Exception):
    """The container could not be started: the kubelet reports ``StartError``, exit code 128, this message.

    `log` is what stands in the container's log then; None: the message itself.
    """

    def __init__(self, message: str, *, log: bytes | None = None) -> None:
        super().__init__(message)
        self.log = log


class RunningContainer(Protocol):
    """One running container."""

    def output(self) -> AsyncIterator[bytes]:
        """stdout and stderr as they come, merged, in chunks of any size; ends when both are closed.

        Called once by the kubelet.
        """

    async def wait(self) -> ContainerExit:
        """Wait for the end of the container. Output may still come afterwards, until `output()` ends."""

    async def stop(self, grace: float) -> None:
        """SIGTERM to the container's pid 1; after `grace` seconds SIGKILL to all that is left. Idempotent."""

    async def aclose(self) -> None:
        """Kill whatever is left and free every resource (directories, descriptors). Idempotent."""


class Runtime(Protocol):
    """Starts containers."""

    #: ``gvisor``, ``process`` or ``scripted``: for messages and for ``doctor``
    name: str

    async def start(self, spec: ContainerSpec) -> RunningContainer:
        """Start one container and return when it runs. Raises `ContainerStartError`."""

    def kill_all(self) -> None:
        """End every container at once, from any thread, without an event loop: for interpreter exit."""
