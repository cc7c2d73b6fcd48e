"""The network connection of an attached client in a replay: the recorded messages, and what the client writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import httpcore
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage

from .matcher import ReplayRequest
from .model import ERRORS, SEND, Chunk, Step
from .player import OpenStream, Player
from .recorded_attach import CHANNELS, CLOSE, STDIN, Parts
from .stdin_request import request_length

__all__ = ["ReplayedConnection"]

_NUMBERS = {name: number for number, name in CHANNELS.items()}


class ReplayedConnection(OpenStream, httpcore.AsyncNetworkStream):
    """The client's end of a connection on which the server sends the recorded messages.

    What the client writes to stdin is a request of the replay, which must have been recorded. Messages that were
    received after it are sent after it. `closed` is called when the client closes the connection.
    """

    def __init__(
        self, player: Player, step: Step, path: str, closed: Callable[[ReplayedConnection], None]
    ) -> None:
        super().__init__(step)
        self._player = player
        self._path = path
        self._on_close = closed
        self._opened_at = anyio.current_time()
        self._websocket = Connection(ConnectionType.SERVER)
        self._out = bytearray()
        self._message, self._stdin = Parts(), bytearray()
        self._closed = False
        player.attached.setdefault(step.job, []).append(self)

    # -- see httpcore.AsyncNetworkStream ------------------------------------------------------------------

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with anyio.move_on_after(timeout) as limit:
            await self._wait()
        if limit.cancelled_caught:
            raise httpcore.ReadTimeout("no data within the read timeout")
        data = bytes(self._out[:max_bytes])
        del self._out[:max_bytes]
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        await anyio.lowlevel.checkpoint()
        self._player.check()
        if self._closed:
            raise httpcore.WriteError("the connection was closed")
        if self._is_closing:
            return
        self._websocket.receive_data(buffer)
        for event in self._websocket.events():
            if isinstance(event, Ping):
                self._out += self._websocket.send(event.response())
            elif isinstance(event, CloseConnection):
                if self._websocket.state is ConnectionState.REMOTE_CLOSING:
                    self._out += self._websocket.send(event.response())
            elif isinstance(event, Message):
                self._take(self._message.add(event))
        self._player.notify(self.step.job)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._player.attached[self.step.job].remove(self)
            self._player.release(self.step.job)
            self._player.notify(self.step.job)
            self._on_close(self)

    def get_extra_info(self, info: str) -> Any:  # noqa: ARG002
        """Return None: there is no socket."""
        return None

    # -- stdin --------------------------------------------------------------------------------------------

    def _take(self, message: bytes) -> None:
        if message == bytes([CLOSE, STDIN]):
            self._request({"close": "stdin"}, b"")
        elif message[:1] == bytes([STDIN]) and message[1:]:
            self._stdin += message[1:]
            length = request_length(self._stdin)
            if length is not None and len(self._stdin) >= length:
                content = bytes(self._stdin)
                self._stdin.clear()
                self._request({}, content)

    def _request(self, query: dict[str, str], content: bytes) -> None:
        self._player.take(ReplayRequest(SEND, self._path, query, content, at=anyio.current_time()))

    # -- messages -----------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Wait for bytes to send, or for the end of the connection."""
        await anyio.lowlevel.checkpoint()
        while not self._out:
            player, response = self._player, self.step.response
            player.check()
            if self._closed:
                raise httpcore.ReadError("the connection was closed")
            if self._websocket.state is ConnectionState.CLOSED:
                return
            chunk = self.left[0] if self.left else self._end()
            found = player.due(chunk, self._opened_at, response.at)
            if found is not None and found <= anyio.current_time():
                if self.left:
                    self._send(self.left.pop(0))
                    self.sent += 1
                    player.release(self.step.job)
                    continue
                if response.ended_by == "server":
                    return
                if response.ended_by in ERRORS or player.matcher.is_superseded(self.step):
                    raise httpcore.ReadError("as recorded: the connection was cut")
                # It ended because the client closed it.
                found = None
            await player.changed(self.step.job, found, chunk)

    def _end(self) -> Chunk:
        """Return when the connection ended: after all that the recorded client had written before."""
        response = self.step.response
        at = response.at if response.ended_at is None else response.ended_at
        return Chunk(at, after=self._player.matcher.sent_before(self.step, at))

    @property
    def _is_closing(self) -> bool:
        return self._websocket.state is not ConnectionState.OPEN

    def _send(self, chunk: Chunk) -> None:
        if self._is_closing:
            return
        if chunk.close is not None:
            self._out += self._websocket.send(CloseConnection(chunk.close, chunk.data.decode("utf-8", "replace")))
        elif chunk.channel == "text":
            self._out += self._websocket.send(TextMessage(chunk.data.decode("utf-8", "replace")))
        elif chunk.channel:
            number = _NUMBERS.get(chunk.channel)
            channel = int(chunk.channel) if number is None else number
            self._out += self._websocket.send(BytesMessage(bytes([channel]) + chunk.data))
        else:
            self._out += chunk.data
