"""Logs and watches of the client, over a transport in memory."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from gke_sandbox.errors import BadRequest, NetworkError
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.resources import PODS

from ..clock import run_on_mock_clock
from .recordings import recorded, recorded_errors
from .servers import FOREVER, MemoryTransport, ScriptedResponse

pytestmark = pytest.mark.anyio

CONFIG = ClusterConfig(server="https://cluster:6443")


def client(server: MemoryTransport) -> KubeClient:
    return KubeClient(CONFIG, transport=server)


# Logs


async def read_log(server: MemoryTransport, **options: Any) -> list[bytes]:
    async with client(server) as c, c.log("ns", "p", container="code-runner", **options) as chunks:
        return [chunk async for chunk in chunks]


@pytest.mark.parametrize(
    "response", [ScriptedResponse(204, chunks=[]), ScriptedResponse(200, chunks=[]), ScriptedResponse(200, b"")]
)
async def test_a_log_may_be_empty(response: ScriptedResponse) -> None:
    assert b"".join(await read_log(MemoryTransport([response]))) == b""


async def test_a_log_is_the_chunks_as_they_arrive() -> None:
    parts = [b"\x1eout 3\nab", b"\r\x85\xff", b"\n"]
    server = MemoryTransport([ScriptedResponse(chunks=parts)])
    assert await read_log(server) == parts
    assert dict(server.requests[0].url.params) == {"container": "code-runner"}
    assert server.open_streams == 0


async def test_the_log_of_a_container_that_has_not_started_is_a_bad_request() -> None:
    exchange = recorded_errors("log-errors")[0]
    server = MemoryTransport([ScriptedResponse(exchange.status, exchange.body)])
    with pytest.raises(BadRequest, match="is waiting to start: ContainerCreating"):
        await read_log(server, follow=True)
    assert server.open_streams == 0


async def test_a_followed_log_yields_its_chunks_before_the_error() -> None:
    server = MemoryTransport([ScriptedResponse(chunks=[b"one\n", httpx.RemoteProtocolError("cut")])])
    async with client(server) as c, c.log("ns", "p", follow=True) as chunks:
        assert await anext(chunks) == b"one\n"
        with pytest.raises(NetworkError):
            await anext(chunks)
    assert server.open_streams == 0


async def test_a_followed_log_can_be_closed_before_its_end() -> None:
    server = MemoryTransport([ScriptedResponse(chunks=[b"exit\n", b"more\n", FOREVER])])
    async with client(server) as c, c.log("ns", "p", follow=True) as chunks:
        assert await anext(chunks) == b"exit\n"
    assert server.requests[0].url.params["follow"] == "true"
    assert server.open_streams == 0


async def test_a_cancelled_log_is_closed() -> None:
    server = MemoryTransport([ScriptedResponse(chunks=[b"one\n", FOREVER])])
    async with client(server) as c:
        with anyio.move_on_after(0.01):
            async with c.log("ns", "p", follow=True) as chunks:
                async for _ in chunks:
                    continue
        assert server.open_streams == 0


def test_only_a_followed_log_may_be_silent_for_hours() -> None:
    async def main() -> None:
        server = MemoryTransport([ScriptedResponse(chunks=[b"one\n", 7200.0, b"two\n"])])
        assert await read_log(server, follow=True) == [b"one\n", b"two\n"]
        server = MemoryTransport([ScriptedResponse(chunks=[b"one\n", 31.0, b"two\n"])])
        with pytest.raises(NetworkError, match="silent"):
            await read_log(server)

    run_on_mock_clock(main)


# Watches


async def test_a_watch_yields_error_events() -> None:
    exchange = next(e for e in recorded("watch-expired") if e.chunks)
    server = MemoryTransport([ScriptedResponse(chunks=exchange.chunks)])
    async with client(server) as c, c.watch(PODS, "ns", resource_version="1", timeout_seconds=3) as events:
        yielded = [event async for event in events]
    assert [(event.type, event.object["reason"]) for event in yielded] == [("ERROR", "Expired")]


async def test_a_watch_requests_bookmarks_and_has_a_limit_on_silence() -> None:
    server = MemoryTransport([ScriptedResponse(chunks=[])])
    async with client(server) as c, c.watch(PODS, None, timeout_seconds=50) as events:
        assert [event async for event in events] == []
    assert dict(server.requests[0].url.params) == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "50",
    }
    assert server.requests[0].extensions["timeout"]["read"] == 120.0
