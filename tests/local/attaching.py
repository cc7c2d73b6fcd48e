"""A WebSocket client for tests of attach: every byte under the control of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpcore
import httpx
import wsproto.connection
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong

from .kit import JOBS, PODS, Kit, job

UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
    "sec-websocket-protocol": "v5.channel.k8s.io",
}
STREAMS = {"container": "code-runner", "stdin": "true", "stdout": "true", "stderr": "true"}
SUCCESS = b'{"metadata":{},"status":"Success"}'


class WebSocket:
    """One connection, after its handshake."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 101, response
        self.stream: httpcore.AsyncNetworkStream = response.extensions["network_stream"]
        self._connection = wsproto.connection.Connection(wsproto.ConnectionType.CLIENT)
        self._events: list[Any] = []

    async def event(self) -> Any:
        """Return the next event; a ``CloseConnection`` with 1006 after the end of the bytes."""
        while not self._events:
            data = await self.stream.read(65_536)
            self._connection.receive_data(data or None)
            self._events += self._connection.events()
        return self._events.pop(0)

    async def receive(self) -> tuple[int, bytes]:
        """Return the channel and the data of the next message."""
        return await self.message(await self.event())

    async def message(self, event: Any) -> tuple[int, bytes]:
        """Return the channel and the data of the message that starts with this event."""
        assert isinstance(event, BytesMessage), event
        message = event.data
        while not event.message_finished:
            event = await self.event()
            assert isinstance(event, BytesMessage), event
            message += event.data
        return message[0], bytes(message[1:])

    async def output(self, size: int | None = None, channel: int = 1) -> bytes:
        """Return `size` bytes of output, or all until the status. The other channels must be silent."""
        data = b""
        while size is None or len(data) < size:
            found, more = await self.receive()
            if size is None and found == 3:
                assert more == SUCCESS
                break
            assert found == channel
            data += more
        return data

    async def closed(self) -> tuple[int, str]:
        """Return the code and reason of the close frame, which must come next."""
        event = await self.event()
        assert isinstance(event, CloseConnection), event
        return int(event.code), event.reason or ""

    async def rest(self) -> tuple[bytes, tuple[int, str]]:
        """Return all remaining output, and the close frame."""
        return await self.output(), await self.closed()

    async def send(self, data: bytes, channel: int = 0) -> None:
        await self.stream.write(self._connection.send(BytesMessage(bytes([channel]) + data)))

    async def send_event(self, event: Any) -> None:
        await self.stream.write(self._connection.send(event))

    async def ping(self, payload: bytes) -> bytes:
        """Send a ping and return the payload of the pong, which must come next."""
        await self.send_event(Ping(payload))
        event = await self.event()
        assert isinstance(event, Pong), event
        return bytes(event.payload)

    async def cut(self) -> None:
        await self.stream.aclose()


def attach_path(pod: str) -> str:
    return f"{PODS}/{pod}/attach"


async def request_attach(
    kit: Kit, *, pod: str | None = None, headers: dict[str, str] | None = None, **query: str
) -> httpx.Response:
    """Send the request to attach to the only pod, by default to all its streams."""
    path = attach_path(pod or kit.pod()["metadata"]["name"])
    upgrade = UPGRADE if headers is None else headers
    request = kit.client.build_request("GET", path, params=query or STREAMS, headers=upgrade)
    response = await kit.client.send(request, stream=True)
    if response.status_code != 101:
        await response.aread()
    return response


@asynccontextmanager
async def attached(kit: Kit, **options: Any) -> AsyncIterator[WebSocket]:
    """Yield a connection to the only pod, after its first, empty message."""
    response = await request_attach(kit, **options)
    websocket = WebSocket(response)
    try:
        assert await websocket.receive() == (1, b"")
        yield websocket
    finally:
        await response.aclose()


async def start(kit: Kit, **container: Any) -> None:
    """Create a Job whose container has stdin, and wait until it runs."""
    await kit.create(JOBS, job(container={"stdin": True, "stdinOnce": True, **container}))
    await kit.phase("Running")


async def log_of(kit: Kit) -> bytes:
    """Return the log of the only pod after its end."""
    async with kit.log(follow="true") as log:
        return await log.all()
