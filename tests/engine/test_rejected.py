"""Jobs and ConfigMaps that admission rejects: the causes and hints of a rejected pod, and waits that can help."""

from __future__ import annotations

import anyio
import pytest

from gke_sandbox import ExecutionFinished, PodWaiting, StartError
from gke_sandbox._diagnosis import cause
from gke_sandbox.errors import Forbidden, Invalid
from gke_sandbox.local import Quota
from gke_sandbox.local.faults import Delay, Drop, Fault, Forbid, Match, RefusePod, Respond

from ..clock import mock_clock, run_on_mock_clock
from ..pods import out, pods, program

POST_JOB, POST_CONFIG_MAP = Match("create", "jobs"), Match("create", "configmaps")
SUBJECT = {POST_JOB: 'jobs.batch "x"', POST_CONFIG_MAP: 'configmaps "x"'}


def forbidden(match: Match, why: str) -> Respond:
    return Respond(403, "Forbidden", f"{SUBJECT[match]} is forbidden: {why}")


def denied(match: Match) -> Respond:
    # A webhook chooses the code, the reason and the text; without one, the code is 400 and the reason empty.
    del match
    return Respond(400, "", 'admission webhook "policy.example.com" denied the request: pods cannot be root')


def denied_with_500(match: Match) -> Respond:
    del match
    return Respond(500, "InternalError", 'admission webhook "policy.example.com" denied the request: it failed')


def policy(match: Match) -> Respond:
    why = "ValidatingAdmissionPolicy 'limits' with binding 'limits-all' denied request: failed expression: false"
    return Respond(422, "Invalid", f"{SUBJECT[match]} is forbidden: {why}")


PERMANENT = {
    "webhook_denied": denied,
    "webhook_denied with 500": denied_with_500,
    "webhook_denied by a policy": policy,
    "quota_too_small": lambda match: forbidden(
        match, "exceeded quota: none, requested: count/jobs.batch=1, used: count/jobs.batch=0, "
        "limited: count/jobs.batch=0"
    ),
    "limit_range": lambda match: forbidden(match, "maximum cpu usage per Container is 100m, but limit is 500m"),
    "namespace_terminating": lambda match: forbidden(
        match, "unable to create new content in namespace default because it is being terminated"
    ),
}  # fmt: skip


@pytest.mark.parametrize("match", [POST_JOB, POST_CONFIG_MAP], ids=["job", "configmap"])
@pytest.mark.parametrize("name", PERMANENT)
def test_a_permanent_rejection_ends_the_run_at_once_with_its_cause(name: str, match: Match) -> None:
    async def run() -> None:
        response = PERMANENT[name](match)
        async with pods(program(), Fault(response, match, None)) as cluster:
            began = anyio.current_time()
            with pytest.raises(StartError) as caught:
                await cluster.sandbox.run("pass")
            assert anyio.current_time() - began < 1
            await anyio.sleep(10)
            assert cluster.left() == []
            assert cluster.sandbox.leftovers == []
            assert cluster.runtime.specs == []
        error = caught.value
        assert error.cause == name.partition(" ")[0]
        assert error.may_have_run is False
        assert error.hint == cause(error.cause).hint
        assert error.reason == (response.reason or "BadRequest")
        assert response.message in str(error)
        assert error.job

    run_on_mock_clock(run)


TEMPORARY = {
    "quota_exceeded": lambda match: forbidden(
        match, "exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=5, "
        "limited: count/jobs.batch=5"
    ),
    "quota_not_counted": lambda match: forbidden(
        match, "status unknown for quota: q, resources: count/jobs.batch"
    ),
    "webhook_failed": lambda _: Respond(
        500, "InternalError", 'Internal error occurred: failed calling webhook "w.example.com": failed to call '
        'webhook: Post "https://w.example.svc:443/?timeout=1s": dial tcp 10.0.0.9:443: connect: connection refused'
    ),
    "server_starting": lambda match: forbidden(match, "not yet ready to handle request"),
}  # fmt: skip


@pytest.mark.parametrize("match", [POST_JOB, POST_CONFIG_MAP], ids=["job", "configmap"])
@pytest.mark.parametrize("name", TEMPORARY)
def test_a_temporary_rejection_is_waited_out(name: str, match: Match) -> None:
    async def run() -> None:
        async with pods(program(out("x")), Fault(TEMPORARY[name](match), match, 3)) as cluster:
            waits = []
            async with cluster.sandbox.stream("pass") as stream:
                async for event in stream:
                    if isinstance(event, PodWaiting):
                        waits.append(event.cause)
                    if isinstance(event, ExecutionFinished):
                        assert event.result.stdout == "x"
                        assert event.result.timings.returned < 8
            await anyio.sleep(10)
            assert cluster.left() == []
            assert len(cluster.runtime.specs) == 1
        # The pod of a Job without its ConfigMap waits, too.
        assert waits == [name] if match is POST_JOB else name in waits

    run_on_mock_clock(run)


@pytest.mark.parametrize("match", [POST_JOB, POST_CONFIG_MAP], ids=["job", "configmap"])
@pytest.mark.parametrize("name", TEMPORARY)
def test_a_temporary_rejection_that_lasts_is_reported_after_startup_timeout(name: str, match: Match) -> None:
    async def run() -> None:
        async with pods(program(), Fault(TEMPORARY[name](match), match, None), startup_timeout=100) as cluster:
            began = anyio.current_time()
            with pytest.raises(StartError, match=r"within 100 s \(startup_timeout\)") as caught:
                await cluster.sandbox.run("pass")
            assert 90 < anyio.current_time() - began <= 100
            assert cluster.requests.count("POST jobs") < 40
            await anyio.sleep(10)
            assert cluster.left() == []
            assert cluster.runtime.specs == []
        assert (caught.value.cause, caught.value.may_have_run) == (name, False)

    run_on_mock_clock(run)


@mock_clock
async def test_an_attempt_that_is_cut_off_at_startup_timeout_does_not_hide_the_rejections_before_it() -> None:
    rejected = Fault(TEMPORARY["quota_exceeded"](POST_JOB), POST_JOB, times=2)
    async with pods(program(), rejected, Fault(Delay(100), POST_JOB, None, skip=2), startup_timeout=20) as cluster:
        with pytest.raises(StartError, match=r"within 20 s \(startup_timeout\)") as caught:
            await cluster.sandbox.run("pass")
        await anyio.sleep(200)
        assert cluster.left() == []
        assert cluster.runtime.specs == []
    assert (caught.value.cause, caught.value.may_have_run) == ("quota_exceeded", False)


@pytest.mark.parametrize("quota", [Quota("few", jobs=3), Quota("few", config_maps=3)], ids=["jobs", "configmaps"])
def test_a_map_over_a_quota_of_three_jobs_is_complete(quota: Quota) -> None:
    async def run() -> None:
        async with pods(program(out("x")), quota=quota) as cluster:
            results = await cluster.sandbox.map(["pass"] * 12, max_concurrency=12)
            assert [result.stdout for result in results] == ["x"] * 12
            assert len(cluster.runtime.specs) == 12
            await anyio.sleep(20)
            assert cluster.left() == []

    run_on_mock_clock(run)


@mock_clock
async def test_a_rejected_pod_is_not_explained_by_an_earlier_rejection_of_its_job() -> None:
    job = Fault(TEMPORARY["quota_exceeded"](POST_JOB), POST_JOB, 1)
    pod = Fault(RefusePod("a reason of the future"), Match(resource="pods"), times=None)
    async with pods(program(), job, pod, startup_timeout=20) as cluster:
        with pytest.raises(StartError) as caught:
            await cluster.sandbox.run("pass")
    assert caught.value.cause == "pod_refused"


@mock_clock
async def test_a_missing_permission_and_an_invalid_object_keep_their_class_and_hint() -> None:
    text = 'Job.batch "x" is invalid: spec.template.spec.containers[0].image: Required value'
    for action, kind in ((Forbid(), Forbidden), (Respond(422, "Invalid", text), Invalid)):
        async with pods(program(), Fault(action, POST_JOB)) as cluster:
            with pytest.raises(kind) as caught:
                await cluster.sandbox.run("pass")
        assert caught.value.may_have_run is False


@mock_clock
async def test_a_rejection_after_a_lost_response_deletes_the_job_that_may_exist() -> None:
    faults = Fault(Drop(carried_out=True), POST_JOB), Fault(policy(POST_JOB), POST_JOB, None, skip=1)
    async with pods(program(), *faults) as cluster:
        with pytest.raises(StartError) as caught:
            await cluster.sandbox.run("pass")
        await anyio.sleep(10)
        assert cluster.left() == []
    assert caught.value.cause == "webhook_denied"
