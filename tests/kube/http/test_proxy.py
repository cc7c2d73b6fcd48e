"""Proxies: which one is used, and real connections through it on loopback."""

from __future__ import annotations

import logging
import socket
import ssl
import sys

import anyio
import httpx
import pytest
import trustme

from gke_sandbox.errors import ConfigError, NetworkError
from gke_sandbox.kube.auth.static import BearerToken, ClientCertificate
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.http.proxy import Proxy, is_bypassed, parse_proxy, proxy_for
from gke_sandbox.kube.http.sync_delete import delete_jobs_sync
from gke_sandbox.kube.http.transport import network_transport, trace_listener
from gke_sandbox.kube.resources import PODS

from ..servers import loopback
from .proxy_servers import proxy

asynchronous = pytest.mark.anyio
CLUSTER = "cluster.example:443"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def server_side(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def pem(ca: trustme.CA) -> bytes:
    return ca.cert_pem.bytes()


async def send_request(config: ClusterConfig) -> None:
    async with KubeClient(config) as client:
        await client.get(PODS, "ns", "a")


# -- selection ---------------------------------------------------------------------------------------------------

NO_PROXY = [
    # no_proxy, host, port, reached directly
    ("", "cluster.example", 443, False),
    ("*", "cluster.example", 443, True),
    (" , *", "10.0.0.1", 443, True),
    ("cluster.example", "cluster.example", 443, True),
    ("CLUSTER.Example", "cluster.example", 443, True),
    ("cluster.example", "CLUSTER.example", 443, True),
    ("example", "cluster.example", 443, True),
    ("ample", "cluster.example", 443, False),
    (".example", "cluster.example", 443, True),
    (".example", "example", 443, False),
    ("*.example", "cluster.example", 443, True),
    ("*.example", "example", 443, False),
    ("*example", "cluster.example", 443, False),
    ("cluster.example:", "cluster.example", 443, True),
    ("other, cluster.example ,third", "cluster.example", 443, True),
    ("cluster.example:443", "cluster.example", 443, True),
    ("cluster.example:6443", "cluster.example", 443, False),
    (".example:443", "cluster.example", 443, True),
    (":443", "cluster.example", 443, False),
    (".", "cluster.example", 443, False),
    ("10.0.0.1", "10.0.0.1", 443, True),
    ("10.0.0.1", "10.0.0.10", 443, False),
    ("10.0.0.1:6443", "10.0.0.1", 6443, True),
    ("10.0.0.1:6443", "10.0.0.1", 443, False),
    ("10.0.0.0/8", "10.255.0.1", 443, True),
    ("10.1.2.3/8", "10.255.0.1", 443, True),
    ("10.0.0.0/8", "11.0.0.1", 443, False),
    ("10.0.0.0/8", "ten.example", 443, False),
    ("10.0.0.0/99", "10.0.0.1", 443, False),
    ("2001:db8::1", "2001:db8::1", 443, True),
    ("2001:db8:0::1", "2001:db8::1", 443, True),
    ("[2001:db8::1]:443", "2001:db8::1", 443, True),
    ("[2001:db8::1]:6443", "2001:db8::1", 443, False),
    ("2001:db8::/32", "2001:db8:1::1", 443, True),
    ("2001:db8::/32", "10.0.0.1", 443, False),
    ("10.0.0.1", "::ffff:10.0.0.1", 443, True),
    ("", "localhost", 443, True),
    ("", "127.0.0.1", 443, True),
    ("", "127.8.9.1", 443, True),
    ("", "::1", 443, True),
    ("", "localhost.example", 443, False),
]


@pytest.mark.parametrize(("no_proxy", "host", "port", "directly"), NO_PROXY)
def test_no_proxy_has_the_rules_of_go(no_proxy: str, host: str, port: int, directly: bool) -> None:
    assert is_bypassed(host, port, no_proxy) is directly


ENVIRONMENTS: list[tuple[str, dict[str, str], str | None]] = [
    ("https://c", {}, None),
    ("https://c", {"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
    ("https://c", {"https_proxy": "http://p:3128"}, "http://p:3128"),
    ("https://c", {"HTTPS_PROXY": "http://upper", "https_proxy": "http://lower"}, "http://upper:80"),
    ("https://c", {"HTTPS_PROXY": "", "https_proxy": "http://lower"}, "http://lower:80"),
    ("https://c", {"HTTP_PROXY": "http://p"}, None),
    ("https://c", {"ALL_PROXY": "http://p"}, None),
    ("http://c", {"HTTP_PROXY": "http://p"}, "http://p:80"),
    ("http://c", {"HTTP_PROXY": "http://p", "REQUEST_METHOD": "GET"}, None),
    ("http://c", {"http_proxy": "http://p", "REQUEST_METHOD": "GET"}, "http://p:80"),
    ("http://c", {"HTTPS_PROXY": "http://p"}, None),
    ("https://c", {"HTTPS_PROXY": "p"}, "http://p:80"),
    ("https://c", {"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
    ("https://c", {"HTTPS_PROXY": "me:s3cret@p:3128"}, "http://p:3128"),
    ("https://c", {"HTTPS_PROXY": "https://p"}, "https://p:443"),
    ("https://c", {"HTTPS_PROXY": "socks5://p"}, "socks5://p:1080"),
    ("https://c", {"HTTPS_PROXY": "socks5h://p:9"}, "socks5://p:9"),
    ("https://c", {"HTTPS_PROXY": "http://[2001:db8::9]:3128"}, "http://[2001:db8::9]:3128"),
    ("https://c:6443", {"HTTPS_PROXY": "http://p", "NO_PROXY": "c:6443"}, None),
    ("https://c", {"HTTPS_PROXY": "http://p", "NO_PROXY": "c:6443"}, "http://p:80"),
    ("https://c", {"HTTPS_PROXY": "http://p", "NO_PROXY": "c:443"}, None),
    ("https://[2001:db8::1]/x", {"HTTPS_PROXY": "http://p", "no_proxy": "2001:db8::/32"}, None),
    ("https://127.0.0.1", {"HTTPS_PROXY": "http://p"}, None),
]


@pytest.mark.parametrize(("url", "environ", "expected"), ENVIRONMENTS)
def test_the_proxy_of_the_environment(url: str, environ: dict[str, str], expected: str | None) -> None:
    found = ClusterConfig(server=url).proxy(environ)
    assert (None if found is None else str(found)) == expected
    assert (found is None) == (proxy_for(url, environ) is None)


def test_the_proxy_url_of_a_cluster_takes_precedence_over_the_environment() -> None:
    config = ClusterConfig(server="https://127.0.0.1", proxy_url="http://mine:3128")
    found = config.proxy({"HTTPS_PROXY": "http://p", "NO_PROXY": "*"})
    assert str(found) == "http://mine:3128"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("socks6://me:s3cret@x", 'the scheme must be http, https or socks5, got "socks6"'),
        ("s3cret.example.com", "is not a URL"),
        ("s3cret@example.com", "is not a URL"),
        ("http://", "is not a URL"),
        ("http://s3cret:port", "is not a URL"),
        ("http://[s3cret", "is not a URL"),
        ("http://s3cret.example.com/ x", "is not a URL"),
        ("http://pröxy-s3cret", "is not a URL"),
    ],
)
def test_the_error_for_an_invalid_proxy_does_not_contain_its_url(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_proxy(url, "context c: its proxy-url")
    assert message in str(caught.value)
    assert str(caught.value).startswith("context c: its proxy-url")
    assert "s3cret" not in str(caught.value) + caught.value.hint


def test_credentials_are_decoded_and_not_in_the_repr() -> None:
    found = parse_proxy("http://m%40e:s3%2Fcret@p:3128", "HTTPS_PROXY")
    assert (found.username, found.password) == ("m@e", "s3/cret")
    assert str(found) == "http://p:3128"
    assert "cret" not in repr(found)
    assert "m@e" not in repr(found)


# -- connections -------------------------------------------------------------------------------------------------


@asynchronous
async def test_an_http_proxy_receives_only_the_address(ca: trustme.CA) -> None:
    with (
        loopback(server_side(ca.issue_cert("cluster.example"))) as (port, received),
        proxy({"cluster.example:6443": port}) as between,
    ):
        async with KubeClient(
            ClusterConfig(
                server="https://cluster.example:6443/prefix",
                ca_data=pem(ca),
                auth=BearerToken("t0ken"),
                proxy_url=f"http://127.0.0.1:{between.port}",
            )
        ) as client:
            for _ in range(3):
                await client.get(PODS, "ns", "a")
    assert between.requests == ["CONNECT cluster.example:6443 HTTP/1.1"]
    assert [request.path for request in received] == ["/prefix/api/v1/namespaces/ns/pods/a"] * 3
    assert received[0].headers["authorization"] == "Bearer t0ken"


@asynchronous
async def test_the_tls_server_name_is_used_in_a_tunnel(ca: trustme.CA) -> None:
    with (
        loopback(server_side(ca.issue_cert("kubernetes.default.svc"))) as (port, _),
        proxy({"10.9.9.9:443": port}) as it,
    ):
        common = {"server": "https://10.9.9.9", "ca_data": pem(ca), "proxy_url": f"http://127.0.0.1:{it.port}"}
        with pytest.raises(NetworkError, match="certificate of the server or the proxy is not valid"):
            await send_request(ClusterConfig(**common))
        await send_request(ClusterConfig(**common, tls_server_name="kubernetes.default.svc"))


@asynchronous
async def test_an_ipv6_address_has_brackets_for_the_proxy_and_none_in_the_certificate(ca: trustme.CA) -> None:
    with (
        loopback(server_side(ca.issue_cert("2001:db8::1"))) as (port, _),
        proxy({"[2001:db8::1]:6443": port}) as it,
    ):
        server = "https://[2001:db8::1]:6443"
        config = ClusterConfig(server=server, ca_data=pem(ca), proxy_url=f"http://127.0.0.1:{it.port}")
        await send_request(config)
        delete_jobs_sync(config, "ns", ["a"])
    assert it.requests == ["CONNECT [2001:db8::1]:6443 HTTP/1.1"] * 2


@asynchronous
async def test_an_https_proxy_is_verified_by_its_name_and_receives_no_client_certificate(ca: trustme.CA) -> None:
    """Its certificate may be of the cluster's CA, as in client-go, or of one that the system trusts."""
    leaf = ca.issue_cert("someone")
    certificate = ClientCertificate(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())
    certificates: list[object] = []

    class RecordingContext(ssl.SSLContext):
        def wrap_socket(self, *args: object, **more: object) -> ssl.SSLSocket:
            connection = super().wrap_socket(*args, **more)  # type: ignore[arg-type]
            certificates.append(connection.getpeercert())
            return connection

    own = RecordingContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(own)
    own.verify_mode = ssl.CERT_OPTIONAL
    ca.configure_trust(own)
    with (
        loopback(server_side(ca.issue_cert("kubernetes"))) as (port, received),
        proxy({CLUSTER: port}, context=own) as between,
    ):
        await send_request(
            ClusterConfig(
                server="https://cluster.example",
                ca_data=pem(ca),
                tls_server_name="kubernetes",
                client_certificate=certificate,
                proxy_url=f"https://127.0.0.1:{between.port}",
            )
        )
    assert len(received) == 1
    assert certificates == [None]


@asynchronous
async def test_an_https_proxy_with_an_untrusted_certificate_is_rejected(ca: trustme.CA) -> None:
    another = server_side(trustme.CA().issue_cert("127.0.0.1"))
    with proxy({}, context=another) as between:
        url = f"https://127.0.0.1:{between.port}"
        with pytest.raises(NetworkError, match="certificate of the server or the proxy is not valid") as caught:
            await send_request(ClusterConfig(server="https://cluster.example", ca_data=pem(ca), proxy_url=url))
    assert not caught.value.sent
    assert between.requests == []


@asynchronous
async def test_credentials_of_the_proxy_are_sent_only_to_it(
    ca: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        loopback(server_side(ca.issue_cert("cluster.example"))) as (port, received),
        proxy({CLUSTER: port}, credentials="m@e:s3/cret") as between,
    ):
        common = {"server": "https://cluster.example", "ca_data": pem(ca)}
        with caplog.at_level(logging.DEBUG):
            url = f"http://m%40e:s3%2Fcret@127.0.0.1:{between.port}"
            await send_request(ClusterConfig(**common, proxy_url=url))
            with pytest.raises(NetworkError) as caught:
                await send_request(ClusterConfig(**common, proxy_url=url.replace("s3", "s4")))
    assert "proxy-authorization" not in received[0].headers
    assert not caught.value.sent
    through = f"through the proxy http://127.0.0.1:{between.port}"
    assert f"{through}: the proxy rejected the request: 407 Proxy Authentication Required" in str(caught.value)
    assert caught.value.hint == "The proxy is set by the configuration: its proxy-url."
    for text in (caplog.text, str(caught.value), repr(caught.value)):
        assert "cret" not in text


@asynchronous
async def test_the_error_for_an_unreachable_proxy_contains_its_address(ca: trustme.CA) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(NetworkError) as caught:
            await send_request(ClusterConfig(server="https://cluster.example", ca_data=pem(ca), proxy_url=address))
    assert f"cannot reach https://cluster.example through the proxy {address}: Connection refused" in str(
        caught.value
    )
    assert not caught.value.sent


@asynchronous
async def test_a_plain_http_server_is_reached_through_a_proxy() -> None:
    with (
        loopback() as (port, received),
        proxy({"cluster.example:8080": port, "[2001:db8::1]:8080": port}) as between,
    ):
        for host in ("cluster.example", "[2001:db8::1]"):
            server, address = f"http://{host}:8080", f"http://127.0.0.1:{between.port}"
            await send_request(ClusterConfig(server=server, auth=BearerToken("t0ken"), proxy_url=address))
    path = "/api/v1/namespaces/ns/pods/a"
    assert between.requests == [
        f"GET http://cluster.example:8080{path} HTTP/1.1",
        f"GET http://[2001:db8::1]:8080{path} HTTP/1.1",
    ]
    assert [request.path for request in received] == [path, path]
    assert "authorization" not in received[0].headers


@asynchronous
async def test_the_proxy_of_the_environment_is_used(ca: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback(server_side(ca.issue_cert("cluster.example"))) as (port, _), proxy({CLUSTER: port}) as between:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{between.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        await send_request(ClusterConfig(server="https://cluster.example", ca_data=pem(ca)))
    assert len(between.requests) == 1


@asynchronous
async def test_the_round_trip_does_not_include_opening_a_tunnel(ca: trustme.CA) -> None:
    """There are two responses, from the proxy and from the server, and one round trip."""
    measured: list[float] = []
    config = ClusterConfig(server="https://cluster.example", ca_data=pem(ca))
    with loopback(server_side(ca.issue_cert("cluster.example"))) as (port, _), proxy({CLUSTER: port}) as between:
        transport = network_transport(config, parse_proxy(f"http://127.0.0.1:{between.port}", "here"))
        async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
            response = await client.get(
                "https://cluster.example/", extensions={"trace": trace_listener(measured.append)}
            )
            # TCP keepalive detects a dead proxy too.
            connection = response.extensions["network_stream"].get_extra_info("socket")
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert len(measured) == 1
    assert 0 < measured[0] < 10


@asynchronous
async def test_the_connect_timeout_limits_opening_a_tunnel() -> None:
    """This is so even for a request without a read timeout, such as a followed log."""
    limits = httpx.Timeout(connect=0.05, read=None, write=None, pool=None)
    config = ClusterConfig(server="https://cluster.example")
    with proxy({}, silent=True) as between:
        transport = network_transport(config, parse_proxy(f"http://127.0.0.1:{between.port}", "here"))
        async with httpx.AsyncClient(transport=transport, timeout=limits, trust_env=False) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get("https://cluster.example/", extensions={"trace": trace_listener([].append)})


@asynchronous
async def test_a_cancelled_request_closes_the_connection_to_the_proxy(ca: trustme.CA) -> None:
    """An open socket would cause a warning, which fails the test."""
    with proxy({}, silent=True) as between:
        with anyio.move_on_after(0.05) as scope:
            url = f"http://127.0.0.1:{between.port}"
            await send_request(ClusterConfig(server="https://cluster.example", ca_data=pem(ca), proxy_url=url))
        assert scope.cancelled_caught


@asynchronous
@pytest.mark.parametrize("credentials", [None, "me:s3cret"])
async def test_a_socks5_proxy_resolves_the_name(ca: trustme.CA, credentials: str | None) -> None:
    pytest.importorskip("socksio", reason="httpx[socks] is not installed")
    with (
        loopback(server_side(ca.issue_cert("kubernetes"))) as (port, received),
        proxy({"cluster.example:6443": port}, kind="socks5", credentials=credentials) as between,
    ):
        login = f"{credentials}@" if credentials else ""
        config = ClusterConfig(
            server="https://cluster.example:6443",
            ca_data=pem(ca),
            tls_server_name="kubernetes",
            proxy_url=f"socks5://{login}127.0.0.1:{between.port}",
        )
        await send_request(config)
        delete_jobs_sync(config, "ns", ["a"])
    assert between.requests == ["cluster.example:6443"] * 2
    assert between.credentials == ([credentials] * 2 if credentials else [])
    assert [request.method for request in received] == ["GET", "DELETE"]


def test_a_socks5_proxy_without_its_package_is_a_config_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ConfigError, match="HTTPS_PROXY: a socks5 proxy requires the package socksio") as caught:
        network_transport(ClusterConfig(server="https://c"), Proxy("socks5", "p", 1080, source="HTTPS_PROXY"))
    assert "httpx[socks]" in caught.value.hint


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_deleting_at_exit_uses_the_proxy(ca: trustme.CA, scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    own = server_side(ca.issue_cert("127.0.0.1")) if scheme == "https" else None
    with (
        loopback(server_side(ca.issue_cert("kubernetes"))) as (port, received),
        proxy({CLUSTER: port}, context=own, credentials="me:s3cret") as between,
    ):
        config = ClusterConfig(
            server="https://cluster.example",
            ca_data=pem(ca),
            tls_server_name="kubernetes",
            auth=BearerToken("t0ken"),
            proxy_url=f"{scheme}://me:s3cret@127.0.0.1:{between.port}",
        )
        delete_jobs_sync(config, "ns", ["a", "b"])
    assert [request.path.rsplit("/", 1)[-1] for request in received] == ["a", "b"]
    assert received[0].headers["authorization"] == "Bearer t0ken"
    assert between.requests == ["CONNECT cluster.example:443 HTTP/1.1"]
    assert caplog.records == []
