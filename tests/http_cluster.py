"""An embedded cluster behind a real socket, to test the client over a network.

Each HTTP/1.1 connection has a task; responses are forwarded chunk by chunk, as an API server sends them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
import anyio.abc
import h11
import httpcore
import httpx
from anyio.from_thread import start_blocking_portal

from gke_sandbox.local import LocalTransport, choose_runtime


@dataclass
class HttpCluster:
    """A cluster that listens on 127.0.0.1, and its transport."""

    port: int
    transport: LocalTransport

    def kubeconfig(self, directory: Path, namespace: str = "default") -> str:
        """Write a kubeconfig for the cluster into `directory` and return its path."""
        path = directory / "kubeconfig"
        # JSON is YAML.
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{self.port}/prefix"}}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": namespace}}],
                }
            )
        )
        return str(path)


@contextmanager
def http_cluster(*namespaces: str) -> Iterator[HttpCluster]:
    """Serve an embedded cluster in a separate thread while the block runs."""
    transport = LocalTransport(choose_runtime("process"), namespaces=namespaces or ("default",))

    async def serve(*, task_status: anyio.abc.TaskStatus[int]) -> None:
        async with transport, await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            task_status.started(listener.extra(anyio.abc.SocketAttribute.local_port))
            await listener.serve(lambda stream: serve_connection(stream, transport))

    with start_blocking_portal() as portal:
        future, port = portal.start_task(serve)
        try:
            yield HttpCluster(port, transport)
        finally:
            future.cancel()


class Answering(Protocol):
    """Something that responds to requests: a transport or a wrapper around one."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response: ...


async def serve_connection(stream: anyio.abc.SocketStream, transport: Answering) -> None:
    """Respond to the requests of one connection until it is closed."""
    connection = h11.Connection(h11.SERVER)
    async with stream:
        try:
            while True:
                request = await _next_event(stream, connection)
                if not isinstance(request, h11.Request):
                    return
                body = bytearray()
                while isinstance(event := await _next_event(stream, connection), h11.Data):
                    body += event.data
                await _answer(stream, connection, transport, request, bytes(body))
                if connection.our_state is h11.SWITCHED_PROTOCOL:
                    return
                connection.start_next_cycle()
        except (anyio.BrokenResourceError, anyio.EndOfStream, h11.RemoteProtocolError, h11.LocalProtocolError):
            return
        except httpx.TransportError:
            # A fault. Over a socket, each one closes the connection too early.
            return


async def _next_event(stream: anyio.abc.SocketStream, connection: h11.Connection) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        try:
            data = await stream.receive()
        except anyio.EndOfStream:
            data = b""
        connection.receive_data(data)
    return event


async def _answer(
    stream: anyio.abc.SocketStream,
    connection: h11.Connection,
    transport: Answering,
    request: h11.Request,
    body: bytes,
) -> None:
    target = request.target.decode().removeprefix("/prefix")
    answer = await transport.handle_async_request(
        httpx.Request(
            request.method.decode(),
            f"https://embedded.invalid{target}",
            headers=[(name, value) for name, value in request.headers if name != b"content-length"],
            content=body or None,
            extensions={"timeout": {}},
        )
    )
    headers = [
        (name, value)
        for name, value in answer.headers.raw
        if name.lower() not in (b"transfer-encoding", b"content-length")
    ]
    if answer.status_code == 101:
        await stream.send(connection.send(h11.InformationalResponse(status_code=101, headers=headers)))
        await _forward(stream, connection.trailing_data[0], answer.extensions["network_stream"])
        return
    framing = (b"transfer-encoding", b"chunked")
    if answer.status_code == 204:
        framing = (b"x-no", b"body")
    await stream.send(connection.send(h11.Response(status_code=answer.status_code, headers=[*headers, framing])))
    assert isinstance(answer.stream, httpx.AsyncByteStream)
    try:
        async with aclosing(aiter(answer.stream)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                if chunk:
                    await stream.send(connection.send(h11.Data(data=chunk)))
        await stream.send(connection.send(h11.EndOfMessage()))
    finally:
        with anyio.CancelScope(shield=True):
            await answer.stream.aclose()


async def _forward(stream: anyio.abc.SocketStream, first: bytes, inner: httpcore.AsyncNetworkStream) -> None:
    """Forward bytes both ways, until one side ends the connection."""
    async with anyio.create_task_group() as group:

        async def receive() -> None:
            data = first
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, httpcore.WriteError):
                while True:
                    if data:
                        await inner.write(data)
                    data = await stream.receive()
            group.cancel_scope.cancel()

        group.start_soon(receive)
        with suppress(anyio.BrokenResourceError, httpcore.ReadError):
            while data := await inner.read(65536):
                await stream.send(data)
        group.cancel_scope.cancel()
    with anyio.CancelScope(shield=True):
        await inner.aclose()
