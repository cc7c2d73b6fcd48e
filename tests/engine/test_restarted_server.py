"""403 from an API server that has just started, before its authorizer has read the Roles."""

from __future__ import annotations

import logging

import anyio
import pytest

from gke_sandbox.errors import Forbidden, ResultLost, SandboxError
from gke_sandbox.kube.permissions import FORBIDDEN_GRACE
from gke_sandbox.kube.retry import MAX_FORBIDDEN_DELAY
from gke_sandbox.local.faults import CutBody, Drop, Fault, Forbid, Match, Refuse, Respond

from ..clock import mock_clock
from ..pods import exit_frame, out, pods, program

POST_JOB = Match("create", "jobs")
REQUESTS = {
    "job": POST_JOB,
    "configmap": Match("create", "configmaps"),
    "list": Match("list", "pods"),
    "watch": Match("watch", "pods"),
    "log": Match("get", "pods/log"),
    "delete": Match("delete", "jobs"),
}


@pytest.mark.parametrize("name", REQUESTS)
@mock_clock
async def test_a_403_for_a_permission_that_was_granted_before_is_retried(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with pods(program(out("x"))) as cluster:
        await cluster.sandbox.run("pass")
        # Every request is sent again by the second run: the watch was closed.
        await anyio.sleep(400)
        forbidden = Fault(Forbid(), REQUESTS[name], times=2)
        cluster.transport.faults.add(forbidden)
        assert (await cluster.sandbox.run("pass")).stdout == "x"
        await anyio.sleep(20)
        assert cluster.transport.faults.count(forbidden) == 2
        assert cluster.left() == []
        assert cluster.sandbox.leftovers == []
        assert len(cluster.runtime.specs) == 2
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("name", ["job", "list", "watch", "log"])
@pytest.mark.parametrize("outage", [Refuse(), Drop(), Respond.bad_gateway()], ids=["refused", "reset", "502"])
@mock_clock
async def test_a_403_after_an_outage_is_retried(name: str, outage: Refuse | Drop | Respond) -> None:
    faults = Fault(outage, REQUESTS[name]), Fault(Forbid(), REQUESTS[name], times=2, skip=1)
    async with pods(program(out("x"), at=15.0), *faults) as cluster:
        assert (await cluster.sandbox.run("pass")).stdout == "x"
        assert cluster.transport.faults.count(faults[1]) == 2
        await anyio.sleep(20)
        assert cluster.left() == []
        assert len(cluster.runtime.specs) == 1


@mock_clock
async def test_a_403_after_the_log_broke_off_is_retried() -> None:
    """The client has one permission for the log from its start, so this is about the first run, too."""
    log = Match("get", "pods/log")
    faults = Fault(CutBody(after=40), log), Fault(Forbid(), log, times=3, skip=1)
    async with pods(program(out("x"), exit_frame()), *faults) as cluster:
        assert (await cluster.sandbox.run("pass")).stdout == "x"
        assert cluster.transport.faults.count(faults[1]) == 3


@mock_clock
async def test_a_permission_that_is_withdrawn_is_an_error_after_a_few_seconds_and_then_at_once() -> None:
    async with pods(program(out("x"))) as cluster:
        await cluster.sandbox.run("pass")
        cluster.transport.faults.add(Fault(Forbid(), POST_JOB, times=None))
        for longest in (FORBIDDEN_GRACE + MAX_FORBIDDEN_DELAY, 0.1):
            began = anyio.current_time()
            with pytest.raises(Forbidden) as caught:
                await cluster.sandbox.run("pass")
            assert anyio.current_time() - began < longest
            assert caught.value.may_have_run is False
            assert 'resources: ["jobs"], verbs: ["create"]' in caught.value.hint
            # The server is still there; only the permission is not.
            await anyio.sleep(60)


@pytest.mark.parametrize("name", ["job", "configmap", "list", "log"])
@mock_clock
async def test_a_403_without_an_outage_or_an_earlier_grant_is_an_error_at_once(name: str) -> None:
    async with pods(program(out("x")), Fault(Forbid(), REQUESTS[name], times=None)) as cluster:
        began = anyio.current_time()
        with pytest.raises(SandboxError) as caught:
            await cluster.sandbox.run("pass")
        assert isinstance(caught.value, ResultLost if name == "log" else Forbidden)
        assert anyio.current_time() - began < 1.5
        assert len([each for each in cluster.requests if each.startswith("POST jobs")]) == 1


@mock_clock
async def test_a_watch_that_was_never_allowed_is_replaced_by_lists_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pods(program(out("x")), Fault(Forbid(), REQUESTS["watch"], times=None)) as cluster:
        assert (await cluster.sandbox.run("pass")).stdout == "x"
        assert cluster.requests.count("GET pods?watch") == 1
    assert "listing pods every second or two instead" in caplog.text


@mock_clock
async def test_a_rejection_by_admission_is_not_retried_as_a_missing_permission() -> None:
    text = 'jobs.batch "x" is forbidden: a policy of the future'
    async with pods(program(out("x"))) as cluster:
        await cluster.sandbox.run("pass")
        cluster.transport.faults.add(Fault(Respond(403, "Forbidden", text), POST_JOB, times=None))
        began = anyio.current_time()
        with pytest.raises(Forbidden):
            await cluster.sandbox.run("pass")
        assert anyio.current_time() - began < 0.1
