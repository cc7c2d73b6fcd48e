"""Every scenario comes out the same on a recorded server, on the embedded cluster, and on a live one.

``pytest tests/scenarios --cluster=live --kubeconfig F --context C --namespace N`` runs them on a live cluster; add
``-n0 --record`` to renew fixtures/, ``--verify`` to compare the shape of all answers with them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from .allowed import ALLOWED, unexpected
from .carry_out import Order, check
from .clusters import Embedded, Fixtures, ScenarioCluster
from .conftest import Comparing
from .drift import drift
from .table import SCENARIOS, Scenario

_TWO = ("two-executions-one-watch", "attach-warm")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_comes_out_is_what_must(
    scenario: str,
    cluster: ScenarioCluster,
    comparing: Comparing,
    record_property: Callable[[str, object], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "gke_sandbox")
    played = cluster.play(scenario)
    check(SCENARIOS[scenario], played.outcomes)
    comparing.take(scenario, cluster, played, record_property)
    assert_no_program_in(caplog.records, SCENARIOS[scenario])


def assert_no_program_in(records: list[logging.LogRecord], scenario: Scenario) -> None:
    """The log contains no line of a program and no content of its files, at any level."""
    assert any(record.name == "gke_sandbox._run_log" for record in records)
    log = "\n".join(f"{record.getMessage()} {record.exc_text}" for record in records)
    for run in scenario.runs:
        for text in [*run.code.splitlines(), *(content.decode("latin-1") for content in run.files.values())]:
            assert len(text) < 6 or text not in log


@pytest.mark.parametrize("order", ["backwards", "one by one"])
@pytest.mark.parametrize("scenario", _TWO)
def test_two_executions_get_their_own_results_in_every_order(
    scenario: str, order: Order, cluster: ScenarioCluster
) -> None:
    check(SCENARIOS[scenario], cluster.play(scenario, order).outcomes)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_embedded_cluster_responds_in_the_recorded_shape(
    scenario: str, embedded_cluster: Embedded, fixtures: Fixtures
) -> None:
    recorded = embedded_cluster.played(scenario).recorded
    assert recorded is not None
    left = unexpected(scenario, drift(fixtures.load(scenario), recorded))
    assert not left, "\n".join(map(str, left))


def test_every_allowed_difference_exists_and_has_a_reason(embedded_cluster: Embedded, fixtures: Fixtures) -> None:
    stale = list(ALLOWED)
    for scenario in SCENARIOS:
        recorded = embedded_cluster.played(scenario).recorded
        assert recorded is not None
        found = drift(fixtures.load(scenario), recorded)
        stale = [one for one in stale if not any(one.covers(scenario, each) for each in found)]
    assert stale == []
    assert all(len(one.reason.split()) > 5 for one in ALLOWED)
