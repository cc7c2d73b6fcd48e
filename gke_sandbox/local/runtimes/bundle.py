"""OCI bundles for runsc: the file system and the user of a container.

The root is a separate read-only directory with a few files in /etc, the links and directories /bin, /lib* and
/sbin of this machine, and read-only bind mounts of /usr and the prefixes of this Python interpreter. Nothing else
of this machine is visible: no home directory, no /etc, and no packages of a virtual environment, only those in the
prefix of the interpreter. https://github.com/opencontainers/runtime-spec/blob/main/config.md
"""

from __future__ import annotations

import json
import os
import posixpath
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .base import ContainerSpec
from .process import SYSTEM_PATH, inner, write_files

_LINKED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_READ_ONLY = ("bind", "ro", "nosuid", "nodev")


class UnmountablePath(Exception):
    """The interpreter cannot be mounted in a container without exposing other files."""


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter: its real executable, and the directories that it needs besides /usr and /lib*."""

    executable: str
    prefixes: tuple[str, ...]

    @classmethod
    def running(cls) -> Interpreter:
        """Return this interpreter, or the base interpreter of a virtual environment. Raises `UnmountablePath`."""
        home = os.path.realpath(os.path.expanduser("~"))
        prefixes: list[str] = []
        for prefix in map(os.path.realpath, (sys.base_prefix, sys.base_exec_prefix)):
            if _below(home, prefix):
                raise UnmountablePath(f"its prefix {prefix} contains the home directory {home}")
            if not any(_below(prefix, known) for known in ("/usr", *prefixes)):
                prefixes.append(prefix)
        # The first candidate is a copy if the virtual environment was created with copies.
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        candidates = (getattr(sys, "_base_executable", None) or sys.executable, f"{sys.base_prefix}/bin/{version}")
        for executable in map(os.path.realpath, candidates):
            if os.path.isfile(executable) and any(_below(executable, known) for known in ("/usr", *prefixes)):
                return cls(executable, tuple(prefixes))
        raise UnmountablePath(f"its prefix {sys.base_prefix} contains no executable of it")


def _below(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def write_bundle(spec: ContainerSpec, directory: str, interpreter: Interpreter) -> None:
    """Create a bundle in `directory`: rootfs, config.json and the mounted files. Raises OSError."""
    rootfs = Path(directory, "rootfs")
    files = directory + "/files"
    binds = {path: path for path in ("/usr", *interpreter.prefixes)}
    for name in _LINKED:
        here = Path("/", name)
        if here.is_symlink():
            rootfs.mkdir(exist_ok=True)
            (rootfs / name).symlink_to(os.readlink(here))
        elif here.is_dir():
            binds[f"/{name}"] = f"/{name}"
    write_files(spec, files)
    for folder in sorted({posixpath.dirname(inner(path)) for path in spec.files}):
        binds[folder] = files + folder
    scratch = {"/tmp": None, **{inner(path): size for path, size in spec.scratch.items()}}
    cwd = inner(spec.working_dir or "/")
    for path in ("/etc", "/proc", "/dev", "/sys", "/root", *binds, *scratch, cwd):
        # Paths inside a bind mount or scratch directory exist there.
        if not any(path != mount and _below(path, mount) for mount in (*binds, *scratch)):
            os.makedirs(f"{rootfs}{path}", exist_ok=True)
    hosts = f"127.0.0.1 localhost {spec.pod}\n::1 localhost\n"
    for name, text in {**_ETC, "hosts": hosts, "hostname": spec.pod + "\n"}.items():
        (rootfs / "etc" / name).write_text(text)
    cache = Path("/etc/ld.so.cache")
    if cache.is_file():  # for libraries outside the standard directories of the loader, such as /usr/local/lib
        (rootfs / "etc" / cache.name).write_bytes(cache.read_bytes())
    config = _config(spec, interpreter, binds, scratch, cwd)
    Path(directory, "config.json").write_text(json.dumps(config))


def _config(
    spec: ContainerSpec,
    interpreter: Interpreter,
    binds: dict[str, str],
    scratch: dict[str, int | None],
    cwd: str,
) -> dict[str, object]:
    argv = list(spec.command) or ["python3"]
    if argv[0] in ("python", "python3"):
        argv[0] = interpreter.executable
    env = {
        "PATH": f"{posixpath.dirname(interpreter.executable)}:{SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "HOSTNAME": spec.pod,
        **spec.env,
    }
    mounts = [
        _mount("/proc", "proc"),
        _mount("/dev", "tmpfs"),
        _mount("/dev/shm", "tmpfs", "mode=1777", "size=65536k"),
        *(_mount(path, "bind", *_READ_ONLY, source=source) for path, source in binds.items()),
    ]
    for path, size in scratch.items():
        limit = [] if size is None else [f"size={size}"]
        mounts.append(_mount(path, "tmpfs", "mode=1777", *limit))
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": spec.run_as_user or 0, "gid": spec.run_as_group or 0},
            "args": argv,
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": cwd,
            "capabilities": {
                kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
            },
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 1 << 16, "hard": 1 << 16},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": spec.pod,
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def _mount(path: str, kind: str, *options: str, source: str | None = None) -> dict[str, object]:
    shown: Sequence[str] = options
    return {"destination": path, "type": kind, "source": source or kind, "options": list(shown)}
