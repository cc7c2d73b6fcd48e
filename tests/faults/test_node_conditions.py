"""Nodes that accept no pod for a while: the condition or taint is named, and the run waits."""

from __future__ import annotations

import anyio
import pytest

from gke_sandbox import ExecutionFinished, PodWaiting, StartError
from gke_sandbox.local.faults import Action, Fault, Match, NoNode, RejectPod
from tests.clock import mock_clock
from tests.pods import out, pods, program

STARTUP_TIMEOUT = 120.0


def fault(action: Action, times: int | None = 1) -> Fault:
    return Fault(action, Match(resource="pods"), times)


REJECTED = {
    "node_pressure": (RejectPod.pressure("DiskPressure"), "Evicted", "[DiskPressure]"),
    "node_refused": (RejectPod.out_of_cpu(), "OutOfcpu", "Node didn't have enough resource: cpu"),
}
KEPT_AWAY = {
    "node_pressure": (NoNode.tainted("node.kubernetes.io/disk-pressure", seconds=25), "disk-pressure"),
    "node_not_ready": (NoNode.tainted("node.kubernetes.io/not-ready", seconds=25), "not-ready"),
    "node_cordoned": (NoNode.cordoned(seconds=25), "unschedulable"),
    "node_tainted": (NoNode.tainted("", seconds=25), "untolerated taint(s)"),
}


async def run_after(*faults: Fault) -> tuple[list[PodWaiting], float]:
    """Run a program that starts late, and return the waiting events and when it had ended."""
    async with pods(program(out("ran")), *faults, startup_timeout=STARTUP_TIMEOUT) as cluster:
        began = anyio.current_time()
        async with cluster.sandbox.stream("pass") as events:
            seen = [event async for event in events]
        after = anyio.current_time() - began
        await anyio.sleep(10)
        assert cluster.left() == []
    assert isinstance(seen[-1], ExecutionFinished)
    assert (seen[-1].result.status, seen[-1].result.stdout) == ("succeeded", "ran")
    return [event for event in seen if isinstance(event, PodWaiting)], after


@pytest.mark.parametrize("name", REJECTED)
@mock_clock
async def test_a_pod_that_its_node_rejects_is_replaced_after_a_pause(name: str) -> None:
    action, reason, words = REJECTED[name]
    waits, after = await run_after(fault(action))
    assert [(wait.cause, wait.reason) for wait in waits] == [(name, reason)]
    assert words in waits[0].message
    assert after < 5


@pytest.mark.parametrize("name", REJECTED)
@mock_clock
async def test_a_node_that_rejects_every_pod_ends_the_run_before_startup_timeout(name: str) -> None:
    action, reason, words = REJECTED[name]
    async with pods(program(), fault(action, None), startup_timeout=STARTUP_TIMEOUT) as cluster:
        began = anyio.current_time()
        with pytest.raises(StartError) as caught:
            await cluster.sandbox.run("pass")
        assert anyio.current_time() - began < STARTUP_TIMEOUT
        await anyio.sleep(10)
        assert cluster.left() == []
    assert (caught.value.cause, caught.value.reason) == (name, reason)
    assert not caught.value.may_have_run
    assert words in str(caught.value)
    assert "kubectl describe nodes" in caught.value.hint


@pytest.mark.parametrize("name", KEPT_AWAY)
@mock_clock
async def test_a_taint_or_a_cordoned_node_is_named_and_waited_for(name: str) -> None:
    action, words = KEPT_AWAY[name]
    waits, after = await run_after(fault(action))
    assert [wait.cause for wait in waits] == [name]
    assert words in waits[0].message
    assert "gVisor" not in waits[0].message
    assert 25 < after < 30


@mock_clock
async def test_a_node_that_rejects_a_pod_and_is_then_tainted_is_waited_for() -> None:
    tainted = Fault(
        NoNode.tainted("node.kubernetes.io/disk-pressure", seconds=60), Match(resource="pods"), 1, skip=1
    )
    waits, after = await run_after(fault(RejectPod.pressure()), tainted)
    assert [(wait.cause, wait.reason) for wait in waits] == [
        ("node_pressure", "Evicted"),
        ("node_pressure", "Unschedulable"),
    ]
    assert 60 < after < 70


@mock_clock
async def test_a_node_selector_of_the_caller_that_matches_no_node_is_named() -> None:
    async with pods(program(), startup_timeout=10.0, node_selector={"pool": "big"}) as cluster:
        with pytest.raises(StartError) as caught:
            await cluster.sandbox.run("pass")
    assert caught.value.cause == "node_selector_unmatched"
    assert "The pod selects nodes with pool=big" in str(caught.value)
    assert "node_selector" in caught.value.hint
    assert "gVisor" not in caught.value.hint
