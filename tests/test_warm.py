"""Warm pods: a Sandbox that keeps pods waiting, and the runs that take them."""

from __future__ import annotations

import logging
import sys
from typing import Any

import anyio
import pytest

from gke_sandbox import AsyncSandbox, ConfigError, Sandbox, SpecError
from gke_sandbox._engine.warm_pool import INITIAL_DELAY, can_run
from gke_sandbox.local import Fault, Match
from gke_sandbox.local.faults import BadImage, CutAttach, Forbid
from gke_sandbox.settings import Settings

from .clock import mock_clock
from .pods import INSTANT, Pods, pods
from .warm_runner import WaitingRunner

pytestmark = pytest.mark.anyio


async def ready(cluster: Pods, count: int) -> None:
    """Wait until this many pods are ready."""
    pool = cluster.sandbox._opened().pool
    assert pool is not None
    with anyio.fail_after(100):
        while pool.ready < count:
            await anyio.sleep(0.01)


@mock_clock
async def test_a_run_takes_a_pod_that_waits_and_another_one_is_created() -> None:
    runner = WaitingRunner()
    async with pods(runner.script, warm=2) as cluster:
        await ready(cluster, 2)
        before = len(cluster.requests)
        result = await cluster.sandbox.run("one", timeout=20, env={"A": "1"}, args=["x"])
        assert (result.start, result.stdout, result.ok) == ("warm", "one", True)
        await ready(cluster, 2)
        await anyio.sleep(1)
        # The pod that takes its place, and the deletion.
        assert sorted(cluster.requests[before:]) == ["DELETE jobs/*", "GET pods/*/attach", "POST jobs"]
        (request,) = runner.requests
        assert (request["timeout"], request["env"], request["args"]) == (20, {"A": "1"}, ["x"])
    assert cluster.transport.objects("jobs") == []
    assert runner.idle == 2


@mock_clock
async def test_a_warm_run_waits_for_no_timer_and_no_request() -> None:
    async with pods(WaitingRunner().script, warm=1) as cluster:
        await ready(cluster, 1)
        started = anyio.current_time()
        result = await cluster.sandbox.run("one")
        assert anyio.current_time() == started
        assert result.timings.returned == 0


@mock_clock
async def test_runs_beyond_the_ready_pods_start_cold_at_once() -> None:
    async with pods(WaitingRunner().script, warm=1, delivery="attach") as cluster:
        await ready(cluster, 1)
        results = await cluster.sandbox.map(["a", "b", "c"])
        assert sorted(result.start for result in results) == ["cold", "cold", "warm"]
        assert [result.stdout for result in results] == ["a", "b", "c"]
        assert all(result.warnings == () for result in results)


@mock_clock
async def test_each_pod_runs_one_program() -> None:
    runner = WaitingRunner()
    async with pods(runner.script, warm=3, delivery="attach") as cluster:
        results = await cluster.sandbox.map([str(number) for number in range(50)], max_concurrency=8)
        assert [result.stdout for result in results] == [str(number) for number in range(50)]
        assert len({result.pod for result in results}) == 50
    assert sorted(int(request["code"]) for request in runner.requests) == list(range(50))
    assert cluster.transport.objects("jobs") == []


@mock_clock
async def test_a_pod_is_replaced_before_its_idle_time_is_over() -> None:
    runner = WaitingRunner()
    async with pods(runner.script, warm=1, warm_idle_timeout=100) as cluster:
        await ready(cluster, 1)
        names = set(cluster.sandbox.jobs)
        await anyio.sleep(350)
        await ready(cluster, 1)
        assert names.isdisjoint(cluster.sandbox.jobs)
        assert (await cluster.sandbox.run("one")).start == "warm"
    assert runner.expired == 0, "each ended because its connection was closed"
    assert cluster.transport.objects("jobs") == []


@mock_clock
async def test_a_pod_that_is_deleted_while_it_waits_is_replaced() -> None:
    async with pods(WaitingRunner().script, warm=1) as cluster:
        await ready(cluster, 1)
        await cluster.delete_job()
        await anyio.sleep(INITIAL_DELAY + 10)
        await ready(cluster, 1)
        assert (await cluster.sandbox.run("one")).start == "warm"


@mock_clock
async def test_a_pool_that_cannot_fill_is_logged_once_and_tried_with_growing_delays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "gke_sandbox")
    async with pods(WaitingRunner().script, Fault(BadImage(), times=None), warm=4) as cluster:
        await anyio.sleep(600)
        posts = cluster.requests.count("POST jobs")
        assert 4 + 5 < posts < 4 + 25
        records = [record.message for record in caplog.records if "warm pod" in record.message]
        assert len(records) == 1
        assert "image" in records[0]


@mock_clock
async def test_a_cold_run_has_the_reason_why_no_pod_is_warm_as_a_warning() -> None:
    refused = Fault(Forbid(), Match("get", "pods/attach"), times=None)
    async with pods(WaitingRunner().script, refused, warm=1) as cluster:
        await anyio.sleep(5)
        result = await cluster.sandbox.run("one")
        assert (result.start, result.stdout) == ("cold", "from the environment")
        (warning,) = result.warnings
        assert warning.startswith("the program started in a new pod: ")
        assert "pods/attach" in warning


@mock_clock
async def test_a_connection_lost_after_the_start_frame_is_continued_in_the_log() -> None:
    runner = WaitingRunner()
    async with pods(runner.script, Fault(CutAttach(after=70)), warm=1) as cluster:
        await ready(cluster, 1)
        result = await cluster.sandbox.run("x" * 1000)
        assert (result.stdout, result.start) == ("x" * 1000, "warm")
    assert len(runner.requests) == 1


@mock_clock
async def test_a_connection_lost_within_the_request_means_another_pod() -> None:
    runner = WaitingRunner()
    fault = Fault(CutAttach(after=500, direction="input"))
    async with pods(runner.script, fault, warm=1) as cluster:
        await ready(cluster, 1)
        result = await cluster.sandbox.run("x" * 1000)
        # The other pod has the delivery of any cold run.
        assert (result.stdout, result.start) == ("from the environment", "cold")
    assert (len(runner.requests), runner.started) == (0, 1)
    assert cluster.transport.objects("jobs") == []


@mock_clock
async def test_a_cancelled_warm_run_leaves_nothing() -> None:
    runner = WaitingRunner(lambda _: b"")
    async with pods(runner.script, warm=1) as cluster:
        await ready(cluster, 1)
        with anyio.move_on_after(1):
            await cluster.sandbox.run("one")
        await ready(cluster, 1)
        await anyio.sleep(5)
        assert len(cluster.sandbox.jobs) == 1
    assert cluster.transport.objects("jobs") == []


async def test_closing_the_sandbox_deletes_the_pods_that_wait() -> None:
    runner = WaitingRunner()
    async with pods(runner.script, pace=INSTANT, warm=3) as cluster:
        await ready(cluster, 3)
        assert len(cluster.sandbox.jobs) == 3
    assert cluster.transport.objects("jobs") == []
    assert cluster.sandbox.jobs == []


@mock_clock
async def test_a_sandbox_that_is_closed_at_once_leaves_nothing() -> None:
    for steps in range(60):
        async with pods(WaitingRunner().script, warm=2) as cluster:
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
        assert cluster.transport.objects("jobs") == []


POD = Settings(timeout=100, env={"A": "1"}, annotations={"x": "y"})


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"timeout": 5}, True),
        ({"timeout": 100.5}, False),
        ({"env": {"A": "1", "B": "2"}}, True),
        ({"env": {"A": "2"}}, True),
        ({"env": {}}, False),
        ({"env": {"A": "1", "PYTHONHASHSEED": "0"}}, False),
        ({"env": {"A": "1", "LD_PRELOAD": "x"}}, False),
        ({"max_output_bytes": 10, "max_file_bytes": 10, "max_files": 1}, True),
        ({"delivery": "mount"}, False),
        ({"delivery": "attach"}, True),
        ({"annotations": {"x": "y", "adk.agent.google.com/invocation-id": "e-1"}}, True),
        ({"labels": {"adk.agent.google.com/agent-name": "coder"}}, True),
        ({"annotations": {"x": "z"}}, False),
        ({"labels": {"team": "a"}}, False),
        ({"image": "python:3.12-slim"}, False),
        ({"memory_limit": "1Gi"}, False),
        ({"runtime_class_name": None}, False),
    ],
)
def test_a_pod_runs_programs_whose_settings_differ_only_in_what_a_request_can_change(
    changes: dict[str, Any], fits: bool
) -> None:
    assert can_run(POD, POD.override(**changes)) is fits


@pytest.mark.parametrize("wrong", [-1, 1001, 1.5, "4", True])
@pytest.mark.parametrize("kind", [Sandbox, AsyncSandbox])
def test_the_number_of_warm_pods_is_checked(kind: type, wrong: Any) -> None:
    with pytest.raises(SpecError, match=r"^warm: must be"):
        kind(warm=wrong)


@pytest.mark.parametrize("kind", [Sandbox, AsyncSandbox])
@pytest.mark.parametrize("given", [{"warm": 1}, {"delivery": "attach"}], ids=str)
def test_a_missing_package_is_one_error_at_construction(
    kind: type, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wsproto.connection", None)
    with pytest.raises(ConfigError, match="requires the package wsproto, which is not installed") as caught:
        kind(**given)
    assert caught.value.hint == "Install it with: pip install 'gke-sandbox[warm]'."
    kind(warm=0, delivery="env")


@mock_clock
async def test_a_missing_package_is_one_error_of_a_run_with_delivery_attach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wsproto.connection", None)
    async with pods(WaitingRunner().script) as cluster:
        with pytest.raises(ConfigError, match="requires the package wsproto") as caught:
            await cluster.sandbox.run("x", delivery="attach")
        assert caught.value.may_have_run is False
        assert cluster.requests == []


def test_the_idle_time_is_checked() -> None:
    with pytest.raises(SpecError, match=r"^warm_idle_timeout: must be"):
        Sandbox(warm=1, warm_idle_timeout=0)
