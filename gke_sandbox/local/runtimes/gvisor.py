"""Containers under gVisor on this machine with ``runsc``: a separate bundle and sandbox for each.

A container has only the loopback network, no capabilities, a read-only root (see `bundle`), and scratch space in
memory with size limits. It works as root and, with runsc's ``-rootless``, as a user who can create user
namespaces.

There are no cgroups: the memory of the applications is checked every 0.1 s, and a container above its limit plus
the sizes of its scratch space is killed (OOMKilled, exit code 128, as on a node with gVisor). The CPU limit and
the image are ignored; the Python interpreter is this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import anyio

from ...kube.programs import find_program
from .base import ContainerExit, ContainerSpec, ContainerStartError
from .bundle import Interpreter, UnmountablePath, write_bundle
from .process import SYSTEM_PATH, ProcessRuntime
from .process_client import Command, ProcessContainer
from .process_supervisor import remove_tree

# The faster one first. runsc has systrap since 2023, older releases have ptrace.
_PLATFORMS = ("systrap", "ptrace")
PROBE_TIMEOUT = 30.0


class GVisorUnavailable(Exception):
    """runsc does not work on this machine; the message explains why."""


class GVisorRuntime(ProcessRuntime):
    """Runs containers with runsc, all below one small supervisor process. Starts no threads.

    The first process of a container is ``runsc run``. The sandbox and the gofer are its descendants, so killing it
    kills them as well. Raises `GVisorUnavailable` if runsc is not on PATH or a trial container fails, and
    `ConfigError` if runsc is found through an empty or relative entry of PATH.
    """

    name = "gvisor"

    def __init__(self) -> None:
        super().__init__()
        runsc = find_program("runsc", os.environ.get("PATH", os.defpath))
        if runsc is None:
            raise GVisorUnavailable("runsc is not on PATH")
        self._runsc = runsc
        try:
            self._interpreter = Interpreter.running()
        except UnmountablePath as error:
            raise GVisorUnavailable(f"the Python interpreter cannot be mounted in a sandbox: {error}") from error
        self._flags = _find_flags(self._runsc, self._interpreter)

    async def start(self, spec: ContainerSpec) -> ProcessContainer:
        container = await super().start(spec)
        try:
            await _started(container)
        except BaseException:
            await container.aclose()
            raise
        return container

    def _prepare(self, spec: ContainerSpec, directory: str) -> Command:
        write_bundle(spec, directory, self._interpreter)
        # Not the name of the pod: sandboxes with the same name conflict, even with different roots.
        name = "gke-sandbox-" + uuid.uuid4().hex
        memory = spec.memory_limit
        if memory is not None:
            memory += sum(size or 0 for size in spec.scratch.values())
        runsc = _command(self._runsc, self._flags, directory)
        return Command(
            argv=[*runsc, "run", "-bundle", directory, name],
            env={"PATH": SYSTEM_PATH},
            directory=directory,
            cwd=directory,
            stdin=spec.stdin,
            memory=memory,
            application_memory=True,
            out_of_memory_code=128,
            rlimits={"RLIMIT_CORE": 0},
            terminate=[*runsc, "kill", name, "TERM"],
        )


def _command(runsc: str, flags: Sequence[str], directory: str) -> list[str]:
    return [runsc, "-root", f"{directory}/state", "-log", f"{directory}/log", "-log-format", "json", *flags]


async def _started(container: ProcessContainer) -> None:
    """Wait until runsc reports that the container runs or has exited. Raises `ContainerStartError`."""
    while container.exit is None and not _runs(container.directory):
        with anyio.move_on_after(0.01):
            await container.wait()
    if container.exit == ContainerExit(128, "Error") and (why := _failure(container.directory)):
        raise ContainerStartError(why)


def _runs(directory: str) -> bool:
    # runsc keeps the state of a container in a JSON file. Its strings have escaped quotes, so that no program or
    # environment can contain this text, and an incomplete file does not contain it yet.
    for path in Path(directory, "state").glob("*.state"):
        with contextlib.suppress(FileNotFoundError):
            return b'"status":"running"' in path.read_bytes()
    return False


def _failure(directory: str) -> str:
    """Return the last error in the log of runsc, or an empty string."""
    try:
        log = Path(directory, "log").read_text(errors="replace")
    except FileNotFoundError:
        return ""
    why = ""
    # Some versions end the line of an error, others do not.
    decoder = json.JSONDecoder()
    while (log := log.lstrip()).startswith("{"):
        try:
            entry, end = decoder.raw_decode(log)
        except ValueError:
            break
        if entry.get("level") in ("error", "fatal"):
            why = entry.get("msg", "")
        log = log[end:]
    return why


def _find_flags(runsc: str, interpreter: Interpreter) -> list[str]:
    """Return flags with which runsc can run Python on this machine. Raises `GVisorUnavailable`."""
    known = _run([runsc, "flags"]).stdout
    flags = ["-network", "none", "-ignore-cgroups"]
    if "-overlay2 " in known:
        flags += ["-overlay2", "none"]  # newer releases add a writable layer over the root
    if "-gofer-network-namespace " in known:
        flags += ["-gofer-network-namespace", "new"]  # the default would leave a mount below -root
    if os.geteuid() != 0:
        flags.append("-rootless")
    failures = []
    for platform in _PLATFORMS:
        candidate = [*flags, "-platform", platform]
        why = _try(runsc, candidate, interpreter)
        if not why:
            return candidate
        failures.append(f"with platform {platform}: {why}")
    raise GVisorUnavailable("runsc does not work here: " + "; ".join(failures))


def _try(runsc: str, flags: Sequence[str], interpreter: Interpreter) -> str:
    """Run a trial container. Return why it failed, or an empty string."""
    spec = ContainerSpec(
        namespace="",
        pod="probe",
        pod_uid="",
        name="probe",
        command=("python3", "-S", "-c", "print('it runs')"),
        run_as_user=65534,
        run_as_group=65534,
    )
    directory = tempfile.mkdtemp(prefix="gke-sandbox-")
    try:
        write_bundle(spec, directory, interpreter)
        name = "gke-sandbox-" + uuid.uuid4().hex
        done = _run([*_command(runsc, flags, directory), "run", "-bundle", directory, name])
        if (done.returncode, done.stdout) == (0, "it runs\n"):
            return ""
        return _failure(directory) or (done.stdout.strip() or f"exit status {done.returncode}")[-500:]
    except OSError as error:
        return str(error)
    finally:
        remove_tree(directory)


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of runsc with merged output. Kill it and its descendants after a timeout."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": SYSTEM_PATH},
        cwd="/",
        start_new_session=True,
        text=True,
        errors="replace",
    ) as process:
        try:
            output, _ = process.communicate(timeout=PROBE_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return subprocess.CompletedProcess(argv, 1, f"timed out after {PROBE_TIMEOUT:g} seconds\n")
        finally:
            process.kill()
    return subprocess.CompletedProcess(argv, process.returncode, output)
