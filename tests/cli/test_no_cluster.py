"""A missing or invalid cluster is reported in one line and a hint, with exit code 125."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gke_sandbox.cli import main

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: one, user: me}}]
clusters: [{name: one, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: me, user: {token: secret}}]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, outside a cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "good").write_text(KUBECONFIG)
    (tmp_path / "broken").write_text("{{{")
    (tmp_path / "binary").write_bytes(b"\x00\xff\xfe")
    (tmp_path / "empty").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], ".kube/config does not exist"),
        (["--kubeconfig", "missing"], "missing: No such file or directory"),
        (["--kubeconfig", "."], "Is a directory"),
        (["--kubeconfig", "broken"], "broken, line"),
        (["--kubeconfig", "binary"], "binary: not YAML"),
        (["--kubeconfig", "empty"], "empty has no current-context"),
        (["--kubeconfig", "good", "--context", "elsewhere"], 'good has no context "elsewhere"'),
        (["--kubeconfig", "good"], "cannot reach https://127.0.0.1:1: Connection refused"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_unusable_cluster_is_reported_in_one_line(
    arguments: list[str], message: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "-c", "1", *arguments]) == 125
    stdout, stderr = capfd.readouterr()
    error, *hints = stderr.splitlines()
    assert stdout == ""
    assert error.startswith("gke-sandbox: error: ")
    assert message in error
    assert len(hints) <= 1
    assert all(line.startswith("hint: ") for line in hints)


def test_without_a_cluster_the_hint_suggests_local(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-c", "1"]) == 125
    assert capfd.readouterr().err.endswith("--local needs no cluster.\n")


def test_with_json_the_error_is_a_json_object(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-c", "1", "--kubeconfig", "missing", "--json"]) == 125
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    assert json.loads(stdout)["error"]["kind"] == "ConfigError"


def test_the_kind_of_an_error_is_a_public_class(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-c", "1", "--context", "here", "--json"]) == 125
    error = json.loads(capfd.readouterr().out)["error"]
    assert (error["kind"], error["hint"]) == ("ConfigError", "Name one, or run this in a pod of the cluster.")
    assert error["message"].endswith(".kube/config does not exist")
