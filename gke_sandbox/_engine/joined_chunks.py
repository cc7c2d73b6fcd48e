"""The chunks of a log, joined and cut so that decoding them takes a few milliseconds at a time."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from . import steps

MAX_BYTES = 64 << 10
MAX_FRAMES = 256
"""The most frames that are decoded at a time, each of which takes up to 10 microseconds."""

_CHUNK_COST = 8
"""The cost of receiving one chunk, in frames."""
_SLICE = 2 << 10
"""A longer chunk is cut, because the shortest frame has 9 bytes."""
_RS = b"\x1e"


class JoinedChunks:
    """The next `LogChunk` of one connection. It stays in the queue of inputs and collects chunks until taken.

    The kubelet sends each line of a log as one chunk, and an HTTP client returns those that it has received
    without waiting. A program that floods its log with tiny frames must not block the event loop: `add` waits
    until what was added is taken, as soon as that is enough work. This also limits the memory.
    """

    def __init__(self, number: int, send: Callable[[JoinedChunks], None]) -> None:
        self._number = number
        self._send = send
        self._pieces: list[bytes] = []
        self._bytes = self._frames = 0
        self._taken: anyio.Event | None = None

    async def add(self, chunk: bytes) -> None:
        cost = _CHUNK_COST
        for start in range(0, len(chunk), _SLICE):
            piece = chunk[start : start + _SLICE]
            cost += piece.count(_RS)
            if self._pieces and (self._bytes + len(piece) > MAX_BYTES or self._frames + cost > MAX_FRAMES):
                self._taken = anyio.Event()
                await self._taken.wait()
            if not self._pieces:
                self._bytes = self._frames = 0
                self._send(self)
            self._pieces.append(piece)
            self._bytes += len(piece)
            self._frames += cost
            cost = 0

    def take(self) -> steps.LogChunk:
        """Return what was added since the last call."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._taken is not None:
            self._taken.set()
        return steps.LogChunk(self._number, data)
