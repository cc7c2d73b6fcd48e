"""The network connection of an attached client, recorded: messages in both directions, without delaying them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpcore
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, TextMessage

from .model import AttachMessage, Exchange
from .stdin_request import request_length

__all__ = ["CHANNELS", "CLOSE", "NOT_A_FRAME", "STDIN", "Parts", "RecordedConnection"]

STDIN, CLOSE = 0, 255
CHANNELS = {1: "stdout", 2: "stderr", 3: "status"}
NOT_A_FRAME = b"\xff\x00"
"""Bytes with reserved bits set, which every client refuses. https://www.rfc-editor.org/rfc/rfc6455#section-5.2"""


class Parts:
    """The parts of a WebSocket message."""

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, event: Message[Any]) -> bytes:
        """Add a part, and return the message if it is complete, else nothing."""
        self.data += event.data.encode() if isinstance(event.data, str) else event.data
        if not event.message_finished:
            return b""
        message = bytes(self.data)
        self.data.clear()
        return message


class RecordedConnection(httpcore.AsyncNetworkStream):
    """Passes everything on to `inner`, and adds the messages to the recording of the attach.

    Pings and pongs are not recorded: how many there are depends on time. `elapsed` and `send` are the methods of
    the `recorder.Recorder`.
    """

    def __init__(
        self,
        inner: Any,
        exchange: Exchange,
        elapsed: Callable[[], float],
        send: Callable[[Exchange, dict[str, str]], Exchange],
    ) -> None:
        self._inner = inner
        self._exchange = exchange
        self._elapsed, self._send = elapsed, send
        self._from_server = Connection(ConnectionType.CLIENT)
        self._from_client = Connection(ConnectionType.SERVER)
        self._received, self._sent = Parts(), Parts()
        # The request that was not written to stdin completely, and its length.
        self._request: Exchange | None = None
        self._stdin = bytearray()
        self._length: int | None = None
        self._last_sent: Exchange | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data: bytes = await self._inner.read(max_bytes, timeout)
        except httpcore.TimeoutException:
            raise
        except Exception:
            self._end("ReadError")
            raise
        if data:
            self._take(data)
        else:
            self._end("server")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # Before it is sent: the response may arrive at once.
        self._take_sent(buffer)
        try:
            await self._inner.write(buffer, timeout)
        except httpcore.TimeoutException:
            raise
        except Exception:
            self._end("WriteError")
            raise

    async def aclose(self) -> None:
        self._end("client")
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> Any:
        """Return what is known about the inner connection."""
        return self._inner.get_extra_info(info)

    def _end(self, by: str) -> None:
        """Record the first end of the connection."""
        exchange = self._exchange
        if exchange.ended_at is not None:
            return
        exchange.ended_at, exchange.ended_by = self._elapsed(), by
        # The client has received this part of a message.
        self._add_message(bytes(self._received.data))
        if self._request is not None:
            self._request.body = bytes(self._stdin)

    # -- from the server ----------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        if self._exchange.ended_at is not None or self._from_server.state is not ConnectionState.OPEN:
            return
        self._from_server.receive_data(data)
        for found, event in enumerate(self._from_server.events()):
            if isinstance(event, TextMessage):
                self._add("text", event.data.encode())
            elif isinstance(event, BytesMessage):
                self._add_message(self._received.add(event))
            elif isinstance(event, CloseConnection) and self._from_server.state is ConnectionState.OPEN:
                # wsproto reports bytes that are not valid in this form. Where they start is known only if they
                # arrived alone.
                self._add("", NOT_A_FRAME if found else data)
                self._exchange.ended_by, self._exchange.ended_at = "client", self._elapsed()
            elif isinstance(event, CloseConnection):
                self._add("", (event.reason or "").encode(), event.code)
                self._end("server")

    def _add_message(self, message: bytes) -> None:
        if message:
            self._add(CHANNELS.get(message[0], f"{message[0]}"), message[1:])

    def _add(self, channel: str, data: bytes, close: int | None = None) -> None:
        now = self._elapsed()
        self._exchange.messages.append(AttachMessage(now, channel, data, close, self._last_sent))

    # -- from the client ----------------------------------------------------------------------------------

    def _take_sent(self, data: bytes) -> None:
        if self._exchange.ended_at is not None or self._from_client.state is not ConnectionState.OPEN:
            return
        self._from_client.receive_data(data)
        for event in self._from_client.events():
            if isinstance(event, Message):
                self._take_message(self._sent.add(event))
            elif isinstance(event, CloseConnection):
                self._end("client")

    def _take_message(self, message: bytes) -> None:
        if message == bytes([CLOSE, STDIN]):
            self._last_sent = self._send(self._exchange, {"close": "stdin"})
        elif message[:1] == bytes([STDIN]) and message[1:]:
            self._take_stdin(message[1:])

    def _take_stdin(self, data: bytes) -> None:
        """Record a request as one: it is longer than a message."""
        if self._request is None:
            self._request = self._last_sent = self._send(self._exchange, {})
            self._length = None
        self._stdin += data
        if self._length is None:
            self._length = request_length(self._stdin)
        if self._length is not None and len(self._stdin) >= self._length:
            self._request.body = bytes(self._stdin)
            self._request = None
            self._stdin.clear()
