"""Limits that the cluster changes, as GKE Autopilot does: logged once, and named when the program hits them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from gke_sandbox._diagnosis.limits import changed_limits, memory_hint, memory_limit
from gke_sandbox.local.faults import Drop, Fault, Match, Mutate
from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.scripted import Script

from ..clock import mock_clock
from ..pods import START, out, pods, program

OUT_OF_MEMORY = Script(chunks=[(0.0, START)], ends_at=0.1, exit=ContainerExit(137, "OOMKilled"))
WARNING = (
    "the cluster changed the limits of the container: cpu from 500m to 200m, memory from 512Mi to 256Mi, "
    "ephemeral-storage from {storage} to none"
)


def like_requests(spec: dict[str, Any]) -> None:
    resources = spec["containers"][0]["resources"]
    resources["limits"] = {name: resources["requests"][name] for name in ("cpu", "memory")}


def on_job(change: Callable[[dict[str, Any]], object]) -> Fault:
    return Fault(Mutate(lambda job: change(job["spec"]["template"]["spec"])), Match(resource="jobs"), times=None)


def on_pod(change: Callable[[dict[str, Any]], object]) -> Fault:
    return Fault(Mutate(lambda pod: change(pod["spec"])), Match(resource="pods"), times=None)


CHANGED = {"cpu": "200m", "memory": "256Mi", "ephemeral-storage": "none"}
LOST = Fault(Drop(carried_out=True), Match("create", "jobs"))


@pytest.mark.parametrize(
    "faults", [(on_job(like_requests),), (on_pod(like_requests),), (LOST, on_job(like_requests))],
    ids=["of the job", "of the pod", "of a job whose response was lost"],
)  # fmt: skip
@mock_clock
async def test_changed_limits_are_logged_once_and_kept(
    faults: tuple[Fault, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with pods(program(out("x")), *faults) as cluster:
        for _ in range(3):
            result = await cluster.sandbox.run("pass")
            assert (result.stdout, dict(result.changed_limits)) == ("x", CHANGED)
            assert result.message == ""
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    storage = messages[0].split("ephemeral-storage from ")[1].split()[0]
    assert messages == [WARNING.format(storage=storage)]


@mock_clock
async def test_a_program_out_of_memory_names_the_limit_that_applied() -> None:
    async with pods(OUT_OF_MEMORY, on_job(like_requests)) as cluster:
        result = await cluster.sandbox.run("pass", memory_limit="512Mi")
    assert result.status == "out_of_memory"
    limit = "the limit was 256Mi, which the cluster set instead of 512Mi"
    assert result.message == f"the container used more memory than its limit; {limit}"


@mock_clock
async def test_other_resources_and_notations_are_no_change(caplog: pytest.LogCaptureFixture) -> None:
    def harmless(spec: dict[str, Any]) -> None:
        resources = spec["containers"][0]["resources"]
        resources["limits"].update({"cpu": "0.5"})
        resources["requests"]["cpu"] = "500m"

    async with pods(OUT_OF_MEMORY, on_job(harmless)) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (dict(result.changed_limits), result.message) == ({}, "the container used more memory than its limit")
    assert "changed the limits" not in caplog.text


def spec(**limits: str) -> dict[str, Any]:
    return {"containers": [{"name": "proxy"}, {"name": "main", "resources": {"limits": limits}}]}


def test_a_spec_that_does_not_show_the_limits_is_not_compared() -> None:
    for other in ({}, {"containers": None}, {"containers": [{"name": "main"}]}):
        assert changed_limits(spec(memory="1Gi"), other, "main") is None
        assert changed_limits(other, spec(memory="1Gi"), "main") is None
    assert changed_limits(spec(memory="1Gi"), spec(memory="1024Mi"), "main") == {}
    assert changed_limits(spec(memory="1Gi"), spec(), "main") == {"memory": "none"}
    assert changed_limits(spec(memory="1Gi"), spec(memory="?"), "main") == {"memory": "?"}


def test_the_hint_names_the_request_only_if_the_limit_was_changed() -> None:
    assert memory_limit({}, "512Mi") == "512Mi"
    assert memory_hint({"cpu": "1"}, "Raise it.") == "Raise it."
    assert memory_hint({"memory": "256Mi"}, "Raise it.").startswith("The cluster changed the limit.")
