"""A transport whose client certificate may change: new connections show the newest one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, cast

import httpx

from ..auth.exec import ExecAuth
from ..auth.static import ClientCertificate

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["RotatingTransport", "plugin_certificate"]


def plugin_certificate(auth: httpx.Auth | None) -> ClientCertificate | None:
    """The certificate that an exec plugin gave for `auth`, if there is one by now."""
    return auth.client_certificate() if isinstance(auth, ExecAuth) else None


class RotatingTransport(httpx.AsyncBaseTransport):
    """Sends each request over a transport that `opened` made for the certificate of that moment.

    httpx asks for credentials before it asks the transport, so the first connection has the certificate already.
    When it changes, what is under way (a watch, a log) ends on its own connection; all that follows takes a new
    one, and the old transport is closed with its last answer.
    """

    def __init__(
        self,
        opened: Callable[[ClientCertificate | None], httpx.AsyncBaseTransport],
        certificate: Callable[[], ClientCertificate | None],
    ) -> None:
        self._opened = opened
        self._certificate = certificate
        self._shown: ClientCertificate | None = None
        self._carrier = _Carrier(opened(None))
        self._retired: set[_Carrier] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        certificate = self._certificate()
        if certificate != self._shown:
            old, self._carrier = self._carrier, _Carrier(self._opened(certificate))
            self._shown = certificate
            self._retired.add(old)
            await self._close_if_unused(old)
        carrier = self._carrier
        carrier.answers += 1
        try:
            response = await carrier.transport.handle_async_request(request)
        except BaseException:
            await self._done(carrier)
            raise
        response.stream = _Counted(cast("httpx.AsyncByteStream", response.stream), lambda: self._done(carrier))
        return response

    async def _done(self, carrier: _Carrier) -> None:
        carrier.answers -= 1
        await self._close_if_unused(carrier)

    async def _close_if_unused(self, carrier: _Carrier) -> None:
        if carrier in self._retired and not carrier.answers:
            self._retired.remove(carrier)
            await carrier.transport.aclose()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        retired, self._retired = self._retired, set()
        for carrier in (*retired, self._carrier):
            await carrier.transport.aclose()


class _Carrier:
    """A transport, and how many of its answers are still being read."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport
        self.answers = 0


class _Counted(httpx.AsyncByteStream):
    """An answer's body that says when it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, closed: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._closed: Callable[[], Awaitable[None]] | None = closed

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        closed, self._closed = self._closed, None
        try:
            await self._stream.aclose()
        finally:
            if closed is not None:
                await closed()
