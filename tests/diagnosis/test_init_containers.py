"""Init containers and sidecars that a webhook added: which of them keeps the program from starting, and why."""

from __future__ import annotations

from typing import Any

import pytest

from gke_sandbox._diagnosis import Termination, WaitReason, cause, messages, read_pod

CONTAINER = "code-runner"
INITIALIZING = {"waiting": {"reason": "PodInitializing"}}
ISTIO_INIT = {"name": "istio-init", "image": "istio/proxyv2:1.24"}
ISTIO_PROXY = {"name": "istio-proxy", "image": "istio/proxyv2:1.24", "restartPolicy": "Always"}
DONE = {"name": "istio-init", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def back_off(seconds: int) -> dict[str, Any]:
    message = f"back-off {seconds}s restarting failed container=istio-proxy pod=p_default(u)"
    return {"waiting": {"reason": "CrashLoopBackOff", "message": message}}


def pod(
    *statuses: dict[str, Any],
    phase: str = "Pending",
    specs: tuple[dict[str, Any], ...] = (ISTIO_INIT, ISTIO_PROXY),
    state: dict[str, Any] = INITIALIZING,
    deleting: bool = False,
) -> dict[str, Any]:
    """Return a pod with the given init containers, whose program has not started."""
    return {
        "metadata": {"name": "p", **({"deletionTimestamp": "2026-11-22T21:20:12Z"} if deleting else {})},
        "spec": {"nodeName": "node1", "initContainers": list(specs), "containers": [{"name": CONTAINER}]},
        "status": {
            "phase": phase,
            "initContainerStatuses": list(statuses),
            "containerStatuses": [{"name": CONTAINER, "state": state}],
        },
    }


def wait(*statuses: dict[str, Any], **options: Any) -> WaitReason:
    found = read_pod(pod(*statuses, **options), CONTAINER)
    assert found.termination is None
    assert found.wait_reason is not None
    return found.wait_reason


def termination(*statuses: dict[str, Any], **options: Any) -> Termination:
    found = read_pod(pod(*statuses, phase="Failed", **options), CONTAINER).termination
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("state", "reason", "message"),
    [
        (
            ended(3, message="iptables: no"),
            "Error",
            "ended with exit code 3: iptables: no",
        ),
        (
            ended(128, "StartError", 'exec: "nosuch": executable file not found in $PATH'),
            "StartError",
            'could not be started: exec: "nosuch": executable file not found in $PATH',
        ),
        (
            ended(137, "OOMKilled"),
            "OOMKilled",
            "was killed because it exceeded its memory limit",
        ),
    ],
)
def test_a_pod_whose_init_container_failed_did_not_start(state: dict[str, Any], reason: str, message: str) -> None:
    """The kubelet reports the phase Failed without a reason, and the program's container as PodInitializing."""
    message = f'init container "istio-init" (image istio/proxyv2:1.24) {message}'
    found = termination({"name": "istio-init", "state": state})
    assert found == Termination("not_started", reason, message, None, cause("init_container_failed"))
    assert found.ran is False
    error = messages.not_started(found, "job", "p")
    assert error.cause == "init_container_failed"
    assert message in str(error)
    assert "sidecar.istio.io/inject=false" in error.hint


def test_an_init_container_that_was_stopped_with_its_pod_has_not_failed() -> None:
    stopped = read_pod(
        pod({"name": "istio-init", "state": ended(143)}, phase="Failed", deleting=True), CONTAINER
    ).termination
    assert stopped is None
    failed = termination({"name": "istio-init", "state": ended(3)}, deleting=True)
    assert failed.cause == cause("init_container_failed")


def test_a_sidecar_that_ended_does_not_explain_a_failed_pod() -> None:
    found = termination(DONE, {"name": "istio-proxy", "state": ended(1)})
    assert (found.kind, found.reason, found.cause) == ("not_started", "Failed", cause("pod_failed"))


def test_a_program_that_ran_ends_by_itself_whatever_its_sidecars_do() -> None:
    exited = ended(1)
    found = read_pod(
        pod(DONE, {"name": "istio-proxy", "state": ended(137)}, phase="Failed", state=exited), CONTAINER
    ).termination
    assert found is not None
    assert (found.kind, found.exit_code) == ("exited", 1)


@pytest.mark.parametrize(
    ("reason", "message", "permanent"),
    [
        ("ErrImagePull", "istio/proxyv2:1.24: not found", True),
        ("ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: pull access denied', True),
        ("ErrImagePull", "context deadline exceeded", False),
        ("CreateContainerConfigError", 'configmap "istio-ca-root-cert" not found', False),
        ("CreateContainerConfigError", 'secret "istio" not found', True),
    ],
)
@pytest.mark.parametrize("position", [0, 1])
def test_an_init_container_or_sidecar_that_waits_for_its_image_or_configuration_is_the_wait_reason(
    reason: str, message: str, permanent: bool, position: int
) -> None:
    """It is as permanent as it would be for the program's own container."""
    state = {"waiting": {"reason": reason, "message": message}}
    name = (ISTIO_INIT, ISTIO_PROXY)[position]["name"]
    found = wait(*[DONE][:position], {"name": name, "state": state})
    assert (found.reason, found.is_permanent) == (reason, permanent)
    assert f'"{name}"' in found.message
    assert message in found.message
    assert found.cause.name == ("init_container_failed" if permanent else "init_container_retried")


@pytest.mark.parametrize(
    ("restarts", "state", "permanent", "words"),
    [
        (0, ended(1), False, "has failed: it ended with exit code 1: no istiod"),
        (0, back_off(10), False, "has failed: it ended with exit code 1: no istiod. back-off 10s"),
        (1, {"running": {}}, False, "has failed: it ended"),
        (1, back_off(20), False, "has failed 2 times, and the last time it ended"),
        (2, {"running": {}}, False, "has failed 2 times"),
        (2, back_off(40), True, "has failed 3 times, and the last time it ended with exit code 1"),
        (3, {"running": {}}, False, "has failed 3 times"),
    ],
)
def test_a_sidecar_that_crashes_is_waited_for_until_its_third_crash(
    restarts: int, state: dict[str, Any], permanent: bool, words: str
) -> None:
    """It may need a server that is just starting. One that runs again may succeed."""
    last = {"lastState": ended(1, message="no istiod")} if "terminated" not in state else {}
    if not last:
        state = ended(1, message="no istiod")
    status = {"name": "istio-proxy", "started": False, "restartCount": restarts, "state": state, **last}
    found = wait(DONE, status)
    assert (found.is_permanent, found.cause.name) == (
        permanent,
        "init_container_failed" if permanent else "init_container_retried",
    )
    assert f'sidecar "istio-proxy" (image istio/proxyv2:1.24) {words}' in found.message


def test_a_sidecar_that_could_not_be_started_is_not_waited_for() -> None:
    last = ended(128, "StartError", "no such file")
    found = wait(DONE, {"name": "istio-proxy", "restartCount": 0, "state": back_off(10), "lastState": last})
    assert found.is_permanent
    assert "has failed: it could not be started: no such file" in found.message


@pytest.mark.parametrize(
    ("statuses", "name"),
    [
        ([{"name": "istio-init", "state": {"waiting": {"reason": "PodInitializing"}}}], "istio-init"),
        ([{"name": "istio-init", "state": {"running": {}}}], "istio-init"),
        ([DONE, {"name": "istio-proxy", "state": {"running": {}}, "started": False}], "istio-proxy"),
        ([DONE, {"name": "istio-proxy", "state": {"running": {}}, "started": True}], ""),
        ([], ""),
    ],
)
def test_a_pod_that_is_initializing_has_no_wait_reason_and_names_the_container(
    statuses: list[dict[str, Any]], name: str
) -> None:
    found = read_pod(pod(*statuses), CONTAINER)
    assert (found.wait_reason, found.termination, found.init_container) == (None, None, name)
    error = messages.start_timed_out(10, "job", found, None, None, None)
    assert error.cause == "slow_start"
    assert (f'waits for the container "{name}"' in str(error)) is bool(name)


def test_a_sidecar_that_crashes_after_the_program_started_does_not_matter() -> None:
    status = {"name": "istio-proxy", "restartCount": 2, "state": back_off(40), "lastState": ended(1)}
    found = read_pod(pod(DONE, status, phase="Running", state={"running": {}}), CONTAINER)
    assert (found.running, found.wait_reason, found.termination) == (True, None, None)


def test_the_reason_of_the_programs_own_container_comes_first() -> None:
    state = {"waiting": {"reason": "InvalidImageName", "message": "no"}}
    found = wait(DONE, {"name": "istio-proxy", "state": back_off(10), "lastState": ended(1)}, state=state)
    assert found.cause == cause("image_name_invalid")
