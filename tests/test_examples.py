"""Every example runs unchanged on the embedded cluster. Its pods are processes, for speed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs_on_the_embedded_cluster(example: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(example), "--local"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": os.path.dirname(sys.executable)},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout


def test_the_replayed_example_needs_no_cluster() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider"],
        cwd=ROOT / "examples" / "replayed_test",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "KUBECONFIG": "/nonexistent", "PATH": ""},
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert "1 passed" in ran.stdout


def test_there_are_examples() -> None:
    assert EXAMPLES
