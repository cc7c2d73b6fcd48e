"""Real connections on loopback: trusted certificates, client certificates, round trips, and closing."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import anyio
import anyio.abc
import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gke_sandbox.errors import ConfigError, NetworkError
from gke_sandbox.kube.auth.static import BearerToken, ClientCertificate
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.http.tls import ssl_context
from gke_sandbox.kube.http.transport import network_transport
from gke_sandbox.kube.resources import PODS

from ..servers import loopback

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def server_side(certificate: trustme.LeafCert, client_ca: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        client_ca.configure_trust(context)
    return context


def pem(ca: trustme.CA) -> bytes:
    return ca.cert_pem.bytes()


def client_certificate(ca: trustme.CA) -> ClientCertificate:
    leaf = ca.issue_cert("someone")
    return ClientCertificate(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())


async def send_request(config: ClusterConfig) -> None:
    async with KubeClient(config) as client:
        await client.get(PODS, "ns", "a")


async def test_a_server_certificate_of_the_clusters_ca_is_trusted(ca: trustme.CA) -> None:
    with loopback(server_side(ca.issue_cert("127.0.0.1"))) as (port, received):
        await send_request(
            ClusterConfig(server=f"https://127.0.0.1:{port}/prefix", ca_data=pem(ca), auth=BearerToken("t0ken"))
        )
    assert (received[0].path, received[0].headers["authorization"]) == (
        "/prefix/api/v1/namespaces/ns/pods/a",
        "Bearer t0ken",
    )


async def test_a_certificate_of_another_ca_is_rejected_before_sending(ca: trustme.CA) -> None:
    with loopback(server_side(ca.issue_cert("127.0.0.1"))) as (port, received):
        with pytest.raises(NetworkError, match="certificate of the server is not valid") as caught:
            await send_request(ClusterConfig(server=f"https://127.0.0.1:{port}", ca_data=pem(trustme.CA())))
        assert not caught.value.sent
        assert caught.value.hint
    assert received == []


async def test_the_systems_certificates_are_trusted_only_without_a_ca_of_the_cluster(
    ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "system.pem"
    bundle.write_bytes(pem(ca))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with loopback(server_side(ca.issue_cert("127.0.0.1"))) as (port, _):
        server = f"https://127.0.0.1:{port}"
        await send_request(ClusterConfig(server=server))
        with pytest.raises(NetworkError, match="certificate of the server is not valid"):
            await send_request(ClusterConfig(server=server, ca_data=pem(trustme.CA())))


async def test_a_certificate_for_another_name_requires_tls_server_name(ca: trustme.CA) -> None:
    with loopback(server_side(ca.issue_cert("kubernetes.default.svc"))) as (port, _):
        server = f"https://127.0.0.1:{port}"
        with pytest.raises(NetworkError, match="certificate of the server is not valid"):
            await send_request(ClusterConfig(server=server, ca_data=pem(ca)))
        await send_request(ClusterConfig(server=server, ca_data=pem(ca), tls_server_name="kubernetes.default.svc"))


@pytest.mark.parametrize("name", [".example.com", "a..b", "x" * 64, "a\0b"])
def test_an_invalid_tls_server_name_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match="tls-server-name must be a host name"):
        ssl_context(ClusterConfig(server="https://cluster", tls_server_name=name))


async def test_an_intermediate_certificate_is_trusted_without_its_root(ca: trustme.CA) -> None:
    intermediate = ca.create_child_ca()
    with loopback(server_side(intermediate.issue_cert("127.0.0.1"))) as (port, _):
        await send_request(ClusterConfig(server=f"https://127.0.0.1:{port}", ca_data=pem(intermediate)))


async def test_insecure_skip_tls_verify_warns_each_time_a_client_is_opened(
    ca: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    with loopback(server_side(ca.issue_cert("elsewhere"))) as (port, _):
        config = ClusterConfig(
            server=f"https://127.0.0.1:{port}", insecure_skip_tls_verify=True, source="context c"
        )
        for times in (1, 2):
            await send_request(config)
            warnings = [record.message for record in caplog.records if record.name.startswith("gke_sandbox")]
            assert len(warnings) == times
    assert warnings[0].startswith("context c: insecure-skip-tls-verify: ")


async def test_insecure_skip_tls_verify_does_not_warn_for_plain_http(caplog: pytest.LogCaptureFixture) -> None:
    with loopback() as (port, _):
        await send_request(ClusterConfig(server=f"http://127.0.0.1:{port}", insecure_skip_tls_verify=True))
    assert caplog.records == []


@pytest.mark.parametrize("insecure", [False, True])
async def test_the_tls_server_name_is_sent_as_sni(ca: trustme.CA, insecure: bool) -> None:
    requested: list[str | None] = []
    context = server_side(ca.issue_cert("kubernetes.default.svc"))
    context.sni_callback = lambda _, name, __: requested.append(name)
    with loopback(context) as (port, _):
        await send_request(
            ClusterConfig(
                server=f"https://127.0.0.1:{port}",
                ca_data=None if insecure else pem(ca),
                insecure_skip_tls_verify=insecure,
                tls_server_name="kubernetes.default.svc",
            )
        )
    assert requested == ["kubernetes.default.svc"]


@pytest.mark.parametrize(
    ("days", "reason"), [(-9, "certificate has expired"), (1, "certificate is not yet valid")]
)
async def test_a_certificate_outside_its_validity_is_rejected_with_a_hint_about_the_clock(
    ca: trustme.CA, days: int, reason: str
) -> None:
    start = datetime.now(timezone.utc) + timedelta(days=days)
    certificate = ca.issue_cert("127.0.0.1", not_before=start, not_after=start + timedelta(days=8))
    message = f"certificate of the server is not valid: {reason}"
    with loopback(server_side(certificate)) as (port, _), pytest.raises(NetworkError, match=message) as caught:
        await send_request(ClusterConfig(server=f"https://127.0.0.1:{port}", ca_data=pem(ca)))
    assert "On the clock of this machine it is 20" in caught.value.hint
    assert "certificate authority" not in caught.value.hint


async def test_each_ca_of_a_bundle_is_trusted(ca: trustme.CA) -> None:
    bundle = b"# one\n" + pem(trustme.CA()) + b"# and another\n" + pem(ca)
    with loopback(server_side(ca.issue_cert("127.0.0.1"))) as (port, _):
        await send_request(ClusterConfig(server=f"https://127.0.0.1:{port}", ca_data=bundle))


async def test_a_client_certificate_is_sent(ca: trustme.CA) -> None:
    with loopback(server_side(ca.issue_cert("127.0.0.1"), client_ca=ca)) as (port, received):
        server = f"https://127.0.0.1:{port}"
        await send_request(
            ClusterConfig(server=server, ca_data=pem(ca), client_certificate=client_certificate(ca))
        )
        with pytest.raises(NetworkError):
            await send_request(ClusterConfig(server=server, ca_data=pem(ca)))
    assert len(received) == 1


def test_no_file_with_the_client_key_remains(
    ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    valid = client_certificate(ca)
    ssl_context(ClusterConfig(server="https://h", client_certificate=valid))
    other = client_certificate(ca)
    for invalid in (
        ClientCertificate(b"no PEM", b"k3y-s3cret"),
        ClientCertificate(valid.certificate, b""),
        ClientCertificate(valid.certificate, other.key),
        ClientCertificate(valid.certificate, encrypted(valid.key)),
    ):
        with pytest.raises(ConfigError, match="client certificate or its key is not valid") as caught:
            ssl_context(ClusterConfig(server="https://h", client_certificate=invalid, source="context c"))
        assert "context c" in str(caught.value)
        assert "s3cret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no files in memory on this system")
def test_a_client_key_is_not_written_to_disk_if_files_in_memory_are_supported(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also works in a container with a read-only root and without /tmp."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    before = len(os.listdir("/proc/self/fd"))
    ssl_context(ClusterConfig(server="https://h", client_certificate=client_certificate(ca)))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_client_key_is_in_a_private_file_if_files_in_memory_are_not_supported(
    ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    modes: list[int] = []
    real_unlink = os.unlink

    def unlink(path: str) -> None:
        modes.append(os.stat(path).st_mode & 0o777)
        real_unlink(path)

    monkeypatch.setattr(os, "unlink", unlink)
    ssl_context(ClusterConfig(server="https://h", client_certificate=client_certificate(ca)))
    assert modes == [0o600]
    assert list(tmp_path.iterdir()) == []


def encrypted(key: bytes) -> bytes:
    private = serialization.load_pem_private_key(key, None)
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )


def test_text_around_the_certificates_of_a_ca_bundle_is_ignored(ca: trustme.CA) -> None:
    text = "# unsere CA: für alle\n".encode() + pem(ca) + b"\n# and another\n" + pem(trustme.CA())
    assert ssl_context(ClusterConfig(server="https://h", ca_data=text)).cert_store_stats()["x509_ca"] == 2
    for invalid in (b"", b"-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n"):
        with pytest.raises(ConfigError, match="certificate authority is not valid"):
            ssl_context(ClusterConfig(server="https://h", ca_data=invalid))


@pytest.mark.parametrize(
    "damaged",
    [
        b"-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nQQ==\n",
        b"-----BEGIN CERTIFICATE-----\nKey: Value\n\nQQ==\n-----END CERTIFICATE-----\n",
    ],
)
def test_an_unreadable_certificate_of_a_ca_bundle_is_skipped_if_there_are_others(
    ca: trustme.CA, damaged: bytes
) -> None:
    for bundle in (damaged + pem(ca), pem(ca) + damaged):
        assert ssl_context(ClusterConfig(server="https://h", ca_data=bundle)).cert_store_stats()["x509_ca"] == 1
    with pytest.raises(ConfigError, match="certificate authority is not valid"):
        ssl_context(ClusterConfig(server="https://h", ca_data=damaged))


def test_a_client_certificate_that_tls_cannot_use_is_a_config_error() -> None:
    key = ec.generate_private_key(ec.SECP224R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "jane")])
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    pair = ClientCertificate(
        certificate,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    with pytest.raises(ConfigError, match="TLS cannot use the client certificate"):
        ssl_context(ClusterConfig(server="https://h", client_certificate=pair))


async def test_blank_lines_in_certificates_and_keys_are_ignored(ca: trustme.CA) -> None:
    def spaced(text: bytes) -> bytes:
        return text.replace(b"\n", b"\n \r\n")

    certificate = client_certificate(ca)
    with loopback(server_side(ca.issue_cert("127.0.0.1"), client_ca=ca)) as (port, received):
        await send_request(
            ClusterConfig(
                server=f"https://127.0.0.1:{port}",
                ca_data=spaced(pem(ca)),
                client_certificate=ClientCertificate(spaced(certificate.certificate), spaced(certificate.key)),
            )
        )
    assert received


def test_tls_is_1_2_or_newer(ca: trustme.CA) -> None:
    context = ssl_context(ClusterConfig(server="https://h", ca_data=pem(ca)))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


async def test_plain_http_is_supported_without_credentials() -> None:
    with loopback() as (port, received):
        await send_request(ClusterConfig(server=f"http://127.0.0.1:{port}", auth=BearerToken("t0ken")))
    assert "authorization" not in received[0].headers


@pytest.fixture
def unused_port() -> Iterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def test_a_refused_connection_is_a_network_error_with_a_hint(unused_port: int) -> None:
    with pytest.raises(NetworkError, match="refused") as caught:
        await send_request(ClusterConfig(server=f"http://127.0.0.1:{unused_port}"))
    assert not caught.value.sent
    assert caught.value.hint


async def test_the_round_trip_does_not_include_opening_the_connection() -> None:
    with loopback() as (port, _):
        async with KubeClient(ClusterConfig(server=f"http://127.0.0.1:{port}")) as client:
            assert client.round_trip is None
            for _ in range(3):
                before = anyio.current_time()
                await client.get(PODS, "ns", "a")
            last = anyio.current_time() - before
            assert client.round_trip is not None
            assert 0 < client.round_trip <= last


async def test_closing_an_endless_log_closes_its_connection(ca: trustme.CA) -> None:
    """An open connection or a suspended generator would cause a warning, which fails the test."""
    with loopback(server_side(ca.issue_cert("127.0.0.1")), endless=True) as (port, _):
        config = ClusterConfig(server=f"https://127.0.0.1:{port}", ca_data=pem(ca))
        async with KubeClient(config) as client:
            for _ in range(3):
                async with client.log("ns", "p", follow=True) as chunks:
                    assert (await anext(chunks)).startswith(b"line\n")
                with anyio.move_on_after(0.01):
                    async with client.log("ns", "p", follow=True) as chunks:
                        async for _chunk in chunks:
                            continue


async def test_tcp_keepalive_is_enabled() -> None:
    transport = network_transport(ClusterConfig(server="https://h"))
    with loopback() as (port, _):
        async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
            response = await client.get(f"http://127.0.0.1:{port}/")
            connection = response.extensions["network_stream"].get_extra_info("socket")
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


async def test_a_task_cancelled_during_the_handshake_closes_the_connection(ca: trustme.CA) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listening:
        port = listening.extra(anyio.abc.SocketAttribute.local_port)
        ended = anyio.Event()
        with anyio.CancelScope() as scope:

            async def serve(connection: anyio.abc.SocketStream) -> None:
                async with connection:
                    # Do not respond to the ClientHello.
                    assert await connection.receive()
                    scope.cancel()
                    with anyio.CancelScope(shield=True), pytest.raises(anyio.EndOfStream):
                        await connection.receive()
                    ended.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listening.serve, serve)
                await send_request(ClusterConfig(server=f"https://127.0.0.1:{port}", ca_data=pem(ca)))
    gc.collect()
    assert ended.is_set()
