"""OCI bundles for runsc: the file system and the user of a container.

The root is a separate read-only directory with a few files in /etc, the links and directories /bin, /lib* and
/sbin of this machine, and read-only bind mounts of /usr, the prefixes of this Python interpreter and its site
directories. Nothing else of this machine is visible: no home directory and no /etc.
https://github.com/opencontainers/runtime-spec/blob/main/config.md

If this interpreter runs in a virtual environment, the container has one too: /venv, with the site directory of
this one, links to the base interpreter and a pyvenv.cfg. The path differs because the original may be in /tmp,
which is scratch space in the container. If the user site directory is enabled, it is below /user (PYTHONUSERBASE).
Python processes the .pth files in them as usual, but paths outside of the mounted directories do not exist in the
container: an editable installation is not visible.
"""

from __future__ import annotations

import json
import os
import posixpath
import site
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .base import ContainerSpec
from .process import SYSTEM_PATH, inner, user_site, write_files

VENV = "/venv"
"""The virtual environment in the container."""
USER_BASE = "/user"
"""The user base (PYTHONUSERBASE) in the container."""

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
    """The base interpreter. Its path in the container is the same."""
    prefixes: tuple[str, ...]
    """Directories with the same path in the container."""
    sites: tuple[tuple[str, str], ...] = ()
    """Site directories outside of the prefixes: path in the container, path on this machine."""
    venv_config: str = ""
    """The content of pyvenv.cfg, or "" without a virtual environment."""

    @property
    def command(self) -> str:
        """The path in the container of the interpreter that runs programs."""
        return f"{VENV}/bin/python3" if self.venv_config else self.executable

    @classmethod
    def running(cls) -> Interpreter:
        """Return this interpreter. Raises `UnmountablePath`."""
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
                return cls(executable, tuple(prefixes), tuple(_sites()), _venv_config(executable))
        raise UnmountablePath(f"its prefix {sys.base_prefix} contains no executable of it")


def _sites() -> Iterator[tuple[str, str]]:
    if sys.prefix != sys.base_prefix:
        # With system-site-packages, the list also has those of the base interpreter, which are in its prefix.
        for folder in site.getsitepackages():
            if _below(folder, sys.prefix) and os.path.isdir(folder):
                yield VENV + folder.removeprefix(sys.prefix), os.path.realpath(folder)
    user = user_site()
    if user is not None:
        base, folder = user
        yield USER_BASE + folder.removeprefix(base), os.path.realpath(folder)


def _venv_config(executable: str) -> str:
    if sys.prefix == sys.base_prefix:
        return ""
    system = str(sys.base_prefix in site.PREFIXES).lower()
    return f"home = {posixpath.dirname(executable)}\ninclude-system-site-packages = {system}\n"


def _below(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def write_bundle(spec: ContainerSpec, directory: str, interpreter: Interpreter) -> None:
    """Create a bundle in `directory`: rootfs, config.json and the mounted files. Raises OSError."""
    rootfs = Path(directory, "rootfs")
    files = directory + "/files"
    binds = {**{path: path for path in ("/usr", *interpreter.prefixes)}, **dict(interpreter.sites)}
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
    if interpreter.venv_config:
        os.makedirs(f"{rootfs}{VENV}/bin")
        for name in ("python", "python3"):
            os.symlink(interpreter.executable, f"{rootfs}{VENV}/bin/{name}")
        Path(f"{rootfs}{VENV}/pyvenv.cfg").write_text(interpreter.venv_config)
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
        argv[0] = interpreter.command
    env = {
        "PATH": f"{posixpath.dirname(interpreter.command)}:{SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "HOSTNAME": spec.pod,
        **({"PYTHONUSERBASE": USER_BASE} if any(_below(path, USER_BASE) for path, _ in interpreter.sites) else {}),
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
