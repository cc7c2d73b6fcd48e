"""A pipe between two tasks."""

from __future__ import annotations

import anyio.lowlevel

from .notify import Notifier

# https://man7.org/linux/man-pages/man7/pipe.7.html
PIPE_CAPACITY = 1 << 16


class Pipe:
    """Bytes from one task to another. A writer waits while it is full."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._changed = Notifier()
        self.closed = False

    async def write(self, data: bytes) -> None:
        """Write everything. Discard the data if the pipe is closed."""
        await anyio.lowlevel.checkpoint()
        while data and not self.closed:
            space = PIPE_CAPACITY - len(self._data)
            if space:
                self._data += data[:space]
                data = data[space:]
                self._changed.notify()
            else:
                await self._changed.wait()

    async def read(self, size: int = PIPE_CAPACITY, *, line: bool = False) -> bytes:
        """Return at most `size` bytes, or to the end of the line; wait for the first one. Empty at the end."""
        await anyio.lowlevel.checkpoint()
        while not self._data and not self.closed:
            await self._changed.wait()
        if line:
            size = self._data.find(b"\n", 0, size) + 1 or size
        data = bytes(self._data[:size])
        del self._data[:size]
        self._changed.notify()
        return data

    def close(self, *, discard: bool = False) -> None:
        """End the pipe. What was written can still be read, unless it is discarded. Idempotent."""
        self.closed = True
        if discard:
            self._data.clear()
        self._changed.notify()
