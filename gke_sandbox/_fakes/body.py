"""The bodies of responses without a network, as httpx reads them, with the timeouts of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import anyio
import httpx


class Source(Protocol):
    """The source of a streamed body."""

    async def next(self) -> bytes | None:
        """Return the next piece, None at the end."""


@dataclass(frozen=True)
class Timeouts:
    """The timeouts of a request in seconds, None for no limit.

    https://www.python-httpx.org/advanced/timeouts/
    """

    connect: float | None = None
    read: float | None = None
    write: float | None = None

    @classmethod
    def of(cls, request: httpx.Request) -> Timeouts:
        """Return the timeouts in the extensions of a request."""
        given = request.extensions.get("timeout", {})
        return cls(given.get("connect"), given.get("read"), given.get("write"))


class Body(httpx.AsyncByteStream):
    """The stream of a response. It may be closed at any time, also during a read."""

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
        with anyio.move_on_after(self._read_timeout) as self._reading:
            piece = await self._source.next()
        cancelled, self._reading = self._reading.cancelled_caught, None
        if cancelled and self._closed:
            raise httpx.ReadError("the connection was closed", request=self._request)
        if cancelled:
            raise httpx.ReadTimeout("no data within the read timeout", request=self._request)
        if piece is None:
            raise StopAsyncIteration
        return piece

    def abort(self) -> None:
        """Close the connection as a server would: every read, now or later, raises httpx.ReadError."""
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


class Closable(Protocol):
    """A network connection."""

    async def aclose(self) -> None:
        """Close it. Idempotent."""


class UpgradedBody(httpx.AsyncByteStream):
    """The empty body of a 101 response. Closing it closes the connection."""

    def __init__(self, connection: Closable) -> None:
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        return
        yield b""

    async def aclose(self) -> None:
        await self._connection.aclose()
