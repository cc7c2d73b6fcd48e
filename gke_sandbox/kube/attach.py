"""The WebSocket of an attach: the upgrade, channels, close codes, pings. `KubeClient.attach` opens it.

wsproto encodes and decodes the frames. The session of httpx-ws is not used: it processes no pongs while nothing is
received and therefore closes an idle connection, it has no limit on the size of a message, and closing it may wait
without a limit. Here, the task that iterates reads from the network itself.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import httpcore
import httpx

from ..errors import ConfigError, NetworkError
from .http.transport import CLOSE_TIMEOUT, REQUEST_TIMEOUT, NetworkErrors
from .status import RequestInfo, plain

if TYPE_CHECKING:
    from wsproto.connection import Connection

__all__ = [
    "SUBPROTOCOL",
    "AttachConnection",
    "accept_header",
    "require_websockets",
    "upgrade_headers",
    "upgrade_problem",
]

logger = logging.getLogger(__name__)

SUBPROTOCOL = "v5.channel.k8s.io"
"""The version that can close stdin. https://kubernetes.io/blog/2024/08/20/websockets-transition/"""

MAX_SENT_MESSAGE = 1 << 16
"""Bytes of stdin in one message."""
MAX_READ = 1 << 16
"""Bytes that are read from the network at once. Nothing else is buffered."""
MAX_STATUS = 1 << 10
MAX_UNSENT = 1 << 12
"""Bytes of unsent pongs after which no pong is sent."""

PING_INTERVAL = 20.0
"""Seconds of silence before a ping."""
PONG_TIMEOUT = 20.0
MIN_WAIT = 1.0
"""Seconds that a read waits at least: a response to the ping may have arrived while nothing was read."""
SUSPENDED_AFTER = 0.5
"""Seconds. If a timer is late by more than this, this process was suspended, and a response may have arrived."""

_STDIN, _STDOUT, _STDERR, _STATUS, _CLOSE = 0, 1, 2, 3, 255
_NORMAL_CLOSURE, _PROTOCOL_ERROR = 1000, 1002
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # https://www.rfc-editor.org/rfc/rfc6455#section-1.3
_BROKEN = (
    httpcore.NetworkError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    ssl.SSLError,
)
"""The exceptions of a broken connection. httpx converts them only for responses."""


def require_websockets() -> None:
    """Raise `ConfigError` if the package for WebSockets is missing."""
    try:
        import wsproto.connection  # noqa: F401
    except ImportError:
        raise ConfigError(
            "attaching to a pod requires the package wsproto, which is not installed",
            hint="Install it with: pip install 'gke-sandbox[warm]'.",
        ) from None


def upgrade_headers() -> dict[str, str]:
    """Return the headers of a request for a WebSocket."""
    # https://www.rfc-editor.org/rfc/rfc6455#section-4.1
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
    }


def accept_header(key: str) -> str:
    """Return the ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key``."""
    digest = hashlib.sha1(key.encode() + _ACCEPT_GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def upgrade_problem(request: Mapping[str, str], status: int, response: Mapping[str, str]) -> str:
    """Return why a response that is not an error opens no WebSocket, or an empty string if it does.

    `request` and `response` are the headers.
    """
    if status != 101:
        return "it is not a WebSocket"
    if response.get("sec-websocket-accept", "") != accept_header(request["Sec-WebSocket-Key"]):
        return "its Sec-WebSocket-Accept does not match the request"
    protocol = response.get("sec-websocket-protocol", "")
    if protocol != SUBPROTOCOL:
        return f"its subprotocol must be {SUBPROTOCOL}, got '{plain(protocol, 50)}'"
    return ""


class AttachConnection:
    """stdin and stdout of a container, over a WebSocket. Its stderr is in the log only.

    Iterate over it for the bytes of stdout, split anywhere. Iteration ends when the server closes the connection
    with code 1000, which it does when the container has ended, however that happened. It raises `NetworkError` if
    the connection is cut, closed with another code, does not respond to a ping, or violates the protocol. A
    cancelled iteration loses nothing and can be continued, but only one task at a time can iterate.

    Nothing is read while you do not iterate, so that a slow reader slows the container down. Pings and
    pongs are therefore sent only while you iterate: iterate over an idle connection too, to keep it open and to
    learn about its end.
    """

    def __init__(self, stream: Any, info: RequestInfo, network_errors: NetworkErrors) -> None:
        from wsproto.connection import Connection, ConnectionType

        # The stream of httpcore: `read`, `write`, `aclose`. https://www.encode.io/httpcore/network-backends/
        self._stream = stream
        self._info = info
        self._network_errors = network_errors
        self._websocket: Connection = Connection(ConnectionType.CLIENT)
        self._ended = False
        # Why the connection cannot be used any more, if it did not end normally.
        self._problem = ""
        self._channel: int | None = None
        self._stdout: list[bytes] = []
        self._status = bytearray()
        self._unsent = bytearray()
        # Whether nothing can be written any more: the connection was cut, or a frame was sent in part.
        self._torn = False
        # Whether a part of the data for stdin may be missing.
        self._stdin_broken = False
        self._close_code = _NORMAL_CLOSURE
        self._write_lock = anyio.Lock(fast_acquire=True)
        self._ping_sent = False
        self._quiet_since = anyio.current_time()

    def __aiter__(self) -> AttachConnection:
        return self

    async def __anext__(self) -> bytes:
        while not self._stdout:
            if self._ended:
                raise StopAsyncIteration
            self._raise_problem()
            self._decode(await self._read())
            await self._flush_control_frames()
        chunk = b"".join(self._stdout)
        self._stdout.clear()
        return chunk

    async def send(self, data: bytes) -> None:
        """Send `data` to stdin. Return when it was handed to the network.

        Raise `NetworkError` if the connection is closed, or if it takes no bytes for 30 s. If the container may
        write a lot before it has read everything, iterate in another task at the same time. After a `send` that
        failed or was cancelled, only iteration is possible.
        """
        try:
            for start in range(0, len(data), MAX_SENT_MESSAGE):
                await self._send_message(_STDIN, data[start : start + MAX_SENT_MESSAGE])
        except BaseException:
            self._stdin_broken = True
            raise

    async def close_stdin(self) -> None:
        """Close stdin: the container reads the end of the file. Do not send anything after it."""
        await self._send_message(_CLOSE, bytes([_STDIN]))

    async def aclose(self) -> None:
        """Send a close frame, if that is possible at once. Closing the response then closes the connection."""
        from wsproto.connection import ConnectionState
        from wsproto.events import CloseConnection

        if self._torn or self._write_lock.locked():
            return
        if self._websocket.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            self._unsent += self._websocket.send(CloseConnection(self._close_code))
            await self._flush_control_frames()

    def _raise_problem(self) -> None:
        if self._problem:
            with self._network_errors():
                raise httpx.RemoteProtocolError(self._problem)

    # Receiving

    async def _read(self) -> bytes:
        """Return the next bytes from the network. Send a ping after a silence, and fail if it has no response."""
        while True:
            limit = PONG_TIMEOUT if self._ping_sent else PING_INTERVAL
            data = None
            with anyio.move_on_after(max(self._quiet_since + limit - anyio.current_time(), MIN_WAIT)) as scope:
                data = await self._read_once()
            if data:
                self._ping_sent = False
                self._quiet_since = anyio.current_time()
                return data
            if data is not None:
                self._cut("the connection was cut: it ended without a close frame")
            elif self._ping_sent and anyio.current_time() - scope.deadline > SUSPENDED_AFTER:
                continue
            elif self._ping_sent:
                self._cut(f"there was no response to a ping within {PONG_TIMEOUT:g} s")
            else:
                await self._ping()
            self._raise_problem()

    async def _read_once(self) -> bytes:
        with self._network_errors():
            try:
                data: bytes = await self._stream.read(MAX_READ)
            except _BROKEN as error:
                self._cut("the connection was cut")
                raise httpx.ReadError(str(error)) from error
        return data

    def _cut(self, problem: str) -> None:
        self._problem = problem
        self._torn = True

    async def _ping(self) -> None:
        from wsproto.events import Ping

        self._ping_sent = True
        self._quiet_since = anyio.current_time()
        self._unsent += self._websocket.send(Ping())
        await self._flush_control_frames()

    def _decode(self, data: bytes) -> None:
        from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

        self._websocket.receive_data(data)
        for event in self._websocket.events():
            if isinstance(event, BytesMessage):
                # The parts of a message are passed on as they arrive, so no message is too large.
                self._take(bytes(event.data))
                if event.message_finished:
                    self._finish_message()
            elif isinstance(event, TextMessage):
                self._violation("a text message")
            elif isinstance(event, CloseConnection):
                self._take_close(event)
            elif isinstance(event, Ping) and len(self._unsent) < MAX_UNSENT:
                self._unsent += self._websocket.send(event.response())
            if self._problem or self._ended:
                return

    def _take(self, data: bytes) -> None:
        """Process a part of a message. The first byte of the message is the channel."""
        if self._channel is None:
            if not data:
                return
            self._channel, data = data[0], data[1:]
            if self._channel not in (_STDOUT, _STDERR, _STATUS, _CLOSE):
                self._violation(f"a message on channel {self._channel}")
        if not data:
            return
        if self._channel == _STDOUT:
            self._stdout.append(data)
        elif self._channel == _STATUS:
            self._status += data[: MAX_STATUS - len(self._status)]

    def _finish_message(self) -> None:
        if self._channel == _STATUS:
            # It is "Success" even if the container was killed, so nothing depends on it.
            logger.debug("%s: status %s", self._info, plain(self._status.decode("utf-8", "replace"), MAX_STATUS))
            self._status.clear()
        self._channel = None

    def _violation(self, text: str, code: int = _PROTOCOL_ERROR) -> None:
        self._problem = f"the server violated the protocol: {text}"
        self._close_code = code

    def _take_close(self, event: Any) -> None:
        from wsproto.connection import ConnectionState

        self._close_code = event.code
        reason = plain(event.reason or "", 200)
        if self._websocket.state is ConnectionState.OPEN:
            # wsproto reports bytes that are not valid in this form.
            self._violation(reason, event.code)
        elif event.code != _NORMAL_CLOSURE:
            self._problem = f"the server closed the connection with code {event.code:d}"
            self._problem += f" ({reason})" if reason else ""
        elif self._channel is not None:
            self._problem = "the server closed the connection in the middle of a message"
        else:
            self._ended = True

    # Sending

    async def _send_message(self, channel: int, data: bytes) -> None:
        from wsproto.events import BytesMessage

        async with self._write_lock:
            self._raise_if_unwritable()
            self._unsent += self._websocket.send(BytesMessage(bytes([channel]) + data))
            await self._write(REQUEST_TIMEOUT.write)

    def _raise_if_unwritable(self) -> None:
        self._raise_problem()
        if self._ended or self._torn or self._stdin_broken:
            why = "the server has closed the connection" if self._ended else "an earlier write was interrupted"
            with self._network_errors():
                raise httpx.WriteError(why)

    async def _flush_control_frames(self) -> None:
        """Send pings, pongs and the close frame, even if the task is cancelled: half a frame ends the connection.

        If another task is writing, it sends them. Errors are ignored: reading reports them.
        """
        if self._unsent and not self._torn and not self._write_lock.locked():
            with anyio.CancelScope(shield=True), suppress(NetworkError):
                async with self._write_lock:
                    await self._write(CLOSE_TIMEOUT)

    async def _write(self, timeout: float | None) -> None:
        """Write everything that is unsent. The caller holds the lock."""
        while self._unsent:
            data = bytes(self._unsent)
            self._unsent.clear()
            self._torn = True
            with self._network_errors():
                try:
                    with anyio.fail_after(timeout):
                        await self._stream.write(data)
                except _BROKEN as error:
                    raise httpx.WriteError(str(error)) from error
                except TimeoutError as error:
                    raise httpx.WriteTimeout("") from error
            self._torn = False
