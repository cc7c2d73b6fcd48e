"""The bodies of answers, as httpx reads them: with the client's timeouts, and with the faults they are to have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import anyio
import httpx

from .faults import Action, CutBody, GarbleBody, StallBody
from .replies import Source


@dataclass(frozen=True)
class Timeouts:
    """Seconds, None: no limit; as ``request.extensions["timeout"]`` has them.

    https://www.python-httpx.org/advanced/timeouts/
    """

    connect: float | None = None
    read: float | None = None
    write: float | None = None

    @classmethod
    def of(cls, request: httpx.Request) -> Timeouts:
        given = request.extensions.get("timeout", {})
        return cls(given.get("connect"), given.get("read"), given.get("write"))


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


class Body(httpx.AsyncByteStream):
    """A response's stream. It may be closed at any time, also while somebody waits for its next piece."""

    def __init__(
        self, source: Source, read_timeout: float | None, request: httpx.Request, closed: Callable[[Body], None]
    ) -> None:
        self._source = source
        self._read_timeout = read_timeout
        self._request = request
        self._on_close = closed
        self._reading: anyio.CancelScope | None = None
        self._closed = False
        self._broken = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._broken:
            raise httpx.ReadError("the connection was closed", request=self._request)
        if self._closed:
            raise StopAsyncIteration
        piece: bytes | None = None
        with anyio.CancelScope() as self._reading, anyio.move_on_after(self._read_timeout) as limit:
            piece = await self._source.next()
        cancelled, self._reading = self._reading.cancelled_caught, None
        if cancelled:
            raise httpx.ReadError("the connection was closed", request=self._request)
        if limit.cancelled_caught:
            raise httpx.ReadTimeout("no data within the read timeout", request=self._request)
        if piece is None:
            raise StopAsyncIteration
        return piece

    def abort(self) -> None:
        """The server goes away: who reads, now or later, gets httpx.ReadError."""
        self._broken = True
        self._close()

    async def aclose(self) -> None:
        self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._on_close(self)
            if self._reading is not None:
                self._reading.cancel()
