"""Response bodies with faults."""

from __future__ import annotations

import anyio
import httpx

from .._fakes.body import Source
from .faults import BodyAction, CutBody, GarbleBody, StallBody


class WholeBody:
    """A body in one chunk."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def next(self) -> bytes | None:
        """Return the body, then None."""
        body, self._body = self._body, b""
        return body or None


class FaultyBody:
    """A body with a fault after some bytes."""

    def __init__(self, source: Source, fault: BodyAction) -> None:
        self._source = source
        self._fault = fault
        self._left = fault.after
        self._ended = False

    async def next(self) -> bytes | None:
        """Return the next chunk, or None at the end. Raises httpx.ReadError if the fault demands it."""
        if self._ended:
            return None
        if self._left > 0:
            chunk = await self._source.next()
            if chunk is not None:
                chunk = chunk[: self._left]
                self._left -= len(chunk)
                return chunk
        if isinstance(self._fault, StallBody):
            await anyio.sleep_forever()
        self._ended = True
        if isinstance(self._fault, GarbleBody):
            return self._fault.garbage
        if isinstance(self._fault, CutBody) and not self._fault.clean:
            raise httpx.ReadError("peer closed connection without sending complete message body")
        return None
