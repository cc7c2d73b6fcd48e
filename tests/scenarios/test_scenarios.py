"""Every scenario comes out the same on a recorded server, on the embedded cluster, and on a live one.

``pytest tests/scenarios --cluster=live --kubeconfig F --context C --namespace N`` runs them on a live cluster; add
``-n0 --record`` to renew fixtures/, ``--verify`` to compare the shape of all answers with them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .allowed import ALLOWED, unexpected
from .carry_out import Order, check
from .clusters import Embedded, Fixtures, ScenarioCluster
from .conftest import Comparing
from .drift import drift
from .table import SCENARIOS

_TWO = ("two-executions-one-watch", "attach-warm")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_comes_out_is_what_must(
    scenario: str,
    cluster: ScenarioCluster,
    comparing: Comparing,
    record_property: Callable[[str, object], None],
) -> None:
    played = cluster.play(scenario)
    check(SCENARIOS[scenario], played.outcomes)
    comparing.take(scenario, cluster, played, record_property)


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
    recorded = embedded_cluster.play(scenario).recorded
    assert recorded is not None
    left = unexpected(scenario, drift(fixtures.load(scenario), recorded))
    assert not left, "\n".join(map(str, left))


def test_every_allowed_difference_exists_and_has_a_reason(embedded_cluster: Embedded, fixtures: Fixtures) -> None:
    stale = list(ALLOWED)
    for scenario in SCENARIOS:
        recorded = embedded_cluster.play(scenario).recorded
        assert recorded is not None
        found = drift(fixtures.load(scenario), recorded)
        stale = [one for one in stale if not any(one.covers(scenario, each) for each in found)]
    assert stale == []
    assert all(len(one.reason.split()) > 5 for one in ALLOWED)
