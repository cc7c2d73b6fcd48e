"""The live mode on the embedded cluster behind a real socket, with real processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gke_sandbox.cassette import load
from tests.http_cluster import http_cluster

from .carry_out import check
from .clusters import FIXTURES, Fixtures, Replay
from .table import SCENARIOS

_RENEWED = ("execution-files", "two-executions-one-watch")
_DRIFTED = "execution-exit-3"


def test_live_scenarios_are_recorded_and_compared_with_the_cassettes(tmp_path: Path) -> None:
    cassettes = tmp_path / "cassettes"
    cassettes.mkdir()
    for name in (*_RENEWED, _DRIFTED):
        shutil.copy(FIXTURES / f"{name}.yaml", cassettes)
    drifted = cassettes / f"{_DRIFTED}.yaml"
    drifted.write_text(drifted.read_text().replace("qosClass: Burstable", "qosClass: Guaranteed"))
    (cassettes / "README.md").write_text((FIXTURES / "README.md").read_text())
    with http_cluster("sandboxes") as cluster:
        command = [
            *(sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", "tests/scenarios", "-q", "-rs"),
            *("--cluster=live", "--kubeconfig", cluster.kubeconfig(tmp_path), "--context", "c"),
            *("--namespace", "sandboxes", "--record", "--verify", "--cassettes", str(cassettes)),
            *("-k", "what_comes_out and (exit-3 or files or two or quota)"),
        ]
        ran = subprocess.run(command, cwd=FIXTURES.parent, capture_output=True, text=True, timeout=50, check=False)
        assert cluster.transport.leftovers() == []
    print(ran.stdout, ran.stderr)
    assert "the namespace must have a quota of no pods" in ran.stdout
    renewed = Fixtures(cassettes)
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED
    assert (
        "execution-exit-3 on live: watch-pods: Pending: status.qosClass: recorded 'Guaranteed', found"
        in ran.stdout
    )
    assert "1 failed, 2 passed, 1 skipped" in ran.stdout
    assert load(drifted).header.server == "v1.36.2"
    for name in _RENEWED:
        header = load(cassettes / f"{name}.yaml", scenario=name).header
        assert (header.namespace, header.server) == ("sandboxes", "v1.36.2+embedded")
        check(SCENARIOS[name], Replay(renewed).play(name).outcomes)
    assert "| `execution-files.yaml` | v1.36.2+embedded |" in (cassettes / "README.md").read_text()
