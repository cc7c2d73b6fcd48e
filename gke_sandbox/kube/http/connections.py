"""A transport with any number of connections, whose work for a request does not depend on their number."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import cast

import anyio
import httpx

from ..auth.static import ClientCertificate

__all__ = ["ConnectionStack"]

MAX_IDLE = 32
"""The number of connections that are kept open for later requests. Each open log, watch and attach has another
one."""
IDLE_TIMEOUT = 60.0
"""Seconds. An API server closes idle connections after 90 s; close them earlier."""


class ConnectionStack(httpx.AsyncBaseTransport):
    """A transport that sends each request over the connection that was used last, or over a new one.

    `connect` returns a transport for one connection, with the current client certificate, which `certificate`
    returns. After a change, open responses (a watch, a log) continue, but no other request uses their connections.

    The pool of httpcore 1.0 examines all of its connections for each request, which takes more time than the
    request itself if some hundred logs are open.
    """

    def __init__(
        self,
        connect: Callable[[ClientCertificate | None], httpx.AsyncBaseTransport],
        certificate: Callable[[], ClientCertificate | None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._certificate = certificate
        self._current = certificate()
        self._idle: deque[tuple[httpx.AsyncBaseTransport, float]] = deque()
        self._in_use: dict[httpx.AsyncBaseTransport, ClientCertificate | None] = {}
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._close_old()
        connection = self._idle.pop()[0] if self._idle else self._connect(self._current)
        self._in_use[connection] = self._current
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await self._release(connection, reusable=False)
            raise
        response.stream = _ResponseStream(cast("httpx.AsyncByteStream", response.stream), self, connection)
        return response

    async def _release(self, connection: httpx.AsyncBaseTransport, *, reusable: bool) -> None:
        if connection not in self._in_use:
            return
        is_current = self._in_use.pop(connection) == self._current
        if reusable and is_current and not self._closed and len(self._idle) < MAX_IDLE:
            self._idle.append((connection, anyio.current_time()))
        else:
            await connection.aclose()

    async def _close_old(self) -> None:
        certificate = self._certificate()
        is_new = certificate != self._current
        while self._idle and (is_new or anyio.current_time() >= self._idle[0][1] + IDLE_TIMEOUT):
            await self._idle.popleft()[0].aclose()
        # Not before: meanwhile, other requests must not use a connection with the old certificate.
        self._current = certificate

    async def aclose(self) -> None:
        self._closed = True
        connections = [*self._in_use, *(connection for connection, _ in self._idle)]
        self._in_use.clear()
        self._idle.clear()
        for connection in connections:
            await connection.aclose()


class _ResponseStream(httpx.AsyncByteStream):
    """The body of a response, which releases the connection when it is closed."""

    def __init__(
        self, stream: httpx.AsyncByteStream, stack: ConnectionStack, connection: httpx.AsyncBaseTransport
    ) -> None:
        self._stream = stream
        self._stack = stack
        self._connection = connection
        self._complete = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._chunks = aiter(self._stream)
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._complete = True
            raise

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        except BaseException:
            self._complete = False
            raise
        finally:
            await self._stack._release(self._connection, reusable=self._complete)
