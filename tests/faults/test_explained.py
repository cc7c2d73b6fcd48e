"""Why a sandbox did not start, or was ended: the cause, soon after the cluster knows it, with few requests."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest

from gke_sandbox import ExecutionFinished, ExecutionResult, PodWaiting, ResultLost, SandboxError, StartError
from gke_sandbox._diagnosis import cause
from gke_sandbox._engine.startup_probe import POLL_INTERVAL_PER_PENDING
from gke_sandbox.local.faults import (
    Action,
    BadImage,
    Evict,
    Fault,
    Forbid,
    HideConfigMap,
    Match,
    Mutate,
    NoNode,
    NoPodSandbox,
    Preempt,
    RefusePod,
    Respond,
    ShutDownNode,
)
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.base import ContainerExit, ContainerStartError
from gke_sandbox.local.runtimes.scripted import Script
from tests.clock import mock_clock, run_on_mock_clock
from tests.pods import START, Pods, Shared, out, pods, program

STARTUP_TIMEOUT = 40.0

HAPPY = ["POST jobs", "GET pods", "GET pods?watch", "POST configmaps", "GET pods/*/log", "DELETE jobs/*"]


@dataclass
class Failure:
    error: SandboxError
    after: float
    requests: list[str]

    @property
    def extra(self) -> list[str]:
        """The requests that a run without trouble does not make."""
        rest = list(self.requests)
        for usual in HAPPY:
            if usual in rest:
                rest.remove(usual)
        return rest


def failure(*faults: Fault, script: Script | None = None, **settings: Any) -> Failure:
    """How a run ends that does not start; the cluster must be empty soon after."""

    async def main() -> Failure:
        settings.setdefault("startup_timeout", STARTUP_TIMEOUT)
        async with pods(script or program(), *faults, **settings) as cluster:
            began = anyio.current_time()
            with pytest.raises(SandboxError) as caught:
                await cluster.sandbox.run("pass")
            after = anyio.current_time() - began
            await anyio.sleep(10)
            assert cluster.left() == []
            assert cluster.sandbox.leftovers == []
            return Failure(caught.value, after, cluster.requests)

    return run_on_mock_clock(main)


def always(action: Action) -> Fault:
    return Fault(action, Match(resource="pods"), times=None)


QUOTA = "exceeded quota: small, requested: pods=1, used: pods=5, limited: pods=5"

AT_ONCE = {
    "registry_not_found": always(BadImage()),
    "image_not_found": always(BadImage('failed to resolve reference "python:nope": python:nope: not found')),
    "image_pull_denied": always(BadImage("pull access denied, repository does not exist or may require login")),
    "runtime_class_missing": always(RefusePod.runtime_class_missing()),
    "pod_security": always(RefusePod.pod_security()),
    "limit_range": always(RefusePod("maximum cpu usage per Container is 100m, but limit is 500m")),
    "webhook_denied": always(RefusePod('admission webhook "policy.example.com" denied the request: no')),
    "cannot_scale_up": always(NoNode.cannot_scale_up()),
    "runtime_handler_missing": always(NoPodSandbox.no_handler()),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_no_waiting_mends_ends_the_wait_within_seconds(name: str) -> None:
    """The cluster knows each of these within half a second or so of the Job's creation."""
    seen = failure(AT_ONCE[name])
    assert isinstance(seen.error, StartError)
    assert seen.error.cause == name
    assert cause(name).summary in str(seen.error)
    assert seen.error.hint == cause(name).hint
    assert seen.after < 3.0
    assert len(seen.extra) <= 2, seen.extra


WAITED_FOR = {
    "image_pull_throttled": always(BadImage("toomanyrequests: You have reached your pull rate limit")),
    "image_pull_failed": always(BadImage("context deadline exceeded")),
    "no_gvisor_node": always(NoNode()),
    "not_enough_cpu": always(NoNode(message="0/3 nodes are available: 3 Insufficient cpu.")),
    "node_is_being_made": always(NoNode.scaling_up(None)),
    "quota_exceeded": always(RefusePod(QUOTA)),
    "pod_sandbox_failed": always(NoPodSandbox("failed to setup network for sandbox")),
    "config_map_late": Fault(HideConfigMap(1000), Match(resource="configmaps")),
}


@pytest.mark.parametrize("name", WAITED_FOR)
def test_what_may_pass_is_waited_for_and_then_told_as_it_was_seen_last(name: str) -> None:
    seen = failure(WAITED_FOR[name])
    assert isinstance(seen.error, StartError)
    assert seen.error.cause == name
    assert f"within {STARTUP_TIMEOUT:g} s (startup_timeout)" in str(seen.error)
    assert cause(name).summary in str(seen.error)
    assert STARTUP_TIMEOUT <= seen.after < STARTUP_TIMEOUT + 3.5
    # Of the Events every two seconds, of the pod every ten; a Job without a pod is asked for it each time.
    assert len(seen.extra) <= 2 * STARTUP_TIMEOUT / 2 + 2, seen.extra


def test_a_configmap_that_is_late_to_be_mounted_has_its_name_too() -> None:
    seen = failure(Fault(HideConfigMap(1000), Match(resource="configmaps")), delivery="mount")
    assert isinstance(seen.error, StartError)
    assert seen.error.cause == "config_map_late"


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ('exec: "python3": executable file not found in $PATH', "python_missing"),
        ("OCI runtime create failed: mkdir /data: read-only file system", "bad_working_directory"),
        ('exec: "/usr/bin/python3": permission denied', "permission_denied"),
    ],
)
def test_a_container_that_cannot_start_says_why(message: str, name: str) -> None:
    seen = failure(script=Script(start_error=ContainerStartError(message)))
    assert isinstance(seen.error, StartError)
    assert seen.error.cause == name
    assert message in str(seen.error)
    assert seen.after < 4.0
    assert seen.extra == []


def host_network(pod: dict[str, Any]) -> None:
    pod["spec"]["hostNetwork"] = True


CONCLUDED: dict[str, Any] = {
    "unsafe_admission_change": {"faults": [always(Mutate(host_network))]},
    "runner_failed": {"script": Script(ends_at=0.1, exit=ContainerExit(1, "Error"))},
    "no_pod": {"faults": [always(RefusePod(QUOTA)), Fault(Forbid(), Match("list", "events"), times=None)]},
    "slow_start": {"pace": Pace(start=1000.0)},
    "pods_not_seen": {"faults": [Fault(Respond.unavailable(), Match("list", "pods"), times=None)]},
}


@pytest.mark.parametrize("name", CONCLUDED)
def test_what_the_client_concludes_says_whether_the_program_ran(name: str) -> None:
    asked = dict(CONCLUDED[name])
    seen = failure(*asked.pop("faults", ()), **asked)
    assert isinstance(seen.error, (StartError, ResultLost))
    assert seen.error.cause == name
    assert seen.error.may_have_run == (cause(name).ran is not False)


# -- what passes ------------------------------------------------------------------------------------------


PASSES = {
    "a node that is being made": Fault(NoNode.scaling_up(25), Match(resource="pods")),
    "a quota that gets room": Fault(RefusePod(QUOTA), Match(resource="pods")),
    "a pull that is throttled for a while": Fault(
        BadImage("429 Too Many Requests"), Match(resource="pods"), times=1
    ),
    "a node that is not ready yet": Fault(
        NoPodSandbox("cni plugin not initialized"), Match(resource="pods"), times=2
    ),
    "a late ConfigMap": Fault(HideConfigMap(1.0), Match(resource="configmaps")),
}


@pytest.mark.parametrize("what", PASSES)
def test_what_passes_is_told_while_it_lasts_and_ends_well(what: str) -> None:
    async def main() -> None:
        script = program(out("ran"))
        async with (
            pods(script, PASSES[what], startup_timeout=120) as cluster,
            cluster.sandbox.stream("pass") as events,
        ):
            seen = [event async for event in events]
        assert isinstance(seen[-1], ExecutionFinished)
        assert (seen[-1].result.status, seen[-1].result.stdout) == ("succeeded", "ran")
        waits = [event for event in seen if isinstance(event, PodWaiting)]
        assert waits
        assert all(wait.cause for wait in waits)

    run_on_mock_clock(main)


@mock_clock
async def test_a_run_without_trouble_asks_nothing_more_than_it_must() -> None:
    async with pods(program(out("x"))) as cluster:
        await cluster.sandbox.run("pass")
        await anyio.sleep(10)
        assert cluster.requests == HAPPY


# -- Events -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Forbid(), Respond.internal_error()], ids=["forbidden", "broken"])
@pytest.mark.parametrize("name", ["cannot_scale_up", "pod_security"])
def test_without_the_events_the_wait_goes_on_and_the_error_says_what_was_not_read(
    name: str, fault: Action, caplog: pytest.LogCaptureFixture
) -> None:
    seen = failure(AT_ONCE[name], Fault(fault, Match("list", "events"), times=None))
    assert isinstance(seen.error, StartError)
    assert seen.after >= STARTUP_TIMEOUT
    # The pod itself still says that no node takes it; a Job without a pod says nothing.
    assert seen.error.cause == {"cannot_scale_up": "no_gvisor_node", "pod_security": "no_pod"}[name]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    if isinstance(fault, Forbid):
        assert len(warnings) == 1
        assert 'cannot list resource "events"' in warnings[0].getMessage()
        assert seen.requests.count("GET events") == 1
        if name == "pod_security":
            assert "events" in str(seen.error)
            assert "Role" in seen.error.hint


@mock_clock
async def test_many_that_wait_do_not_ask_more_often_together() -> None:
    async with pods(program(), always(NoNode()), startup_timeout=STARTUP_TIMEOUT) as cluster:
        async with anyio.create_task_group() as tasks:

            async def fails() -> None:
                with pytest.raises(StartError):
                    await cluster.sandbox.run("pass")

            for _ in range(100):
                tasks.start_soon(fails)
        asked = cluster.requests.count("GET events")
    # And once each, at the end.
    assert asked <= STARTUP_TIMEOUT / POLL_INTERVAL_PER_PENDING + 100


@pytest.mark.parametrize("asked", ["events", "pods"])
def test_questions_wait_for_as_long_as_the_server_wants(asked: str) -> None:
    # The first list of pods is the watch's.
    busy = Fault(Respond.unavailable(10), Match("list", asked), None, skip=asked == "pods")
    more = [Fault(Forbid(), Match("list", "events"), None)] if asked == "pods" else []
    seen = failure(AT_ONCE["pod_security"], busy, *more)
    # Once after each ten seconds, and once more at the end.
    assert seen.requests.count(f"GET {asked}") <= 1 + STARTUP_TIMEOUT / 10 + 1


# -- ended from outside -----------------------------------------------------------------------------------


def ended(action: Action | None, script: Script, **settings: Any) -> ExecutionResult:
    async def main() -> ExecutionResult:
        faults = [] if action is None else [always(action)]
        async with pods(script, *faults, **settings) as cluster:
            result = await cluster.sandbox.run("pass")
            await anyio.sleep(10)
            assert cluster.left() == []
            return result

    return run_on_mock_clock(main)


RUNS_ON = Script(chunks=[(0.0, START), (0.1, out("so far"))])


@pytest.mark.parametrize(
    ("name", "action", "status"),
    [
        ("storage_exceeded", Evict(after=3), "killed"),
        ("evicted", Evict(after=3, message="The node was low on resource: memory."), "killed"),
        ("preempted", Preempt(after=3), "killed"),
        ("node_lost", ShutDownNode(after=3), "killed"),
    ],
)
def test_a_program_that_was_ended_from_outside_says_by_what(name: str, action: Action, status: str) -> None:
    result = ended(action, RUNS_ON)
    assert (result.status, result.cause, result.stdout) == (status, name, "so far")
    assert result.message
    assert result.timings.returned < 12


@pytest.mark.parametrize(
    ("name", "exit_", "status"),
    [
        ("out_of_memory", ContainerExit(137, "OOMKilled"), "out_of_memory"),
        ("killed_by_signal", ContainerExit(137, "Error"), "killed"),
    ],
)
def test_a_container_that_was_killed_says_by_what(name: str, exit_: ContainerExit, status: str) -> None:
    script = Script(chunks=[(0.0, START), (0.1, out("so far"))], ends_at=0.2, exit=exit_)
    result = ended(None, script)
    assert (result.status, result.cause, result.stdout) == (status, name, "so far")


@mock_clock
async def test_a_pod_that_somebody_deleted_says_so() -> None:
    async with pods(RUNS_ON) as cluster, anyio.create_task_group() as tasks:
        tasks.start_soon(_after, 3.0, cluster)
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.cause, result.stdout) == ("killed", "deleted", "so far")


class WithoutLastWords(Shared):
    """A watch on which deleted pods go at once, as with `kubectl delete --force`: no kubelet is heard."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if "watch" in request.url.params:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = self._Heard(response.stream)
        return response

    class _Heard(httpx.AsyncByteStream):
        def __init__(self, told: httpx.AsyncByteStream) -> None:
            self._told = told

        async def __aiter__(self) -> AsyncIterator[bytes]:
            rest, gone = b"", False
            async for piece in self._told:
                *lines, rest = (rest + piece).split(b"\n")
                for event in map(json.loads, lines):
                    deleted = bool(event["object"]["metadata"].get("deletionTimestamp"))
                    if deleted:
                        event["object"]["status"] = {"phase": "Pending"}
                    if not (deleted and gone):
                        yield (
                            json.dumps({**event, "type": "DELETED" if deleted else event["type"]}).encode() + b"\n"
                        )
                    gone = gone or deleted

        async def aclose(self) -> None:
            await self._told.aclose()


@mock_clock
async def test_a_pod_that_goes_without_a_last_word_before_it_was_seen_running_may_have_run() -> None:
    async with pods(RUNS_ON, around=WithoutLastWords) as cluster, anyio.create_task_group() as tasks:
        tasks.start_soon(_after, 0.3, cluster)
        with pytest.raises(
            ResultLost, match=r"somebody deleted the pod.*whether the program had started"
        ) as caught:
            await cluster.sandbox.run("pass")
    assert (caught.value.cause, caught.value.may_have_run) == ("deleted", True)
    assert "may have run" in caught.value.hint


async def _after(seconds: float, cluster: Pods) -> None:
    await anyio.sleep(seconds)
    await cluster.delete_job()
