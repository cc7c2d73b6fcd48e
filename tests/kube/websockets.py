"""Servers for the tests of attach: one in memory that replays recordings, and a real one on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import anyio
import httpx
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong
from wsproto.frame_protocol import CloseReason

from .servers import ReceivedRequest

PROTOCOL = "v5.channel.k8s.io"
RECORDED = Path(__file__).with_name("recorded")

Piece = bytes | float | Exception
"""Bytes are sent, a number is a pause in seconds, an exception is raised."""


# Frames


def message(channel: int, data: bytes = b"") -> bytes:
    """Return a message as the server sends it."""
    return frames(BytesMessage(bytes([channel]) + data))


def frames(*events: Event) -> bytes:
    connection = Connection(ConnectionType.SERVER)
    return b"".join(bytes(connection.send(event)) for event in events)


def raw_frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """Return a frame of the server, valid or not."""
    size = len(payload)
    if size <= 125:
        length = bytes([size])
    elif size < 1 << 16:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([opcode | (0x80 if final else 0)]) + length + payload


def fragments(payload: bytes, *sizes: int, between: bytes = b"") -> bytes:
    """Return `payload` as one message in fragments of `sizes` and the rest, with `between` after each of them."""
    parts, position = [], 0
    for size in (*sizes, len(payload)):
        parts.append(payload[position : position + size])
        position += size
    last = len(parts) - 1
    return b"".join(
        raw_frame(2 if number == 0 else 0, part, final=number == last) + (between if number < last else b"")
        for number, part in enumerate(parts)
    )


CLOSE = frames(CloseConnection(CloseReason.NORMAL_CLOSURE))


# Recordings


@dataclass(frozen=True)
class RecordedAttach:
    """An attach of a recording: `frames` in order, as direction, seconds, channel or "close", and data or code."""

    note: str
    path: str
    query: dict[str, str]
    protocols: str
    status: int
    headers: dict[str, str]
    body: str
    frames: list[tuple[str, float, int | str, bytes | int]]
    cut_by_client: bool

    def data(self, channel: int, sender: str = "server") -> bytes:
        """Return what was sent on a channel."""
        return b"".join(
            data for who, _, on, data in self.frames if isinstance(data, bytes) and (who, on) == (sender, channel)
        )

    @property
    def pieces(self) -> list[Piece]:
        """The frames of the server with the pauses between them. A connection that was cut has no close frame."""
        pieces: list[Piece] = []
        last = self.frames[0][1] if self.frames else 0.0
        for sender, at, channel, data in self.frames:
            if sender == "client":
                continue
            if at > last:
                pieces.append(at - last)
                last = at
            if isinstance(data, bytes):
                assert isinstance(channel, int)
                pieces.append(message(channel, data))
            elif data == CloseReason.ABNORMAL_CLOSURE:
                pieces.append(b"")
            else:
                pieces.append(frames(CloseConnection(data)))
        return pieces


def recorded_attaches(scenario: str) -> list[RecordedAttach]:
    """Return the attaches of a scenario in order."""
    document = json.loads((RECORDED / f"attach-{scenario}.json").read_text())
    return [_recorded(exchange) for exchange in document["exchanges"]]


def _recorded(exchange: dict[str, Any]) -> RecordedAttach:
    request, response = exchange["request"], exchange["response"]
    return RecordedAttach(
        note=exchange.get("note", ""),
        path=request["path"],
        query=request["query"],
        protocols=request.get("headers", {}).get("sec-websocket-protocol", ""),
        status=response["status"],
        headers=response.get("headers", {}),
        body=response.get("body", ""),
        frames=[_frame(frame) for frame in exchange.get("frames", ())],
        cut_by_client=exchange.get("ended", {}).get("by") == "client",
    )


def _frame(frame: dict[str, Any]) -> tuple[str, float, int | str, bytes | int]:
    sender, at = frame["from"], frame["at_ms"] / 1000
    if frame["type"] == "close":
        return sender, at, "close", frame["code"]
    assert frame["type"] == "binary"
    if "bytes" in frame:
        data = b"x" * frame["bytes"]
    elif "base64" in frame:
        data = base64.b64decode(frame["base64"])
    else:
        data = frame["text"].encode()
    return sender, at, frame["channel"], data


# In memory


def accept_token(key: str) -> str:
    return base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()


class AttachStream:
    """The connection after the upgrade: it returns `pieces`, and records what the client sends.

    After the last piece, reads wait forever. ``b""`` is the end of the connection. With `pongs`, a ping has a
    response, before the next piece. While `accepts_writes` is not set, writes wait.
    """

    def __init__(self, pieces: Sequence[Piece] = (), *, pongs: bool = True) -> None:
        self._pieces = deque(pieces)
        self._replies: deque[bytes] = deque()
        self._pongs = pongs
        self._connection = Connection(ConnectionType.SERVER)
        self._pause_ends: float | None = None
        self.accepts_writes = anyio.Event()
        self.accepts_writes.set()
        self.write_errors: list[Exception] = []
        self.messages: list[bytes] = []
        self.pings: list[float] = []
        self.pong_payloads: list[bytes] = []
        self.close_code: int | None = None
        self.bytes_read = 0
        self.bytes_written = 0
        self.reads: list[int] = []

    def add(self, *pieces: Piece) -> None:
        self._pieces.extend(pieces)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        await anyio.lowlevel.checkpoint()
        if self._replies:
            return self._replies.popleft()
        while self._pieces:
            piece = self._pieces[0]
            if isinstance(piece, float | int):
                if self._pause_ends is None:
                    self._pause_ends = anyio.current_time() + piece
                await anyio.sleep_until(self._pause_ends)
                self._pause_ends = None
                self._pieces.popleft()
            elif isinstance(piece, Exception):
                raise piece
            else:
                self._pieces.popleft()
                if len(piece) > max_bytes:
                    self._pieces.appendleft(piece[max_bytes:])
                self.bytes_read += len(piece[:max_bytes])
                self.reads.append(len(piece[:max_bytes]))
                return piece[:max_bytes]
        await anyio.sleep_forever()
        raise AssertionError

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        if self.write_errors:
            raise self.write_errors[0]
        await self.accepts_writes.wait()
        self.bytes_written += len(buffer)
        self._connection.receive_data(buffer)
        for event in self._connection.events():
            if isinstance(event, BytesMessage):
                assert event.message_finished
                self.messages.append(bytes(event.data))
            elif isinstance(event, Ping):
                self.pings.append(anyio.current_time())
                if self._pongs:
                    self._replies.append(bytes(self._connection.send(event.response())))
            elif isinstance(event, Pong):
                self.pong_payloads.append(bytes(event.payload))
            elif isinstance(event, CloseConnection):
                assert self._connection.state is ConnectionState.REMOTE_CLOSING
                self.close_code = event.code

    @property
    def stdin(self) -> bytes:
        return b"".join(sent[1:] for sent in self.messages if sent[0] == 0)


class _Body(httpx.AsyncByteStream):
    def __init__(self, server: AttachServer, body: bytes) -> None:
        self._server = server
        self._body = body

    async def __aiter__(self) -> Any:
        yield self._body

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._server.open_responses -= 1


Response = AttachStream | tuple[int, dict[str, str], bytes] | Exception


class AttachServer(httpx.AsyncBaseTransport):
    """A transport that responds to each request with the next of `responses`: an upgrade, or an error."""

    def __init__(self, *responses: Response, **upgrade_headers: str) -> None:
        self._responses = deque(responses)
        self._upgrade_headers = upgrade_headers
        self.requests: list[httpx.Request] = []
        self.credentials: list[str | None] = []
        self.open_responses = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.credentials.append(request.headers.get("authorization"))
        response = self._responses.popleft()
        if isinstance(response, Exception):
            raise response
        self.open_responses += 1
        if isinstance(response, tuple):
            status, headers, body = response
            return httpx.Response(status, headers=headers, stream=_Body(self, body), request=request)
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept_token(request.headers["Sec-WebSocket-Key"]),
            "Sec-WebSocket-Protocol": PROTOCOL,
            **{name.replace("_", "-"): value for name, value in self._upgrade_headers.items()},
        }
        return httpx.Response(
            101,
            headers=headers,
            stream=_Body(self, b""),
            request=request,
            extensions={"network_stream": response},
        )


# On loopback

Serve = Callable[[socket.socket, Connection], None]


def echo(connection: socket.socket, websocket: Connection) -> None:
    """Send an empty message, then stdin back on stdout, until stdin or the connection is closed."""
    connection.sendall(message(1))
    received = b""
    while data := connection.recv(1 << 16):
        websocket.receive_data(data)
        for event in websocket.events():
            if isinstance(event, CloseConnection):
                connection.sendall(bytes(websocket.send(event.response())))
                return
            if isinstance(event, BytesMessage):
                received += event.data
                if not event.message_finished:
                    continue
                if received[:1] == b"\xff":
                    connection.sendall(message(3, b'{"metadata":{},"status":"Success"}') + CLOSE)
                    return
                connection.sendall(message(1, received[1:]))
                received = b""


@dataclass
class LoopbackAttach:
    """A server on loopback: its port, its requests, the number of its connections, and its client certificates."""

    port: int = 0
    requests: list[ReceivedRequest] = field(default_factory=list)
    connections: int = 0
    certificates: list[Any] = field(default_factory=list)


@contextmanager
def loopback_attach(
    context: ssl.SSLContext | None = None, *, serve: Serve = echo, refused: int = 0
) -> Iterator[LoopbackAttach]:
    """Run a real server on 127.0.0.1. It upgrades and calls `serve`; a plain GET has the response ``{}``.

    The first `refused` upgrades have the response 401. `serve` may return to close the connection.
    """
    state = LoopbackAttach()

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            # In some tests, the client disconnects early.
            with suppress(OSError, ssl.SSLError):
                self.request.settimeout(10)
                # As in Go: otherwise a response waits for the ACK of the TLS session tickets.
                self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if context is None:
                    self._requests(self.request)
                    return
                with context.wrap_socket(self.request, server_side=True) as connection:
                    state.certificates.append(connection.getpeercert())
                    self._requests(connection)

        def _requests(self, connection: socket.socket) -> None:
            nonlocal refused
            state.connections += 1
            while head := _head(connection):
                first, *lines = head.split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                method, path, _version = first.split(" ")
                state.requests.append(ReceivedRequest(method, path, headers))
                if "upgrade" not in headers:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                elif refused:
                    refused -= 1
                    connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
                else:
                    token = accept_token(headers["sec-websocket-key"])
                    connection.sendall(
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        + f"Sec-WebSocket-Protocol: {PROTOCOL}\r\nSec-WebSocket-Accept: {token}\r\n\r\n".encode()
                    )
                    connection.settimeout(30)
                    serve(connection, Connection(ConnectionType.SERVER))
                    return

    class Server(ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def _head(connection: socket.socket) -> str:
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(1 << 16)
        if not data:
            return ""
        head += data
    return head.partition(b"\r\n\r\n")[0].decode("latin-1")
