"""The program of ``gke-sandbox doctor --run``: it looks at its sandbox from inside, and prints JSON.

Standard library, Python 3.8 or newer. `writable` only calls access(2); `can_write` creates
a temporary file.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import tempfile
import threading
from typing import Any

CONNECT_TIMEOUT = 2.0
_READ_ALL = 3
_TARGETS = {
    "the metadata server": ("169.254.169.254", 80),
    "the internet (1.1.1.1:443)": ("1.1.1.1", 443),
    "the internet (8.8.8.8:53)": ("8.8.8.8", 53),
}
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_SKIPPED = ("/proc", "/sys")
_MAX_DIRECTORIES = 50


def read(path: str) -> str:
    """Return the text of a file, empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16).strip()
    except OSError:
        return ""


def kernel_log() -> str:
    """Return the messages of the kernel, as dmesg does. Empty if that is not allowed."""
    buffer = ctypes.create_string_buffer(1 << 16)
    try:
        length = ctypes.CDLL(None).klogctl(_READ_ALL, buffer, len(buffer))
    except (AttributeError, OSError):
        return ""
    return buffer.raw[: max(length, 0)].decode("utf-8", "replace")


def targets() -> dict[str, Any]:
    """Return the addresses to connect to. Kubernetes sets the variables of the API server in every container."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return {**_TARGETS, "the API server": (host, int(port))} if host else dict(_TARGETS)


def reachable() -> list[str]:
    """Return the targets that accept a connection."""
    found: list[str] = []

    def connect(name: str, address: Any) -> None:
        try:
            socket.create_connection(address, CONNECT_TIMEOUT).close()
        except OSError:
            return
        found.append(name)

    def resolve() -> None:
        try:
            socket.getaddrinfo("kubernetes.default.svc", 443)
        except OSError:
            return
        found.append("DNS")

    threads = [threading.Thread(target=connect, args=each, daemon=True) for each in targets().items()]
    threads.append(threading.Thread(target=resolve, daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CONNECT_TIMEOUT + 1.0)
    return sorted(found)


def writable() -> list[str]:
    """Return the directories that this process can write to: of all mounts, and of the upper two levels."""
    mounts = [line.split()[1] for line in read("/proc/self/mounts").splitlines() if line.count(" ") > 1]
    paths = {"/", *mounts}
    for parent in ("/", *subdirectories("/")):
        paths.update(subdirectories(parent))
    found = [
        path
        for path in paths
        if not path.startswith(_SKIPPED) and os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)
    ]
    return sorted(found)[:_MAX_DIRECTORIES]


def subdirectories(path: str) -> list[str]:
    """Return the directories in a directory, without following symbolic links."""
    if path.startswith(_SKIPPED):
        return []
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def status_fields() -> dict[str, str]:
    """Return the fields of /proc/self/status."""
    lines = [line.partition(":") for line in read("/proc/self/status").splitlines()]
    return {name: value.strip() for name, _, value in lines}


def memory() -> int | None:
    """Return the bytes of memory that this container has: the limit of its cgroup, or all memory it sees."""
    sizes = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = read(path)
        if text.isdigit():
            sizes.append(int(text))
    for line in read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            sizes.append(int(line.split()[1]) * 1024)
    return min(sizes) if sizes else None


def can_write(directory: str) -> bool:
    """Return whether a file can be created in a directory."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def main() -> None:
    """Print the report."""
    status = status_fields()
    home = os.environ.get("HOME", "")
    sys.stdout.write(
        json.dumps(
            {
                "version": read("/proc/version"),
                "is_gvisor": "gvisor" in (read("/proc/version") + kernel_log()).lower(),
                "tested": ["DNS", *targets()],
                "reachable": reachable(),
                "token": os.path.exists(_TOKEN),
                "writable": writable(),
                "uid": os.getuid(),
                "gid": os.getgid(),
                "capabilities": int(status.get("CapEff", "0"), 16),
                "memory": memory(),
                "cpus": len(os.sched_getaffinity(0)),
                "home": home,
                "home_writable": bool(home) and can_write(home),
                "directory_writable": can_write(os.getcwd()),
            }
        )
    )


if __name__ == "__main__":
    main()
