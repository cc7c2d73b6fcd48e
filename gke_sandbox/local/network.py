"""A network connection within this process: the client's end as httpcore has it, and the server's end."""

from __future__ import annotations

from typing import Any

import anyio
import httpcore

from .pipe import Pipe


class Connection:
    """The server's end. `client` is the other one."""

    def __init__(self) -> None:
        self._in, self._out = Pipe(), Pipe()
        self.client = ClientStream(self._out, self._in)

    async def receive(self) -> bytes:
        """Return the next bytes from the client, or no bytes after the end of the connection."""
        return await self._in.read()

    async def send(self, data: bytes) -> None:
        """Send all bytes to the client. Wait while it does not read."""
        await self._out.write(data)

    def close(self) -> None:
        """End the connection. The client can still read what was sent. Idempotent."""
        self._in.close(discard=True)
        self._out.close()

    def reset(self) -> None:
        """End the connection with an error. The client gets it after what was sent before."""
        self.client.broken = True
        self.close()


class ClientStream(httpcore.AsyncNetworkStream):
    """The client's end, which is the ``network_stream`` of a response.

    https://www.encode.io/httpcore/network-backends/
    """

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self._in = incoming
        self._out = outgoing
        self._closed = False
        self.broken = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = b""
        with anyio.move_on_after(timeout) as limit:
            data = await self._in.read(max_bytes)
        if limit.cancelled_caught:
            raise httpcore.ReadTimeout("no data within the read timeout")
        if self._closed or (self.broken and not data):
            raise httpcore.ReadError("the connection was closed" if self._closed else "connection reset by peer")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with anyio.move_on_after(timeout) as limit:
            await self._out.write(buffer)
        if limit.cancelled_caught:
            raise httpcore.WriteTimeout("the data was not sent within the write timeout")
        if self._out.closed:
            raise httpcore.WriteError("the connection was closed" if self._closed else "broken pipe")

    async def aclose(self) -> None:
        self._closed = True
        self._in.close(discard=True)
        self._out.close()

    def get_extra_info(self, info: str) -> Any:  # noqa: ARG002
        """Return None: there is no socket."""
        return None
