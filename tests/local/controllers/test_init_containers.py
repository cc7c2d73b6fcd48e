"""Init containers, sidecars, and pods that the node rejects: the status as a real kubelet writes it."""

from __future__ import annotations

from typing import Any

import anyio

from gke_sandbox.local import ContainerExit, ContainerSpec, Fault, Pace, Script
from gke_sandbox.local.faults import Match, Mutate, RejectPod

from ..kit import HELLO, JOBS, SLEEPS, job, on_a_jumping_clock, on_both_loops, running

INIT = {"name": "setup", "image": "setup:1"}
SIDECAR = {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}


def adding(*containers: dict[str, Any]) -> Fault:
    def add(pod: dict[str, Any]) -> None:
        pod["spec"]["initContainers"] = [dict(each) for each in containers]

    return Fault(Mutate(add), Match(resource="pods"))


def conditions(pod: dict[str, Any]) -> dict[str, tuple[str, str]]:
    found = pod["status"]["conditions"]
    return {each["type"]: (each["status"], each.get("reason", "")) for each in found}


@on_both_loops
async def test_an_init_container_that_fails_fails_its_pod_and_the_other_container_never_starts() -> None:
    failing = Script(ends_at=0.0, exit=ContainerExit(3, "Error"))

    async with running(lambda spec: failing if spec.name == "setup" else HELLO, [adding(INIT)]) as kit:
        await kit.create(JOBS, job())
        pod = await kit.phase("Failed")
        assert "reason" not in pod["status"]
        assert kit.state()[1:] == ("waiting", {"reason": "PodInitializing"})
        (status,) = pod["status"]["initContainerStatuses"]
        assert (status["name"], status["state"]["terminated"]["exitCode"]) == ("setup", 3)
        assert conditions(pod)["Initialized"] == ("False", "ContainersNotInitialized")
        assert [spec.name for spec in kit.runtime.specs] == ["setup"]
        await kit.condition("Failed")


@on_both_loops
async def test_containers_start_in_order_and_a_sidecar_is_stopped_with_its_pod() -> None:
    known = {"setup": HELLO, "proxy": SLEEPS, "code-runner": Script(ends_at=0.05)}

    def script(spec: ContainerSpec) -> Script:
        return known[spec.name]

    async with running(script, [adding(INIT, SIDECAR)]) as kit:
        await kit.create(JOBS, job())
        pod = await kit.phase("Succeeded")
        assert [spec.name for spec in kit.runtime.specs] == ["setup", "proxy", "code-runner"]
        setup, proxy = pod["status"]["initContainerStatuses"]
        assert (setup["ready"], setup["state"]["terminated"]["reason"]) == (True, "Completed")
        assert proxy["state"]["terminated"]["exitCode"] == 143
        assert conditions(pod)["Initialized"] == ("True", "PodCompleted")
        await anyio.wait_all_tasks_blocked()
        assert kit.runtime.running == 0


@on_both_loops
async def test_a_policy_can_use_fields_that_no_job_of_this_package_has() -> None:
    sidecar = {
        **SIDECAR,
        "startupProbe": {"exec": {"command": ["true"]}},
        "resources": {"limits": {"cpu": 2}, "requests": {"cpu": 0.1}},
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}},
        ],
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/token"}],
    }

    def add(pod: dict[str, Any]) -> None:
        pod["spec"].update(initContainers=[sidecar], volumes=[{"name": "token", "projected": {"sources": []}}])

    known = {"proxy": SLEEPS, "code-runner": HELLO}
    async with running(lambda spec: known[spec.name], [Fault(Mutate(add), Match(resource="pods"))]) as kit:
        await kit.create(JOBS, job())
        pod = await kit.phase("Succeeded")
        (proxy,) = pod["spec"]["initContainers"]
        assert proxy["resources"] == {"limits": {"cpu": "2"}, "requests": {"cpu": "100m"}}
        spec = kit.runtime.specs[0]
        assert spec.env == {"POD": pod["metadata"]["name"], "TOKEN": ""}
        assert spec.scratch == {"/var/run/token": None}


@on_a_jumping_clock
async def test_a_sidecar_that_ends_is_started_again_with_doubled_pauses() -> None:
    crashing = Script(ends_at=1.0, exit=ContainerExit(1, "Error"))
    probed = {**SIDECAR, "startupProbe": {"initialDelaySeconds": 5}}
    async with running(lambda spec: crashing, [adding(probed)], pace=Pace()) as kit:
        await kit.create(JOBS, job())
        seen = []
        for _ in range(35):
            await anyio.sleep(1)
            (status,) = kit.pod()["status"]["initContainerStatuses"]
            ((state, content),) = status["state"].items()
            now = (state, status["restartCount"], content.get("message", "").partition(" restarting")[0])
            if not seen or seen[-1] != now:
                seen.append(now)
        assert seen == [
            ("running", 0, ""),
            ("waiting", 0, "back-off 10s"),
            ("running", 1, ""),
            ("waiting", 1, "back-off 20s"),
            ("running", 2, ""),
            ("waiting", 2, "back-off 40s"),
        ]
        assert kit.state()[:2] == ("Pending", "waiting")
        await kit.delete(f"{JOBS}/job")
        await kit.until(lambda: kit.cluster.leftovers() == [])


@on_both_loops
async def test_a_pod_that_its_node_rejects_fails_without_statuses_of_containers() -> None:
    async with running(HELLO, [Fault(RejectPod.pressure("MemoryPressure"))]) as kit:
        await kit.create(JOBS, job())
        pod = await kit.phase("Failed")
        assert (pod["status"]["reason"], pod["status"]["message"]) == (
            "Evicted",
            "Pod was rejected: The node had condition: [MemoryPressure]. ",
        )
        assert "containerStatuses" not in pod["status"]
        assert ("Evicted", "The node had condition: [MemoryPressure]. ") in kit.events()
        assert kit.runtime.specs == []
        await kit.condition("Failed")
