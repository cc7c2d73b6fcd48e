"""The bodies of answers that no network brings, as httpx reads them, with the client's timeouts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import anyio
import httpx


class Source(Protocol):
    """The body of an answer that comes piece by piece."""

    async def next(self) -> bytes | None:
        """The next piece, None at the end."""


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
