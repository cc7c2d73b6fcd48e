"""A project that has the package installed."""

from __future__ import annotations

import pytest

from gke_sandbox import Cluster, Sandbox
from gke_sandbox.local import LocalTransport, ScriptedRuntime
from tests.pods import out, program

from .kit import CONFTEST


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import everything that the tests of a project need.

    pytester forgets modules that are imported within it. Importing them again takes time, and the binding to
    libyaml cannot be imported twice: its classes would belong to a forgotten module.
    """
    path = tmp_path_factory.mktemp("cassettes") / "c.yaml"
    cluster = Cluster.transport(LocalTransport(ScriptedRuntime(program(out("x")))))
    for each in (Cluster.record(path, cluster), Cluster.replay(path)):
        with Sandbox(each) as sandbox:
            sandbox.run("x")


@pytest.fixture
def project(imported: None, pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider --strict-markers\nfilterwarnings = error\n")
    return pytester
