"""The transport that records: everything goes on to the real one, and is written down as it passes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timezone
from types import TracebackType

import anyio
import httpx

from .._version import __version__
from ..errors import CassetteError, SandboxError
from .format import save
from .model import Cassette, Exchange, Header
from .normalize import normalize, request_of
from .secrets import ALLOWED_HEADERS

__all__ = ["Recorder", "RecordingTransport"]

logger = logging.getLogger("gke_sandbox")

_VERSION_SECONDS = 5.0
# In a request's extensions: what it was recorded as.
_EXCHANGE = "gke_sandbox.exchange"


class Recorder:
    """What was recorded so far, for one file. `save` may be called again and again as it grows.

    `now` is calendar time. One tape may take what several Sandboxes do, one after the other, or at once if their
    event loops have the same clock (all of asyncio's have).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        scenario: str | None = None,
        notes: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.path = os.fspath(path)
        self.server: str | None = None
        self.discarded = False
        """Nothing is to be written."""
        self._scenario = os.path.basename(self.path).partition(".")[0] if scenario is None else scenario
        self._notes = notes
        self._now = now
        self._began_at: datetime | None = None
        self._began = 0.0
        self._open = 0
        self._exchanges: list[Exchange] = []

    def opened(self) -> None:
        """A Sandbox begins. Where the last one has ended, in another event loop perhaps, its time goes on."""
        if not self._open and self._began_at is not None:
            last = max(max(each.at, each.ended_at or 0.0) for each in self._exchanges)
            self._began = anyio.current_time() - last
        self._open += 1

    def closed(self) -> None:
        """A Sandbox has ended."""
        self._open -= 1

    def begin(self, request: httpx.Request, path: str, body: bytes) -> Exchange:
        """A request is about to be sent; `path` is its path as the API knows it."""
        if self._began_at is None:
            self._began_at, self._began = self._now(), anyio.current_time()
        query = dict(request.url.params)
        exchange = Exchange(self.elapsed(), request.method, path, query, body)
        self._exchanges.append(exchange)
        return exchange

    def elapsed(self) -> float:
        """Seconds since the first request."""
        return anyio.current_time() - self._began

    def cassette(self) -> Cassette:
        """What was recorded so far. Raises `CassetteError` if nothing was."""
        if self._began_at is None:
            raise CassetteError(f"nothing was recorded for {self.path}: no request was sent")
        header = Header(
            scenario=self._scenario,
            namespace=self._namespace(),
            recorded_at=self._began_at.date().isoformat(),
            recorded_with=f"gke-sandbox {__version__}",
            server=self.server,
            notes=self._notes,
        )
        return normalize(self._exchanges, header, self._began_at, self.path)

    def _namespace(self) -> str | None:
        """The one namespace that all requests were in, if there is one."""
        namespaces = {request_of(each).namespace for each in self._exchanges} - {""}
        return namespaces.pop() if len(namespaces) == 1 else None

    def save(self) -> None:
        """Write the file. Raises `CassetteError` for a secret in it, and when it cannot be written."""
        if self._began_at is not None and not self.discarded:
            save(self.cassette(), self.path)


class RecordingTransport(httpx.AsyncBaseTransport):
    """Around a transport to a cluster. What comes goes on at once, streams too; the tape is saved at the end,
    unless an error leaves the block that is not of this package.

    Headers of requests, and so all credentials, are not recorded; of answers only a few are. `base` is the path
    below which the server has its API, as in ``https://host/k8s/clusters/c-1``; it is no part of what is recorded.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, tape: Recorder, *, base: str = "") -> None:
        self._inner = inner
        self._recorder = tape
        self._base = base
        self._asked_version = False

    async def __aenter__(self) -> RecordingTransport:
        await self._inner.__aenter__()
        self._recorder.opened()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if exc_value is not None and not isinstance(exc_value, SandboxError):
            # A run that its caller broke off is half a run; one that was refused or did not start is a whole one.
            logger.warning("%s is not written: what was recorded was left by %r", self._recorder.path, exc_value)
            self._recorder.discarded = True
        try:
            await self._inner.__aexit__(exc_type, exc_value, traceback)
        finally:
            self._recorder.closed()
            self._recorder.save()

    async def aclose(self) -> None:
        """Close what is behind; the tape is saved when the transport is left."""
        await self._inner.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on, asking for an answer that is not compressed, and write both down."""
        body = await request.aread()
        # What is compressed cannot be read in review, and its names not be told.
        request.headers["accept-encoding"] = "identity"
        await self._ask_version(request)
        exchange = self._recorder.begin(request, request.url.path.removeprefix(self._base), body)
        # The same request again: the client has renewed its credentials.
        earlier = request.extensions.get(_EXCHANGE)
        if earlier is not None:
            earlier.reauthenticated = True
        request.extensions = {**request.extensions, _EXCHANGE: exchange}
        try:
            response = await self._inner.handle_async_request(request)
        except httpx.TransportError as error:
            exchange.ended_by, exchange.ended_at = type(error).__name__, self._recorder.elapsed()
            raise
        exchange.responded_at = self._recorder.elapsed()
        exchange.status = response.status_code
        exchange.headers = [
            (name.lower(), value) for name, value in response.headers.items() if name.lower() in ALLOWED_HEADERS
        ]
        assert isinstance(response.stream, httpx.AsyncByteStream)
        stream = _Recorderd(response.stream, exchange, self._recorder)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=stream, extensions=response.extensions
        )

    async def _ask_version(self, request: httpx.Request) -> None:
        """Learn the server's version, once, with the credentials of the first request. It may refuse."""
        if self._asked_version:
            return
        self._asked_version = True
        url = request.url.copy_with(path=f"{self._base}/version", query=None)
        asked = httpx.Request("GET", url, headers=_without_body(request.headers), extensions=request.extensions)
        with contextlib.suppress(httpx.TransportError, ValueError), anyio.move_on_after(_VERSION_SECONDS):
            response = await self._inner.handle_async_request(asked)
            try:
                await response.aread()
                told = response.json() if response.status_code == 200 else None
            finally:
                await response.aclose()
            version = told.get("gitVersion") if isinstance(told, dict) else None
            self._recorder.server = version if isinstance(version, str) else None


def _without_body(headers: httpx.Headers) -> httpx.Headers:
    kept = headers.copy()
    for name in ("content-length", "content-type", "transfer-encoding"):
        kept.pop(name, None)
    return kept


class _Recorderd(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, exchange: Exchange, tape: Recorder) -> None:
        self._inner = inner
        self._exchange = exchange
        self._recorder = tape

    async def __aiter__(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        try:
            async for chunk in self._inner:
                exchange.chunks.append((self._recorder.elapsed(), chunk))
                yield chunk
            exchange.ended_by = "server"
        except httpx.TransportError as error:
            exchange.ended_by = type(error).__name__
            raise
        finally:
            exchange.ended_at = self._recorder.elapsed()

    async def aclose(self) -> None:
        if self._exchange.ended_at is None:
            self._exchange.ended_at = self._recorder.elapsed()
        await self._inner.aclose()
