"""A cluster that is not there, or not as it should be, is told in a line and a hint: exit status 125."""

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
    """An empty home directory, outside of any cluster."""
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
    ("arguments", "words"),
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
def test_it_is_told_in_one_line(
    arguments: list[str], words: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "-c", "1", *arguments]) == 125
    stdout, stderr = capfd.readouterr()
    error, *hints = stderr.splitlines()
    assert stdout == ""
    assert error.startswith("gke-sandbox: error: ")
    assert words in error
    assert len(hints) <= 1
    assert all(line.startswith("hint: ") for line in hints)


def test_a_newcomer_is_told_of_the_embedded_cluster(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-c", "1"]) == 125
    assert capfd.readouterr().err.endswith("--local needs no cluster.\n")


def test_it_is_json_where_json_was_asked_for(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-c", "1", "--kubeconfig", "missing", "--json"]) == 125
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    assert json.loads(stdout)["error"]["kind"] == "ConfigError"
