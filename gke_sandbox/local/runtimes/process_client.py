"""The client of the supervisor process, for any number of event loops at once. No threads, no signal handlers.

`Children` starts processes through the supervisor (`process_supervisor`), which also kills their descendants and
removes their directories.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel

from .base import ContainerExit, ContainerStartError
from .process_supervisor import remove_tree

_CHUNK = 1 << 16
# Seconds in which the supervisor must kill all processes of a container.
KILL_TIMEOUT = 10.0
# Seconds without a message after which the supervisor is continued, in case a program has stopped it.
WAKE_INTERVAL = 1.0


@dataclass(frozen=True)
class Command:
    """A command to run, with its directory (from `Children.directory`)."""

    argv: Sequence[str]
    env: Mapping[str, str]
    directory: str
    cwd: str
    stdin: bool = False
    """Whether to open pipes for stdin and, apart from stdout, stderr. Otherwise stdin is empty."""
    memory: int | None = None
    """The limit of all processes together, in bytes."""
    application_memory: bool = False
    """Whether the limit applies to the applications in a gVisor sandbox, not to the processes of the sandbox."""
    out_of_memory_code: int = 137
    """The exit code of a container that was killed for its memory."""
    rlimits: Mapping[str, int] = field(default_factory=dict)
    """Resource limits by their names in the module `resource`; the others are inherited."""
    terminate: Sequence[str] = ()
    """A command that sends SIGTERM to PID 1 of the container; by default the process itself gets the signal."""


class Children:
    """Starts processes. The supervisor runs from the first one until `close()`, or until this object is deleted.

    All processes also end at interpreter exit without `close()`, and when this process is killed. In a forked
    child this object starts a new supervisor and never affects the processes of its parent.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._supervisor: _Supervisor | None = None

    def directory(self) -> str:
        """Create and return an empty directory for one container. Raises OSError."""
        return tempfile.mkdtemp(prefix="c-", dir=self._connected().root)

    async def start(self, command: Command) -> ProcessContainer:
        """Start a process and return when it runs. Raises `ContainerStartError`.

        `command.directory` is always removed: here if the start fails, otherwise in `ProcessContainer.aclose`.
        """
        try:
            container = await self._connect(command)
        except OSError as error:
            remove_tree(command.directory)
            raise ContainerStartError(f"cannot start a process: {error.strerror}") from error
        except BaseException:
            remove_tree(command.directory)
            raise
        try:
            await container.start()
        except BaseException:
            await container.aclose()
            raise
        return container

    async def _connect(self, command: Command) -> ProcessContainer:
        """Send one end of a new socket pair and the directory to the supervisor."""
        supervisor = self._connected()
        connection, remote = socket.socketpair()
        try:
            with remote:
                connection.setblocking(False)
                connection.send(_line({"directory": command.directory}))
                while True:
                    try:
                        socket.send_fds(supervisor.control, [b"\n"], [remote.fileno()])
                        return ProcessContainer(command, connection, supervisor, self)
                    except BlockingIOError:
                        await anyio.sleep(0.005)  # the supervisor is busy with earlier requests
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Kill all processes, remove all directories, stop the supervisor. Blocks for milliseconds. Idempotent."""
        with self._lock:
            supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.close()

    def _connected(self) -> _Supervisor:
        with self._lock:
            if self._supervisor is not None and not self._supervisor.usable:
                self._supervisor.close()
                self._supervisor = None
            if self._supervisor is None:
                self._supervisor = _Supervisor()
            return self._supervisor


class _Supervisor:
    """The supervisor process, and the socket connected to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.root = tempfile.mkdtemp(prefix="gke-sandbox-")
        self.control, remote = socket.socketpair()
        program = Path(__file__).with_name("process_supervisor.py")
        try:
            with remote:
                self.process = subprocess.Popen(
                    # Isolated and without site-packages: it starts in 20 ms, and the caller's environment has no
                    # effect on it. In a separate session, so that Ctrl-C in a terminal does not reach it.
                    [sys.executable, "-I", "-S", "-X", "utf8", str(program), self.root],
                    stdin=remote.fileno(),
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                    start_new_session=True,
                )
        except BaseException:
            self.control.close()
            os.rmdir(self.root)
            raise
        self.control.setblocking(False)
        # A function and not a method, so that the finalizer does not keep this object alive. It also runs at exit.
        self.close: Callable[[], object] = weakref.finalize(
            self, _end, self.owner, self.control, self.process, self.root
        )

    @property
    def usable(self) -> bool:
        """Whether it runs and was started by this process, not by its parent before a fork."""
        return self.owner == os.getpid() and self.process.poll() is None

    def wake(self) -> None:
        """Continue it after a SIGSTOP, which a program can send if both run as the same user."""
        self.process.send_signal(signal.SIGCONT)


def _end(owner: int, control: socket.socket, process: subprocess.Popen[bytes], root: str) -> None:
    if owner != os.getpid():
        control.close()
        process.returncode = 0  # not a child of this process: do not wait for it
        return
    with control, process:
        # At the end of this stream the supervisor kills, removes and exits, which ends its stream.
        with contextlib.suppress(OSError):
            control.shutdown(socket.SHUT_WR)
            control.settimeout(KILL_TIMEOUT)
            process.send_signal(signal.SIGCONT)
            control.recv(1)
        process.kill()
    remove_tree(root)


def _line(message: Mapping[str, object]) -> bytes:
    return json.dumps(message).encode() + b"\n"


class ProcessContainer:
    """A container whose first process is a child of the supervisor."""

    def __init__(
        self, command: Command, connection: socket.socket, supervisor: _Supervisor, children: Children
    ) -> None:
        self._command = command
        self.directory = command.directory
        self._socket = connection
        self._supervisor = supervisor  # keeps the supervisor alive as long as its children
        self._children = children
        self._lock = anyio.Lock()
        self._inbox = b""
        self._closed = False  # the supervisor has closed its end: all is removed
        self._failed: str | None = None
        self._output = _Output()
        self._errors = _Output()
        self._stdin = _Input()
        self.pid = 0
        self.exit: ContainerExit | None = None
        """Its exit, or None while it runs."""

    async def start(self) -> None:
        """Send the command, and return when it runs. Raises `ContainerStartError`."""
        command = self._command
        message = {
            "argv": list(command.argv),
            "env": dict(command.env),
            "cwd": command.cwd,
            "stdin": command.stdin,
            "memory": command.memory,
            "application_memory": command.application_memory,
            "rlimits": dict(command.rlimits),
        }
        view = memoryview(_line(message))
        try:
            while view:
                try:
                    view = view[self._socket.send(view) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)
        except OSError as error:
            raise ContainerStartError(f"cannot start a process: {error.strerror}") from error
        await self._until(lambda: self.pid != 0 or self._failed is not None)
        if not self.pid:
            raise ContainerStartError(self._failed or "the supervisor of the containers was killed")

    def output(self) -> AsyncIterator[bytes]:
        return self._output

    def errors(self) -> AsyncIterator[bytes]:
        return self._errors

    async def write_stdin(self, data: bytes) -> None:
        await self._stdin.write(data)

    def close_stdin(self) -> None:
        self._stdin.close()

    async def wait(self) -> ContainerExit:
        await self._until(lambda: self.exit is not None)
        assert self.exit is not None
        return self.exit

    async def stop(self, grace: float) -> None:
        if self.exit is None:
            with anyio.move_on_after(grace):
                await self._terminate()
                await self.wait()
        if self.exit is None:
            self._send_signal(signal.SIGKILL)
        await self.wait()

    async def _terminate(self) -> None:
        """Send SIGTERM to PID 1."""
        if not self._command.terminate:
            self._send_signal(signal.SIGTERM)
            return
        # If it fails, the container has just exited, or is killed after the grace period.
        with contextlib.suppress(ContainerStartError, OSError):
            directory = self._children.directory()
            command = Command(self._command.terminate, self._command.env, directory, directory)
            messenger = await self._children.start(command)
            try:
                await messenger.wait()
            finally:
                await messenger.aclose()

    def _send_signal(self, number: int) -> None:
        """Send a signal to the process, not to its descendants, if it still runs."""
        # The supervisor reads the few bytes immediately. If the socket is closed, the process has ended.
        with contextlib.suppress(OSError):
            self._socket.send(_line({"signal": number}))
        self._supervisor.wake()

    async def aclose(self) -> None:
        """Kill all its processes, and remove its directory. Shielded from cancellation. Idempotent."""
        if self._socket.fileno() >= 0:
            # The end of the stream is the request. Unlike a message it needs no space in the socket buffer.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            self._supervisor.wake()
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(KILL_TIMEOUT):
                    await self._removed()
                if not self._closed:
                    # A process cannot be killed (it may wait for a disk), or the supervisor does not work.
                    self._supervisor.process.kill()
                    await self._removed()
            self._socket.close()
        for pipe in (self._stdin, self._output, self._errors):
            pipe.close()

    async def _removed(self) -> None:
        await self._until(lambda: False)

    async def _until(self, done: Callable[[], bool]) -> None:
        """Read messages until `done` or the end of the stream. Several tasks can wait at the same time."""
        await anyio.lowlevel.checkpoint()
        while not (done() or self._closed):
            async with self._lock:
                if done() or self._closed:
                    return
                try:
                    data, fds, _flags, _address = socket.recv_fds(self._socket, _CHUNK, 3)
                except BlockingIOError:
                    with anyio.move_on_after(WAKE_INTERVAL) as idle:
                        await anyio.wait_readable(self._socket)
                    if idle.cancelled_caught:
                        self._supervisor.wake()
                    continue
                except ConnectionError:
                    data, fds = b"", []
                self._handle(data, fds)

    def _handle(self, data: bytes, fds: list[int]) -> None:
        for pipe, fd in zip((self._output, self._errors, self._stdin), fds, strict=False):
            pipe.open(fd)
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "started" in message:
                self.pid = message["started"]
            elif "failed" in message:
                self._failed = message["failed"]
            elif "ended" in message:
                self.exit = self._exit(os.waitstatus_to_exitcode(message["ended"]), message["out_of_memory"])
        self._closed = not data
        if self._closed and self.exit is None:
            # The supervisor is dead, and its children are killed with it.
            self.exit = self._exit(-signal.SIGKILL, False)

    def _exit(self, code: int, out_of_memory: bool) -> ContainerExit:
        if out_of_memory:
            return ContainerExit(self._command.out_of_memory_code, "OOMKilled")
        return ContainerExit(code if code >= 0 else 128 - code, "Error" if code else "Completed")


class _Pipe:
    """One end of a pipe. `close()` can be called at any time, also while a task waits for the pipe."""

    def __init__(self) -> None:
        self._fd = -1
        self._waiting = False
        self._closed = False

    def open(self, fd: int) -> None:
        """Use this file descriptor."""
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
        self._fd = fd

    async def _wait(self, ready: Callable[[int], Awaitable[None]]) -> None:
        self._waiting = True
        try:
            await ready(self._fd)
        finally:
            self._waiting = False
            if self._closed:
                self._close_now()

    def close(self) -> None:
        """Close the pipe. A waiting task wakes up when the other end is closed, and closes it itself."""
        self._closed = True
        if not self._waiting:
            self._close_now()

    def _close_now(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Output(_Pipe):
    """The read end, in chunks. Not a generator, which would have to be closed if it is not exhausted."""

    def __aiter__(self) -> _Output:
        return self

    async def __anext__(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                await self._wait(anyio.wait_readable)
                continue
            if data:
                return data
            self._close_now()
        raise StopAsyncIteration


class _Input(_Pipe):
    """The write end."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = anyio.Lock()

    async def write(self, data: bytes) -> None:
        """Write everything, unless the pipe was closed or has no reader any more."""
        async with self._lock:
            view = memoryview(data)
            while view and self._fd >= 0 and not self._closed:
                try:
                    view = view[os.write(self._fd, view) :]
                except BlockingIOError:
                    await self._wait(anyio.wait_writable)
                except BrokenPipeError:
                    self._close_now()
