"""Containers as plain processes on this machine, without isolation.

A container has its environment, a separate working directory and scratch space, mounted files (read-only), a
memory limit, and an end that kills all its processes. Differences from a pod:

* No isolation: the code has all permissions of this user, uses the network and sees other processes.
* The user (`run_as_user`), the CPU limit and the image are ignored. The Python interpreter is this one, with the
  packages of its virtual environment and, if they are enabled, of the user.
* Mount paths such as ``/app`` are below the container's directory, and the command is rewritten to match. TMPDIR
  is the scratch space; a program that uses ``/tmp`` directly gets that of this machine. File modes make files
  read-only, which root can bypass.
* Memory is checked every 0.1 s, and a container above its limit is killed (OOMKilled, 137, as with runc). A
  program that grows faster gets a MemoryError from RLIMIT_DATA, which is well above the limit. RLIMIT_AS is not
  used: threads and numerical libraries reserve far more addresses than they use. Linux only.
* The limit of ephemeral storage applies to each single file (RLIMIT_FSIZE), the size of scratch space not at all.
"""

from __future__ import annotations

import os
import posixpath
import site
import sys
from pathlib import Path

from .base import ContainerSpec, ContainerStartError
from .process_client import Children, Command, ProcessContainer
from .process_supervisor import remove_tree

SYSTEM_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH in the container, after the directory of the interpreter."""


class ProcessRuntime:
    """Runs containers as plain processes, all below one small supervisor process. Starts no threads."""

    name = "process"

    def __init__(self) -> None:
        self._children = Children()

    async def start(self, spec: ContainerSpec) -> ProcessContainer:
        """Start a container and return when it runs. Raises `ContainerStartError`."""
        try:
            directory = self._children.directory()
        except OSError as error:
            raise ContainerStartError(f"cannot make a directory for the container: {error}") from error
        try:
            command = self._prepare(spec, directory)
        except OSError as error:
            remove_tree(directory)
            raise ContainerStartError(f"cannot write the container's files: {error}") from error
        return await self._children.start(command)

    def kill_all(self) -> None:
        """Kill all containers and free all resources, without an event loop. You can start containers afterwards.

        This also happens when this object is deleted, at interpreter exit, and when this process is killed.
        """
        self._children.close()

    def _prepare(self, spec: ContainerSpec, directory: str) -> Command:
        """Create the directories and files of the container, and return its command. Raises OSError."""
        root = directory + "/mounts"
        parents = {posixpath.dirname(inner(path)) for path in spec.files}
        mounts = {inner(path) for path in (*parents - {"/"}, *spec.files, *spec.scratch)}

        def outside(path: str) -> str | None:
            """Return the path on this machine of a path at or below a mount path, or None."""
            path = inner(path) if path.startswith("/") else ""
            is_mounted = any(path == mount or path.startswith(mount + "/") for mount in mounts)
            return root + path if is_mounted else None

        cwd = outside(spec.working_dir or "") or directory + "/work"
        scratch = outside("/tmp") or directory + "/tmp"
        for path in (cwd, scratch, *(root + inner(mount) for mount in spec.scratch)):
            os.makedirs(path, exist_ok=True)
        write_files(spec, root)
        argv = [outside(part) or part for part in spec.command or ("python3",)]
        if argv[0] in ("python", "python3"):
            argv[0] = sys.executable
        user = user_site()
        return Command(
            argv=argv,
            env={
                "PATH": f"{posixpath.dirname(sys.executable)}:{SYSTEM_PATH}",
                "LANG": "C.UTF-8",
                "HOSTNAME": spec.pod,
                **({"PYTHONUSERBASE": user[0]} if user else {}),
                **spec.env,
                "TMPDIR": scratch,
            },
            directory=directory,
            cwd=cwd,
            stdin=spec.stdin,
            memory=spec.memory_limit,
            rlimits=_rlimits(spec),
        )


def inner(path: str) -> str:
    """Return an absolute path in the container without ``.`` and ``..``."""
    return posixpath.normpath("/" + path.lstrip("/"))


def user_site() -> tuple[str, str] | None:
    """Return the user base of this interpreter and the user site directory in it, or None if it is not used.

    https://docs.python.org/3/library/site.html#site.ENABLE_USER_SITE
    """
    if not site.ENABLE_USER_SITE:
        return None
    base, folder = site.getuserbase(), site.getusersitepackages()
    return (base, folder) if os.path.isdir(folder) else None


def write_files(spec: ContainerSpec, root: str) -> None:
    """Write the files of mounted ConfigMaps below `root`, read-only. Raises OSError."""
    folders = set()
    for name, content in spec.files.items():
        path = Path(root + inner(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o444)
        folders.add(path.parent)
    for folder in folders - {Path(root + inner(mount)) for mount in spec.scratch}:
        folder.chmod(0o555)


def _rlimits(spec: ContainerSpec) -> dict[str, int]:
    limits = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 4096}
    if spec.memory_limit is not None:
        limits["RLIMIT_DATA"] = 4 * spec.memory_limit + (1 << 30)
    if spec.ephemeral_limit is not None:
        limits["RLIMIT_FSIZE"] = spec.ephemeral_limit
    return limits
