"""Fixtures: the cluster on which scenarios run, and the handling of recordings of a live cluster.

The options and the report at the end, after all workers, are in tests/conftest.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gke_sandbox import Cluster

from .allowed import unexpected
from .clusters import FIXTURES, Embedded, Fixtures, Live, Played, Replay, ScenarioCluster
from .drift import drift
from .readme import write_table

# Some scenarios wait for an image or for an eviction.
_LIVE_SECONDS = 300


@dataclass
class Comparing:
    """The effect of --verify and --record on a recording."""

    fixtures: Fixtures
    verify: bool
    record: bool
    renewed: set[str] = field(default_factory=set)

    def take(
        self,
        scenario: str,
        cluster: ScenarioCluster,
        played: Played,
        record_property: Callable[[str, object], None],
    ) -> None:
        """Compare the recording of a correct run with the cassette, and fail on unexpected drift."""
        if played.recorded is None:
            return
        recorded = self.fixtures.path(scenario)
        if self.verify and recorded.exists():
            differences = drift(self.fixtures.load(scenario), played.recorded)
            for each in differences:
                record_property("drift", f"{scenario} on {cluster.name}: {each}")
            left = unexpected(scenario, differences, live=isinstance(cluster, Live))
            assert not left, "\n".join(["the responses have another shape:", *map(str, left)])
        if self.record and isinstance(cluster, Live):
            shutil.copyfile(cluster.recorded_to / recorded.name, recorded)
            self.renewed.add(scenario)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cluster" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("cluster")
        skipped = pytest.mark.skip(reason="needs --cluster=live")
        live = pytest.param("live", marks=[pytest.mark.timeout(_LIVE_SECONDS)] + ([] if chosen else [skipped]))
        clusters = {"replay": "replay", "embedded": "embedded", "live": live}
        metafunc.parametrize("cluster", [clusters[chosen]] if chosen else list(clusters.values()), indirect=True)


@pytest.fixture(scope="session")
def fixtures(pytestconfig: pytest.Config) -> Fixtures:
    return Fixtures(Path(pytestconfig.getoption("cassettes") or FIXTURES))


@pytest.fixture(scope="session")
def replay_cluster(fixtures: Fixtures) -> Replay:
    return Replay(fixtures)


@pytest.fixture(scope="session")
def embedded_cluster(fixtures: Fixtures) -> Embedded:
    return Embedded(fixtures)


@pytest.fixture(scope="session")
def live_cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Live:
    options = pytestconfig.getoption
    found = Cluster.auto(options("kubeconfig"), options("context"))
    return Live(found, options("namespace"), tmp_path_factory.mktemp("live"))


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> ScenarioCluster:
    """Return the cluster that the test runs on, or skip the test if its scenario cannot run there."""
    found: ScenarioCluster = request.getfixturevalue(f"{request.param}_cluster")
    callspec = getattr(request.node, "callspec", None)
    why = found.not_here(callspec.params["scenario"]) if callspec and "scenario" in callspec.params else ""
    if why:
        pytest.skip(why)
    return found


@pytest.fixture(scope="session")
def comparing(pytestconfig: pytest.Config, fixtures: Fixtures) -> Iterator[Comparing]:
    made = Comparing(fixtures, pytestconfig.getoption("verify"), pytestconfig.getoption("record"))
    yield made
    if made.renewed:
        write_table(fixtures.directory)
