"""Temporary projects, and runs of pytest in them."""

from __future__ import annotations

from pathlib import Path

import pytest

# pytest-xdist gives its workers the path that it found when it was imported, which may be without this tree.
CONFTEST = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})

import pytest
from gke_sandbox import Cluster
from gke_sandbox.local import LocalTransport, ScriptedRuntime
from tests.pods import out, program

@pytest.fixture
def gke_sandbox_cluster():
    runtime = ScriptedRuntime(lambda spec: program(out("ran " + spec.env["GKE_SANDBOX_CODE_0"]), at=0.0))
    return Cluster.transport(LocalTransport(runtime))
"""

TEST = """
from gke_sandbox import Sandbox

def test_it(gke_sandbox_cassette):
    with Sandbox(gke_sandbox_cassette) as sandbox:
        assert sandbox.run("print(1)").stdout == "ran print(1)"
"""


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    # The plugin is loaded already where the package is installed; in a tree that is only on the path it is not.
    plugins = [] if installed() else ["-p", "gke_sandbox.pytest_plugin"]
    for other in ("asyncio", "hypothesispytest", "timeout", "pytest_httpx"):
        if not any(argument.startswith(f"-o{other}") for argument in arguments):
            plugins += ["-p", f"no:{other}"]
    return project.runpytest_inprocess(*plugins, *arguments)


def installed() -> bool:
    from importlib.metadata import entry_points

    return any(each.name == "gke_sandbox" for each in entry_points(group="pytest11"))


def cassettes(project: pytest.Pytester) -> list[str]:
    return sorted(path.name for path in (project.path / "cassettes").glob("*"))
