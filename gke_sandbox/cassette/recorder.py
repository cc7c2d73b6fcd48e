"""The transport that records: it passes everything on to the real one, and keeps a copy."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timezone
from types import TracebackType

import anyio
import httpx

from .._version import __version__
from ..errors import CassetteError, SandboxError
from .format import save_text, write
from .model import ONE_THREAD_HINT, SEND, Cassette, Exchange, Header
from .normalize import normalize, request_of

__all__ = ["Recorder", "RecordingTransport"]

logger = logging.getLogger(__name__)

_VERSION_TIMEOUT = 5.0
_BODY_HEADERS = ("content-length", "content-type", "transfer-encoding")
# The key of the Exchange in the extensions of a request.
_EXCHANGE = "gke_sandbox.exchange"


class Recorder:
    """The recording so far, for one file. `save` may be called several times as it grows.

    `now` returns calendar time. With `deferred`, `save` writes no file, but only `text`. Several Sandboxes may use
    one recorder, one after the other, or at the same time if their event loops have the same clock, as those of
    asyncio do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        scenario: str | None = None,
        notes: str = "",
        deferred: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.path = os.fspath(path)
        self.server: str | None = None
        self.discarded = False
        """Whether to write nothing."""
        self.text = ""
        """The text of the cassette that was saved last."""
        self._deferred = deferred
        if scenario is None:
            # The file is UTF-8; other names have lone surrogates.
            scenario = os.fsencode(os.path.basename(self.path)).decode("utf-8", "replace").partition(".")[0]
        self._scenario = scenario
        self._notes = notes
        self._now = now
        self._started_at: datetime | None = None
        self._start = 0.0
        self._open = 0
        self._thread = 0
        self._exchanges: list[Exchange] = []

    def opened(self) -> None:
        """Count an opened Sandbox. The time of the recording continues, even in another event loop.

        Raises `CassetteError` if the recording is `deferred`, and one is open in another thread.
        """
        here = threading.get_ident()
        if self._deferred and self._open and self._thread != here:
            raise CassetteError(f"{self.path} is being recorded in another thread", hint=ONE_THREAD_HINT)
        self._thread = here
        if not self._open and self._started_at is not None:
            last = max(max(each.at, each.ended_at or 0.0) for each in self._exchanges)
            self._start = anyio.current_time() - last
        self._open += 1

    def closed(self) -> None:
        """Count a closed Sandbox."""
        self._open -= 1

    def start(self, request: httpx.Request, path: str, body: bytes) -> Exchange:
        """Add a request before it is sent. `path` is its path in the API."""
        if self._started_at is None:
            self._started_at, self._start = self._now(), anyio.current_time()
        query = dict(request.url.params)
        exchange = Exchange(self.elapsed(), request.method, path, query, body)
        self._exchanges.append(exchange)
        return exchange

    def send(self, attach: Exchange, query: dict[str, str]) -> Exchange:
        """Add something that a client writes to the stdin of the container to which it is attached."""
        exchange = Exchange(self.elapsed(), SEND, attach.path, query)
        self._exchanges.append(exchange)
        return exchange

    def elapsed(self) -> float:
        """Return the seconds since the first request."""
        return anyio.current_time() - self._start

    def cassette(self) -> Cassette:
        """Return the recording so far. Raises `CassetteError` if no request was sent."""
        if self._started_at is None:
            raise CassetteError(f"nothing was recorded for {self.path}: no request was sent")
        header = Header(
            scenario=self._scenario,
            namespace=self._namespace(),
            recorded_at=self._started_at.date().isoformat(),
            recorded_with=f"gke-sandbox {__version__}",
            server=self.server,
            notes=self._notes,
        )
        return normalize(self._exchanges, header, self._started_at, self.path)

    def _namespace(self) -> str | None:
        """Return the namespace of all requests, None if there are several or none."""
        namespaces = {request_of(each).namespace for each in self._exchanges} - {""}
        return namespaces.pop() if len(namespaces) == 1 else None

    def save(self) -> None:
        """Write the file. Raises `CassetteError` if it would contain a secret, or cannot be written."""
        if self._started_at is not None and not self.discarded:
            self.text = write(self.cassette())
            if not self._deferred:
                save_text(self.text, self.path)


class RecordingTransport(httpx.AsyncBaseTransport):
    """Records what passes through a transport, without delaying it.

    The recording is saved when the transport is left, except by an error from outside of this package. Headers of
    requests, and so all credentials, are not recorded, and only a few headers of responses are. `base` is the path
    of the server's API, as in ``https://host/k8s/clusters/c-1``; it is not recorded.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, recorder: Recorder, *, base: str = "") -> None:
        self._inner = inner
        self._recorder = recorder
        self._base = base
        self._version_requested = False

    async def __aenter__(self) -> RecordingTransport:
        self._recorder.opened()
        try:
            await self._inner.__aenter__()
        except BaseException:
            self._recorder.closed()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if exc_value is not None and not isinstance(exc_value, SandboxError):
            # The caller stopped the run. A run that was refused or did not start is complete.
            logger.warning("%s is not written: the run was stopped by %r", self._recorder.path, exc_value)
            self._recorder.discarded = True
        try:
            await self._inner.__aexit__(exc_type, exc_value, traceback)
        finally:
            self._recorder.closed()
            self._recorder.save()

    async def aclose(self) -> None:
        """Close the inner transport. The recording is saved when the transport is left."""
        await self._inner.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on, without compression, and record it and its response."""
        body = await request.aread()
        # A compressed response cannot be reviewed, and names in it cannot be replaced.
        request.headers["accept-encoding"] = "identity"
        await self._request_version(request)
        exchange = self._recorder.start(request, request.url.path.removeprefix(self._base), body)
        # The same request is sent again with new credentials.
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
        exchange.headers = list(response.headers.items())
        assert isinstance(response.stream, httpx.AsyncByteStream)
        stream = _RecordedBody(response.stream, exchange, self._recorder)
        extensions = response.extensions
        if response.status_code == 101:
            from .recorded_attach import RecordedConnection  # wsproto is an optional dependency

            inner, recorder = extensions["network_stream"], self._recorder
            connection = RecordedConnection(inner, exchange, recorder.elapsed, recorder.send)
            extensions = {**extensions, "network_stream": connection}
        return httpx.Response(response.status_code, headers=response.headers, stream=stream, extensions=extensions)

    async def _request_version(self, request: httpx.Request) -> None:
        """Request the server's version once, with the credentials of the first request. It may be forbidden."""
        if self._version_requested:
            return
        self._version_requested = True
        url = request.url.copy_with(path=f"{self._base}/version", query=None)
        headers = [pair for pair in request.headers.multi_items() if pair[0] not in _BODY_HEADERS]
        version_request = httpx.Request("GET", url, headers=headers, extensions=request.extensions)
        with contextlib.suppress(httpx.TransportError, ValueError), anyio.move_on_after(_VERSION_TIMEOUT):
            response = await self._inner.handle_async_request(version_request)
            try:
                await response.aread()
                found = response.json() if response.status_code == 200 else None
            finally:
                await response.aclose()
            version = found.get("gitVersion") if isinstance(found, dict) else None
            self._recorder.server = version if isinstance(version, str) else None


class _RecordedBody(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, exchange: Exchange, recorder: Recorder) -> None:
        self._inner = inner
        self._exchange = exchange
        self._recorder = recorder

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
