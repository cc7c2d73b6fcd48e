"""Containers that follow a script: chunks of output at given times, then an end.

For tests of faults, of scale and of time: no socket, thread or process, and time is the event loop's, so that
a clock that jumps makes it jump, too. What happens outside of a container (its log's stream is cut, its pod
is evicted by the node) is the business of `faults`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.lowlevel

from .base import ContainerExit, ContainerSpec, ContainerStartError

_COMPLETED = ContainerExit(0, "Completed")
_STOPPED = ContainerExit(143, "Error")


@dataclass(frozen=True)
class Script:
    """What one container does. Times are seconds from its start.

    `chunks` are (when, what) in the order of their times. The container ends by itself at `ends_at`, with
    `exit`; None: it runs until it is stopped. `log_never_ends`: its output stays open after its end, until
    its pod is gone. SIGTERM ends it after `stops_after` with `stopped`; `stops_after` None: it ignores
    SIGTERM and is killed when its grace is over. `start_error`: it does not start at all.
    """

    chunks: Sequence[tuple[float, bytes]] = ()
    ends_at: float | None = None
    exit: ContainerExit = _COMPLETED
    log_never_ends: bool = False
    stops_after: float | None = 0.0
    stopped: ContainerExit = _STOPPED
    start_error: ContainerStartError | None = None


class ScriptedRuntime:
    """A runtime whose containers are scripts, chosen by their specification.

    `script` is one script for all, or a function from the ContainerSpec (its `env` has the request). `specs`
    keeps what was asked for, `running` how many containers have not been closed.
    """

    name = "scripted"

    def __init__(self, script: Script | Callable[[ContainerSpec], Script]) -> None:
        self._choose = script if callable(script) else lambda _: script
        self._containers: set[ScriptedContainer] = set()
        self.specs: list[ContainerSpec] = []

    @property
    def running(self) -> int:
        return len(self._containers)

    async def start(self, spec: ContainerSpec) -> ScriptedContainer:
        await anyio.lowlevel.checkpoint()
        self.specs.append(spec)
        script = self._choose(spec)
        if script.start_error is not None:
            raise ContainerStartError(str(script.start_error), log=script.start_error.log)
        container = ScriptedContainer(script, self._containers.discard)
        self._containers.add(container)
        return container

    def kill_all(self) -> None:
        """End every container at once, as SIGKILL would."""
        for container in tuple(self._containers):
            container.kill()


class ScriptedContainer:
    """One container that follows its script from the moment it is made."""

    def __init__(self, script: Script, closed: Callable[[ScriptedContainer], None]) -> None:
        self._script = script
        self._closed = partial(closed, self)
        self._started = anyio.current_time()
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
        await self._ended.wait()
        if self._script.log_never_ends:
            await self._gone.wait()

    async def wait(self) -> ContainerExit:
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
        """End at once, as SIGKILL does."""
        self._end(ContainerExit(137, "Error"))

    def _end(self, how: ContainerExit) -> None:
        if self._exit is None:
            self._exit = how
            self._ended.set()

    def _until(self, at: float) -> float:
        return max(self._started + at - anyio.current_time(), 0.0)

    def _reached(self, at: float) -> bool:
        return anyio.current_time() >= self._started + at
