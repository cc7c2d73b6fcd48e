"""What a Pod object means. The states are those of the recorded server."""

from __future__ import annotations

from typing import Any

import pytest

from gke_sandbox.diagnosis import Ending, Wait, view

CONTAINER = "code-runner"
NO_SUCH_HOST = (
    'failed to pull and unpack image "registry.invalid/nosuch:1": failed to resolve reference '
    '"registry.invalid/nosuch:1": failed to do request: Head "https://registry.invalid/v2/nosuch/manifests/1": '
    "dial tcp: lookup registry.invalid on 10.0.0.10:53: no such host"
)


def pod(
    state: dict[str, Any] | None = None,
    *,
    phase: str = "Running",
    going: bool = False,
    node: str | None = "node1",
    **status: Any,
) -> dict[str, Any]:
    statuses = [] if state is None else [{"name": "sidecar", "state": {}}, {"name": CONTAINER, "state": state}]
    return {
        "metadata": {"name": "p", **({"deletionTimestamp": "2026-11-22T21:20:12Z"} if going else {})},
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": phase, "containerStatuses": statuses, **status},
    }


def terminated(code: int, reason: str, message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def test_a_running_container_runs_and_has_not_ended() -> None:
    seen = view(pod({"running": {"startedAt": "2026-11-22T21:20:09Z"}}), CONTAINER)
    assert (seen.name, seen.node, seen.running, seen.wait, seen.ending) == ("p", "node1", True, None, None)


def test_an_object_with_nothing_in_it_is_a_pod_of_which_nothing_is_known() -> None:
    seen = view({}, CONTAINER)
    assert (seen.name, seen.node, seen.running, seen.wait, seen.ending) == ("", "", False, None, None)


@pytest.mark.parametrize(
    ("state", "going", "kind", "reason"),
    [
        (terminated(0, "Completed"), False, "exited", "Completed"),
        (terminated(3, "Error"), False, "exited", "Error"),
        (terminated(0, "Completed"), True, "exited", "Completed"),
        (terminated(128, "OOMKilled"), False, "out_of_memory", "OOMKilled"),
        (terminated(137, "OOMKilled"), True, "out_of_memory", "OOMKilled"),
        (terminated(143, "Error"), True, "killed", "Deleted"),
        (terminated(137, "Error"), True, "killed", "Deleted"),
        (terminated(137, "Error"), False, "killed", "Error"),
        (terminated(143, "Error"), False, "exited", "Error"),
        (terminated(128, "StartError", "no such file"), False, "not_started", "StartError"),
        (terminated(137, "ContainerStatusUnknown"), False, "killed", "ContainerStatusUnknown"),
    ],
)
def test_a_terminated_container(state: dict[str, Any], going: bool, kind: str, reason: str) -> None:
    ending = view(pod(state, going=going), CONTAINER, has_run=True).ending
    assert ending is not None
    assert (ending.kind, ending.reason) == (kind, reason)


def test_an_evicted_pod_was_killed_though_its_container_seems_to_wait() -> None:
    seen = view(
        pod(
            {"waiting": {"reason": "ContainerCreating"}},
            phase="Failed",
            reason="Evicted",
            message='Usage of EmptyDir volume "tmp" exceeds the limit "16Mi". ',
        ),
        CONTAINER,
        has_run=True,
    )
    assert seen.ending == Ending("killed", "Evicted", 'Usage of EmptyDir volume "tmp" exceeds the limit "16Mi".')


def test_the_same_before_it_ran_means_that_it_did_not_start() -> None:
    seen = view(pod(phase="Failed", reason="Evicted", message="the node was low on memory"), CONTAINER)
    assert seen.ending is not None
    assert seen.ending.kind == "not_started"


def test_a_pod_that_is_gone_without_a_word_was_deleted() -> None:
    seen = view(pod({"running": {}}), CONTAINER, deleted=True)
    assert seen.ending == Ending("killed", "Deleted", "the pod was deleted by somebody else")


def test_a_preempted_pod_says_so_by_its_condition() -> None:
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": "default-scheduler: preempting to accommodate a higher priority pod",
    }
    seen = view(pod(terminated(143, "Error"), going=True, conditions=[condition]), CONTAINER)
    assert seen.ending is not None
    assert (seen.ending.kind, seen.ending.reason) == ("killed", "PreemptionByScheduler")


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing", ""])
def test_a_container_on_its_way_waits_for_nothing_worth_telling(reason: str) -> None:
    assert view(pod({"waiting": {"reason": reason}}, phase="Pending"), CONTAINER).wait is None


@pytest.mark.parametrize(
    ("reason", "message", "hopeless"),
    [
        ("ErrImagePull", NO_SUCH_HOST, True),
        ("ImagePullBackOff", f'Back-off pulling image "x": ErrImagePull: {NO_SUCH_HOST}', True),
        ("ErrImagePull", "pull access denied, repository does not exist or may require authorization", True),
        ("ErrImagePull", "context deadline exceeded", False),
        ("ErrImagePull", "429 Too Many Requests", False),
        ("InvalidImageName", "couldn't parse image reference", True),
        ("ErrImageNeverPull", "image is not present with pull policy of Never", True),
        ("CreateContainerConfigError", 'configmap "gke-sandbox-b5a2661855" not found', False),
    ],
)
def test_what_a_container_waits_for(reason: str, message: str, hopeless: bool) -> None:
    state = {"waiting": {"reason": reason, "message": message}}
    assert view(pod(state, phase="Pending"), CONTAINER).wait == Wait(reason, message, hopeless)


def test_a_pod_without_a_node_waits_for_one_and_may_still_get_it() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
    }
    wait = view(pod(phase="Pending", node=None, conditions=[condition]), CONTAINER).wait
    assert wait is not None
    assert (wait.reason, wait.hopeless) == ("Unschedulable", False)
    assert "gVisor" in wait.hint


def test_an_evicted_container_that_was_never_seen_running_has_run_if_it_says_when() -> None:
    """A watch that was away while the program ran must not have it called "not started": it may not run twice."""
    state = {"terminated": {"exitCode": 137, "reason": "Error", "startedAt": "2026-11-22T21:20:09Z"}}
    evicted = {"phase": "Failed", "reason": "Evicted", "message": "too much"}
    seen = view(pod(state, **evicted), CONTAINER)
    assert seen.ending == Ending("killed", "Evicted", "too much")
    never = {"terminated": {"exitCode": 128, "reason": "StartError", "startedAt": "1970-01-01T00:00:00Z"}}
    assert view(pod(never, **evicted), CONTAINER).ending == Ending("not_started", "Evicted", "too much")
