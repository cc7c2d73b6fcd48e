"""Exec plugins in the client: client certificates, Google credentials instead of a plugin, retried requests."""

from __future__ import annotations

import base64
import json
import logging
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.streams.tls
import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pytest_httpx import HTTPXMock

from gke_sandbox.errors import ConfigError
from gke_sandbox.kube.auth.exec import exec_auth
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.resources import PODS

from ..servers import MemoryTransport, ScriptedResponse
from .plugins import TOKEN, Plugin, Server, ask, ask_async, auth, config, pair, write_plugin

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


# Client certificates


class TlsServer:
    """Require a client certificate, and respond with 401 to one for a name in `refused`."""

    def __init__(self, ca: trustme.CA, *refused: str) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(self.context)
        self.context.verify_mode = ssl.CERT_REQUIRED
        ca.configure_trust(self.context)
        self.refused = refused
        self.shown: list[str] = []

    async def serve(self, *, task_status: anyio.abc.TaskStatus[int]) -> None:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            task_status.started(listener.extra(anyio.abc.SocketAttribute.local_port))
            await listener.serve(self._one)

    async def _one(self, stream: anyio.abc.SocketStream) -> None:
        async with await anyio.streams.tls.TLSStream.wrap(
            stream, ssl_context=self.context, standard_compatible=False
        ) as tls:
            names: Any = dict(tls.extra(anyio.streams.tls.TLSAttribute.peer_certificate))  # type: ignore[arg-type]
            name = names["subjectAltName"][0][1]
            try:
                while b"GET " in await tls.receive():
                    self.shown.append(name)
                    status = "401 Unauthorized" if name in self.refused else "200 OK"
                    await tls.send(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return


def certificates(ca: trustme.CA, tmp_path: Path, *names: str) -> Plugin:
    return write_plugin(tmp_path, f"give({[pair(ca, name) for name in names]!r}[n - 1])")


async def test_the_client_presents_a_plugins_certificate_and_a_renewed_one_on_a_new_connection(
    ca: trustme.CA, tmp_path: Path
) -> None:
    plugin, server = certificates(ca, tmp_path, "one", "two"), TlsServer(ca, "one")
    async with anyio.create_task_group() as group:
        port = await group.start(server.serve)
        address = f"https://127.0.0.1:{port}"
        who = auth(plugin, ClusterConfig(server=address))
        cluster = ClusterConfig(server=address, ca_data=ca.cert_pem.bytes(), auth=who)
        async with KubeClient(cluster) as client:
            for _ in range(2):
                await client.get(PODS, "ns", "a")
        group.cancel_scope.cancel()
    assert server.shown == ["one", "two", "two"]
    assert len(plugin.runs) == 2


# Google's plugin if it is not installed

GKE = "gke-gcloud-auth-plugin"
TOKEN_URL = "https://oauth2.googleapis.com/token"
USER = {"type": "authorized_user", "client_id": "c", "client_secret": "s3cret", "refresh_token": "r3fresh-s3cret"}


def google_environ(folder: Path, user: object = None) -> dict[str, str]:
    """Return the environment of a machine without the plugin, with Google credentials if `user` is given."""
    found = {"PATH": str(folder / "bin"), "CLOUDSDK_CONFIG": str(folder / "gcloud"), "NO_GCE_CHECK": "true"}
    if user is not None:
        (folder / "adc.json").write_text(json.dumps(user))
        found["GOOGLE_APPLICATION_CREDENTIALS"] = str(folder / "adc.json")
    return found


def google(folder: Path, user: object = None, command: str = GKE, **fields: Any) -> httpx.Auth:
    # A separate cluster for each test, because credentials are shared by cluster.
    cluster = ClusterConfig(server=f"https://cluster{folder}")
    return exec_auth(config(command, **fields), cluster, environ=google_environ(folder, user))


@pytest.mark.parametrize("command", [GKE, f"/no/such/sdk/bin/{GKE}"])
@pytest.mark.parametrize("flow", ["sync", "async"])
def test_a_missing_gke_plugin_is_replaced_by_google_credentials_with_one_warning(
    tmp_path: Path, flow: str, command: str, httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture
) -> None:
    for n in (1, 2):
        httpx_mock.add_response(url=TOKEN_URL, json={"access_token": f"g{n}", "expires_in": 3600})
    server = Server("g1")
    with caplog.at_level(logging.WARNING, "gke_sandbox"):
        who = google(tmp_path, USER, command, args=("--use_application_default_credentials",))
        for _ in range(2):
            assert (ask(who, server) if flow == "sync" else anyio.run(ask_async, who, server)) == 200
    assert server.sent == ["Bearer g1", "Bearer g2", "Bearer g2"]
    assert [record.getMessage() for record in caplog.records if GKE in record.getMessage()] == [
        f'user "u": {command} is not installed; Google\'s Application Default Credentials are used instead, '
        "without its arguments (--use_application_default_credentials)"
    ]


def test_google_credentials_have_the_scopes_of_the_gke_plugin(tmp_path: Path, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(url=TOKEN_URL, json={"access_token": "g1", "expires_in": 3600})
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "p",
        "private_key": key.decode(),
        "client_email": "runner@p.iam.gserviceaccount.com",
        "token_uri": TOKEN_URL,
    }
    ask(google(tmp_path, account), Server())
    (request,) = httpx_mock.get_requests()
    claims = parse_qs(request.content.decode())["assertion"][0].split(".")[1]
    assert set(json.loads(base64.urlsafe_b64decode(claims + "=="))["scope"].split()) == {
        "https://www.googleapis.com/auth/cloud-platform",
        "https://www.googleapis.com/auth/userinfo.email",
    }


@pytest.mark.parametrize("flow", ["sync", "async"])
def test_without_gke_plugin_and_google_credentials_the_hint_names_both(tmp_path: Path, flow: str) -> None:
    who = google(tmp_path, install_hint="Install it with apt.\x1b[0m")
    with pytest.raises(ConfigError, match="is not installed") as caught:
        ask(who, Server()) if flow == "sync" else anyio.run(ask_async, who, Server())
    for way in ("Install it with apt. [0m", "gcloud auth application-default login", "service account"):
        assert way in caught.value.hint


def test_an_installed_gke_plugin_runs(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path / "bin", TOKEN, name=GKE)
    server = Server()
    assert ask(google(tmp_path, USER), server) == 200
    assert server.sent == ["Bearer t1"]
    assert len(plugin.runs) == 1


def test_google_credentials_replace_no_other_plugin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="was not found"):
        ask(google(tmp_path, USER, "aws-iam-authenticator"), Server())


# In the client


async def test_a_create_request_is_repeated_with_its_body_after_a_401(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, TOKEN)
    server = MemoryTransport([ScriptedResponse(401, {"kind": "Status"}), ScriptedResponse(201, {"kind": "Pod"})])
    cluster = ClusterConfig(server="https://cluster:6443", auth=auth(plugin))
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    async with KubeClient(cluster, transport=server) as client:
        assert await client.create(PODS, "ns", body) == {"kind": "Pod"}
    assert [json.loads(request.content) for request in server.requests] == [body, body]
    assert server.open_streams == 0
