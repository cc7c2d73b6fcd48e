"""ExecutionStream: the events of one execution, buffered for a reader of any speed."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import anyio

from ._event_loop import check_event_loop, current_event_loop
from .result import ExecutionEvent, ExecutionFinished, OutputChunk

_STREAMS: tuple[Literal["stdout", "stderr"], ...] = ("stdout", "stderr")
_MAX_SEPARATE_EVENTS = 64
"""When more events are buffered, output is appended to the last chunk of its stream.

The buffer is then limited by the limits on output, not by the number of writes of the program.
"""


@dataclass
class _BufferedChunk:
    """A chunk that was not read yet, with the output appended to it."""

    stream: Literal["stdout", "stderr"]
    seconds: float
    parts: list[bytes]


class ExecutionStream:
    """The events of one execution as they happen. The last one is `ExecutionFinished`, with the result.

    ::

        async with sandbox.stream(code) as events:
            async for event in events: ...

    Leaving the block cancels the execution, if it has not finished, and deletes its Job. Without the block the
    execution continues until it finishes or the Sandbox closes, even if you stop iterating. An error of the
    execution (`SandboxError`) is raised by the iteration after the events that preceded it.
    """

    def __init__(self, start: Callable[[ExecutionStream], Callable[[], None]]) -> None:
        self._start = start
        self._cancel: Callable[[], None] | None = None
        self._event_loop: object = None
        self._events: deque[ExecutionEvent | _BufferedChunk] = deque()
        self._last: dict[str, _BufferedChunk] = {}
        self._decoders = {name: getincrementaldecoder("utf-8")("replace") for name in _STREAMS}
        self._changed: anyio.Event | None = None
        self._error: Exception | None = None
        self._ended = False
        self._closed = False

    # -- the side of the execution ------------------------------------------------------------------------

    def _put(self, event: ExecutionEvent) -> None:
        """Add an event."""
        if self._closed:
            return
        if not isinstance(event, OutputChunk):
            self._events.append(event)
        elif event.stream in self._last and len(self._events) >= _MAX_SEPARATE_EVENTS:
            self._last[event.stream].parts.append(event.data)
        else:
            self._last[event.stream] = chunk = _BufferedChunk(event.stream, event.seconds, [event.data])
            self._events.append(chunk)
        self._wake()

    def _end(self, error: Exception | None = None) -> None:
        """Mark the execution as ended. `error` is raised after the buffered events."""
        self._ended = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    # -- the side of the reader ---------------------------------------------------------------------------

    async def __aenter__(self) -> ExecutionStream:
        self._start_once()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the execution, if it has not finished, and delete its Job. Buffered events are dropped."""
        self._closed = True
        self._events.clear()
        self._wake()
        if self._cancel is not None and not self._ended:
            self._cancel()

    def __aiter__(self) -> AsyncIterator[ExecutionEvent]:
        self._start_once()
        return self

    async def __anext__(self) -> ExecutionEvent:
        self._start_once()
        if self._cancel is not None:
            check_event_loop(self._event_loop, "this stream", may_have_run=True)
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            if self._ended:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            # Created here because a stream may be created in a thread without an event loop.
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()
        event = self._events.popleft()
        if isinstance(event, ExecutionFinished):
            for stream in _STREAMS:
                rest = self._decoders[stream].decode(b"", True)
                if rest:
                    self._events.appendleft(event)
                    return OutputChunk(stream, b"", event.result.timings.finished or 0.0, text=rest)
        if isinstance(event, _BufferedChunk):
            if self._last.get(event.stream) is event:
                del self._last[event.stream]
            data = b"".join(event.parts)
            return OutputChunk(event.stream, data, event.seconds, text=self._decoders[event.stream].decode(data))
        return event

    def _start_once(self) -> None:
        if self._cancel is None and not self._closed:
            self._cancel = self._start(self)
            self._event_loop = current_event_loop()
