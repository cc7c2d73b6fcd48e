"""The clusters on which scenarios run, and their outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

import anyio

from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox.cassette import Cassette, Player, Recorder, RecordingTransport, ReplayTransport, load
from tests.clock import run_on_mock_clock

from .carry_out import SETTLE_SECONDS, Order, Outcome, carry_out
from .embedded import STARTED_AT, embedded
from .table import IDLE_TIMEOUT, SCENARIOS

__all__ = ["FIXTURES", "Embedded", "Fixtures", "Live", "Played", "Replay", "ScenarioCluster"]

FIXTURES = Path(__file__).parents[2] / "fixtures"


class Fixtures:
    """The cassettes in a directory, each read once."""

    def __init__(self, directory: Path = FIXTURES) -> None:
        self.directory = directory
        self.load = cache(self._load)

    def path(self, scenario: str) -> Path:
        return self.directory / f"{scenario}.yaml"

    def _load(self, scenario: str) -> Cassette:
        return load(self.path(scenario), scenario=scenario)


@dataclass(frozen=True)
class Played:
    """The outcomes of a scenario, and the recording if there is one."""

    outcomes: Sequence[Outcome]
    recorded: Cassette | None = None


class ScenarioCluster(Protocol):
    """Runs scenarios. `not_here` returns why it cannot run one, or an empty string."""

    name: str

    def not_here(self, scenario: str) -> str: ...

    def play(self, scenario: str, order: Order = "at once") -> Played: ...


@dataclass
class Replay:
    """The cassettes, replayed in strict mode on a mock clock."""

    fixtures: Fixtures
    name: str = "replay"

    def not_here(self, scenario: str) -> str:
        return ""

    def play(self, scenario: str, order: Order = "at once") -> Played:
        cassette = self.fixtures.load(scenario)

        async def main() -> Sequence[Outcome]:
            transport = ReplayTransport(Player(cassette, strict=True))
            cluster = Cluster.transport(transport)
            return await _carry_out(cluster, cassette.header.namespace, scenario, order, settle=0)

        return Played(run_on_mock_clock(main))


class _Unsaved(Recorder):
    """A recording that is only compared."""

    def save(self) -> None:
        """Write nothing."""


@dataclass
class Embedded:
    """The embedded cluster, whose pods behave as in the cassettes, on a mock clock."""

    fixtures: Fixtures
    name: str = "embedded"
    _played: dict[str, Played] = field(default_factory=dict)

    def not_here(self, scenario: str) -> str:
        return ""

    def played(self, scenario: str) -> Played:
        """Return what a scenario has played already, without its log; else play it."""
        return self._played.get(scenario) or self.play(scenario)

    def play(self, scenario: str, order: Order = "at once") -> Played:
        cassette = self.fixtures.load(scenario)
        recorder = _Unsaved(f"{scenario}.yaml", now=lambda: STARTED_AT)

        async def main() -> Sequence[Outcome]:
            inner = embedded(scenario, cassette)
            cluster = Cluster.transport(RecordingTransport(inner, recorder))
            return await _carry_out(cluster, cassette.header.namespace, scenario, order)

        played = Played(run_on_mock_clock(main), recorder.cassette())
        if order == "at once":
            self._played[scenario] = played
        return played


@dataclass
class Live:
    """A live cluster, in real time."""

    cluster: Cluster
    namespace: str | None
    recorded_to: Path
    name: str = "live"

    def not_here(self, scenario: str) -> str:
        return SCENARIOS[scenario].not_live

    def play(self, scenario: str, order: Order = "at once") -> Played:
        path = self.recorded_to / f"{scenario}.yaml"
        notes = "Recorded from a live cluster by tests/scenarios."
        cluster = Cluster.record(path, self.cluster, scenario=scenario, notes=notes)
        outcomes = anyio.run(_carry_out, cluster, self.namespace, scenario, order)
        return Played(outcomes, load(path))


async def _carry_out(
    cluster: Cluster, namespace: str | None, name: str, order: Order, settle: float = SETTLE_SECONDS
) -> Sequence[Outcome]:
    scenario = SCENARIOS[name]
    async with AsyncSandbox(
        cluster,
        namespace=scenario.namespace or namespace,
        warm=scenario.warm,
        warm_idle_timeout=IDLE_TIMEOUT,
        **scenario.all_settings,
    ) as sandbox:
        return await carry_out(sandbox, scenario, order, settle)
