"""The kubelet and the scheduler: startup and end of pods."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from gke_sandbox.local import ContainerExit, ContainerStartError, Pace, Script
from tests.clock import run_on_mock_clock

from ..kit import (
    CONFIG_MAPS,
    JOBS,
    PODS,
    config_map,
    env_from,
    job,
    on_a_jumping_clock,
    on_both_loops,
    refusal,
    running,
)

# Pods: the way to a running container.


@on_both_loops
async def test_a_container_gets_its_environment_from_config_maps_with_references_expanded() -> None:
    env = [
        {"name": "PLAIN", "value": "a"},
        {"name": "MADE", "value": "$(PLAIN)-$(NONE)-$$(PLAIN)"},
        env_from("config", "key"),
    ]
    container = {
        "env": env,
        "command": ["python3", "$(PLAIN)"],
        "args": ["$$(PLAIN)"],
        "workingDir": "/work",
        "resources": {"limits": {"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1Ki"}},
    }
    async with running() as kit:
        await kit.create(CONFIG_MAPS, config_map(data={"key": "$(PLAIN)"}))
        await kit.create(JOBS, job(container=container))
        await kit.phase("Succeeded")
        (spec,) = kit.runtime.specs
        assert spec.env == {
            "PLAIN": "a",
            "MADE": "a-$(NONE)-$(PLAIN)",
            "VALUE": "$(PLAIN)",
        }
        assert (spec.command, spec.working_dir) == (("python3", "a", "$(PLAIN)"), "/work")
        limits = (spec.cpu_limit, spec.memory_limit, spec.ephemeral_limit, spec.run_as_user)
        assert limits == (0.5, 1 << 30, 1024, 1001)


@on_both_loops
async def test_a_slightly_late_config_map_causes_no_delay_in_environment_or_volume() -> None:
    volume = {"volumes": [{"name": "v", "configMap": {"name": "config"}}]}
    mounts = [{"name": "v", "mountPath": "/app"}]
    async with running() as kit:
        await kit.create(
            JOBS, job(container={"env": [env_from("config", "a")], "volumeMounts": mounts}, pod=volume)
        )
        await kit.until(lambda: kit.pods() and "containerStatuses" in kit.pod()["status"])
        await kit.create(CONFIG_MAPS, config_map(data={"a": "text"}, binaryData={"b": "AAE="}))
        await kit.phase("Succeeded")
        (spec,) = kit.runtime.specs
        assert spec.files == {"/app/a": b"text", "/app/b": b"\x00\x01"}
        assert {"FailedMount", "Failed"} & set(dict(kit.events())) == set()


@on_a_jumping_clock
async def test_a_late_config_map_in_the_environment_waits_for_the_kubelets_next_attempt() -> None:
    async with running(pace=Pace.recorded()) as kit:
        begin = anyio.current_time()
        await kit.create(JOBS, job(container={"env": [env_from("config", "key")]}))
        said = await kit.waiting("CreateContainerConfigError")
        assert said["message"] == 'configmap "config" not found'
        await kit.create(CONFIG_MAPS, config_map(data={"key": "v"}))
        await kit.phase("Running", 20)
        assert 13 < anyio.current_time() - begin < 14


@on_a_jumping_clock
async def test_a_late_config_map_in_a_volume_is_retried_with_doubled_delays() -> None:
    volume = {"volumes": [{"name": "v", "configMap": {"name": "config"}}]}
    async with running(pace=Pace.recorded()) as kit:
        begin = anyio.current_time()
        await kit.create(JOBS, job(pod=volume, container={"volumeMounts": [{"name": "v", "mountPath": "/app"}]}))
        await anyio.sleep(1.0)
        assert kit.state()[1:] == ("waiting", {"reason": "ContainerCreating"})
        failed = 'MountVolume.SetUp failed for volume "v" : configmap "config" not found'
        assert ("FailedMount", failed) in kit.events()
        await kit.create(CONFIG_MAPS, config_map(data={"a": "v"}))
        await kit.phase("Running", 5)
        # Tries at 0.4, 0.9 and 1.9 s; then sandbox and start.
        assert 2.4 < anyio.current_time() - begin < 2.7


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (env_from("config", "none"), "couldn't find key none in ConfigMap default/config"),
        (env_from("config", "binary"), "couldn't find key binary in ConfigMap default/config"),
    ],
)
@on_both_loops
async def test_a_missing_key_is_a_configuration_error(reference: dict[str, Any], message: str) -> None:
    async with running() as kit:
        await kit.create(CONFIG_MAPS, config_map(data={"key": "v"}, binaryData={"binary": "AA=="}))
        await kit.create(JOBS, job(container={"env": [reference]}))
        assert (await kit.waiting("CreateContainerConfigError"))["message"] == message


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"runAsNonRoot": True}, "container has runAsNonRoot and image will run as root (pod: "),
        ({"runAsNonRoot": True, "runAsUser": 0}, "container's runAsUser breaks non-root policy (pod: "),
    ],
)
@on_both_loops
async def test_root_is_rejected_with_run_as_non_root(user: dict[str, Any], message: str) -> None:
    async with running() as kit:
        await kit.create(JOBS, job(pod={"securityContext": user}))
        assert (await kit.waiting("CreateContainerConfigError"))["message"].startswith(message)


@on_both_loops
async def test_volumes_provide_files_and_scratch_space() -> None:
    pod = {
        "volumes": [
            {"name": "some", "configMap": {"name": "config"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "free"},
        ]
    }
    paths = {"some": "/app", "tmp": "/tmp", "free": "/free"}
    mounts = [{"name": name, "mountPath": path} for name, path in paths.items()]
    async with running() as kit:
        await kit.create(CONFIG_MAPS, config_map(data={"a": "1", "b": "2"}))
        await kit.create(JOBS, job(container={"volumeMounts": mounts}, pod=pod))
        await kit.phase("Succeeded")
        (spec,) = kit.runtime.specs
        assert spec.files == {"/app/a": b"1", "/app/b": b"2"}
        assert spec.scratch == {"/tmp": 64 << 20, "/free": None}


@on_a_jumping_clock
async def test_an_image_that_cannot_be_pulled_backs_off_and_starts_nothing() -> None:
    async with running(pace=Pace.recorded()) as kit:
        await kit.create(JOBS, job(container={"image": "registry.invalid/nosuch:1"}))
        assert "no such host" in (await kit.waiting("ErrImagePull"))["message"]
        said = await kit.waiting("ImagePullBackOff", 15)
        assert said["message"].startswith('Back-off pulling image "registry.invalid/nosuch:1": ErrImagePull: ')
        assert kit.runtime.specs == []


@on_both_loops
async def test_an_invalid_image_name_is_reported() -> None:
    async with running() as kit:
        await kit.create(JOBS, job(container={"image": "UPPER"}))
        assert "invalid reference format" in (await kit.waiting("InvalidImageName"))["message"]


@pytest.mark.parametrize("image", ["python", "python:3.11-slim", "a.b:5000/c/d-e@sha256:" + "0" * 64, "a_b/c__d"])
@on_both_loops
async def test_valid_image_names_are_accepted(image: str) -> None:
    async with running() as kit:
        await kit.create(JOBS, job(container={"image": image}))
        await kit.phase("Succeeded")


@on_both_loops
async def test_a_container_that_cannot_start_fails_its_pod_with_start_error() -> None:
    script = Script(start_error=ContainerStartError("no such file", log=b"in the log\n"))
    async with running(script) as kit:
        await kit.create(JOBS, job())
        await kit.phase("Failed")
        _, kind, said = kit.state()
        assert (kind, said["reason"], said["exitCode"], said["message"]) == (
            "terminated",
            "StartError",
            128,
            "no such file",
        )
        async with kit.log(follow="true") as log:
            assert await log.all() == b"in the log\n"


@on_both_loops
async def test_a_pod_that_fits_no_node_stays_pending() -> None:
    async with running() as kit:
        await kit.create(JOBS, job(pod={"nodeSelector": {"zone": "elsewhere"}}))
        await kit.until(lambda: "FailedScheduling" in dict(kit.events()))
        (condition,) = kit.pod()["status"]["conditions"]
        assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
        assert "nodeName" not in kit.pod()["spec"]
        await kit.delete(f"{JOBS}/job")
        await kit.until(lambda: kit.cluster.leftovers() == [])


# Pods: the end.


@on_a_jumping_clock
async def test_out_of_memory_is_seen_before_the_phase_changes() -> None:
    async with running(Script(ends_at=1.0, exit=ContainerExit(128, "OOMKilled")), pace=Pace.recorded()) as kit:
        await kit.create(JOBS, job())
        await kit.until(lambda: kit.pods() and kit.pod()["status"]["phase"] == "Running")
        await kit.until(lambda: kit.state()[1] == "terminated")
        assert (kit.state()[0], kit.state()[2]["reason"], kit.state()[2]["exitCode"]) == (
            "Running",
            "OOMKilled",
            128,
        )
        await kit.phase("Failed")


@on_both_loops
async def test_an_eviction_is_reported_on_the_pod_while_its_container_waits() -> None:
    async with running(Script(ends_at=0.0, exit=ContainerExit(137, "Evicted", "too much"))) as kit:
        await kit.create(JOBS, job())
        pod = await kit.phase("Failed")
        assert (pod["status"]["reason"], pod["status"]["message"]) == ("Evicted", "too much")
        (container,) = pod["status"]["containerStatuses"]
        assert container["state"] == {"waiting": {"reason": "ContainerCreating"}}
        assert container["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
        log = await kit.client.get(f"{PODS}/{pod['metadata']['name']}/log")
        assert refusal(log)[2].endswith("is terminated")


@on_a_jumping_clock
async def test_a_log_larger_than_the_limit_of_ephemeral_storage_gets_the_pod_evicted() -> None:
    script = Script(chunks=[(1.0, b"x\n" * 30_000)])
    limits = {"resources": {"limits": {"ephemeral-storage": "1Mi"}}}
    async with running(script) as kit:
        begin = anyio.current_time()
        await kit.create(JOBS, job(container=limits))
        pod = await kit.phase("Failed", 30)
        assert anyio.current_time() - begin == pytest.approx(10, abs=0.1)
        assert pod["status"]["message"] == (
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "
        )


@on_a_jumping_clock
async def test_the_deadline_of_a_pod_ends_it_after_its_grace_period() -> None:
    async with running(Script(stops_after=0.5)) as kit:
        await kit.create(JOBS, job(pod={"activeDeadlineSeconds": 5}))
        pod = await kit.phase("Failed", 10)
        assert (pod["status"]["reason"], kit.state()[2]["exitCode"]) == ("DeadlineExceeded", 143)


@pytest.mark.parametrize(
    ("script", "seconds", "code"),
    [
        (Script(), 0.0, 143),
        (Script(stops_after=2.0, stopped=ContainerExit(0, "Completed")), 2.0, 0),
        (Script(stops_after=None), 10.0, 137),
        (Script(stops_after=30.0), 10.0, 137),
    ],
)
def test_a_deleted_pod_has_its_grace_period_to_exit(script: Script, seconds: float, code: int) -> None:
    async def main() -> None:
        async with running(script, pace=Pace(remove=0.5)) as kit:
            await kit.create(JOBS, job(pod={"terminationGracePeriodSeconds": 10}))
            await kit.phase("Running")
            begin = anyio.current_time()
            await kit.delete(f"{JOBS}/job")
            await kit.until(lambda: kit.state()[1] == "terminated", 20)
            assert kit.state()[2]["exitCode"] == code
            assert anyio.current_time() - begin == pytest.approx(seconds, abs=0.05)
            await kit.until(lambda: kit.cluster.leftovers() == [])

    run_on_mock_clock(main)


@on_a_jumping_clock
async def test_a_second_deletion_can_shorten_the_grace_period_but_not_extend_it() -> None:
    async with running(Script(stops_after=None), pace=Pace(remove=0.5)) as kit:
        await kit.create(JOBS, job(pod={"terminationGracePeriodSeconds": 10}))
        path = f"{PODS}/{(await kit.phase('Running'))['metadata']['name']}"
        begin = anyio.current_time()
        await kit.delete(path)
        await kit.delete(path, gracePeriodSeconds=100)
        assert kit.pod()["metadata"]["deletionGracePeriodSeconds"] == 10
        await kit.delete(path, gracePeriodSeconds=2)
        await kit.until(lambda: kit.state()[1] == "terminated", 20)
        assert anyio.current_time() - begin == pytest.approx(2, abs=0.05)


@on_both_loops
async def test_a_force_deleted_pod_is_removed_at_once_and_its_container_killed() -> None:
    async with running(Script(stops_after=None)) as kit:
        await kit.create(JOBS, job())
        pod = await kit.phase("Running")
        await kit.delete(f"{PODS}/{pod['metadata']['name']}", gracePeriodSeconds=0)
        await kit.until(lambda: kit.pods() == [])


@on_both_loops
async def test_a_pod_deleted_before_its_container_started_was_never_run() -> None:
    async with running(pace=Pace(remove=0.1)) as kit:
        await kit.create(JOBS, job(container={"env": [env_from("none", "x")]}))
        await kit.waiting("CreateContainerConfigError")
        await kit.delete(f"{JOBS}/job")
        await kit.phase("Failed")
        assert kit.state()[2]["reason"] == "ContainerStatusUnknown"
        await kit.until(lambda: kit.cluster.leftovers() == [])
        assert kit.runtime.specs == []


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ({}, "BestEffort"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
    ],
)
@on_both_loops
async def test_the_quality_of_service_follows_from_the_resources(resources: dict[str, Any], qos: str) -> None:
    async with running() as kit:
        await kit.create(JOBS, job(container={"resources": resources}))
        assert (await kit.phase("Succeeded"))["status"]["qosClass"] == qos
