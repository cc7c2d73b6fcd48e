"""Attach over real connections: TLS, client certificates, proxies, renewed credentials, and the pool."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Generator
from contextlib import AsyncExitStack
from threading import Event as ThreadEvent

import anyio
import httpx
import pytest
import trustme
from wsproto.connection import Connection
from wsproto.events import BytesMessage

from gke_sandbox.errors import NetworkError
from gke_sandbox.kube.attach import AttachConnection
from gke_sandbox.kube.auth.impersonation import Impersonation
from gke_sandbox.kube.auth.static import BearerToken, ClientCertificate
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.resources import PODS

from ..websockets import CLOSE, fragments, loopback_attach, message
from .proxy_servers import proxy

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def server_side(ca: trustme.CA, name: str = "127.0.0.1", *, client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        ca.configure_trust(context)
    return context


def pem(ca: trustme.CA) -> bytes:
    return ca.cert_pem.bytes()


async def receive(connection: AttachConnection, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += await anext(connection)
    return received


async def echoes(config: ClusterConfig, data: bytes = b"hello") -> None:
    """Attach, send `data`, and read it again, and then the end."""
    async with KubeClient(config) as client, client.attach("ns", "p", container="c") as connection:
        await connection.send(data)
        assert await receive(connection, len(data)) == data
        await connection.close_stdin()
        assert [chunk async for chunk in connection] == []


async def test_the_credentials_and_certificates_are_those_of_other_requests(ca: trustme.CA) -> None:
    leaf = ca.issue_cert("someone")
    with loopback_attach(server_side(ca, client=True)) as server:
        config = ClusterConfig(
            server=f"https://127.0.0.1:{server.port}",
            ca_data=pem(ca),
            client_certificate=ClientCertificate(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()),
            auth=BearerToken("t0ken"),
            impersonation=Impersonation(user="jane"),
        )
        await echoes(config)
    assert len(server.certificates) == 1
    assert server.requests[0].headers["authorization"] == "Bearer t0ken"
    assert server.requests[0].headers["impersonate-user"] == "jane"


async def test_an_attach_goes_through_a_proxy(ca: trustme.CA) -> None:
    with (
        loopback_attach(server_side(ca, "cluster.example")) as server,
        proxy({"cluster.example:6443": server.port}) as between,
    ):
        config = ClusterConfig(
            server="https://cluster.example:6443",
            ca_data=pem(ca),
            proxy_url=f"http://127.0.0.1:{between.port}",
        )
        await echoes(config)
    assert between.requests == ["CONNECT cluster.example:6443 HTTP/1.1"]


async def test_an_attach_goes_through_a_socks5_proxy(ca: trustme.CA) -> None:
    with (
        loopback_attach(server_side(ca, "cluster.example")) as server,
        proxy({"cluster.example:6443": server.port}, kind="socks5") as between,
    ):
        config = ClusterConfig(
            server="https://cluster.example:6443",
            ca_data=pem(ca),
            proxy_url=f"socks5://127.0.0.1:{between.port}",
        )
        await echoes(config)
    assert between.requests == ["cluster.example:6443"]


class Renewable(httpx.Auth):
    """Credentials that are renewed after a 401."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = "Bearer old"
        response = yield request
        if response.status_code == 401:
            request.headers["Authorization"] = "Bearer new"
            yield request


async def test_after_a_401_the_attach_is_repeated_on_the_same_connection(ca: trustme.CA) -> None:
    with loopback_attach(server_side(ca), refused=1) as server:
        config = ClusterConfig(server=f"https://127.0.0.1:{server.port}", ca_data=pem(ca), auth=Renewable())
        await echoes(config)
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer old", "Bearer new"]
    assert server.connections == 1


async def test_megabytes_in_both_directions_at_once(ca: trustme.CA) -> None:
    data = bytes(range(256)) * (4 << 12)
    with loopback_attach(server_side(ca)) as server:
        config = ClusterConfig(server=f"https://127.0.0.1:{server.port}", ca_data=pem(ca))
        async with (
            KubeClient(config) as client,
            client.attach("ns", "p", container="c") as connection,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(connection.send, data)
            assert await receive(connection, len(data)) == data


async def test_frames_that_arrive_with_the_response_are_not_lost() -> None:
    def serve(connection: socket.socket, websocket: Connection) -> None:
        connection.sendall(message(1) + message(1, b"early") + fragments(b"\1 bird", 3) + CLOSE)

    with loopback_attach(serve=serve) as server:
        config = ClusterConfig(server=f"http://127.0.0.1:{server.port}")
        async with KubeClient(config) as client, client.attach("ns", "p", container="c") as connection:
            assert b"".join([chunk async for chunk in connection]) == b"early bird"


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_cut_connection_is_a_network_error(ca: trustme.CA, tls: bool, reset: bool) -> None:
    def serve(connection: socket.socket, websocket: Connection) -> None:
        connection.sendall(message(1, b"output") + message(1, b"cut")[:3])
        connection.recv(100)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    with loopback_attach(server_side(ca) if tls else None, serve=serve) as server:
        config = ClusterConfig(
            server=f"{'https' if tls else 'http'}://127.0.0.1:{server.port}", ca_data=pem(ca) if tls else None
        )
        async with KubeClient(config) as client, client.attach("ns", "p", container="c") as connection:
            assert await receive(connection, 6) == b"output"
            await connection.send(b"x")
            with pytest.raises(NetworkError, match=f"no complete response from {config.server}"):
                await anext(connection)


async def test_idle_attaches_do_not_prevent_the_reuse_of_connections() -> None:
    with loopback_attach() as server:
        config = ClusterConfig(server=f"http://127.0.0.1:{server.port}")
        async with KubeClient(config) as client, AsyncExitStack() as stack:
            for _ in range(40):
                await stack.enter_async_context(client.attach("ns", "p", container="c"))
            for _ in range(5):
                await client.get(PODS, "ns", "p")
            assert server.connections == 41


async def test_leaving_closes_the_connection_in_a_cancelled_task_too(ca: trustme.CA) -> None:
    def serve(connection: socket.socket, websocket: Connection) -> None:
        while data := connection.recv(1 << 16):
            websocket.receive_data(data)
            received.extend(type(event).__name__ for event in websocket.events())
        received.append("end")
        ended.set()

    with loopback_attach(server_side(ca), serve=serve) as server:
        config = ClusterConfig(server=f"https://127.0.0.1:{server.port}", ca_data=pem(ca))
        async with KubeClient(config) as client:
            received: list[str] = []
            ended = ThreadEvent()
            with anyio.CancelScope() as scope:
                async with client.attach("ns", "p", container="c") as connection:
                    await connection.send(b"x")
                    scope.cancel()
                    await anext(connection)
            await anyio.to_thread.run_sync(ended.wait)
            assert received == [BytesMessage.__name__, "CloseConnection", "end"]
