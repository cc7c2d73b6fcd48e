"""Response bodies with faults."""

from __future__ import annotations

import anyio
import httpx

from .._fakes.body import Source
from .faults import Action, CutBody, GarbleBody, StallBody


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

    def __init__(self, source: Source, fault: CutBody | StallBody | GarbleBody) -> None:
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
        return await self._apply(self._fault)

    async def _apply(self, fault: CutBody | StallBody | GarbleBody) -> bytes | None:
        if isinstance(fault, StallBody):
            await anyio.sleep_forever()
        self._ended = True
        if isinstance(fault, GarbleBody):
            return fault.garbage
        if isinstance(fault, CutBody) and not fault.clean:
            raise httpx.ReadError("peer closed connection without sending complete message body")
        return None


def with_faults(source: Source, faults: list[Action]) -> Source:
    """Return the body with all faults that act on bodies."""
    for fault in faults:
        if isinstance(fault, (CutBody, StallBody, GarbleBody)):
            source = FaultyBody(source, fault)
    return source
