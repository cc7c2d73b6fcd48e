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
    plugins = ["gke_sandbox.pytest_plugin", "anyio.pytest_plugin"]
    if any(argument.startswith("-n") for argument in arguments):
        plugins.append("xdist.plugin")
    if any(argument.startswith("-oasyncio") for argument in arguments):
        plugins.append("pytest_asyncio.plugin")
    with pytest.MonkeyPatch.context() as patch:
        # Searching all installed packages for plugins takes a quarter of the time.
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        return project.runpytest_inprocess(*(f"-p{each}" for each in plugins), *arguments)


def cassettes(project: pytest.Pytester) -> list[str]:
    return sorted(path.name for path in (project.path / "cassettes").glob("*"))
