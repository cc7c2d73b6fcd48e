"""Containers that follow a script: output at given times, then an exit, or a program that reads stdin.

For tests of failures, many containers and time: they use no sockets, threads or processes, and the time of the
event loop, so that they work with a mock clock. For failures outside of the container (a broken log stream, an
eviction) use `faults`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.lowlevel

from ..pipe import Pipe
from .base import ContainerExit, ContainerSpec, ContainerStartError

_COMPLETED = ContainerExit(0, "Completed")
_STOPPED = ContainerExit(143, "Error")


class ScriptedProcess:
    """The streams of a scripted container for its program."""

    def __init__(self, spec: ContainerSpec) -> None:
        self.spec = spec
        """The specification of the container, with its environment."""
        self.stdin, self.stdout = Pipe(), Pipe()
        self.stderr = Pipe() if spec.stdin else self.stdout
        if not spec.stdin:
            self.stdin.close()

    async def read(self, size: int) -> bytes:
        """Read `size` bytes from stdin, or fewer if it ends before."""
        data = bytearray()
        while len(data) < size and (more := await self.stdin.read(size - len(data))):
            data += more
        return bytes(data)

    async def readline(self) -> bytes:
        """Read a line from stdin, with its newline. At the end of stdin the line is incomplete or empty."""
        line = b""
        while not line.endswith(b"\n") and (more := await self.stdin.read(line=True)):
            line += more
        return line

    async def write(self, data: bytes) -> None:
        """Write to stdout. Wait while the pipe is full."""
        await self.stdout.write(data)

    async def write_error(self, data: bytes) -> None:
        """Write to stderr. Wait while the pipe is full."""
        await self.stderr.write(data)


Program = Callable[[ScriptedProcess], Awaitable["ContainerExit | None"]]


@dataclass(frozen=True)
class Script:
    """The behaviour of one container. Times are in seconds from its start."""

    chunks: Sequence[tuple[float, bytes]] = ()
    """The output as (time, bytes), in the order of the times."""
    ends_at: float | None = None
    """The time of the exit; None if it runs until it is stopped."""
    exit: ContainerExit = _COMPLETED
    """How it exits at `ends_at`."""
    log_never_ends: bool = False
    """Keep the output open after the exit, until the pod is removed."""
    stops_after: float | None = 0.0
    """The seconds from SIGTERM to the exit; None if it ignores SIGTERM and is killed after its grace period."""
    stopped: ContainerExit = _STOPPED
    """How it exits after SIGTERM."""
    start_error: ContainerStartError | None = None
    """Fail to start with this error."""
    program: Program | None = None
    """An async function that reads stdin and writes output, instead of `chunks` and `ends_at`.

    It is cancelled when the container is stopped or killed. The container exits as it returns: with its
    `ContainerExit`, or with `exit` if it returns None.
    """

    def __post_init__(self) -> None:
        if self.program is not None and (self.chunks or self.ends_at is not None):
            raise ValueError("program: cannot be combined with chunks or ends_at")


class ScriptedRuntime:
    """A runtime with scripted containers.

    `script` is one script for all containers, or a function that returns the script for a ContainerSpec. `specs`
    has the specs of all containers, oldest first.
    """

    name = "scripted"

    def __init__(self, script: Script | Callable[[ContainerSpec], Script]) -> None:
        self._choose = script if callable(script) else lambda _: script
        self._containers: set[ScriptedContainer] = set()
        self.specs: list[ContainerSpec] = []

    @property
    def running(self) -> int:
        """The number of containers that are not closed."""
        return len(self._containers)

    async def start(self, spec: ContainerSpec) -> ScriptedContainer:
        await anyio.lowlevel.checkpoint()
        self.specs.append(spec)
        script = self._choose(spec)
        if script.start_error is not None:
            raise ContainerStartError(str(script.start_error), log=script.start_error.log)
        container = ScriptedContainer(script, spec, self._containers.discard)
        self._containers.add(container)
        return container

    def kill_all(self) -> None:
        """Kill all containers."""
        for container in tuple(self._containers):
            container.kill()


class ScriptedContainer:
    """One container that follows its script from its creation."""

    def __init__(self, script: Script, spec: ContainerSpec, closed: Callable[[ScriptedContainer], None]) -> None:
        self._script = script
        self._closed = partial(closed, self)
        self._started = anyio.current_time()
        self._process = ScriptedProcess(spec)
        self._program = script.program
        self._running = anyio.CancelScope()
        self._ended = anyio.Event()
        self._exit: ContainerExit | None = None
        self._gone = anyio.Event()

    async def output(self) -> AsyncIterator[bytes]:
        for at, chunk in self._script.chunks:
            with anyio.move_on_after(self._until(at)):
                await self._ended.wait()
            if self._ended.is_set() and not self._reached(at):
                break
            yield chunk
        while data := await self._process.stdout.read():
            yield data
        if self._script.log_never_ends:
            await self._gone.wait()

    async def errors(self) -> AsyncIterator[bytes]:
        if self._process.stderr is not self._process.stdout:
            while data := await self._process.stderr.read():
                yield data

    async def write_stdin(self, data: bytes) -> None:
        if self._script.program is not None:
            await self._process.stdin.write(data)

    def close_stdin(self) -> None:
        self._process.stdin.close()

    async def wait(self) -> ContainerExit:
        program, self._program = self._program, None
        if program is not None and self._exit is None:
            with self._running:
                self._end(await program(self._process) or self._script.exit)
        if self._script.ends_at is None:
            await self._ended.wait()
        else:
            with anyio.move_on_after(self._until(self._script.ends_at)):
                await self._ended.wait()
            self._end(self._script.exit)
        assert self._exit is not None
        return self._exit

    async def stop(self, grace: float) -> None:
        after = self._script.stops_after
        killed = after is None or after > grace
        with anyio.move_on_after(grace if after is None else min(after, grace)):
            await self._ended.wait()
        self._end(ContainerExit(137, "Error") if killed else self._script.stopped)

    async def aclose(self) -> None:
        self.kill()
        self._gone.set()
        self._closed()

    def kill(self) -> None:
        """End with exit code 137, as after SIGKILL."""
        self._end(ContainerExit(137, "Error"))

    def _end(self, how: ContainerExit) -> None:
        if self._exit is None:
            self._exit = how
            self._ended.set()
            self._running.cancel()
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                pipe.close()

    def _until(self, at: float) -> float:
        return max(self._started + at - anyio.current_time(), 0.0)

    def _reached(self, at: float) -> bool:
        return anyio.current_time() >= self._started + at
