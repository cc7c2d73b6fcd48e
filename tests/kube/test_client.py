"""The requests of the client and its results, over a transport in memory."""

from __future__ import annotations

import gzip
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from pytest_httpx import HTTPXMock

from gke_sandbox import __version__
from gke_sandbox.errors import ConfigError, Forbidden, NetworkError, NotFound, ServerError, SpecError
from gke_sandbox.kube.auth.static import BearerToken, TokenFile
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.http.body import ResponseBody
from gke_sandbox.kube.resources import CONFIG_MAPS, JOBS, NAMESPACES, PODS
from gke_sandbox.kube.retry import is_retryable

from ..clock import run_on_mock_clock
from .recordings import recorded, recorded_errors
from .servers import FOREVER, MemoryTransport, ScriptedResponse, loopback

pytestmark = pytest.mark.anyio

CONFIG = ClusterConfig(server="https://cluster:6443")
JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}}


def client(server: MemoryTransport, config: ClusterConfig = CONFIG) -> KubeClient:
    return KubeClient(config, transport=server)


async def test_the_transport_is_entered_and_closed_with_the_client() -> None:
    server = MemoryTransport([])
    async with client(server):
        assert (server.entered, server.closed) == (1, 0)
    assert (server.entered, server.closed) == (1, 1)


async def test_the_repr_is_the_address() -> None:
    config = ClusterConfig(server="https://cluster/prefix/", auth=BearerToken("t0ken"))
    assert repr(KubeClient(config)) == "KubeClient('https://cluster/prefix')"


async def test_a_client_that_was_not_entered_cannot_be_used() -> None:
    outside = client(MemoryTransport([]))
    with pytest.raises(RuntimeError, match="async with"):
        await outside.get(PODS, "ns", "a")


REQUESTS: list[tuple[Callable[[KubeClient], Awaitable[object]], str, str, dict[str, str], Any]] = [
    (lambda c: c.create(JOBS, "ns", JOB), "POST", "/apis/batch/v1/namespaces/ns/jobs", {}, JOB),
    (
        lambda c: c.create(JOBS, "ns", JOB, field_validation="Strict", dry_run=True),
        "POST",
        "/apis/batch/v1/namespaces/ns/jobs",
        {"fieldValidation": "Strict", "dryRun": "All"},
        JOB,
    ),
    (lambda c: c.get(NAMESPACES, None, "ns"), "GET", "/api/v1/namespaces/ns", {}, None),
    (lambda c: c.get(PODS, "ns", "a b?"), "GET", "/api/v1/namespaces/ns/pods/a%20b%3F", {}, None),
    (lambda c: c.list(PODS, "ns"), "GET", "/api/v1/namespaces/ns/pods", {}, None),
    (lambda c: c.list(PODS, None), "GET", "/api/v1/pods", {}, None),
    (
        lambda c: c.list(
            PODS, "ns", label_selector="a in (b, c)", field_selector="x=y&z", limit=5, continue_="page 2"
        ),
        "GET",
        "/api/v1/namespaces/ns/pods",
        {"labelSelector": "a in (b, c)", "fieldSelector": "x=y&z", "limit": "5", "continue": "page 2"},
        None,
    ),
    (lambda c: c.delete(PODS, "ns", "a"), "DELETE", "/api/v1/namespaces/ns/pods/a", {}, None),
    (
        lambda c: c.delete(
            JOBS,
            "ns",
            "j",
            propagation_policy="Background",
            preconditions={"uid": "u", "resourceVersion": "7"},
        ),
        "DELETE",
        "/apis/batch/v1/namespaces/ns/jobs/j",
        {},
        {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": "u", "resourceVersion": "7"},
        },
    ),
]


@pytest.mark.parametrize(("send", "method", "path", "query", "body"), REQUESTS)
async def test_each_method_sends_the_right_request(
    send: Callable[[KubeClient], Awaitable[object]], method: str, path: str, query: dict[str, str], body: Any
) -> None:
    server = MemoryTransport([ScriptedResponse(body={"kind": "Answer"})])
    async with client(server) as c:
        assert await send(c) == {"kind": "Answer"}
    request = server.requests[0]
    assert (request.method, request.url.raw_path.decode().partition("?")[0]) == (method, path)
    assert dict(request.url.params) == query
    assert (json.loads(request.content) if request.content else None) == body
    assert request.headers.get("content-type") == (None if body is None else "application/json")
    assert server.open_streams == 0


async def test_the_body_of_a_request_is_utf_8_without_escapes_of_characters() -> None:
    server = MemoryTransport([ScriptedResponse(body={})])
    async with client(server) as c:
        await c.create(CONFIG_MAPS, "ns", {"data": {"code": "é€😀\n"}})
    assert server.requests[0].content == '{"data":{"code":"é€😀\\n"}}'.encode()


async def test_the_delete_options_equal_those_of_a_recording() -> None:
    document = json.loads((Path(__file__).with_name("recorded") / "already-exists.json").read_text())
    sent = next(e["request"]["body"] for e in document["exchanges"] if "body" in e["request"])
    server = MemoryTransport([ScriptedResponse(body={})])
    async with client(server) as c:
        await c.delete(JOBS, "ns", "j", propagation_policy="Background")
    assert json.loads(server.requests[0].content) == sent


async def test_requests_have_a_user_agent_and_accept_json() -> None:
    server = MemoryTransport([ScriptedResponse(body={})])
    async with client(server) as c:
        await c.get(PODS, "ns", "a")
    headers = server.requests[0].headers
    assert headers["user-agent"] == f"gke-sandbox/{__version__}"
    assert headers["accept"] == "application/json, */*"


@pytest.mark.parametrize("allowed", [True, False])
async def test_complete_responses_may_be_compressed_and_streams_may_not(allowed: bool) -> None:
    server = MemoryTransport(
        [ScriptedResponse(body={}), ScriptedResponse(body=b"line\n"), ScriptedResponse(body=b"")]
    )
    async with client(server, replace(CONFIG, disable_compression=not allowed)) as c:
        await c.get(PODS, "ns", "a")
        async with c.log("ns", "a") as chunks:
            assert [chunk async for chunk in chunks] == [b"line\n"]
        async with c.watch(PODS, "ns") as events:
            assert [event async for event in events] == []
    accepted = [request.headers["accept-encoding"] for request in server.requests]
    assert accepted == ["gzip" if allowed else "identity", "identity", "identity"]


async def test_a_compressed_response_is_decompressed() -> None:
    packed = gzip.compress(json.dumps({"kind": "Pod", "text": "x" * 1000}).encode())
    chunks = [packed[at : at + 7] for at in range(0, len(packed), 7)]
    server = MemoryTransport([ScriptedResponse(200, chunks=chunks, headers=[("content-encoding", "gzip")])])
    async with client(server) as c:
        assert await c.get(PODS, "ns", "a") == {"kind": "Pod", "text": "x" * 1000}


async def test_a_compressed_error_response_is_decompressed() -> None:
    packed = gzip.compress(b'{"kind":"Status","code":404,"reason":"NotFound","message":"no such pod"}')
    server = MemoryTransport([ScriptedResponse(404, packed, headers=[("content-encoding", "gzip")])])
    async with client(server) as c:
        with pytest.raises(NotFound, match="no such pod"):
            await c.get(PODS, "ns", "a")


@pytest.mark.parametrize("damage", [lambda packed: packed[:-3], lambda packed: b"\x1f\x8b", lambda packed: b"{}"])
async def test_a_damaged_compressed_response_is_a_network_error(damage: Callable[[bytes], bytes]) -> None:
    packed = damage(gzip.compress(b'{"kind":"Pod"}'))
    server = MemoryTransport([ScriptedResponse(200, packed, headers=[("content-encoding", "gzip")])])
    async with client(server) as c:
        with pytest.raises(
            NetworkError, match="no complete response from https://cluster:6443: the compressed response"
        ):
            await c.get(PODS, "ns", "a")
    assert server.open_streams == 0


async def test_decompression_stops_at_the_size_limit() -> None:
    packed = httpx.ByteStream(gzip.compress(b" " * (1 << 20)))
    response = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=packed)
    body = ResponseBody(response, nullcontext)
    try:
        assert await body.read(100) == (b" " * 100, False)
    finally:
        await body.aclose()


@pytest.mark.parametrize("prefix", ["/v1/projects/7/gkeMemberships/m", "/v1/projects/7/gkeMemberships/m/"])
async def test_the_path_of_the_servers_address_is_kept(prefix: str) -> None:
    server = MemoryTransport([ScriptedResponse(body={})])
    async with client(server, ClusterConfig(server=f"https://gateway{prefix}")) as c:
        await c.get(PODS, "ns", "a")
    assert server.requests[0].url.path == "/v1/projects/7/gkeMemberships/m/api/v1/namespaces/ns/pods/a"


async def test_an_invalid_name_is_rejected_before_any_request() -> None:
    server = MemoryTransport([])
    async with client(server) as c:
        with pytest.raises(SpecError):
            await c.get(PODS, "../..", "a")
        with pytest.raises(SpecError):
            async with c.log("ns", "a/b"):
                raise AssertionError("nothing is open")
    assert server.requests == []


# Credentials


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        (BearerToken("t0ken"), "Bearer t0ken"),
        (httpx.BasicAuth("me", "pass:wörd"), "Basic bWU6cGFzczp3w7ZyZA=="),
        (None, None),
    ],
)
async def test_credentials_are_sent_over_https(auth: httpx.Auth | None, expected: str | None) -> None:
    server = MemoryTransport([ScriptedResponse(body={})])
    async with client(server, ClusterConfig(server="https://cluster", auth=auth)) as c:
        await c.get(PODS, "ns", "a")
    assert server.requests[0].headers.get("authorization") == expected


async def test_credentials_are_not_sent_over_plain_http() -> None:
    server = MemoryTransport([ScriptedResponse(body={})])
    async with client(server, ClusterConfig(server="http://cluster", auth=BearerToken("t0ken"))) as c:
        await c.get(PODS, "ns", "a")
    assert "authorization" not in server.requests[0].headers


async def test_a_redirect_is_not_followed() -> None:
    server = MemoryTransport([ScriptedResponse(302, headers=[("location", "http://elsewhere/")])])
    async with client(server, ClusterConfig(server="https://cluster", auth=BearerToken("t0ken"))) as c:
        with pytest.raises(ServerError, match="redirect"):
            await c.get(PODS, "ns", "a")
    assert len(server.requests) == 1


async def test_a_netrc_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine cluster login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server = MemoryTransport([ScriptedResponse(body={})])
    async with client(server) as c:
        await c.get(PODS, "ns", "a")
    assert "authorization" not in server.requests[0].headers


async def test_a_missing_token_file_is_a_config_error(tmp_path: Path) -> None:
    server = MemoryTransport([ScriptedResponse(body={})])
    auth = TokenFile(tmp_path / "token", source="tokenFile of u")
    async with client(server, ClusterConfig(server="https://cluster", auth=auth)) as c:
        with pytest.raises(ConfigError, match="tokenFile of u"):
            await c.get(PODS, "ns", "a")


# Responses


async def test_a_recorded_error_response_is_raised() -> None:
    exchange = recorded_errors("forbidden")[0]
    server = MemoryTransport(
        [ScriptedResponse(exchange.status, exchange.body, headers=list(exchange.headers.items()))]
    )
    async with client(server) as c:
        with pytest.raises(Forbidden) as caught:
            await c.create(JOBS, "agent-sandbox", JOB)
    assert 'cannot create resource "jobs"' in caught.value.message
    assert server.open_streams == 0


@pytest.mark.parametrize("body", [b"", b'{"kind": "Jo', b"<html>"])
async def test_a_2xx_response_without_an_object_is_a_server_error(body: bytes) -> None:
    async with client(MemoryTransport([ScriptedResponse(201, body)])) as c:
        with pytest.raises(ServerError):
            await c.create(JOBS, "ns", JOB)


@pytest.mark.parametrize(("encoding", "allowed"), [("gzip", False), ("br", True), ("deflate", True)])
async def test_a_compression_that_was_not_requested_is_a_server_error(encoding: str, allowed: bool) -> None:
    server = MemoryTransport([ScriptedResponse(200, b"\x1f\x8b", headers=[("content-encoding", encoding)])])
    async with client(server, replace(CONFIG, disable_compression=not allowed)) as c:
        with pytest.raises(ServerError, match="compressed"):
            await c.get(PODS, "ns", "a")
    assert server.open_streams == 0


async def test_pytest_httpx_can_replace_the_network(httpx_mock: HTTPXMock) -> None:
    """The tests of a user may patch the transport of httpx, and the client uses it."""
    url = "http://cluster/api/v1/namespaces/ns/pods?labelSelector=a%3Db"
    httpx_mock.add_response(url=url, json={"items": []})
    async with KubeClient(ClusterConfig(server="http://cluster")) as c:
        assert await c.list(PODS, "ns", label_selector="a=b") == {"items": []}


# No response


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ConnectTimeout(""), False),
        (httpx.PoolTimeout(""), False),
        (httpx.InvalidURL("too long"), False),
        (httpx.ReadTimeout(""), True),
        (httpx.WriteTimeout(""), True),
        (httpx.ReadError("reset"), True),
        (httpx.WriteError("reset"), True),
        (httpx.CloseError("reset"), True),
        (httpx.RemoteProtocolError("cut"), True),
        (httpx.LocalProtocolError("Illegal header value b'Bearer s3cret'"), False),
        (httpx.ProxyError("no"), False),
        (httpx.UnsupportedProtocol("no"), False),
        (httpx.DecodingError("no"), True),
        (httpx.TooManyRedirects("no"), True),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_each_error_of_httpx_is_a_network_error(error: Exception, sent: bool) -> None:
    async with client(MemoryTransport([error])) as c:
        with pytest.raises(NetworkError) as caught:
            await c.create(JOBS, "ns", JOB)
    assert caught.value.sent is sent
    assert caught.value.request == "POST /apis/batch/v1/namespaces/ns/jobs"
    assert "https://cluster:6443" in caught.value.message
    assert "s3cret" not in caught.value.message


async def test_a_request_that_httpx_refuses_was_not_sent_and_is_not_retried() -> None:
    class InvalidHeader(httpx.AsyncBaseTransport):
        def __init__(self, network: httpx.AsyncBaseTransport) -> None:
            self._network = network

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            request.headers["Authorization"] = "Bearer s3cret "
            return await self._network.handle_async_request(request)

        async def aclose(self) -> None:
            await self._network.aclose()

    with loopback() as (port, received):
        config = ClusterConfig(server=f"http://127.0.0.1:{port}")
        async with KubeClient(config, transport_wrapper=InvalidHeader) as c:
            with pytest.raises(NetworkError) as caught:
                await c.get(PODS, "ns", "a")
    assert not received
    assert caught.value.sent is False
    assert not is_retryable(caught.value)
    assert caught.value.message.endswith(": Illegal header value")


async def test_after_a_truncated_response_the_request_counts_as_sent() -> None:
    server = MemoryTransport([ScriptedResponse(chunks=[b'{"kind"', httpx.RemoteProtocolError("cut")])])
    async with client(server) as c:
        with pytest.raises(NetworkError) as caught:
            await c.create(JOBS, "ns", JOB)
    assert caught.value.sent
    assert server.open_streams == 0


async def test_the_message_contains_the_error_of_the_operating_system() -> None:
    broken = httpx.ConnectError("All connection attempts failed")
    broken.__cause__ = OSError("All connection attempts failed")
    broken.__cause__.__cause__ = ConnectionRefusedError(111, "Connection refused")
    async with client(MemoryTransport([broken])) as c:
        try:
            raise FileNotFoundError(2, "No such file")
        except FileNotFoundError:
            with pytest.raises(NetworkError, match="Connection refused"):
                await c.get(PODS, "ns", "a")
            # The exception that the caller is handling does not count.
            broken.__cause__ = None
            with pytest.raises(NetworkError, match="attempts failed"):
                await client_of(broken)


async def client_of(error: Exception) -> None:
    async with client(MemoryTransport([error])) as c:
        await c.get(PODS, "ns", "a")


async def test_the_message_for_a_name_that_does_not_resolve_contains_the_cause() -> None:
    broken = httpx.ConnectError("[Errno -2] Name or service not known")
    broken.__cause__ = socket.gaierror(-2, "Name or service not known")
    async with client(MemoryTransport([broken])) as c:
        with pytest.raises(NetworkError, match="Name or service not known"):
            await c.get(PODS, "ns", "a")


def test_a_request_waits_30_seconds_for_its_response() -> None:
    async def main() -> float:
        async with client(MemoryTransport([ScriptedResponse(delay=FOREVER)])) as c:
            before = anyio.current_time()
            with pytest.raises(NetworkError, match="silent") as caught:
                await c.create(CONFIG_MAPS, "ns", {})
            assert caught.value.sent
            return anyio.current_time() - before

    assert run_on_mock_clock(main) == 30.0


async def test_there_is_no_limit_on_waiting_for_a_connection() -> None:
    server = MemoryTransport([ScriptedResponse(body={})])
    async with client(server) as c:
        await c.get(PODS, "ns", "a")
    assert server.requests[0].extensions["timeout"] == {"connect": 10.0, "read": 30.0, "write": 30.0, "pool": None}


async def test_round_trips_are_measured_only_on_the_network() -> None:
    server = MemoryTransport([ScriptedResponse(body={})])
    async with client(server) as c:
        await c.get(PODS, "ns", "a")
        assert c.round_trip is None


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Fri, 27 Nov 2026 08:35:11 GMT", datetime(2026, 11, 27, 8, 35, 11, tzinfo=timezone.utc)),
        ("Fri, 27 Nov 2026 08:35:11 -0000", datetime(2026, 11, 27, 8, 35, 11, tzinfo=timezone.utc)),
        ("Fri, 27 Nov 2026 08:35:11 +0100", datetime(2026, 11, 27, 7, 35, 11, tzinfo=timezone.utc)),
        ("Fri, 31 Dec 9999 23:00:00 -2300", None),
        ("soon", None),
        (None, None),
    ],
)
async def test_the_time_of_the_server_is_that_of_the_last_response(date: str | None, expected: object) -> None:
    first = [("date", "Thu, 26 Nov 2026 00:00:00 GMT")]
    second = [] if date is None else [("date", date)]
    server = MemoryTransport([ScriptedResponse(body={}, headers=headers) for headers in (first, second)])
    async with client(server) as c:
        assert c.server_time is None
        await c.get(PODS, "ns", "a")
        assert c.server_time == datetime(2026, 11, 26, tzinfo=timezone.utc)
        await c.get(PODS, "ns", "a")
        assert c.server_time == expected


# Warnings


def warning(*texts: str) -> ScriptedResponse:
    return ScriptedResponse(body={}, headers=[("warning", ", ".join(f'299 - "{text}"' for text in texts))])


async def test_each_warning_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    server = MemoryTransport([warning("one", "two"), warning("two"), warning("three")])
    async with client(server) as c:
        for _ in range(3):
            await c.get(PODS, "ns", "a")
    logged = [record for record in caplog.records if record.name.startswith("gke_sandbox")]
    assert [record.levelno for record in logged] == [logging.WARNING] * 3
    assert [record.getMessage().rpartition(": ")[2] for record in logged] == ["one", "two", "three"]


async def test_warnings_that_differ_only_in_the_name_of_the_object_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = MemoryTransport([warning("adjusted job-1"), warning("adjusted job-2")])
    async with client(server) as c:
        for name in ("job-1", "job-2"):
            await c.create(JOBS, "ns", {"metadata": {"name": name}})
    assert len([record for record in caplog.records if record.name.startswith("gke_sandbox")]) == 1


@pytest.mark.parametrize("scenario", ["pod-security-violation", "already-exists"])
async def test_recorded_warnings_are_logged(scenario: str, caplog: pytest.LogCaptureFixture) -> None:
    exchange = next(e for e in recorded(scenario) if "warning" in e.headers)
    server = MemoryTransport(
        [ScriptedResponse(exchange.status, exchange.body, headers=[("warning", exchange.headers["warning"])])]
    )
    async with client(server) as c:
        if exchange.status < 400:
            await c.create(JOBS, "ns", JOB)
        else:
            with pytest.raises(Exception, match="not found"):
                await c.delete(JOBS, "ns", "j")
    assert "the server warns: " in caplog.text
