"""Servers for the client's tests: one in memory that says what it is told to, and a small real one."""

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

#: bytes are sent, a number is a pause in seconds, an exception is raised
Chunk = bytes | float | Exception


@dataclass
class Answer:
    """What to answer. `delay` in seconds comes before the headers; an exception instead of an answer is raised."""

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
    def __init__(self, server: Memory, parts: Sequence[Chunk], timeout: float | None) -> None:
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
        # Nothing that a cancelled task cannot do must be needed here, and yet it may wait.
        await anyio.lowlevel.checkpoint()
        if not self._closed:
            self._closed = True
            self._server.open_streams -= 1


class Memory(httpx.AsyncBaseTransport):
    """Answers each request from a list, or as a function says; remembers requests, their times, open streams."""

    def __init__(
        self, answers: Sequence[Answer | Exception] | Callable[[httpx.Request], Answer | Exception]
    ) -> None:
        self._answers = answers if callable(answers) else self._next
        self._left = [] if callable(answers) else list(answers)
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self.open_streams = 0
        self.entered = 0
        self.closed = 0

    def _next(self, request: httpx.Request) -> Answer | Exception:
        if not self._left:
            # A server that has nothing more to say.
            return Answer(delay=FOREVER)
        return self._left.pop(0)

    async def __aenter__(self) -> Memory:
        self.entered += 1
        return self

    async def aclose(self) -> None:
        self.closed += 1

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        self.times.append(anyio.current_time())
        answer = self._answers(request)
        if isinstance(answer, Exception):
            raise answer
        timeout = request.extensions["timeout"]["read"]
        with anyio.move_on_after(timeout) as scope:
            await anyio.sleep(answer.delay)
        if scope.cancelled_caught:
            raise httpx.ReadTimeout("")
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Stream(self, answer.parts(), timeout), request=request
        )

    @property
    def asked(self) -> list[str]:
        """The requests as ``list``, ``watch 7`` or method and path, in their order."""
        return [_word(request) for request in self.requests]


def _word(request: httpx.Request) -> str:
    query = request.url.params
    if query.get("watch"):
        return f"watch {query.get('resourceVersion')}"
    return "list" if request.method == "GET" else f"{request.method} {request.url.path}"


@dataclass
class Seen:
    """What a real server was asked."""

    method: str
    path: str
    headers: dict[str, str]


@contextmanager
def loopback(
    context: ssl.SSLContext | None = None, *, body: object = None, endless: bool = False
) -> Iterator[tuple[int, list[Seen]]]:
    """A real HTTP server on a free port of 127.0.0.1; with `context` it speaks TLS. Yields port and requests.

    It answers everything with `body` as JSON, compressed if that was asked for; an `endless` one goes on with
    lines after it until nobody listens.
    """
    seen: list[Seen] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            seen.append(Seen(self.command, self.path, {key.lower(): value for key, value in self.headers.items()}))
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
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            connection.settimeout(10)
            return connection, address

        def finish_request(self, request: Any, client_address: Any) -> None:
            # The handshake belongs to the connection's own thread.
            if context is None:
                super().finish_request(request, client_address)
                return
            with context.wrap_socket(request, server_side=True) as connection:
                super().finish_request(connection, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes away, or that refuses our certificate, is what some tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1], seen
        finally:
            server.shutdown()
            thread.join()
