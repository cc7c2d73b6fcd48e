"""The options of the scenarios work with workers too, or are a usage error."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from .clusters import FIXTURES


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]
    return subprocess.run(command, cwd=FIXTURES.parent, capture_output=True, text=True, timeout=50, check=False)


def test_drift_found_by_a_worker_is_reported() -> None:
    ran = run(
        *("-n1", "tests/scenarios/test_scenarios.py", "--cluster=embedded", "--verify"),
        *("-k", "what_comes_out and (already-exists or invalid-job or forbidden)"),
    )
    lines = ran.stdout.splitlines()
    found = [line.partition(" on ")[0] for line in lines if re.match(r"[a-z-]+ on embedded: ", line)]
    assert {*found} == {"already-exists", "invalid-job"}
    assert f"drift: {len(found)} differences from the cassettes" in ran.stdout
    assert ran.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--record", "--record is for a live cluster: add --cluster=live"),
        ("--cluster=embedded --kubeconfig f", "--kubeconfig is for a live cluster"),
        ("--cluster=replay --context c", "--context is for a live cluster"),
        ("--namespace n", "--namespace is for a live cluster"),
        ("--cluster=replay --verify", "--verify compares responses with the cassettes"),
        ("--cluster=live --record -n2", "--record writes what other workers read: add -n0"),
    ],
)
def test_an_option_without_effect_is_a_usage_error(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.syspath_prepend(str(FIXTURES.parent))
    result = pytester.runpytest_inprocess("-p", "no:asyncio", "-p", "tests.conftest", *arguments.split())
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}*"])
