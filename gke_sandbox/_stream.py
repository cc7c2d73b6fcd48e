"""The events of one run, for a caller who takes them at its own pace."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import anyio

from .result import ExecutionEvent, OutputChunk

# When so many events wait for a slow reader, output is joined to the last chunk of its stream. What waits is
# then bounded by the caps on output, not by how finely the program cuts it.
_JOIN_ABOVE = 64


@dataclass
class _Waiting:
    """A chunk that was not taken yet, and what came after it on the same stream."""

    stream: Literal["stdout", "stderr"]
    seconds: float
    parts: list[bytes]


class ExecutionStream:
    """What happens in one run, as it happens; the last event is `ExecutionFinished`, with the result.

    ::

        async with sandbox.stream(code) as events:
            async for event in events: ...

    Leaving the block ends the run and deletes its Job, whether or not it had finished. Without the block the
    run goes on, whatever becomes of the iteration, until it ends or its Sandbox is closed. An error of the
    run (`SandboxError`) is raised by the iteration, after the events that came before it.
    """

    def __init__(self, start: Callable[[ExecutionStream], Callable[[], None]]) -> None:
        self._start = start
        self._cancel: Callable[[], None] | None = None
        self._events: deque[ExecutionEvent | _Waiting] = deque()
        self._last: dict[str, _Waiting] = {}
        self._changed: anyio.Event | None = None
        self._error: Exception | None = None
        self._ended = False
        self._closed = False

    # -- for the run --------------------------------------------------------------------------------------

    def put(self, event: ExecutionEvent) -> None:
        """Take an event from the run."""
        if self._closed:
            return
        if isinstance(event, OutputChunk):
            self._put_chunk(event)
        else:
            self._events.append(event)
        self._wake()

    def _put_chunk(self, chunk: OutputChunk) -> None:
        last = self._last.get(chunk.stream)
        if last is not None and len(self._events) >= _JOIN_ABOVE:
            last.parts.append(chunk.data)
            return
        self._last[chunk.stream] = waiting = _Waiting(chunk.stream, chunk.seconds, [chunk.data])
        self._events.append(waiting)

    def end(self, error: Exception | None = None) -> None:
        """The run is over; `error` is raised once the events are taken."""
        self._ended = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    # -- for the caller -----------------------------------------------------------------------------------

    async def __aenter__(self) -> ExecutionStream:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the run, if it still goes on, and delete its Job. What was not taken is dropped."""
        self._closed = True
        self._events.clear()
        self._wake()
        if self._cancel is not None and not self._ended:
            self._cancel()

    def __aiter__(self) -> AsyncIterator[ExecutionEvent]:
        self._begin()
        return self

    async def __anext__(self) -> ExecutionEvent:
        self._begin()
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            if self._ended:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            # Made here and not before: a stream may be created in a thread that has no event loop.
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()
        event = self._events.popleft()
        if isinstance(event, _Waiting):
            if self._last.get(event.stream) is event:
                del self._last[event.stream]
            return OutputChunk(event.stream, b"".join(event.parts), event.seconds)
        return event

    def _begin(self) -> None:
        if self._cancel is None and not self._closed:
            self._cancel = self._start(self)
