"""``gke-sandbox cluster-info`` shows the cluster and where it is configured, but no secret."""

from __future__ import annotations

import base64
import json
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from pytest_httpx import HTTPXMock

from gke_sandbox.cli import main

TOKEN = "t0ken-s3cret"
END = datetime(2030, 3, 17, 17, 46, 40, tzinfo=timezone.utc)


def web_token(end: datetime) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": int(end.timestamp())}).encode()).decode()
    return f"e30.{claims.rstrip('=')}.{TOKEN}"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, outside a cluster, without a proxy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "POD_NAMESPACE"]
    for name in (*names, "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(
    home: Path,
    cluster: dict[str, Any] | None = None,
    user: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
) -> Path:
    """Write a kubeconfig with one context, `prod`, to the current directory, and add these fields."""
    file = home / "kubeconfig"
    content = {
        "current-context": "prod",
        "contexts": [{"name": "prod", "context": {"cluster": "one", "user": "me", **(context or {})}}],
        "clusters": [{"name": "one", "cluster": {"server": "https://c.example:6443/prefix/", **(cluster or {})}}],
        "users": [{"name": "me", "user": {"token": TOKEN} if user is None else user}],
    }
    file.write_text(yaml.safe_dump(content))
    return file


def cluster_info(capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Return the JSON object that the command prints."""
    status = main(["cluster-info", "--kubeconfig", "kubeconfig", "--json", *arguments])
    stdout, stderr = capfd.readouterr()
    assert (status, stderr) == (0, "")
    assert "s3cret" not in stdout
    return json.loads(stdout)


def test_json_has_every_property_of_the_cluster(
    home: Path, ca: trustme.CA, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(
        home,
        {
            "certificate-authority-data": base64.b64encode(ca.cert_pem.bytes()).decode(),
            "tls-server-name": "kubernetes.default.svc",
            "proxy-url": "http://me:s3cret@proxy.example:3128",
            "disable-compression": True,
        },
        {
            "token": web_token(END),
            "as": "jane",
            "as-uid": "7",
            "as-groups": ["a", "b"],
            "as-user-extra": {"k": ["v"]},
        },
        {"namespace": "agents"},
    )
    found = cluster_info(capfd)
    assert found.pop("source") == f'context "prod" in {file}'
    assert found.pop("tls") == {
        "verified": True,
        "ca": f'certificate-authority-data of cluster "one" in {file}',
        "server_name": "kubernetes.default.svc",
    }
    proxy = found.pop("proxy")
    assert proxy["address"] == "http://proxy.example:3128"
    assert "proxy-url" in proxy["source"]
    assert found == {
        "file": str(file),
        "context": "prod",
        "server": "https://c.example:6443/prefix",
        "namespace": "agents",
        "credentials": {"kind": "token", "expires": "2030-03-17T17:46:40Z", "expired": False},
        "impersonation": {"user": "jane", "uid": "7", "groups": ["a", "b"], "extra": {"k": ["v"]}},
        "compression": False,
    }


def test_the_properties_are_printed_as_lines(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = write(home, {"proxy-url": "http://me:s3cret@proxy.example:3128", "tls-server-name": "kubernetes"})
    assert main(["cluster-info", "--kubeconfig", "kubeconfig", "--as", "jane", "--as-group", "a"]) == 0
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    assert stdout == (
        f'source         context "prod" in {file}\n'
        f"file           {file}\n"
        "context        prod\n"
        "address        https://c.example:6443/prefix\n"
        "namespace      default\n"
        "CA             the system's certificates\n"
        "TLS name       kubernetes\n"
        "credentials    token\n"
        "impersonating  jane; group a\n"
        f'proxy          http://proxy.example:3128 (context "prod" in {file}: its proxy-url)\n'
    )


def test_the_expiry_of_a_certificate_is_shown(
    home: Path, ca: trustme.CA, capfd: pytest.CaptureFixture[str]
) -> None:
    leaf = ca.issue_cert("someone", not_after=END)
    (home / "cert.pem").write_bytes(leaf.cert_chain_pems[0].bytes())
    (home / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    write(home, user={"client-certificate": "cert.pem", "client-key": "key.pem"})
    assert cluster_info(capfd)["credentials"] == {
        "kind": "client certificate",
        "expires": "2030-03-17T17:46:40Z",
        "expired": False,
    }


def test_a_credential_plugin_is_named_but_not_run(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plugin = home / "plugin"
    plugin.write_text("#!/bin/sh\ntouch ran\n")
    plugin.chmod(0o755)
    api = "client.authentication.k8s.io/v1beta1"
    write(home, user={"exec": {"apiVersion": api, "command": "./plugin", "args": ["--password=s3cret"]}})
    assert cluster_info(capfd)["credentials"] == {"kind": "exec plugin plugin", "expires": None, "expired": False}
    assert not (home / "ran").exists()


def test_the_cluster_is_not_contacted(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        write(home, {"server": f"https://127.0.0.1:{server.getsockname()[1]}"})
        assert cluster_info(capfd)["proxy"] is None
        with pytest.raises(BlockingIOError):
            server.accept()


def test_options_override_the_kubeconfig(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(home, {"tls-server-name": "kubernetes"}, {"username": "me", "password": "s3cret"})
    found = cluster_info(capfd, "--server", "https://other.example", "--token", "s3cret", "-n", "mine")
    assert found["server"] == "https://other.example"
    assert found["tls"]["server_name"] is None
    assert found["credentials"]["kind"] == "token"
    assert found["namespace"] == "mine"


def test_a_server_and_a_token_need_no_kubeconfig(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster-info", "--server", "https://other.example", "--token", TOKEN, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["server"], found["credentials"]["kind"]) == ("https://other.example", "token")
    assert (found["file"], found["context"]) == (None, None)


def test_plain_http_is_shown(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(home, {"server": "http://c.example"})
    assert cluster_info(capfd)["tls"] is None
    assert main(["cluster-info", "--kubeconfig", "kubeconfig"]) == 0
    assert "TLS            none (plain HTTP; credentials are not sent)\n" in capfd.readouterr().out


def test_disabled_verification_is_shown(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(home, {"insecure-skip-tls-verify": True})
    assert cluster_info(capfd)["tls"] == {"verified": False, "ca": None, "server_name": None}
    assert main(["cluster-info", "--kubeconfig", "kubeconfig"]) == 0
    assert "CA             not verified (insecure-skip-tls-verify)\n" in capfd.readouterr().out


def test_a_proxy_from_the_environment_is_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(home)
    monkeypatch.setenv("HTTPS_PROXY", "me:s3cret@proxy.example:3128")
    assert cluster_info(capfd)["proxy"] == {"address": "http://proxy.example:3128", "source": "HTTPS_PROXY"}
    monkeypatch.setenv("NO_PROXY", ".example")
    assert cluster_info(capfd)["proxy"] is None


def test_a_gke_cluster_is_looked_up(
    home: Path,
    ca: trustme.CA,
    httpx_mock: HTTPXMock,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    login = {"type": "authorized_user", "client_id": "id", "client_secret": "s3cret", "refresh_token": "s3cret"}
    (home / "login.json").write_text(json.dumps(login))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(home / "login.json"))
    httpx_mock.add_response(
        method="POST",
        json={"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"},
        is_reusable=True,
    )
    response = {
        "name": "c",
        "status": "RUNNING",
        "endpoint": "203.0.113.9",
        "masterAuth": {"clusterCaCertificate": base64.b64encode(ca.cert_pem.bytes()).decode()},
    }
    httpx_mock.add_response(method="GET", json=response, is_reusable=True)
    named = ["cluster-info", "--gke", "my-project/europe-west1/c"]
    assert main([*named, "--gke-endpoint", "private"]) == 125
    error = capfd.readouterr().err
    assert "has no private endpoint" in error
    assert error.endswith("hint: Use the endpoint ip.\n")
    assert main([*named, "--as", "jane", "--json"]) == 0
    stdout, _ = capfd.readouterr()
    found = json.loads(stdout)
    assert found["server"] == "https://203.0.113.9"
    assert found["impersonation"]["user"] == "jane"
    assert "my-project/europe-west1/c" in found["source"]
    assert "s3cret" not in stdout


def test_the_embedded_cluster(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster-info", "--local", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found == {"source": "embedded cluster on this machine (--local)", "namespace": "default"}


def test_without_a_cluster_there_is_an_error_with_a_hint(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster-info"]) == 125
    stdout, stderr = capfd.readouterr()
    error, hint = stderr.splitlines()
    assert stdout == ""
    assert error.startswith("gke-sandbox: error: no cluster was found")
    assert hint.startswith("hint: ")
    assert main(["cluster-info", "--json"]) == 125
    assert json.loads(capfd.readouterr().out)["error"]["kind"] == "ConfigError"


UNUSABLE: list[tuple[dict[str, Any], dict[str, Any] | None, str]] = [
    ({"certificate-authority-data": "QQ=="}, None, "certificate-authority"),
    ({"proxy-url": "socks6://x"}, None, 'got "socks6"'),
    ({"server": "ftp://x"}, None, "is not an http or https URL"),
    ({}, {"token": "a", "username": "b", "password": "c"}, "only one is allowed"),
    (
        {},
        {"client-certificate-data": "QQ==", "client-key-data": "QQ=="},
        "client certificate or its key is not valid",
    ),
]


@pytest.mark.parametrize(("cluster", "user", "message"), UNUSABLE, ids=[message for *_, message in UNUSABLE])
def test_an_invalid_configuration_is_reported(
    cluster: dict[str, Any],
    user: dict[str, Any] | None,
    message: str,
    home: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write(home, cluster, user)
    assert main(["cluster-info", "--kubeconfig", "kubeconfig"]) == 125
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert message in stderr.splitlines()[0]


def test_control_characters_in_names_are_escaped(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(home, context={"namespace": "a\x1b[31mb"})
    assert main(["cluster-info", "--kubeconfig", "kubeconfig"]) == 0
    assert "\x1b" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "No_Such"], "--namespace: 'No_Such' is not valid"),
        (["--", "x"], "arguments after --"),
        (["--local", "--gke", "p/l/n"], "--local cannot be combined with --gke"),
        (["script.py"], "unexpected argument 'script.py'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_usage_is_reported(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster-info", *arguments]) == 2
    assert message in capfd.readouterr().err


def test_an_expiry_in_the_past_is_shown_as_expired(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(home, user={"token": web_token(END.replace(year=2020))})
    assert cluster_info(capfd)["credentials"] == {
        "kind": "token",
        "expires": "2020-03-17T17:46:40Z",
        "expired": True,
    }
    assert main(["cluster-info", "--kubeconfig", "kubeconfig"]) == 0
    assert "credentials    token, expired 2020-03-17T17:46:40Z\n" in capfd.readouterr().out
