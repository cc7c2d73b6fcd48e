"""The interface between the kubelet of the embedded cluster and a container runtime.

It has three implementations: `gvisor.GVisorRuntime` (runsc), `process.ProcessRuntime` (a plain process) and
`scripted.ScriptedRuntime` (output at given times, for tests).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class ContainerSpec:
    """A container to start, with all references resolved. Sizes are in bytes."""

    namespace: str
    pod: str
    pod_uid: str
    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables, with their values from ConfigMaps and ``$(NAME)`` expanded."""
    stdin: bool = False
    """Keep stdin open, and stdout apart from stderr; otherwise stdin is empty and both are merged."""
    working_dir: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The read-only files of mounted ConfigMaps, by absolute path in the container."""
    scratch: Mapping[str, int | None] = field(default_factory=dict)
    """The writable emptyDir volumes by mount path, with their size limits or None."""
    memory_limit: int | None = None
    cpu_limit: float | None = None
    ephemeral_limit: int | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None


@dataclass(frozen=True)
class ContainerExit:
    """The exit of a container, as the kubelet reports it in ``state.terminated``."""

    exit_code: int
    reason: str
    """``Completed``, ``Error``, ``OOMKilled``, or ``Evicted`` if the node evicts the pod."""
    message: str = ""
    """The reason of an eviction; otherwise empty."""


class ContainerStartError(Exception):
    """The container could not be started. The kubelet reports ``StartError``, exit code 128 and this message.

    `log` is the log of the container; by default it contains the message.
    """

    def __init__(self, message: str, *, log: bytes | None = None) -> None:
        super().__init__(message)
        self.log = log


class RunningContainer(Protocol):
    """One running container."""

    def output(self) -> AsyncIterator[bytes]:
        """Iterate over stdout and stderr, merged, in chunks of any size, until both are closed. Call it once.

        Without stderr if the container has stdin.
        """

    def errors(self) -> AsyncIterator[bytes]:
        """Iterate over stderr of a container with stdin; otherwise it is empty. Call it once."""

    async def write_stdin(self, data: bytes) -> None:
        """Write to stdin, and return when the pipe to the program has taken everything.

        Data is discarded if the container has no stdin, if it was closed, or if no process reads it any more.
        """

    def close_stdin(self) -> None:
        """End stdin: the program reads the end of the file. Idempotent."""

    async def wait(self) -> ContainerExit:
        """Wait for the exit of the container. `output()` can still yield chunks afterwards."""

    async def stop(self, grace: float) -> None:
        """Send SIGTERM to PID 1, and after `grace` seconds SIGKILL to all remaining processes. Idempotent."""

    async def aclose(self) -> None:
        """Kill all remaining processes and free all resources. Idempotent."""


class Runtime(Protocol):
    """Starts containers."""

    name: str
    """The name in messages: ``gvisor``, ``process`` or ``scripted``."""

    async def start(self, spec: ContainerSpec) -> RunningContainer:
        """Start a container and return when it runs. Raises `ContainerStartError`."""

    def kill_all(self) -> None:
        """Kill all containers. Callable from any thread, without an event loop, at interpreter exit."""
