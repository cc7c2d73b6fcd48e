"""``gke-sandbox cluster``: what was found and from where, and never a secret."""

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
    """An empty home directory, outside of any cluster, and no proxy."""
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
    """A kubeconfig in the current directory, in which these fields are added to its one context, `prod`."""
    file = home / "kubeconfig"
    content = {
        "current-context": "prod",
        "contexts": [{"name": "prod", "context": {"cluster": "one", "user": "me", **(context or {})}}],
        "clusters": [{"name": "one", "cluster": {"server": "https://c.example:6443/prefix/", **(cluster or {})}}],
        "users": [{"name": "me", "user": {"token": TOKEN} if user is None else user}],
    }
    file.write_text(yaml.safe_dump(content))
    return file


def told(capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The JSON object that the command prints."""
    status = main(["cluster", "--kubeconfig", "kubeconfig", "--json", *arguments])
    stdout, stderr = capfd.readouterr()
    assert (status, stderr) == (0, "")
    assert "s3cret" not in stdout
    return json.loads(stdout)


def test_all_of_it_as_one_object(home: Path, ca: trustme.CA, capfd: pytest.CaptureFixture[str]) -> None:
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
    found = told(capfd)
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
        "credentials": {"kind": "token", "expires": "2030-03-17T17:46:40Z"},
        "impersonation": {"user": "jane", "uid": "7", "groups": ["a", "b"], "extra": {"k": ["v"]}},
        "compression": False,
    }


def test_the_same_for_people(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = write(home, {"proxy-url": "http://me:s3cret@proxy.example:3128", "tls-server-name": "kubernetes"})
    assert main(["cluster", "--kubeconfig", "kubeconfig", "--as", "jane", "--as-group", "a"]) == 0
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    assert stdout == (
        f'found in      context "prod" in {file}\n'
        f"file          {file}\n"
        "context       prod\n"
        "address       https://c.example:6443/prefix\n"
        "namespace     default\n"
        "CA            the system's certificates\n"
        "TLS name      kubernetes\n"
        "credentials   token\n"
        "acts as       jane; group a\n"
        f'proxy         http://proxy.example:3128 (context "prod" in {file}: its proxy-url)\n'
    )


def test_a_certificate_tells_its_end(home: Path, ca: trustme.CA, capfd: pytest.CaptureFixture[str]) -> None:
    leaf = ca.issue_cert("someone", not_after=END)
    (home / "cert.pem").write_bytes(leaf.cert_chain_pems[0].bytes())
    (home / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    write(home, user={"client-certificate": "cert.pem", "client-key": "key.pem"})
    assert told(capfd)["credentials"] == {"kind": "client certificate", "expires": "2030-03-17T17:46:40Z"}


def test_a_plugin_is_named_and_not_run(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plugin = home / "plugin"
    plugin.write_text("#!/bin/sh\ntouch ran\n")
    plugin.chmod(0o755)
    api = "client.authentication.k8s.io/v1beta1"
    write(home, user={"exec": {"apiVersion": api, "command": "./plugin", "args": ["--password=s3cret"]}})
    assert told(capfd)["credentials"] == {"kind": "exec plugin plugin", "expires": None}
    assert not (home / "ran").exists()


def test_nothing_is_asked_of_the_cluster(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        write(home, {"server": f"https://127.0.0.1:{server.getsockname()[1]}"})
        assert told(capfd)["proxy"] is None
        with pytest.raises(BlockingIOError):
            server.accept()


def test_options_come_before_the_kubeconfig(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(home, {"tls-server-name": "kubernetes"}, {"username": "me", "password": "s3cret"})
    found = told(capfd, "--server", "https://other.example", "--token", "s3cret", "-n", "mine")
    assert found["server"] == "https://other.example"
    assert found["tls"]["server_name"] is None
    assert found["credentials"]["kind"] == "token"
    assert found["namespace"] == "mine"


def test_a_server_and_a_token_are_enough(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "--server", "https://other.example", "--token", TOKEN, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["server"], found["credentials"]["kind"]) == ("https://other.example", "token")
    assert (found["file"], found["context"]) == (None, None)


def test_plain_http_is_told(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(home, {"server": "http://c.example"})
    assert told(capfd)["tls"] is None
    assert main(["cluster", "--kubeconfig", "kubeconfig"]) == 0
    assert "TLS           none: plain http, and no credentials are sent\n" in capfd.readouterr().out


def test_a_server_that_is_not_verified_is_told(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(home, {"insecure-skip-tls-verify": True})
    assert told(capfd)["tls"] == {"verified": False, "ca": None, "server_name": None}
    assert main(["cluster", "--kubeconfig", "kubeconfig"]) == 0
    assert "CA            not looked at (insecure-skip-tls-verify)\n" in capfd.readouterr().out


def test_the_environments_proxy_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(home)
    monkeypatch.setenv("HTTPS_PROXY", "me:s3cret@proxy.example:3128")
    assert told(capfd)["proxy"] == {"address": "http://proxy.example:3128", "source": "HTTPS_PROXY"}
    monkeypatch.setenv("NO_PROXY", ".example")
    assert told(capfd)["proxy"] is None


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
    answer = {
        "name": "c",
        "status": "RUNNING",
        "endpoint": "203.0.113.9",
        "masterAuth": {"clusterCaCertificate": base64.b64encode(ca.cert_pem.bytes()).decode()},
    }
    httpx_mock.add_response(method="GET", json=answer, is_reusable=True)
    named = ["cluster", "--gke", "my-project/europe-west1/c"]
    assert main([*named, "--gke-endpoint", "private"]) == 125
    error = capfd.readouterr().err
    assert "has no private endpoint" in error
    assert error.endswith("hint: Use --gke-endpoint ip.\n")
    assert main([*named, "--as", "jane", "--json"]) == 0
    stdout, _ = capfd.readouterr()
    found = json.loads(stdout)
    assert found["server"] == "https://203.0.113.9"
    assert found["impersonation"]["user"] == "jane"
    assert "my-project/europe-west1/c" in found["source"]
    assert "s3cret" not in stdout


def test_the_embedded_cluster(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "--local", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found == {"source": "--local: the embedded cluster, on this machine", "namespace": "default"}


def test_nothing_found_is_an_error_with_a_hint(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster"]) == 125
    stdout, stderr = capfd.readouterr()
    error, hint = stderr.splitlines()
    assert stdout == ""
    assert error.startswith("gke-sandbox: error: no cluster was found")
    assert hint.startswith("hint: ")
    assert main(["cluster", "--json"]) == 125
    assert json.loads(capfd.readouterr().out)["error"]["kind"] == "ConfigError"


UNUSABLE: list[tuple[dict[str, Any], dict[str, Any] | None, str]] = [
    ({"certificate-authority-data": "QQ=="}, None, "certificate-authority"),
    ({"proxy-url": "socks6://x"}, None, 'scheme "socks6"'),
    ({"server": "ftp://x"}, None, "is not an http or https URL"),
    ({}, {"token": "a", "username": "b", "password": "c"}, "only one is allowed"),
    (
        {},
        {"client-certificate-data": "QQ==", "client-key-data": "QQ=="},
        "client certificate and its key cannot be",
    ),
]


@pytest.mark.parametrize(("cluster", "user", "words"), UNUSABLE, ids=[words for *_, words in UNUSABLE])
def test_what_cannot_be_used_is_told_without_a_run(
    cluster: dict[str, Any],
    user: dict[str, Any] | None,
    words: str,
    home: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write(home, cluster, user)
    assert main(["cluster", "--kubeconfig", "kubeconfig"]) == 125
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert words in stderr.splitlines()[0]


def test_names_cannot_draw_on_the_terminal(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(home, context={"namespace": "a\x1b[31mb"})
    assert main(["cluster", "--kubeconfig", "kubeconfig"]) == 0
    assert "\x1b" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-n", "No_Such"], "--namespace: 'No_Such' is not valid"),
        (["--", "x"], "arguments after --"),
        (["--local", "--gke", "p/l/n"], "--local excludes --gke"),
        (["script.py"], "unrecognized arguments: script.py"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_usage(arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", *arguments]) == 2
    assert words in capfd.readouterr().err
