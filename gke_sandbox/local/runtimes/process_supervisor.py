"""The supervisor: a small process that starts, watches and kills the containers' processes. Stdlib only.

`process_client.Children` runs it as a script, one per runtime. It is a separate process for three reasons:

* It must find all processes that a container leaves behind, even if they changed their session, group, environment
  or parent. The supervisor and each container's first process are child subreapers: an orphan becomes a child of
  the container's first process, and after that has ended, of the supervisor. So a child of the supervisor that is
  not the first process of a container is a stray of a container that has ended, and is killed. Names are not
  considered, and only descendants are killed.
* It has one thread, so that the steps between fork and exec (limits, session, subreaper) are safe, which they are
  not in the caller's process. Its fork is cheap, however large the caller is.
* It outlives the caller: if the caller is killed, it kills the containers and removes their directories.

Without subreapers (only Linux has them) it kills the rest of the container's process group.

The protocol is JSON lines over one stream socket per container. The client sends ``{"directory"}`` and the
command; the response is ``{"started": pid}`` with the pipes (output, or stdout, stderr and stdin), or ``{"failed":
why}``. Then the client can send ``{"signal": number}``, and gets ``{"ended": wait status, "out_of_memory": bool}``
when all processes of the container have ended. At the end of the stream the container is killed and its directory
removed. The sockets arrive on the socket at fd 0; at its end the supervisor stops.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

# https://man7.org/linux/man-pages/man2/prctl.2.html
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

# Seconds.
MEMORY_CHECK_INTERVAL = 0.1  # longer where a check is slow: at most 5 % of a core
STRAY_CHECK_INTERVAL = 0.005  # while an ended container has left processes behind
MAX_KILL_SECONDS = 0.02  # the longest that one search for such processes takes
EXIT_REPORT_TIMEOUT = 2.0  # report the end of a container although one of its processes cannot be killed


def _find_prctl() -> Callable[[int, int], bool]:
    """Return prctl(2), or a function that returns False if it does not exist."""
    if not sys.platform.startswith("linux"):
        return lambda _option, _value: False
    try:
        import ctypes

        call = ctypes.CDLL(None, use_errno=True).prctl
    except (ImportError, OSError, AttributeError):
        return lambda _option, _value: False
    return lambda option, value: call(option, value, 0, 0, 0) == 0


class SupervisedContainer:
    """The supervisor's state of one container."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.inbox = b""
        self.directory = ""
        self.pid = 0
        self.memory: int | None = None
        self.application_memory = False
        self.out_of_memory = False
        self.status: int | None = None  # the wait status of its first process after its exit
        self.ended = 0.0
        self.exit_reported = False
        self.closing = False

    @property
    def running(self) -> bool:
        return self.pid != 0 and self.status is None

    @property
    def done(self) -> bool:
        """Whether no process of it runs: it was not started, or its exit was reported."""
        return self.pid == 0 or self.exit_reported

    def send(self, message: dict[str, object], fds: Iterable[int] = ()) -> None:
        try:
            socket.send_fds(self.socket, [json.dumps(message).encode() + b"\n"], list(fds))
        except OSError:
            self.closing = True  # the client has closed the socket

    def kill(self, number: int) -> None:
        # The first process is a child and not reaped yet, so its pid has not been reused.
        if self.running:
            with contextlib.suppress(PermissionError):
                os.kill(self.pid, number)


class Supervisor:
    """Serves until the socket `control` ends, then removes `root`."""

    def __init__(self, control: socket.socket, root: str) -> None:
        self.control = control
        self.root = root
        self.prctl = _find_prctl()
        self.subreaper = self.prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.containers: set[SupervisedContainer] = set()
        self.shutting_down = False
        self.next_memory_check = 0.0
        self.has_strays = False  # processes that a container has left behind still exist
        self.selector = selectors.DefaultSelector()
        self.wake, wakeup = os.pipe()
        for fd in (self.wake, wakeup):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        control.setblocking(False)
        self.selector.register(self.wake, selectors.EVENT_READ, self._on_signal)
        self.selector.register(control, selectors.EVENT_READ, self._on_control)
        # A process that the caller forked can keep the control socket open, so watch the caller as well.
        if sys.platform.startswith("linux"):
            with contextlib.suppress(OSError):
                caller = os.pidfd_open(os.getppid())
                self.selector.register(caller, selectors.EVENT_READ, self._shut_down)

    def serve(self) -> None:
        while not (self.shutting_down and not self.containers):
            for key, _events in self.selector.select(self._timeout()):
                key.data()
            self._reap()
            self._kill_strays()
            self._report_exits()
            self._check_memory()
            for container in [one for one in self.containers if one.closing or self.shutting_down]:
                container.kill(signal.SIGKILL)
                if container.done:
                    self._drop(container)
        remove_tree(self.root)

    def _timeout(self) -> float | None:
        if self.has_strays:
            waiting = any(one.status is not None and not one.exit_reported for one in self.containers)
            return STRAY_CHECK_INTERVAL if waiting else 100 * STRAY_CHECK_INTERVAL
        if any(one.running and one.memory for one in self.containers):
            return max(0.0, self.next_memory_check - time.monotonic())
        return None

    # -- messages

    def _shut_down(self) -> None:
        self.shutting_down = True
        for key in list(self.selector.get_map().values()):
            if key.data in (self._shut_down, self._on_control):
                self.selector.unregister(key.fileobj)

    def _on_signal(self) -> None:
        if signal.SIGTERM in os.read(self.wake, 4096):
            self._shut_down()

    def _on_control(self) -> None:
        try:
            data, fds, _flags, _address = socket.recv_fds(self.control, 1, 1)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self._shut_down()
        for fd in fds:
            connection = socket.socket(fileno=fd)
            connection.set_inheritable(False)
            connection.setblocking(False)
            container = SupervisedContainer(connection)
            self.containers.add(container)
            self.selector.register(connection, selectors.EVENT_READ, partial(self._on_message, container))

    def _on_message(self, container: SupervisedContainer) -> None:
        try:
            data = container.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            container.closing = True
            self.selector.unregister(container.socket)
            return
        *lines, container.inbox = (container.inbox + data).split(b"\n")
        for line in lines:
            self._handle_message(container, json.loads(line))

    def _handle_message(self, container: SupervisedContainer, message: dict[str, Any]) -> None:
        if "directory" in message:
            container.directory = message["directory"]
        elif "argv" in message:
            self._start(container, message)
        elif "signal" in message:
            container.kill(message["signal"])

    # -- starting

    def _start(self, container: SupervisedContainer, command: dict[str, Any]) -> None:
        try:
            failure, report = os.pipe()
            streams = [os.pipe(), os.pipe(), os.pipe()[::-1]] if command["stdin"] else [os.pipe()]
            pid = os.fork()
        except OSError as error:
            container.send({"failed": f"cannot start a process: {error.strerror}"})
            return
        ours, theirs = zip(*streams, strict=True)
        if pid == 0:
            self._exec_program(command, theirs, report)
        for fd in (*theirs, report):
            os.close(fd)
        # exec closes the other end of the pipe, so this ends in a moment.
        with open(failure, "rb") as pipe:
            why = pipe.read().decode(errors="replace")
        if why:
            os.waitpid(pid, 0)
            container.send({"failed": why})
        else:
            container.pid = pid
            container.memory, container.application_memory = command["memory"], command["application_memory"]
            container.send({"started": pid}, ours)
        for fd in ours:
            os.close(fd)

    def _exec_program(self, command: dict[str, Any], streams: Sequence[int], report: int) -> None:
        """Execute the container's first process in the child, or report why that failed."""
        try:
            os.setsid()
            self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if self.subreaper:
                self.prctl(PR_SET_CHILD_SUBREAPER, 1)  # kept by exec
            signal.set_wakeup_fd(-1)
            # exec keeps the signals ignored that Python ignores.
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            if len(streams) == 1:
                # With one open file for both, runsc fails writes to a full pipe (EAGAIN) instead of waiting.
                path = f"/proc/self/fd/{streams[0]}"
                errors = os.open(path, os.O_WRONLY) if os.path.exists(path) else streams[0]
                streams = [streams[0], errors, os.open(os.devnull, os.O_RDONLY)]
            for fd, standard in zip(streams, (1, 2, 0), strict=True):
                os.dup2(fd, standard)
            os.umask(0o022)
            _enter(command["cwd"])
            for name, value in command["rlimits"].items():
                _limit(getattr(resource, name), value)
            _execute(command["argv"], command["env"])
        except (OSError, ValueError) as error:
            os.write(report, _describe(error, command).encode("utf-8", "replace")[:4096])
        finally:
            os._exit(127)

    # -- ending

    def _reap(self) -> None:
        first_processes = {one.pid: one for one in self.containers if one.running}
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if (container := first_processes.get(pid)) is not None:
                    container.status, container.ended = status, time.monotonic()
                    self.has_strays = self.subreaper
                    if not self.subreaper:
                        with contextlib.suppress(ProcessLookupError, PermissionError):
                            os.killpg(pid, signal.SIGKILL)

    def _kill_strays(self) -> None:
        """Kill the processes that ended containers have left behind.

        It does so without a pause: a chain of processes, each of which starts the next in a new session and exits,
        can only be stopped before the last one starts another.
        """
        start = time.monotonic()
        while self.has_strays and time.monotonic() - start < MAX_KILL_SECONDS:
            left = self._strays()
            for pid in left:
                # It is a child and not reaped yet, so its pid and group were not reused. Kill the whole group, so
                # that forking quickly does not help. It is never the supervisor's group, because the first
                # process of each container leads a session.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(os.getpgid(pid), signal.SIGKILL)
            self.has_strays = bool(left)
            self._reap()

    def _report_exits(self) -> None:
        now = time.monotonic()
        for container in self.containers:
            if container.status is None or container.exit_reported:
                continue
            if not self.has_strays or now - container.ended > EXIT_REPORT_TIMEOUT:
                container.exit_reported = True
                container.send({"ended": container.status, "out_of_memory": container.out_of_memory})

    def _strays(self) -> list[int]:
        own = os.getpid()
        try:
            with open(f"/proc/self/task/{own}/children", "rb") as file:
                children = [int(number) for number in file.read().split()]
        except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
            children = [pid for pid, (parent, _rss) in processes().items() if parent == own]
        first_processes = {one.pid for one in self.containers if one.running}
        return [pid for pid in children if pid not in first_processes]

    def _drop(self, container: SupervisedContainer) -> None:
        self.containers.discard(container)
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(container.socket)
        if container.directory:
            remove_tree(container.directory)
        container.socket.close()

    # -- memory

    def _check_memory(self) -> None:
        """Kill the containers above their memory limit."""
        before = time.monotonic()
        limited = [one for one in self.containers if one.running and one.memory]
        if not limited or before < self.next_memory_check:
            return
        table = processes()
        children: dict[int, list[int]] = {}
        for pid, (parent, _rss) in table.items():
            children.setdefault(parent, []).append(pid)
        for container in limited:
            members = [container.pid]
            for pid in members:
                members += children.get(pid, ())
            assert container.memory is not None
            if container.application_memory:
                used = memory_files(members)
            else:
                used = sum(table[pid][1] for pid in members if pid in table)
                # Shared memory was counted several times: measure exactly, but only if it matters.
                if used > container.memory:
                    used = sum(proportional(pid, table) for pid in members)
            if used > container.memory:
                container.out_of_memory = True
                container.kill(signal.SIGKILL)
        now = time.monotonic()
        self.next_memory_check = now + max(MEMORY_CHECK_INTERVAL, 20 * (now - before))


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise ValueError(f"cannot enter {folder}: {error.strerror}") from error


def _limit(which: int, value: int) -> None:
    """Set a resource limit, at most to the current hard limit, which cannot be raised."""
    hard = resource.getrlimit(which)[1]
    value = min(value, sys.maxsize if hard == resource.RLIM_INFINITY else hard)
    resource.setrlimit(which, (value, value))


def _execute(argv: list[str], env: dict[str, str]) -> None:
    """Call execvpe(3) with the PATH of `env`. Raises OSError or ValueError if it fails."""
    folders = [""] if "/" in argv[0] else env.get("PATH", "").split(":")
    refused: OSError | None = None
    for folder in folders:
        file = os.path.join(folder, argv[0])
        # As with runc.
        if not ("/" in argv[0] or os.path.isabs(folder) or os.path.isdir(file)) and os.access(file, os.X_OK):
            raise ValueError("cannot run executable found relative to current directory")
        try:
            os.execve(file, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            refused = refused or error
    raise refused or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _describe(error: OSError | ValueError, command: dict[str, Any]) -> str:
    name = command["argv"][0]
    if not isinstance(error, OSError):
        return f'cannot start "{name}": {error}'
    what = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno == errno.ENOENT:
        folders = " ".join(command["env"].get("PATH", "").split(":"))
        return f'error finding executable "{name}" in PATH [{folders}]: {what}'
    return f'cannot start "{name}": {what}'


def processes() -> dict[int, tuple[int, int]]:
    """Return the parent and the resident memory in bytes of all visible processes; empty without /proc."""
    page = os.sysconf("SC_PAGE_SIZE")
    table = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return {}
    for name in names:
        if name.isdigit():
            # The fields after the command name, which can contain any character:
            # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                table[int(name)] = int(fields[1]), int(fields[21]) * page
    return table


def proportional(pid: int, table: dict[int, tuple[int, int]]) -> int:
    """Return the memory of a process in bytes, with its share of shared memory but without files.

    https://www.kernel.org/doc/Documentation/ABI/testing/procfs-smaps_rollup
    """
    sizes = {}
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file.read().splitlines()[1:]:
                name, _, rest = line.partition(b":")
                sizes[name] = int(rest.split()[0]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended, or the kernel is older than 4.14
    except OSError:
        return table[pid][1] if pid in table else 0  # no permission
    if b"Pss_Anon" in sizes:
        return sizes[b"Pss_Anon"] + sizes[b"Pss_Shmem"]
    return sizes.get(b"Pss", 0)


def memory_files(members: Iterable[int]) -> int:
    """Return the bytes allocated in open memfds of `members`.

    gVisor keeps the memory of the applications there, mapped or not.
    """
    sizes = {}
    for pid in members:
        folder = f"/proc/{pid}/fd"
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                path = f"{folder}/{name}"
                with contextlib.suppress(OSError):
                    if os.readlink(path).startswith("/memfd:"):
                        stat = os.stat(path)
                        sizes[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(sizes.values())


def remove_tree(root: str) -> None:
    """Remove a directory and its content, regardless of its permissions and depth.

    Each directory is moved to the top before it is entered, so that paths do not get too long. Mount points stay,
    because they cannot be moved.
    """
    folders = [root]
    if os.path.islink(root):
        os.unlink(root)  # a program has replaced the directory
        return
    while folders:
        folder = folders.pop()
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
            with os.scandir(folder) as entries:
                found = list(entries)
            for entry in found:
                with contextlib.suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)
                        continue
                    moved = f"{root}/{os.urandom(8).hex()}"
                    _move(entry.path, moved)
                    folders.append(moved)
            if folder != root:
                os.rmdir(folder)
    with contextlib.suppress(OSError):
        os.rmdir(root)


def _move(path: str, to: str) -> None:
    try:
        os.rename(path, to)
    except PermissionError:
        os.chmod(path, 0o700)  # a directory without write permission cannot be moved
        os.rename(path, to)


def _occupy_standard_streams() -> None:
    """Open fds 0, 1 and 2 if the caller has closed them, so that no pipe gets these numbers."""
    fd = 0
    while fd <= 2:
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


if __name__ == "__main__":
    _occupy_standard_streams()
    Supervisor(socket.socket(fileno=0), sys.argv[1]).serve()
