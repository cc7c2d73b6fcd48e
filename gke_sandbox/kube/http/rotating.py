"""A transport whose client certificate may change: new connections use the newest one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import httpx

from ..auth.exec import ExecAuth
from ..auth.static import ClientCertificate

__all__ = ["RotatingTransport", "plugin_certificate"]


def plugin_certificate(auth: httpx.Auth | None) -> ClientCertificate | None:
    """Return the certificate that the exec plugin of `auth` has returned, or None."""
    return auth.client_certificate() if isinstance(auth, ExecAuth) else None


class RotatingTransport(httpx.AsyncBaseTransport):
    """A transport that calls `connect` for a new transport whenever the client certificate has changed.

    httpx runs the authentication before the transport, so the first connection has the certificate. After a
    change, open responses (a watch, a log) continue on the old transport, which is closed with the last of them.
    New requests use the new transport.
    """

    def __init__(
        self,
        connect: Callable[[ClientCertificate | None], httpx.AsyncBaseTransport],
        certificate: Callable[[], ClientCertificate | None],
    ) -> None:
        self._connect = connect
        self._certificate = certificate
        self._current_certificate: ClientCertificate | None = None
        self._current = _CountedTransport(connect(None))
        self._retired: set[_CountedTransport] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        certificate = self._certificate()
        if certificate != self._current_certificate:
            old, self._current = self._current, _CountedTransport(self._connect(certificate))
            self._current_certificate = certificate
            self._retired.add(old)
            await self._close_if_unused(old)
        counted = self._current
        counted.open_responses += 1
        try:
            response = await counted.transport.handle_async_request(request)
        except BaseException:
            await self._done(counted)
            raise
        response.stream = _ResponseStream(
            cast("httpx.AsyncByteStream", response.stream), lambda: self._done(counted)
        )
        return response

    async def _done(self, counted: _CountedTransport) -> None:
        counted.open_responses -= 1
        await self._close_if_unused(counted)

    async def _close_if_unused(self, counted: _CountedTransport) -> None:
        if counted in self._retired and not counted.open_responses:
            self._retired.remove(counted)
            await counted.transport.aclose()

    async def aclose(self) -> None:
        retired, self._retired = self._retired, set()
        for counted in (*retired, self._current):
            await counted.transport.aclose()


class _CountedTransport:
    """A transport and the number of its open responses."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport
        self.open_responses = 0


class _ResponseStream(httpx.AsyncByteStream):
    """A response stream that calls `on_close` when it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, on_close: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._on_close: Callable[[], Awaitable[None]] | None = on_close

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        on_close, self._on_close = self._on_close, None
        try:
            await self._stream.aclose()
        finally:
            if on_close is not None:
                await on_close()
