"""Processes of the embedded cluster's containers, seen from an event loop: no thread, no signal handler.

`Children` talks to a supervisor process (`supervisor`), which starts them, kills all that they leave and removes
their directories. Works on every event loop, and from several of them at once.
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
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel

from .base import ContainerStartError
from .process_supervisor import remove_tree

_CHUNK = 1 << 16
#: Seconds that a supervisor has to kill everything and to say so.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Command:
    """What is to be run, and the `directory` that belongs to it (from `Children.directory`).

    `memory` is a limit in bytes for all processes together. With `application_memory` it is about the memory of
    the applications in a gVisor sandbox, not about the sandbox's own processes. `rlimits` has names of the
    module `resource`; an absent one keeps what this process has.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    directory: str
    cwd: str
    memory: int | None = None
    application_memory: bool = False
    rlimits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """The end of a first process: its exit code, or 128 + N for signal N."""

    exit_code: int
    out_of_memory: bool = False


class Children:
    """Starts processes. The supervisor runs from the first of them until `close()`, or until this object is gone.

    At interpreter exit without `close()`, and when this process is killed, everything ends all the same. In a
    forked child this object begins anew and never touches its parent's processes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._supervisor: _Supervisor | None = None

    def directory(self) -> str:
        """A new, empty directory for one container. Raises OSError."""
        return tempfile.mkdtemp(prefix="c-", dir=self._connected().root)

    async def start(self, command: Command) -> Child:
        """Start a process; it runs when this returns. Raises `ContainerStartError`.

        Whatever happens, `command.directory` is removed: here, when nothing was started, or in `Child.aclose`.
        """
        try:
            child = await self._introduce(command.directory)
        except OSError as error:
            remove_tree(command.directory)
            raise ContainerStartError(f"cannot start a process: {error.strerror}") from error
        except BaseException:
            remove_tree(command.directory)
            raise
        try:
            await child.begin(command)
        except BaseException:
            await child.aclose()
            raise
        return child

    async def _introduce(self, directory: str) -> Child:
        """Give the supervisor its end of a new socket, and the directory to look after."""
        supervisor = self._connected()
        ours, its = socket.socketpair()
        try:
            with its:
                ours.setblocking(False)
                ours.send(_line({"directory": directory}))
                while True:
                    try:
                        socket.send_fds(supervisor.control, [b"\n"], [its.fileno()])
                        return Child(ours, supervisor)
                    except BlockingIOError:
                        await anyio.sleep(0.005)  # it is busy with what was asked before
        except BaseException:
            ours.close()
            raise

    def close(self) -> None:
        """Kill everything, remove every directory, end the supervisor. Blocks for milliseconds. Idempotent."""
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
    """The supervisor process and the socket to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.root = tempfile.mkdtemp(prefix="gke-sandbox-")
        self.control, its = socket.socketpair()
        program = Path(__file__).with_name("process_supervisor.py")
        try:
            with its:
                self.process = subprocess.Popen(
                    # Isolated and without site-packages: it starts in 20 ms, and nothing around the caller can
                    # change it. A session of its own: Ctrl-C in a terminal is not for it.
                    [sys.executable, "-I", "-S", "-X", "utf8", str(program), self.root],
                    stdin=its.fileno(),
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
        # Not a method of ours: the finalizer must not keep this object. It runs at interpreter exit, too.
        self.close: Callable[[], object] = weakref.finalize(
            self, _end, self.owner, self.control, self.process, self.root
        )

    @property
    def usable(self) -> bool:
        """It is ours (not a parent's, from before a fork) and it runs."""
        return self.owner == os.getpid() and self.process.poll() is None

    def wake(self) -> None:
        """Undo a SIGSTOP: a program can send one, since both run under the same user."""
        self.process.send_signal(signal.SIGCONT)


def _end(owner: int, control: socket.socket, process: subprocess.Popen[bytes], root: str) -> None:
    if owner != os.getpid():
        control.close()
        process.returncode = 0  # another process' child: nothing to wait for
        return
    with control, process:
        # It reads the end of our stream, kills, removes, and ends; then we read the end of its stream.
        with contextlib.suppress(OSError):
            control.shutdown(socket.SHUT_WR)
            control.settimeout(_PATIENCE)
            process.send_signal(signal.SIGCONT)
            control.recv(1)
        process.kill()
    remove_tree(root)


def _line(message: Mapping[str, object]) -> bytes:
    return json.dumps(message).encode() + b"\n"


class Child:
    """One process that the supervisor has started, and all that descend from it."""

    def __init__(self, connection: socket.socket, supervisor: _Supervisor) -> None:
        self._socket = connection
        self._supervisor = supervisor  # lives as long as its last child
        self._lock = anyio.Lock()
        self._inbox = b""
        self._over = False  # the supervisor has closed its end: all is removed
        self._failed: str | None = None
        self._ended: Ended | None = None
        self._output = _Output()
        self.pid = 0

    async def begin(self, command: Command) -> None:
        """Send the command; returns when it runs. Raises `ContainerStartError`."""
        message = {
            "argv": list(command.argv),
            "env": dict(command.env),
            "cwd": command.cwd,
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
        """What the process and its descendants write to stdout and stderr, until nobody can any more."""
        return self._output

    async def wait(self) -> Ended:
        """Wait until the process has ended and nothing that descends from it runs any more."""
        await self._until(lambda: self._ended is not None)
        assert self._ended is not None
        return self._ended

    @property
    def ended(self) -> Ended | None:
        """How it ended, if that is known already."""
        return self._ended

    def send_signal(self, number: int) -> None:
        """Send a signal to the process alone, if it still runs."""
        # A few bytes on a stream that is read at once. If it is closed, there is nobody left to signal.
        with contextlib.suppress(OSError):
            self._socket.send(_line({"signal": number}))
        self._supervisor.wake()

    async def aclose(self) -> None:
        """Kill what is left, remove its directory, free everything. Shielded from cancellation. Idempotent."""
        if self._socket.fileno() >= 0:
            # The end of our stream asks for it; unlike a message it needs no room and no whole lines before it.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            self._supervisor.wake()
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(_PATIENCE):
                    await self._removed()
                if not self._over:
                    # Something cannot even be killed (it waits for a disk, say), or the supervisor cannot work.
                    self._supervisor.process.kill()
                    await self._removed()
            self._socket.close()
        self._output.close()

    async def _removed(self) -> None:
        await self._until(lambda: False)

    async def _until(self, done: Callable[[], bool]) -> None:
        """Take in messages until `done`, or until no more can come. Several tasks may wait, each for its own."""
        await anyio.lowlevel.checkpoint()
        while not (done() or self._over):
            async with self._lock:
                if done() or self._over:
                    return
                try:
                    data, fds, _flags, _address = socket.recv_fds(self._socket, _CHUNK, 1)
                except BlockingIOError:
                    await anyio.wait_readable(self._socket)
                    continue
                except ConnectionError:
                    data, fds = b"", []
                self._take(data, fds)

    def _take(self, data: bytes, fds: list[int]) -> None:
        for fd in fds:
            self._output.open(fd)
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "started" in message:
                self.pid = message["started"]
            elif "failed" in message:
                self._failed = message["failed"]
            elif "ended" in message:
                code = os.waitstatus_to_exitcode(message["ended"])
                self._ended = Ended(code if code >= 0 else 128 - code, message["out_of_memory"])
        self._over = not data
        if self._over and self._ended is None:
            # The supervisor is dead, so its children are: they are killed with it.
            self._ended = Ended(128 + signal.SIGKILL)


class _Output:
    """The read end of a pipe, in chunks. Not a generator: one that is not exhausted would have to be closed."""

    def __init__(self) -> None:
        self._fd = -1
        self._waiting = False
        self._closed = False

    def open(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
        self._fd = fd

    def __aiter__(self) -> _Output:
        return self

    async def __anext__(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                await self._wait()
                continue
            if data:
                return data
            self._close_now()
        raise StopAsyncIteration

    async def _wait(self) -> None:
        self._waiting = True
        try:
            await anyio.wait_readable(self._fd)
        finally:
            self._waiting = False
            if self._closed:
                self._close_now()

    def close(self) -> None:
        """To be called when nobody can write any more: who waits for output wakes up by that, and closes."""
        self._closed = True
        if not self._waiting:
            self._close_now()

    def _close_now(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
