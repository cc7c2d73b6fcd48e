"""All faults of the embedded cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

from gke_sandbox.local import Fault, FaultPlan, Match, Pace, Script
from gke_sandbox.local.faults import (
    Action,
    BadImage,
    CutBody,
    Delay,
    Drop,
    EndWatch,
    Evict,
    ExpireWatch,
    Forbid,
    GarbleBody,
    HideConfigMap,
    Mutate,
    NoNode,
    OmitEvents,
    Preempt,
    Refuse,
    RefusePod,
    RepeatEvents,
    Respond,
    StallBody,
    StopKubelet,
    SwapEvents,
)
from tests.clock import run_on_mock_clock

from .kit import CONFIG_MAPS, JOBS, PODS, SLEEPS, config_map, env_from, job, refusal, running

pytestmark = pytest.mark.anyio

CREATE = Match("create", "configmaps")
POD = Match(resource="pods")
SHORT = httpx.Timeout(0.05, pool=1.0)


# What is hit, and how often.


async def test_a_fault_applies_to_matching_requests_as_often_as_configured() -> None:
    fault = Fault(Respond.internal_error(), Match("create", "configmaps", name=None), times=2, skip=1)
    async with running(faults=[fault]) as kit:
        codes = []
        for name in "abcd":
            codes.append((await kit.client.post(CONFIG_MAPS, json=config_map(name))).status_code)
            assert (await kit.client.get(CONFIG_MAPS)).status_code == 200
        assert codes == [201, 500, 500, 201]
        assert kit.cluster.faults.count(fault) == 2


async def test_a_quota_conflict_creates_nothing() -> None:
    async with running(faults=[Fault(Respond.quota_conflict("q"), CREATE)]) as kit:
        refused = await kit.client.post(CONFIG_MAPS, json=config_map())
        code, reason, message = refusal(refused)
        assert (code, reason) == (409, "Conflict")
        assert message.startswith('Operation cannot be fulfilled on resourcequotas "q": the object has been')
        assert (await kit.client.get(CONFIG_MAPS)).json()["items"] == []
        assert (await kit.client.post(CONFIG_MAPS, json=config_map())).status_code == 201


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        (Match(), True),
        (Match("get", "pods/log"), True),
        (Match("get", "pods"), False),
        (Match(namespace="default", name="gke-*"), True),
        (Match(name="other-*"), False),
        (Match(namespace="elsewhere"), False),
    ],
)
async def test_matches(match: Match, fits: bool) -> None:
    assert match.matches("get", "pods/log", "default", "gke-sandbox-1") is fits


def test_several_faults_apply_to_one_request() -> None:
    async def main() -> None:
        faults = [Fault(Delay(20.0)), Fault(Respond.unavailable(retry_after=3))]
        async with running(faults=faults) as kit:
            begin = anyio.current_time()
            response = await kit.client.get("/version")
            assert (response.status_code, response.headers["retry-after"]) == (503, "3")
            assert anyio.current_time() - begin == 20.0

    run_on_mock_clock(main)


async def test_faults_can_be_added_and_cleared_while_the_cluster_runs() -> None:
    async with running() as kit:
        assert (await kit.client.get("/version")).status_code == 200
        kit.cluster.faults.add(Fault(Refuse(), times=None))
        with pytest.raises(httpx.ConnectError):
            await kit.client.get("/version")
        kit.cluster.faults.clear()
        assert (await kit.client.get("/version")).status_code == 200


async def test_a_fault_plan_counts_each_fault_separately() -> None:
    first, second = Fault(Refuse(), Match("get")), Fault(Drop(), Match("list"))
    plan = FaultPlan(first, second)
    assert list(plan.actions(Refuse, "get", "pods", "default", "a")) == [first.action]
    assert list(plan.actions(Refuse, "get", "pods", "default", "a")) == []
    assert (plan.count(first), plan.count(second)) == (1, 0)


# Requests.


async def test_a_refused_connection_sends_nothing() -> None:
    async with running(faults=[Fault(Refuse(), CREATE)]) as kit:
        with pytest.raises(httpx.ConnectError):
            await kit.client.post(CONFIG_MAPS, json=config_map())
        assert (kit.cluster.leftovers(), list(kit.cluster.requests)) == ([], [])


@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_dropped_response_does_not_show_whether_the_request_was_processed(carried_out: bool) -> None:
    async with running(faults=[Fault(Drop(carried_out), CREATE)]) as kit:
        with pytest.raises(httpx.ReadError):
            await kit.client.post(CONFIG_MAPS, json=config_map())
        assert bool(kit.cluster.leftovers()) is carried_out


@pytest.mark.parametrize(
    ("delay", "error", "done"),
    [
        (Delay(9.0, at="connect"), httpx.ConnectTimeout, False),
        (Delay(9.0), httpx.ReadTimeout, False),
        (Delay(9.0, at="response"), httpx.ReadTimeout, True),
    ],
)
async def test_a_delay_beyond_the_clients_timeout_is_a_timeout(
    delay: Delay, error: type[Exception], done: bool
) -> None:
    async with running(faults=[Fault(delay, CREATE)], timeout=SHORT) as kit:
        with pytest.raises(error):
            await kit.client.post(CONFIG_MAPS, json=config_map())
        assert bool(kit.cluster.leftovers()) is done


@pytest.mark.parametrize(
    ("answer", "code", "reason"),
    [
        (Respond.unauthorized(), 401, "Unauthorized"),
        (Forbid(), 403, "Forbidden"),
        (Respond.internal_error(), 500, "InternalError"),
        (Respond.unavailable(), 503, "ServiceUnavailable"),
        (Respond.timed_out(carried_out=False), 504, "Timeout"),
        (Respond(410, "Expired", "too old resource version: 1 (2)"), 410, "Expired"),
    ],
)
async def test_a_replaced_response_is_a_status(answer: Action, code: int, reason: str) -> None:
    async with running(faults=[Fault(answer, CREATE)]) as kit:
        response = await kit.client.post(CONFIG_MAPS, json=config_map())
        assert refusal(response)[:2] == (code, reason)
        assert kit.cluster.leftovers() == []


@pytest.mark.parametrize(
    ("answer", "code", "retry_after"),
    [
        (Respond.too_many_requests(), 429, "1"),
        (Respond.too_many_requests(retry_after=None), 429, None),
        (Respond.bad_gateway(), 502, None),
    ],
)
async def test_some_responses_are_plain_text(answer: Respond, code: int, retry_after: str | None) -> None:
    async with running(faults=[Fault(answer)]) as kit:
        response = await kit.client.get("/version")
        assert (response.status_code, response.headers.get("retry-after")) == (code, retry_after)
        assert response.headers["content-type"].startswith("text/")


async def test_a_gateway_timeout_can_follow_a_processed_request() -> None:
    async with running(faults=[Fault(Respond.timed_out(), CREATE)]) as kit:
        assert (await kit.client.post(CONFIG_MAPS, json=config_map())).status_code == 504
        assert len(kit.cluster.leftovers()) == 1


async def test_forbid_names_the_verb_and_the_resource() -> None:
    async with running(faults=[Fault(Forbid(), Match("get", "pods/log"), times=None)]) as kit:
        message = refusal(await kit.client.get(f"{PODS}/x/log"))[2]
        assert 'cannot get resource "pods/log" in API group "" in the namespace "default"' in message


# Bodies.


async def test_a_body_can_break() -> None:
    async with running(faults=[Fault(CutBody(after=10))]) as kit:
        with pytest.raises(httpx.ReadError):
            await kit.client.get("/version")


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        (CutBody(after=10, clean=True), b'{"major":"'),
        (CutBody(clean=True), b""),
        (GarbleBody(), b"\x00<not json>"),
        (GarbleBody(after=2, garbage=b"]"), b'{"]'),
    ],
)
async def test_a_body_can_be_cut_or_garbled_without_an_error(fault: Action, body: bytes) -> None:
    async with running(faults=[Fault(fault)]) as kit:
        response = await kit.client.get("/version")
        assert (response.status_code, response.content) == (200, body)


async def test_a_body_can_stall() -> None:
    async with running(faults=[Fault(StallBody(after=3))], timeout=SHORT) as kit:
        with pytest.raises(httpx.ReadTimeout):
            await kit.client.get("/version")


async def test_a_followed_log_can_break_and_be_read_again() -> None:
    script = Script(chunks=[(0.0, b"one\n"), (0.0, b"two\n")], ends_at=0.05)
    async with running(script, [Fault(CutBody(after=5), Match("get", "pods/log"))]) as kit:
        await kit.create(JOBS, job())
        await kit.phase("Running")
        async with kit.log(follow="true") as log:
            assert (await anext(log.pieces), await anext(log.pieces)) == (b"one\n", b"t")
            with pytest.raises(httpx.ReadError):
                await anext(log.pieces)
        async with kit.log(follow="true") as log:
            assert await log.all() == b"one\ntwo\n"


# Watches.


async def watched(fault: Action, match: Match) -> tuple[list[str], bool]:
    """Return the events of a watch while ConfigMaps a to d are created: their names, or the types of other events.

    Also return whether it ended before its timeout.
    """
    async with running(faults=[Fault(fault, match)]) as kit:
        version = (await kit.get(CONFIG_MAPS))["metadata"]["resourceVersion"]
        begin = anyio.current_time()
        async with kit.watch(CONFIG_MAPS, resourceVersion=version, timeoutSeconds="60") as watch:
            for name in "abcd":
                await kit.create(CONFIG_MAPS, config_map(name))
            events = await watch.events()
        seen = [
            event["object"]["metadata"]["name"] if event["type"] == "ADDED" else event["type"] for event in events
        ]
        return seen, anyio.current_time() - begin < 60


@pytest.mark.parametrize(
    ("fault", "seen", "ends"),
    [
        (OmitEvents(first=1, count=2), ["a", "d"], False),
        (RepeatEvents(first=1), ["a", "b", "b", "c", "d"], False),
        (SwapEvents(first=1), ["a", "c", "b", "d"], False),
        (ExpireWatch(), ["ERROR"], True),
        (ExpireWatch(after=2), ["a", "b", "ERROR"], True),
        (EndWatch(after=2), ["a", "b"], True),
    ],
)
def test_events_of_a_watch_can_be_lost_repeated_or_swapped(fault: Action, seen: list[str], ends: bool) -> None:
    assert run_on_mock_clock(watched, fault, Match("watch")) == (seen, ends)


def test_a_watch_fault_without_a_match_is_not_used_up_by_other_requests() -> None:
    assert run_on_mock_clock(watched, EndWatch(after=2), Match()) == (["a", "b"], True)


async def test_a_watch_can_be_rejected_as_expired() -> None:
    async with running(faults=[Fault(ExpireWatch(status=True), Match("watch", "pods"))]) as kit:
        response = await kit.client.get(PODS, params={"watch": "true", "resourceVersion": "1"})
        assert refusal(response)[:2] == (410, "Expired")


# Pods.


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        (RefusePod.quota_exceeded, "exceeded quota: few"),
        (RefusePod.runtime_class_missing, 'pod rejected: RuntimeClass "gvisor" not found'),
        (RefusePod.pod_security, 'violates PodSecurity "restricted:latest"'),
    ],
)
async def test_a_pod_can_be_rejected_for_a_while(refuse: Callable[[], RefusePod], message: str) -> None:
    async with running(faults=[Fault(refuse())], pace=Pace(create_retry=0.02)) as kit:
        await kit.create(JOBS, job())
        await kit.phase("Succeeded")
        assert message in dict(kit.events())["FailedCreate"]


async def test_a_policy_can_change_a_job_whose_pod_follows() -> None:
    def change(found: dict[str, Any]) -> None:
        assert found["spec"]["completionMode"] == "NonIndexed"  # It sees the defaults.
        del found["spec"]["backoffLimit"]
        found["spec"]["template"]["spec"]["hostNetwork"] = True

    async with running(faults=[Fault(Mutate(change), Match(resource="jobs"))]) as kit:
        created = await kit.create(JOBS, job())
        assert created["spec"]["backoffLimit"] == 6
        await kit.phase("Succeeded")
        assert kit.pod()["spec"]["hostNetwork"] is True


async def test_policies_can_change_a_pod_one_after_the_other() -> None:
    def first(pod: dict[str, Any]) -> None:
        pod["metadata"].setdefault("labels", {})["policy"] = "first"
        del pod["spec"]["schedulerName"]

    def second(pod: dict[str, Any]) -> None:
        pod["metadata"]["labels"]["policy"] += "-second"

    on_pods = Match(resource="pods")
    async with running(faults=[Fault(Mutate(first), on_pods), Fault(Mutate(second), on_pods)]) as kit:
        await kit.create(JOBS, job())
        await kit.phase("Succeeded")
        assert kit.pod()["metadata"]["labels"]["policy"] == "first-second"
        assert kit.pod()["spec"]["schedulerName"] == "default-scheduler"


async def test_a_job_changed_by_a_policy_is_validated() -> None:
    def change(found: dict[str, Any]) -> None:
        found["spec"]["parallelism"] = -1

    async with running(faults=[Fault(Mutate(change), Match(resource="jobs"))]) as kit:
        response = await kit.client.post(JOBS, json=job())
        assert response.status_code == 422
        assert "spec.parallelism" in response.json()["message"]


async def test_a_node_can_be_missing_for_a_while() -> None:
    async with running(faults=[Fault(NoNode(seconds=0.05))]) as kit:
        await kit.create(JOBS, job())
        await kit.until(lambda: "FailedScheduling" in dict(kit.events()))
        assert kit.pod()["status"]["conditions"][0]["reason"] == "Unschedulable"
        await kit.phase("Succeeded")


def test_a_node_can_be_missing_for_good() -> None:
    async def main() -> None:
        async with running(faults=[Fault(NoNode(), Match(name="job-*"))]) as kit:
            await kit.create(JOBS, job())
            await anyio.sleep(3600)
            assert "FailedScheduling" in dict(kit.events())
            assert "nodeName" not in kit.pod()["spec"]

    run_on_mock_clock(main)


async def test_an_image_can_be_bad_at_first() -> None:
    async with running(faults=[Fault(BadImage("denied"))], pace=Pace(image_backoff=0.02)) as kit:
        await kit.create(JOBS, job())
        await kit.phase("Succeeded")
        assert ("Failed", 'Failed to pull image "python:3.11-slim": denied') in kit.events()


def test_a_config_map_can_become_visible_late() -> None:
    async def main() -> None:
        late = Fault(HideConfigMap(5.0), Match(resource="configmaps", name="config"))
        async with running(faults=[late]) as kit:
            await kit.create(CONFIG_MAPS, config_map(data={"key": "v"}))
            begin = anyio.current_time()
            await kit.create(JOBS, job(container={"env": [env_from("config", "key")]}))
            await kit.waiting("CreateContainerConfigError")
            await kit.phase("Succeeded", 10)
            assert anyio.current_time() - begin == pytest.approx(5.0, abs=0.2)

    run_on_mock_clock(main)


def test_a_node_can_evict_a_running_pod() -> None:
    async def main() -> None:
        async with running(SLEEPS, [Fault(Evict(after=20.0, message="the disk is full"))]) as kit:
            begin = anyio.current_time()
            await kit.create(JOBS, job())
            pod = await kit.phase("Failed", 30)
            assert anyio.current_time() - begin == pytest.approx(20.0, abs=0.1)
            assert (pod["status"]["reason"], pod["status"]["message"]) == ("Evicted", "the disk is full")
            assert ("Evicted", "the disk is full") in kit.events()

    run_on_mock_clock(main)


def test_a_pod_can_be_preempted() -> None:
    async def main() -> None:
        async with running(SLEEPS, [Fault(Preempt(after=5.0))], pace=Pace(remove=1.0)) as kit:
            await kit.create(JOBS, job())
            await kit.phase("Failed", 10)
            (condition,) = [one for one in kit.pod()["status"]["conditions"] if one["type"] == "DisruptionTarget"]
            assert condition["reason"] == "PreemptionByScheduler"
            assert (kit.state()[2]["exitCode"], "deletionTimestamp" in kit.pod()["metadata"]) == (143, True)

    run_on_mock_clock(main)


def test_a_kubelet_that_stops_reports_nothing_and_serves_no_log_until_it_has_started() -> None:
    """As recorded from a real node: a followed log ends, then 500, then 404 of pods/log, then the whole log."""
    script = Script([(1.0, b"one\n"), (6.0, b"two\n")], ends_at=6.0)

    async def main() -> None:
        async with running(script, [Fault(StopKubelet(after=5.0, seconds=10.0), POD)]) as kit:
            await kit.create(JOBS, job())
            await kit.phase("Running", 10)
            began = anyio.current_time()
            async with kit.log(follow="true") as log:
                assert await log.all() == b"one\n"
            assert anyio.current_time() - began == pytest.approx(5.0, abs=0.1)
            path = f"{PODS}/{kit.pod()['metadata']['name']}/log"
            away = (await kit.client.get(path)).json()
            assert (away["code"], "reason" in away) == (500, False)
            assert away["message"].endswith("dial tcp 192.0.2.2:10250: connect: connection refused")
            await anyio.sleep(9.9)
            assert kit.state()[:2] == ("Running", "running"), "though it ended at 6 s"
            await anyio.sleep(0.2)
            assert kit.state()[:2] == ("Succeeded", "terminated")
            starting = (await kit.client.get(path)).json()
            assert (starting["code"], starting["reason"], starting["details"]["kind"]) == (
                404,
                "NotFound",
                "pods/log",
            )
            await anyio.sleep(0.9)
            async with kit.log(follow="true") as log:
                assert await log.all() == b"one\ntwo\n"

    run_on_mock_clock(main)


def test_a_kubelet_that_never_starts_again_does_not_end_its_pod() -> None:
    async def main() -> None:
        async with running(SLEEPS, [Fault(StopKubelet(after=5.0, seconds=None), POD)]) as kit:
            made = await kit.create(JOBS, job())
            await kit.phase("Running", 10)
            await anyio.sleep(6)
            await kit.delete(f"{JOBS}/{made['metadata']['name']}")
            await anyio.sleep(600)
            assert "deletionTimestamp" in kit.pod()["metadata"]
            assert kit.state()[1] == "running"

    run_on_mock_clock(main)
