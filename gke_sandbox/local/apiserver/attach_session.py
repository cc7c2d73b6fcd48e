"""The server's side of a WebSocket to an attached container.

Each message is binary; its first byte is the channel. With ``v5.channel.k8s.io`` a message 255 N closes channel N.
https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import anyio
import wsproto.connection
from anyio.abc import TaskGroup
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping

from ...kube.attach import SUBPROTOCOL
from ..controllers.container_streams import Attachment, Stream
from ..faults import AttachAction, CloseAttach, CutAttach, DelayAttach, GarbleAttach, StallAttach
from ..faulty_attach import by_direction
from ..network import ClientStream, Connection

_STDIN, _STATUS, _CLOSE = 0, 3, 255
_OUTPUT: dict[Stream, int] = {"stdout": 1, "stderr": 2}
# The server reports success whatever happened to the container (recorded).
_SUCCESS = json.dumps({"metadata": {}, "status": "Success"}, separators=(",", ":")).encode()
MAX_CHUNK = 32 * 1024


class AttachSession:
    """One connection, from the handshake to its end. `attach` attaches it to the container."""

    def __init__(
        self, attach: Callable[[], Attachment], first: Stream | None, protocol: str, faults: Sequence[AttachAction]
    ) -> None:
        self._attach = attach
        self._first_channel = _STATUS if first is None else _OUTPUT[first]
        self._protocol = protocol
        self._output_faults, self._input_faults = by_direction(faults)
        self._websocket = wsproto.connection.Connection(wsproto.ConnectionType.SERVER)
        self._connection = Connection()
        self._sending = anyio.Lock()
        self._scope = anyio.CancelScope()
        self._stalled = False
        self._message = bytearray()

    def start(self, tasks: TaskGroup) -> ClientStream:
        """Attach, serve the connection in a task, and return the client's end."""
        tasks.start_soon(self._run, self._attach())
        return self._connection.client

    async def _run(self, attachment: Attachment) -> None:
        """Copy both ways until one side ends the connection."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._receive, attachment)
                    tasks.start_soon(self._break, attachment)
                    await self._send_output(attachment)
                    self._end()
        finally:
            attachment.close()
            self._connection.close()

    def cut(self) -> None:
        """Break the connection."""
        self._connection.reset()
        self._scope.cancel()

    def _end(self) -> None:
        """End the connection normally: what was sent still arrives."""
        self._connection.close()
        self._scope.cancel()

    async def _break(self, attachment: Attachment) -> None:
        await attachment.broken.wait()
        self.cut()

    # Output.

    async def _send_output(self, attachment: Attachment) -> None:
        await self._send_channel(self._first_channel, b"", first=True)
        while (chunk := await attachment.next()) is not None:
            stream, data = chunk
            for start in range(0, len(data), MAX_CHUNK):
                await self._send_channel(_OUTPUT[stream], data[start : start + MAX_CHUNK])
        await self._send(BytesMessage(bytes([_STATUS]) + _SUCCESS))
        await self._send(CloseConnection(1000, ""))

    async def _send_channel(self, channel: int, data: bytes, *, first: bool = False) -> None:
        """Send a message, and apply the faults in it."""
        for piece, fault in self._output_faults.split(data):
            if isinstance(fault, CutAttach) and fault.inside_frame:
                frame = self._websocket.send(BytesMessage(bytes([channel]) + piece + b"\0"))
                await self._connection.send(frame[:-1])
            elif piece:
                await self._send(BytesMessage(bytes([channel]) + piece))
            if fault is not None:
                await self._misbehave(fault)
        if first:
            await self._send(BytesMessage(bytes([channel])))

    async def _send(self, event: Event) -> None:
        """Send an event, unless the connection is closing."""
        async with self._sending:
            state = self._websocket.state
            is_reply = state is ConnectionState.REMOTE_CLOSING and isinstance(event, CloseConnection)
            if state is ConnectionState.OPEN or is_reply:
                await self._connection.send(self._websocket.send(event))

    async def _misbehave(self, fault: AttachAction) -> None:
        if isinstance(fault, DelayAttach):
            await anyio.sleep(fault.seconds)
        elif isinstance(fault, StallAttach):
            self._stalled = True
            await anyio.sleep_forever()
        elif isinstance(fault, CutAttach) and not fault.clean:
            self.cut()
        else:
            if isinstance(fault, CloseAttach):
                await self._send(CloseConnection(fault.code, fault.reason))
            elif isinstance(fault, GarbleAttach):
                await self._connection.send(fault.garbage)
            self._end()
        await anyio.lowlevel.checkpoint()

    # Input.

    async def _receive(self, attachment: Attachment) -> None:
        while data := await self._connection.receive():
            if self._stalled:
                continue
            self._websocket.receive_data(data)
            for event in self._websocket.events():
                await self._handle(event, attachment)
        self._end()

    async def _handle(self, event: Event, attachment: Attachment) -> None:
        if isinstance(event, Ping):
            await self._send(event.response())
        elif isinstance(event, CloseConnection):
            await self._send(event.response())
            self._end()
            await anyio.lowlevel.checkpoint()
        elif isinstance(event, Message):
            # The server takes each frame for a message, also the fragments of one message.
            data = event.data
            self._message += data.encode() if isinstance(data, str) else data
            if event.frame_finished:
                message = bytes(self._message)
                self._message.clear()
                await self._handle_message(message, attachment)

    async def _handle_message(self, message: bytes, attachment: Attachment) -> None:
        if message[:1] == bytes([_STDIN]):
            for piece, fault in self._input_faults.split(message[1:]):
                await attachment.write(piece)
                if fault is not None:
                    await self._misbehave(fault)
        elif message == bytes([_CLOSE, _STDIN]) and self._protocol == SUBPROTOCOL:
            attachment.close_stdin()
