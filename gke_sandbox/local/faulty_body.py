"""Bodies of answers with the faults that they are to have."""

from __future__ import annotations

import anyio
import httpx

from .._fakes.body import Source
from .faults import Action, CutBody, GarbleBody, StallBody


class Whole:
    """A body that is there in one piece."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def next(self) -> bytes | None:
        body, self._body = self._body, b""
        return body or None


class Faulty:
    """A body to which something happens after so many bytes."""

    def __init__(self, source: Source, fault: CutBody | StallBody | GarbleBody) -> None:
        self._source = source
        self._fault = fault
        self._left = fault.after
        self._struck = False

    async def next(self) -> bytes | None:
        if self._struck:
            return None
        if self._left > 0:
            piece = await self._source.next()
            if piece is not None and len(piece) <= self._left:
                self._left -= len(piece)
                return piece
            if piece is not None:
                piece, self._left = piece[: self._left], 0
                return piece
        return await self._strike(self._fault)

    async def _strike(self, fault: CutBody | StallBody | GarbleBody) -> bytes | None:
        if isinstance(fault, StallBody):
            await anyio.sleep_forever()
        self._struck = True
        if isinstance(fault, GarbleBody):
            return fault.garbage
        if isinstance(fault, CutBody) and not fault.clean:
            raise httpx.ReadError("peer closed connection without sending complete message body")
        return None


def with_faults(source: Source, faults: list[Action]) -> Source:
    for fault in faults:
        if isinstance(fault, (CutBody, StallBody, GarbleBody)):
            source = Faulty(source, fault)
    return source
