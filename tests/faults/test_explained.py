"""The cause of a failed start or a killed pod is found soon after the cluster reports it, with few requests."""

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
from gke_sandbox._engine.shared_lists import LIST_INTERVAL
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
from tests.pods import START, Pods, Shared, err, out, pods, program

STARTUP_TIMEOUT = 40.0

HAPPY = ["POST jobs", "GET pods", "GET pods?watch", "POST configmaps", "GET pods/*/log", "DELETE jobs/*"]


@dataclass
class Failure:
    error: SandboxError
    after: float
    requests: list[str]

    @property
    def extra(self) -> list[str]:
        """The requests that a successful run does not send."""
        rest = list(self.requests)
        for usual in HAPPY:
            if usual in rest:
                rest.remove(usual)
        return rest


def failure(*faults: Fault, script: Script | None = None, **settings: Any) -> Failure:
    """Run a program that does not start, check that the cluster is empty soon after, and return the failure."""

    async def main() -> Failure:
        settings.setdefault("startup_timeout", STARTUP_TIMEOUT)
        async with pods(script or program(), *faults, **settings) as cluster:
            started_at = anyio.current_time()
            with pytest.raises(SandboxError) as caught:
                await cluster.sandbox.run("pass")
            after = anyio.current_time() - started_at
            await anyio.sleep(10)
            assert cluster.left() == []
            assert cluster.sandbox.leftovers == []
            return Failure(caught.value, after, cluster.requests)

    return run_on_mock_clock(main)


def always(action: Action) -> Fault:
    return Fault(action, Match(resource="pods"), times=None)


QUOTA = "exceeded quota: small, requested: pods=1, used: pods=5, limited: pods=5"

PERMANENT = {
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


@pytest.mark.parametrize("name", PERMANENT)
def test_a_permanent_cause_ends_the_wait_within_seconds(name: str) -> None:
    """The cluster reports each of these within about half a second after the Job is created."""
    seen = failure(PERMANENT[name])
    assert isinstance(seen.error, StartError)
    assert seen.error.cause == name
    assert cause(name).summary in str(seen.error)
    assert seen.error.hint == cause(name).hint
    assert seen.after < 3.0
    assert len(seen.extra) <= 2, seen.extra


NOT_STARTED_IN_TIME = {
    "image_pull_throttled": always(BadImage("toomanyrequests: You have reached your pull rate limit")),
    "image_pull_failed": always(BadImage("context deadline exceeded")),
    "no_gvisor_node": always(NoNode()),
    "not_enough_cpu": always(NoNode(message="0/3 nodes are available: 3 Insufficient cpu.")),
    "node_is_being_made": always(NoNode.scaling_up(None)),
    "quota_exceeded": always(RefusePod(QUOTA)),
    "pod_sandbox_failed": always(NoPodSandbox("failed to setup network for sandbox")),
    "config_map_late": Fault(HideConfigMap(1000), Match(resource="configmaps")),
}


@pytest.mark.parametrize("name", NOT_STARTED_IN_TIME)
def test_a_temporary_cause_is_reported_after_startup_timeout(name: str) -> None:
    seen = failure(NOT_STARTED_IN_TIME[name])
    assert isinstance(seen.error, StartError)
    assert seen.error.cause == name
    assert f"within {STARTUP_TIMEOUT:g} s (startup_timeout)" in str(seen.error)
    assert cause(name).summary in str(seen.error)
    assert STARTUP_TIMEOUT <= seen.after < STARTUP_TIMEOUT + 3.5
    # Events are listed every two seconds and pods every ten; for a Job without a pod, pods are listed each time.
    assert len(seen.extra) <= 2 * STARTUP_TIMEOUT / 2 + 2, seen.extra


def test_a_late_configmap_that_is_mounted_has_the_same_cause() -> None:
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
def test_a_container_that_cannot_start_has_a_cause(message: str, name: str) -> None:
    seen = failure(script=Script(start_error=ContainerStartError(message)))
    assert isinstance(seen.error, StartError)
    assert seen.error.cause == name
    assert message in str(seen.error)
    assert seen.after < 4.0
    assert seen.extra == []


def host_network(pod: dict[str, Any]) -> None:
    pod["spec"]["hostNetwork"] = True


INFERRED: dict[str, Any] = {
    "unsafe_admission_change": {"faults": [always(Mutate(host_network))]},
    "runner_failed": {"script": Script(ends_at=0.1, exit=ContainerExit(1, "Error"))},
    "runner_crashed": {
        "script": Script(
            chunks=[(0.0, START), (0.0, out("1")), (0.0, err("gke-sandbox: the runner failed: MemoryError: \n"))],
            ends_at=0.1,
            exit=ContainerExit(125, "Error"),
        )
    },
    "no_pod": {"faults": [always(RefusePod(QUOTA)), Fault(Forbid(), Match("list", "events"), times=None)]},
    "slow_start": {"pace": Pace(start=1000.0)},
    "pods_not_seen": {"faults": [Fault(Respond.unavailable(), Match("list", "pods"), times=None)]},
}


@pytest.mark.parametrize("name", INFERRED)
def test_a_cause_that_the_client_infers_has_may_have_run(name: str) -> None:
    arguments = dict(INFERRED[name])
    seen = failure(*arguments.pop("faults", ()), **arguments)
    assert isinstance(seen.error, (StartError, ResultLost))
    assert seen.error.cause == name
    assert seen.error.may_have_run == (cause(name).ran is not False)


# -- temporary causes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("image_pull_failed", {"faults": [always(BadImage("context deadline exceeded"))]}),
        ("slow_start", {"pace": Pace(start=1000.0)}),
    ],
)
def test_an_event_of_the_autoscaler_is_not_the_reason_once_the_pod_has_a_node(
    name: str, arguments: dict[str, Any]
) -> None:
    seen = failure(Fault(NoNode.scaling_up(5), Match(resource="pods")), *arguments.pop("faults", ()), **arguments)
    assert isinstance(seen.error, StartError)
    assert seen.error.cause == name


TEMPORARY = {
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


@pytest.mark.parametrize("name", TEMPORARY)
def test_a_temporary_cause_is_reported_as_a_wait_and_the_run_succeeds(name: str) -> None:
    async def main() -> None:
        script = program(out("ran"))
        async with (
            pods(script, TEMPORARY[name], startup_timeout=120) as cluster,
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
async def test_a_successful_run_sends_only_the_necessary_requests() -> None:
    async with pods(program(out("x"))) as cluster:
        await cluster.sandbox.run("pass")
        await anyio.sleep(10)
        assert cluster.requests == HAPPY


# -- Events -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Forbid(), Respond.internal_error()], ids=["forbidden", "broken"])
@pytest.mark.parametrize("name", ["cannot_scale_up", "pod_security"])
def test_without_events_the_wait_continues_and_the_error_names_the_missing_permission(
    name: str, fault: Action, caplog: pytest.LogCaptureFixture
) -> None:
    seen = failure(PERMANENT[name], Fault(fault, Match("list", "events"), times=None))
    assert isinstance(seen.error, StartError)
    assert seen.after >= STARTUP_TIMEOUT
    # The pod status still reports that it is unschedulable; a Job without a pod reports nothing.
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
async def test_many_pending_pods_do_not_increase_the_request_rate() -> None:
    async with pods(program(), always(NoNode()), startup_timeout=STARTUP_TIMEOUT) as cluster:
        async with anyio.create_task_group() as tasks:

            async def fails() -> None:
                with pytest.raises(StartError):
                    await cluster.sandbox.run("pass")

            for _ in range(100):
                tasks.start_soon(fails)
        asked = cluster.requests.count("GET events")
    # One list serves all of them, and they poll less often than it could be sent.
    assert asked <= STARTUP_TIMEOUT / LIST_INTERVAL / 2


@pytest.mark.parametrize("resource", ["events", "pods"])
def test_polling_respects_retry_after(resource: str) -> None:
    # The first list of pods belongs to the watch.
    busy = Fault(Respond.unavailable(10), Match("list", resource), None, skip=resource == "pods")
    more = [Fault(Forbid(), Match("list", "events"), None)] if resource == "pods" else []
    seen = failure(PERMANENT["pod_security"], busy, *more)
    # Once every ten seconds, and once more at the end.
    assert seen.requests.count(f"GET {resource}") <= 1 + STARTUP_TIMEOUT / 10 + 1


# -- killed by the cluster --------------------------------------------------------------------------------


def ended(action: Action | None, script: Script, **settings: Any) -> ExecutionResult:
    async def main() -> ExecutionResult:
        faults = [] if action is None else [always(action)]
        async with pods(script, *faults, **settings) as cluster:
            result = await cluster.sandbox.run("pass")
            await anyio.sleep(10)
            assert cluster.left() == []
            return result

    return run_on_mock_clock(main)


KEEPS_RUNNING = Script(chunks=[(0.0, START), (0.1, out("so far"))])


@pytest.mark.parametrize(
    ("name", "action", "status"),
    [
        ("storage_exceeded", Evict(after=3), "killed"),
        ("evicted", Evict(after=3, message="The node was low on resource: memory."), "killed"),
        ("preempted", Preempt(after=3), "killed"),
        ("node_lost", ShutDownNode(after=3), "killed"),
    ],
)
def test_a_program_killed_by_the_cluster_has_a_cause(name: str, action: Action, status: str) -> None:
    result = ended(action, KEEPS_RUNNING)
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
def test_a_killed_container_has_a_cause(name: str, exit_: ContainerExit, status: str) -> None:
    script = Script(chunks=[(0.0, START), (0.1, out("so far"))], ends_at=0.2, exit=exit_)
    result = ended(None, script)
    assert (result.status, result.cause, result.stdout) == (status, name, "so far")


@mock_clock
async def test_a_pod_deleted_by_another_client_has_the_cause_deleted() -> None:
    async with pods(KEEPS_RUNNING) as cluster, anyio.create_task_group() as tasks:
        tasks.start_soon(_after, 3.0, cluster)
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.cause, result.stdout) == ("killed", "deleted", "so far")


class WithoutFinalStatus(Shared):
    """A watch on which deleted pods disappear without a final status, as with `kubectl delete --force`."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if "watch" in request.url.params:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = self._Events(response.stream)
        return response

    class _Events(httpx.AsyncByteStream):
        def __init__(self, inner: httpx.AsyncByteStream) -> None:
            self._inner = inner

        async def __aiter__(self) -> AsyncIterator[bytes]:
            rest, deleted_before = b"", False
            async for piece in self._inner:
                *lines, rest = (rest + piece).split(b"\n")
                for event in map(json.loads, lines):
                    deleted = bool(event["object"]["metadata"].get("deletionTimestamp"))
                    if deleted:
                        event["object"]["status"] = {"phase": "Pending"}
                    if not (deleted and deleted_before):
                        yield (
                            json.dumps({**event, "type": "DELETED" if deleted else event["type"]}).encode() + b"\n"
                        )
                    deleted_before = deleted_before or deleted

        async def aclose(self) -> None:
            await self._inner.aclose()


@mock_clock
async def test_a_pod_deleted_without_a_final_status_before_it_was_seen_running_may_have_run() -> None:
    async with pods(KEEPS_RUNNING, around=WithoutFinalStatus) as cluster, anyio.create_task_group() as tasks:
        tasks.start_soon(_after, 0.3, cluster)
        with pytest.raises(
            ResultLost, match=r"another client deleted the pod.*whether the program had started"
        ) as caught:
            await cluster.sandbox.run("pass")
    assert (caught.value.cause, caught.value.may_have_run) == ("deleted", True)
    assert "may have run" in caught.value.hint


async def _after(seconds: float, cluster: Pods) -> None:
    await anyio.sleep(seconds)
    await cluster.delete_job()
