"""Mutating admission on the embedded cluster: unsafe changes fail at once, harmless ones go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from gke_sandbox import AsyncSandbox, Cluster, ExecutionResult, StartError
from gke_sandbox.local.faults import Delay, Drop, Fault, FaultPlan, Forbid, Match, Mutate, Respond
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.scripted import ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport

from ..clock import mock_clock, run_on_mock_clock
from ..pods import Pods, Shared, out, pods, program

REQUESTS = ["DELETE jobs/*", "GET pods", "GET pods/*/log", "GET pods?watch", "POST configmaps", "POST jobs"]
Change = Callable[[dict[str, Any]], object]


def on_job(change: Change) -> Fault:
    return Fault(Mutate(change), Match(resource="jobs"), times=None)


def on_pod(change: Change) -> Fault:
    """The pod's spec is where the Job's template has it, too."""
    return Fault(Mutate(lambda pod: change(pod["spec"])), Match(resource="pods"), times=None)


def on_template(change: Change) -> Fault:
    return on_job(lambda job: change(job["spec"]["template"]["spec"]))


def no_runtime_class(spec: dict[str, Any]) -> None:
    del spec["runtimeClassName"]


def token(spec: dict[str, Any]) -> None:
    spec["automountServiceAccountToken"] = True


def renamed(spec: dict[str, Any]) -> None:
    spec["containers"][0]["name"] = "main"


def harmless(spec: dict[str, Any]) -> None:
    spec["containers"][0]["env"].append({"name": "PROXY", "value": "localhost"})
    spec["nodeSelector"] = {"kubernetes.io/os": "linux"}


async def refused(cluster: Pods, **settings: Any) -> StartError:
    """The error of a run that ends at once, and leaves nothing."""
    began = anyio.current_time()
    with pytest.raises(StartError) as caught:
        await cluster.sandbox.run("pass", **settings)
    assert anyio.current_time() - began < 1.0
    await anyio.sleep(10)
    assert cluster.left() == []
    assert cluster.sandbox.leftovers == []
    assert caught.value.cause == "unsafe_admission_change"
    return caught.value


JOBS: dict[str, tuple[Fault, str]] = {
    "runtimeClassName": (
        on_template(no_runtime_class),
        'spec.template.spec.runtimeClassName: sent "gvisor", received nothing',
    ),
    "automountServiceAccountToken": (
        on_template(token),
        "spec.template.spec.automountServiceAccountToken: sent false, received true",
    ),
    "parallelism": (
        on_job(lambda job: job["spec"].update(parallelism=2, completions=2)),
        "spec.parallelism: sent nothing, received 2; spec.completions: sent nothing, received 2",
    ),
    "": (on_template(renamed), 'spec.template.spec.containers: sent ["code-runner"], received ["main"]'),
}


@pytest.mark.parametrize("name", JOBS)
@mock_clock
async def test_an_unsafe_change_of_the_job_ends_the_run_before_the_configmap(name: str) -> None:
    fault, words = JOBS[name]
    async with pods(program(), fault) as cluster:
        error = await refused(cluster)
        assert cluster.requests.count("POST configmaps") == 0
        assert cluster.requests.count("POST jobs") == cluster.requests.count("DELETE jobs/*") == 1
        assert cluster.runtime.specs == []
    assert error.may_have_run is False
    assert f"(Job {error.job}): {words}" in str(error)
    assert ("accept_admission_changes" in error.hint) is bool(name)
    assert name in error.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_runtime_class, 'spec.runtimeClassName: sent "gvisor", received nothing'),
        (token, "spec.automountServiceAccountToken: sent false, received true"),
        (renamed, 'spec.containers: sent ["code-runner"], received ["main"]'),
    ],
)
@mock_clock
async def test_an_unsafe_change_of_the_pod_alone_ends_the_run_at_its_first_event(
    change: Change, words: str
) -> None:
    async with pods(program(), on_pod(change)) as cluster:
        error = await refused(cluster)
        assert cluster.requests.count("DELETE jobs/*") == 1
        assert cluster.requests.count("GET pods/*/log") == 0
    # Its ConfigMap was there: the container could have started before the Job was deleted.
    assert error.may_have_run is True
    assert f"(pod {error.pod}): {words}" in str(error)


@mock_clock
async def test_a_job_whose_response_was_lost_is_read_and_compared() -> None:
    """Its pod does not show the change."""
    lost = Fault(Drop(carried_out=True), Match("create", "jobs"))
    more = on_job(lambda job: job["spec"].update(backoffLimit=3))
    async with pods(program(), lost, more) as cluster:
        error = await refused(cluster)
        assert cluster.requests.count("GET jobs/*") == 1
        assert cluster.requests.count("POST configmaps") == 0
        assert cluster.runtime.specs == []
    assert error.may_have_run is False


@pytest.mark.parametrize(
    "blind",
    [Forbid(), Respond.internal_error()],
    ids=["pods may only be listed", "the watch fails"],
)
@mock_clock
async def test_a_pod_that_is_only_listed_is_compared_too(blind: Forbid | Respond) -> None:
    no_watch = Fault(blind, Match("watch", "pods"), times=None)
    async with pods(program(at=5), no_watch, on_pod(no_runtime_class)) as cluster:
        with pytest.raises(StartError) as caught:
            await cluster.sandbox.run("pass")
        assert cluster.requests.count("GET pods/*/log") == 0
    assert caught.value.cause == "unsafe_admission_change"


@mock_clock
async def test_a_pod_that_is_seen_before_its_configmap_is_made_has_not_run() -> None:
    late = Fault(Delay(0.5, at="response"), Match("create", "jobs"))
    async with pods(program(), late, on_pod(no_runtime_class)) as cluster:
        error = await refused(cluster)
        assert cluster.requests.count("POST configmaps") == 0
        assert cluster.runtime.specs == []
    assert (error.may_have_run, error.pod != "") == (False, True)


@pytest.mark.parametrize("fault", [on_template(harmless), on_pod(harmless)])
@mock_clock
async def test_harmless_changes_go_on(fault: Fault) -> None:
    async with pods(program(out("x")), fault) as cluster:
        result = await cluster.sandbox.run("pass")
        await anyio.sleep(10)
        assert sorted(cluster.requests) == REQUESTS
    assert (result.status, result.stdout) == ("succeeded", "x")


class Sidecars(Shared):
    """Puts a sidecar in front of the container of every Job that is returned: the embedded cluster runs none."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.method != "POST" or not request.url.path.endswith("/jobs"):
            return response
        job = json.loads(await response.aread())
        job["spec"]["template"]["spec"]["containers"].insert(0, {"name": "sidecar", "image": "proxy:1"})
        return httpx.Response(response.status_code, json=job, request=request)


@mock_clock
async def test_a_sidecar_goes_on() -> None:
    async with pods(program(out("x")), around=Sidecars) as cluster:
        assert (await cluster.sandbox.run("pass")).stdout == "x"


@pytest.mark.parametrize(
    ("fault", "accepted"),
    [
        (on_template(no_runtime_class), ["runtimeClassName"]),
        (on_pod(no_runtime_class), ["runtimeClassName"]),
        (on_pod(token), ["hostPID", "automountServiceAccountToken"]),
    ],
)
@mock_clock
async def test_an_accepted_change_goes_on(fault: Fault, accepted: list[str]) -> None:
    async with pods(program(out("x")), fault, accept_admission_changes=accepted) as cluster:
        result: ExecutionResult = await cluster.sandbox.run("pass")
    assert (result.status, result.stdout) == ("succeeded", "x")


@mock_clock
async def test_a_change_beside_an_accepted_one_is_still_refused() -> None:
    faults = on_pod(token), on_pod(no_runtime_class)
    async with pods(program(), *faults, accept_admission_changes=["runtimeClassName"]) as cluster:
        error = await refused(cluster)
    assert "runtimeClassName" not in str(error)
    assert "automountServiceAccountToken" in str(error)


@mock_clock
async def test_a_run_without_a_runtime_class_does_not_miss_it() -> None:
    async with pods(program(out("x")), runtime_class_name=None) as cluster:
        assert (await cluster.sandbox.run("pass")).stdout == "x"


# -- replays --------------------------------------------------------------------------------------------------


def recorded(path: Path, *faults: Fault) -> Cluster:
    runtime = ScriptedRuntime(program(out("x")))
    transport = LocalTransport(runtime, faults=FaultPlan(*faults), pace=Pace.recorded())
    return Cluster.record(path, Cluster.transport(transport))


def test_a_replay_fails_as_the_recorded_run_did(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    errors = []

    async def run() -> None:
        for cluster in (recorded(path, on_template(no_runtime_class)), Cluster.replay(path)):
            async with AsyncSandbox(cluster) as sandbox:
                with pytest.raises(StartError) as caught:
                    await sandbox.run("pass")
            errors.append((caught.value.cause, caught.value.may_have_run))

    run_on_mock_clock(run)
    assert errors == [("unsafe_admission_change", False)] * 2


def test_a_replay_may_have_a_shorter_startup_timeout_than_the_recorded_run(tmp_path: Path) -> None:
    """The recorded Job has a longer activeDeadlineSeconds than the one that is sent now."""
    path = tmp_path / "c.yaml"

    async def run() -> None:
        for cluster, startup_timeout in ((recorded(path), 100), (Cluster.replay(path), 50)):
            async with AsyncSandbox(cluster, startup_timeout=startup_timeout) as sandbox:
                assert (await sandbox.run("pass")).stdout == "x"

    run_on_mock_clock(run)


class UnsafeFirst(Shared):
    """Lists pods without a runtime class first."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if not request.url.path.endswith("/pods") or "watch" in request.url.params:
            return response
        found = json.loads(await response.aread())
        found["items"].sort(key=lambda pod: "runtimeClassName" in pod["spec"])
        return httpx.Response(response.status_code, json=found, request=request)


@mock_clock
async def test_an_unsafe_pod_is_reported_although_a_safe_one_follows_in_the_same_list() -> None:
    two = on_job(lambda job: job["spec"].update(parallelism=2, completions=2))
    first = Fault(Mutate(lambda pod: no_runtime_class(pod["spec"])), Match(resource="pods"))
    slow = Fault(Delay(0.5), Match("list", "pods"))
    accepted = ["parallelism", "completions"]
    async with pods(
        program(out("x"), at=5), two, first, slow, around=UnsafeFirst, accept_admission_changes=accepted
    ) as cluster:
        with pytest.raises(StartError) as caught:
            await cluster.sandbox.run("pass")
    assert caught.value.cause == "unsafe_admission_change"
    assert caught.value.may_have_run


@mock_clock
async def test_an_unsafe_second_pod_ends_a_run_that_has_started() -> None:
    two = on_job(lambda job: job["spec"].update(parallelism=2, completions=2))
    second = Fault(Mutate(lambda pod: no_runtime_class(pod["spec"])), Match(resource="pods"), skip=1)
    slow = Fault(Delay(2.0), Match("create", "pods"), skip=1)
    accepted = ["parallelism", "completions"]
    async with pods(program(out("x"), at=5), two, second, slow, accept_admission_changes=accepted) as cluster:
        with pytest.raises(StartError) as caught:
            await cluster.sandbox.run("pass")
    assert caught.value.cause == "unsafe_admission_change"
    assert caught.value.may_have_run
