"""Containers as plain processes of this machine: nothing isolates them.

What is kept of a pod: its own environment, a working directory and scratch space of its own, mounted files
(read-only), the limit of its memory, its end, which takes all its processes along. What is not:

* any isolation: the code reads and writes what this user may, uses the network, sees other processes;
* the user (`run_as_user`), the CPU limit, and the image: the Python that runs us runs it;
* mount paths: ``/app`` and ``/tmp`` lie in a directory of the container's own, and the command is rewritten to
  match. TMPDIR names the scratch space; a program that spells out ``/tmp`` gets this machine's. Files are
  read-only by their modes, which root may overrule;
* memory is looked at every 0.1 s and the container killed when it holds more than its limit (OOMKilled, 137, as
  with runc). A program that grows faster meets RLIMIT_DATA, set well above the limit, as a MemoryError. Not
  RLIMIT_AS: threads and numerical libraries reserve far more addresses than they use. Linux only;
* the limit of ephemeral storage holds for each file alone (RLIMIT_FSIZE), the sizes of scratch space not at all.
"""

from __future__ import annotations

import os
import posixpath
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio

from .base import ContainerExit, ContainerSpec, ContainerStartError
from .process_client import Child, Children, Command, Ended
from .process_supervisor import remove_tree

#: What the image's PATH is, behind the directory of the interpreter.
SYSTEM_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessRuntime:
    """Runs containers as plain processes. One small supervisor process serves all of them; no threads."""

    name = "process"

    def __init__(self) -> None:
        self._children = Children()

    async def start(self, spec: ContainerSpec) -> ProcessContainer:
        """Start one container and return when it runs. Raises `ContainerStartError`."""
        try:
            directory = self._children.directory()
        except OSError as error:
            raise ContainerStartError(f"cannot make a directory for the container: {error}") from error
        try:
            command = _command(spec, directory)
        except OSError as error:
            remove_tree(directory)
            raise ContainerStartError(f"cannot write the container's files: {error}") from error
        return ProcessContainer(await self._children.start(command))

    def kill_all(self) -> None:
        """Kill every container at once and free everything, without an event loop; a later start begins anew.

        Happens by itself when this object goes, at interpreter exit, and when this process is killed.
        """
        self._children.close()


class ProcessContainer:
    """A container whose pid 1 is a child of the supervisor."""

    #: What an exit for memory looks like: 137 with runc.
    out_of_memory_code = 137

    def __init__(self, child: Child) -> None:
        self._child = child

    def output(self) -> AsyncIterator[bytes]:
        return self._child.output()

    async def wait(self) -> ContainerExit:
        return self._exit(await self._child.wait())

    async def stop(self, grace: float) -> None:
        if self._child.ended is None:
            with anyio.move_on_after(grace):
                await self.terminate()
                await self._child.wait()
        if self._child.ended is None:
            self._child.send_signal(signal.SIGKILL)
        await self._child.wait()

    async def terminate(self) -> None:
        """Ask pid 1 to end: SIGTERM."""
        self._child.send_signal(signal.SIGTERM)

    async def aclose(self) -> None:
        await self._child.aclose()

    def _exit(self, ended: Ended) -> ContainerExit:
        if ended.out_of_memory:
            return ContainerExit(self.out_of_memory_code, "OOMKilled")
        return ContainerExit(ended.exit_code, "Error" if ended.exit_code else "Completed")


@dataclass(frozen=True)
class PathMap:
    """Where the pod's mount paths lie on this machine: below `root`."""

    root: str
    mounts: tuple[str, ...]

    @classmethod
    def of(cls, spec: ContainerSpec, root: str) -> PathMap:
        parents = {posixpath.dirname(inner(path)) for path in spec.files}
        return cls(root, tuple({inner(path) for path in (*parents - {"/"}, *spec.files, *spec.scratch)}))

    def outside(self, path: str) -> str | None:
        """The path on this machine for one at or below a mount path; None for any other."""
        if path.startswith("/"):
            path = inner(path)
            if any(path == mount or path.startswith(mount + "/") for mount in self.mounts):
                return self.root + path
        return None


def inner(path: str) -> str:
    """An absolute path without ``.`` and ``..``, as seen in the container."""
    return posixpath.normpath("/" + path.lstrip("/"))


def write_files(spec: ContainerSpec, root: str) -> None:
    """The files of mounted ConfigMaps below `root`, read-only. Raises OSError."""
    folders = set()
    for name, content in spec.files.items():
        path = Path(root + inner(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o444)
        folders.add(path.parent)
    for folder in folders - {Path(root + inner(mount)) for mount in spec.scratch}:
        folder.chmod(0o555)


def _command(spec: ContainerSpec, directory: str) -> Command:
    """Set up the container's directory. Raises OSError."""
    paths = PathMap.of(spec, directory + "/mounts")
    cwd = (paths.outside(spec.working_dir) if spec.working_dir else None) or directory + "/work"
    scratch = paths.outside("/tmp") or directory + "/tmp"
    for path in (cwd, scratch, *(paths.root + inner(mount) for mount in spec.scratch)):
        os.makedirs(path, exist_ok=True)
    write_files(spec, paths.root)
    argv = [paths.outside(part) or part for part in spec.command or ("python3",)]
    if argv[0] in ("python", "python3"):
        argv[0] = sys.executable
    return Command(
        argv=argv,
        env={
            "PATH": f"{posixpath.dirname(sys.executable)}:{SYSTEM_PATH}",
            "LANG": "C.UTF-8",
            "HOSTNAME": spec.pod,
            **spec.env,
            "TMPDIR": scratch,
        },
        directory=directory,
        cwd=cwd,
        memory=spec.memory_limit,
        rlimits=_rlimits(spec),
    )


def _rlimits(spec: ContainerSpec) -> dict[str, int]:
    limits = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 4096}
    if spec.memory_limit is not None:
        limits["RLIMIT_DATA"] = 4 * spec.memory_limit + (1 << 30)
    if spec.ephemeral_limit is not None:
        limits["RLIMIT_FSIZE"] = spec.ephemeral_limit
    return limits
