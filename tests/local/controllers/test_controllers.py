"""The Job controller, admission of its pods, and the garbage collector."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from gke_sandbox.local import ContainerExit, ContainerSpec, Namespace, Pace, Quota, Script

from ..kit import (
    CONFIG_MAPS,
    HELLO,
    JOBS,
    PODS,
    SLEEPS,
    Kit,
    Stream,
    config_map,
    job,
    on_a_jumping_clock,
    on_both_loops,
    running,
)


def conditions(kit: Kit) -> list[tuple[str, str, str]]:
    return [(one["type"], one["reason"], one["message"]) for one in kit.job_status().get("conditions", ())]


# Jobs.


@on_both_loops
async def test_a_job_whose_pod_succeeds_is_complete() -> None:
    async with running(HELLO) as kit:
        await kit.create(JOBS, job())
        await kit.condition("Complete")
        status = kit.job_status()
        why = ("CompletionsReached", "Reached expected number of succeeded pods")
        assert conditions(kit) == [("SuccessCriteriaMet", *why), ("Complete", *why)]
        assert {name: status.get(name) for name in ("active", "succeeded", "failed", "ready", "terminating")} == {
            "active": None,
            "succeeded": 1,
            "failed": None,
            "ready": 0,
            "terminating": 0,
        }
        assert status["startTime"] <= status["completionTime"]
        assert "finalizers" not in kit.pod()["metadata"]
        assert ("Completed", "Job completed") in kit.events()


@on_both_loops
async def test_a_job_whose_pod_fails_has_failed() -> None:
    async with running(Script(ends_at=0.0, exit=ContainerExit(3, "Error"))) as kit:
        await kit.create(JOBS, job())
        await kit.condition("Failed")
        why = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        assert conditions(kit) == [("FailureTarget", *why), ("Failed", *why)]
        assert (kit.job_status()["failed"], kit.pod()["status"]["phase"]) == (1, "Failed")


@on_a_jumping_clock
async def test_a_failed_pod_is_replaced_as_often_as_the_backoff_limit_allows_with_growing_pauses() -> None:
    async with running(Script(ends_at=0.0, exit=ContainerExit(1, "Error"))) as kit:
        begin = anyio.current_time()
        await kit.create(JOBS, job(backoffLimit=2))
        await kit.until(lambda: len(kit.pods()) == 2, 60)
        assert anyio.current_time() - begin == pytest.approx(10, abs=0.1)
        await kit.condition("Failed", 60)
        assert anyio.current_time() - begin == pytest.approx(30, abs=0.2)
        assert (kit.job_status()["failed"], len(kit.pods())) == (3, 3)


@on_both_loops
async def test_a_job_keeps_as_many_pods_as_its_parallelism_until_enough_succeeded() -> None:
    async with running(Script(ends_at=0.05)) as kit:
        await kit.create(JOBS, job(parallelism=2, completions=3))
        await kit.until(lambda: len(kit.pods()) == 2)
        await kit.condition("Complete")
        assert (kit.job_status()["succeeded"], len(kit.pods())) == (3, 3)


@on_both_loops
async def test_a_suspended_job_creates_no_pod() -> None:
    async with running() as kit:
        await kit.create(JOBS, job(suspend=True))
        await kit.condition("Suspended")
        assert kit.pods() == []


@on_a_jumping_clock
async def test_a_job_that_is_suspended_and_resumed_gets_a_new_pod_and_a_new_deadline() -> None:
    async with running(SLEEPS) as kit:
        await kit.create(JOBS, job(activeDeadlineSeconds=30))
        first = (await kit.phase("Running"))["metadata"]["name"]
        await anyio.sleep(20)
        kit.cluster.suspend_jobs()
        await kit.until(lambda: kit.pods() == [])
        await anyio.sleep(20)
        assert kit.job_status().keys() & {"active", "startTime", "failed"} == set()
        kit.cluster.resume_jobs()
        assert (await kit.phase("Running"))["metadata"]["name"] != first
        await anyio.sleep(20)
        assert (kit.job_status()["active"], "failed" in kit.job_status()) == (1, False)


@on_a_jumping_clock
async def test_a_job_past_its_deadline_deletes_its_pod_and_has_failed() -> None:
    async with running(SLEEPS) as kit:
        begin = anyio.current_time()
        await kit.create(JOBS, job(activeDeadlineSeconds=30))
        await kit.condition("Failed", 60)
        assert anyio.current_time() - begin == pytest.approx(30, abs=0.1)
        assert conditions(kit)[0] == (
            "FailureTarget",
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        )
        await kit.until(lambda: kit.pods() == [])


@on_a_jumping_clock
async def test_a_finished_job_is_deleted_with_its_pod_and_config_map_after_its_ttl() -> None:
    async with running(HELLO) as kit:
        created = await kit.create(JOBS, job(ttlSecondsAfterFinished=60))
        await kit.create(CONFIG_MAPS, config_map(owner=created["metadata"]))
        await kit.condition("Complete")
        await anyio.sleep(59)
        assert len(kit.cluster.leftovers()) == 3
        await anyio.sleep(2)
        assert kit.cluster.leftovers() == []


@on_both_loops
async def test_a_deleted_pod_counts_as_failed() -> None:
    async with running(SLEEPS) as kit:
        await kit.create(JOBS, job())
        pod = await kit.phase("Running")
        assert (await kit.delete(f"{PODS}/{pod['metadata']['name']}")).json()["kind"] == "Pod"
        await kit.condition("Failed")
        assert kit.job_status()["failed"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pod": {"runtimeClassName": "none"}}, '-" is forbidden: pod rejected: RuntimeClass "none" not found'),
        (
            {"pod": {"serviceAccountName": "none"}},
            '-" is forbidden: error looking up service account default/none: serviceaccount "none" not found',
        ),
        ({"pod": {"priorityClassName": "none"}}, "no PriorityClass with name none was found"),
    ],
)
@on_both_loops
async def test_a_rejected_pod_is_only_reported_in_an_event_on_its_job(
    change: dict[str, Any], message: str
) -> None:
    async with running() as kit:
        await kit.create(JOBS, job(**change))
        ((reason, text),) = await kit.until(kit.events)
        assert reason == "FailedCreate"
        assert text.startswith('Error creating: pods "job-')
        assert message in text
        assert kit.pods() == []
        assert "conditions" not in kit.job_status()


@on_a_jumping_clock
async def test_a_rejected_pod_is_retried_until_the_quota_allows_it() -> None:
    async with running(Script(ends_at=5.0), namespaces=[Namespace("default", quota=Quota("few", pods=1))]) as kit:
        await kit.create(JOBS, job("first"))
        await kit.phase("Running")
        await kit.create(JOBS, job("second"))
        await kit.until(lambda: "FailedCreate" in dict(kit.events()))
        message = dict(kit.events())["FailedCreate"]
        assert "is forbidden: exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1" in message
        await kit.until(lambda: len(kit.pods()) == 2, 10)


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        (
            {"container": {"securityContext": {"capabilities": {"drop": ["ALL"]}}}},
            'allowPrivilegeEscalation != false (container "code-runner" must set '
            "securityContext.allowPrivilegeEscalation=false)",
        ),
        (
            {"pod": {"securityContext": {"runAsNonRoot": True, "runAsUser": 1}}},
            'seccompProfile (pod or container "code-runner" must set securityContext.seccompProfile.type to '
            '"RuntimeDefault" or "Localhost")',
        ),
        (
            {"pod": {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}},
            'runAsNonRoot != true (pod or container "code-runner" must set securityContext.runAsNonRoot=true)',
        ),
        (
            {
                "container": {
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
                        "runAsUser": 0,
                    }
                }
            },
            'unrestricted capabilities (container "code-runner" must not include "NET_ADMIN" in '
            'securityContext.capabilities.add), runAsUser=0 (container "code-runner" must not set runAsUser=0)',
        ),
        ({"pod": {"hostNetwork": True}}, "host namespaces (hostNetwork=true)"),
    ],
)
@on_both_loops
async def test_pod_security_restricted_warns_about_the_job_and_rejects_the_pod(
    change: dict[str, Any], violation: str
) -> None:
    async with running(namespaces=[Namespace("default", pod_security="restricted")]) as kit:
        response = await kit.client.post(JOBS, json=job(**change))
        assert response.headers["warning"].replace("\\", "") == (
            f'299 - "would violate PodSecurity "restricted:latest": {violation}"'
        )
        ((_, message),) = await kit.until(kit.events)
        assert message.endswith(f'violates PodSecurity "restricted:latest": {violation}')


# Garbage.


@on_both_loops
async def test_background_deletion_removes_the_job_at_once_and_then_its_dependents() -> None:
    async with running(SLEEPS) as kit:
        created = await kit.create(JOBS, job())
        await kit.create(CONFIG_MAPS, config_map(owner=created["metadata"]))
        await kit.phase("Running")
        response = await kit.delete(f"{JOBS}/job")
        assert response.json()["status"] == "Success"
        assert kit.cluster.objects("jobs") == []
        await kit.until(lambda: kit.cluster.leftovers() == [])


async def version_of_removal(watch: Stream) -> int:
    while (event := await watch.event())["type"] != "DELETED":
        assert event["type"] in ("ADDED", "MODIFIED")
    return int(event["object"]["metadata"]["resourceVersion"])


@on_both_loops
async def test_foreground_deletion_keeps_the_job_until_its_pod_is_removed() -> None:
    async with running(SLEEPS, pace=Pace(remove=0.1)) as kit:
        await kit.create(JOBS, job())
        await kit.phase("Running")
        async with kit.watch(JOBS) as jobs, kit.watch(PODS) as pods:
            response = await kit.delete(f"{JOBS}/job", propagationPolicy="Foreground")
            assert response.json()["metadata"]["finalizers"] == ["foregroundDeletion"]
            assert await version_of_removal(pods) < await version_of_removal(jobs)


@on_both_loops
async def test_a_dependent_of_a_missing_owner_is_deleted() -> None:
    async with running() as kit:
        await kit.create(CONFIG_MAPS, config_map(owner={"name": "job", "uid": "gone"}))
        await kit.until(lambda: kit.cluster.leftovers() == [])


@on_a_jumping_clock
async def test_a_hundred_jobs_at_once_all_end_and_leave_nothing() -> None:
    def choose(spec: ContainerSpec) -> Script:
        return Script(chunks=[(0.0, spec.pod.encode() + b"\n")], ends_at=0.1)

    async with running(choose) as kit:
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(kit.create, JOBS, job(f"job-{number}"))
        await anyio.sleep(1)
        assert sum("completionTime" in one["status"] for one in kit.cluster.objects("jobs")) == 100
        for number in range(100):
            await kit.delete(f"{JOBS}/job-{number}")
        await anyio.sleep(1)
        assert kit.cluster.leftovers() == []
