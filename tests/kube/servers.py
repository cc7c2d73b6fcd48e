"""Servers for the tests of the client: scripted responses in memory, and a small real HTTP server."""

from __future__ import annotations

import gzip
import json
import math
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import anyio
import httpx

FOREVER = math.inf

Chunk = bytes | float | Exception
"""Bytes are sent, a number is a pause in seconds, an exception is raised."""


@dataclass
class ScriptedResponse:
    """A scripted response. `delay` is the time before its headers, in seconds."""

    status: int = 200
    body: object = None
    chunks: Sequence[Chunk] | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    delay: float = 0.0

    def parts(self) -> Sequence[Chunk]:
        if self.chunks is not None:
            return self.chunks
        return [self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()]


class _Stream(httpx.AsyncByteStream):
    def __init__(self, server: MemoryTransport, parts: Sequence[Chunk], timeout: float | None) -> None:
        self._server = server
        self._parts = parts
        self._timeout = timeout
        self._closed = False
        server.open_streams += 1

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            # A real transport's read is a checkpoint.
            await anyio.lowlevel.checkpoint()
            if isinstance(part, bytes):
                yield part
            elif isinstance(part, Exception):
                raise part
            else:
                with anyio.move_on_after(self._timeout) as scope:
                    await anyio.sleep(part)
                if scope.cancelled_caught:
                    raise httpx.ReadTimeout("")

    async def aclose(self) -> None:
        # As in a real transport, closing is a checkpoint, which fails in a cancelled task.
        await anyio.lowlevel.checkpoint()
        if not self._closed:
            self._closed = True
            self._server.open_streams -= 1


class MemoryTransport(httpx.AsyncBaseTransport):
    """A transport that responds from a list or a function. It records requests, their times, and open streams.

    An exception in place of a response is raised. After the end of the list, requests have no response.
    """

    def __init__(
        self,
        responses: Sequence[ScriptedResponse | Exception]
        | Callable[[httpx.Request], ScriptedResponse | Exception],
    ) -> None:
        self._responses = responses if callable(responses) else self._next
        self._remaining = [] if callable(responses) else list(responses)
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self.open_streams = 0
        self.entered = 0
        self.closed = 0

    def _next(self, request: httpx.Request) -> ScriptedResponse | Exception:
        if not self._remaining:
            return ScriptedResponse(delay=FOREVER)
        return self._remaining.pop(0)

    async def __aenter__(self) -> MemoryTransport:
        self.entered += 1
        return self

    async def aclose(self) -> None:
        self.closed += 1

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        self.times.append(anyio.current_time())
        scripted = self._responses(request)
        if isinstance(scripted, Exception):
            raise scripted
        timeout = request.extensions["timeout"]["read"]
        with anyio.move_on_after(timeout) as scope:
            await anyio.sleep(scripted.delay)
        if scope.cancelled_caught:
            raise httpx.ReadTimeout("")
        return httpx.Response(
            scripted.status,
            headers=scripted.headers,
            stream=_Stream(self, scripted.parts(), timeout),
            request=request,
        )

    @property
    def request_lines(self) -> list[str]:
        """The requests in order, as ``list``, ``watch 7`` or method and path."""
        return [_line(request) for request in self.requests]


def _line(request: httpx.Request) -> str:
    query = request.url.params
    if query.get("watch"):
        return f"watch {query.get('resourceVersion')}"
    return "list" if request.method == "GET" else f"{request.method} {request.url.path}"


@dataclass
class ReceivedRequest:
    """A request that the real server received."""

    method: str
    path: str
    headers: dict[str, str]


@contextmanager
def loopback(
    context: ssl.SSLContext | None = None, *, body: object = None, endless: bool = False
) -> Iterator[tuple[int, list[ReceivedRequest]]]:
    """Run a real HTTP server on a free port of 127.0.0.1, with TLS if `context` is set. Yield port and requests.

    Each response is `body` as JSON, compressed if the client accepts that, or with `endless` an endless stream of
    lines.
    """
    received: list[ReceivedRequest] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            received.append(
                ReceivedRequest(
                    self.command, self.path, {key.lower(): value for key, value in self.headers.items()}
                )
            )
            if endless:
                self._endless()
                return
            content = json.dumps(body or {}).encode()
            self.send_response(200)
            if "gzip" in self.headers["Accept-Encoding"]:
                content = gzip.compress(content)
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_DELETE = do_GET

        def _endless(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"5\r\nline\n\r\n" * 100)
            except OSError:
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            connection.settimeout(10)
            return connection, address

        def finish_request(self, request: Any, client_address: Any) -> None:
            # Do the handshake in the thread of the connection.
            if context is None:
                super().finish_request(request, client_address)
                return
            with context.wrap_socket(request, server_side=True) as connection:
                super().finish_request(connection, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignore errors: in some tests the client disconnects or rejects the certificate."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1], received
        finally:
            server.shutdown()
            thread.join()
