"""Diagnosis of Pods, Jobs and Events. Most states and messages come from recordings of a real server."""

from __future__ import annotations

from typing import Any

import pytest

from gke_sandbox._diagnosis import (
    CAUSES,
    Termination,
    WaitReason,
    cause,
    job_termination,
    job_wait_reason,
    pod_wait_reason,
    read_pod,
    rejection,
)
from gke_sandbox._diagnosis.causes import match_cause
from gke_sandbox.errors import ApiError, StartError

from ..kubernetes_messages import MESSAGES, NO_SUCH_HOST

CONTAINER = "code-runner"


def pod(
    state: dict[str, Any] | None = None,
    *,
    phase: str = "Running",
    deleting: bool = False,
    node: str | None = "node1",
    **status: Any,
) -> dict[str, Any]:
    statuses = [] if state is None else [{"name": "sidecar", "state": {}}, {"name": CONTAINER, "state": state}]
    return {
        "metadata": {"name": "p", **({"deletionTimestamp": "2026-11-22T21:20:12Z"} if deleting else {})},
        "spec": {"runtimeClassName": "gvisor", **({"nodeName": node} if node else {})},
        "status": {"phase": phase, "containerStatuses": statuses, **status},
    }


def terminated(code: int, reason: str, message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def test_a_running_container_has_no_wait_reason_and_no_termination() -> None:
    seen = read_pod(pod({"running": {"startedAt": "2026-11-22T21:20:09Z"}}), CONTAINER)
    assert (seen.name, seen.node, seen.running, seen.wait_reason, seen.termination) == (
        "p",
        "node1",
        True,
        None,
        None,
    )


def test_an_empty_object_is_a_pod_with_unknown_state() -> None:
    seen = read_pod({}, CONTAINER)
    assert (seen.name, seen.node, seen.running, seen.wait_reason, seen.termination) == ("", "", False, None, None)


@pytest.mark.parametrize(
    ("state", "deleting", "kind", "reason"),
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
def test_a_terminated_container_has_a_kind_and_a_reason(
    state: dict[str, Any], deleting: bool, kind: str, reason: str
) -> None:
    termination = read_pod(pod(state, deleting=deleting), CONTAINER, has_run=True).termination
    assert termination is not None
    assert (termination.kind, termination.reason) == (kind, reason)


def test_an_evicted_pod_was_killed_even_if_its_container_is_reported_as_waiting() -> None:
    seen = read_pod(
        pod(
            {"waiting": {"reason": "ContainerCreating"}},
            phase="Failed",
            reason="Evicted",
            message='Usage of EmptyDir volume "tmp" exceeds the limit "16Mi". ',
        ),
        CONTAINER,
        has_run=True,
    )
    message = 'Usage of EmptyDir volume "tmp" exceeds the limit "16Mi".'
    assert seen.termination == Termination("killed", "Evicted", message, None, cause("storage_exceeded"))


def test_a_pod_evicted_before_it_ran_did_not_start() -> None:
    seen = read_pod(pod(phase="Failed", reason="Evicted", message="the node was low on memory"), CONTAINER)
    assert seen.termination is not None
    assert seen.termination.kind == "not_started"


def test_a_running_pod_that_disappears_was_deleted() -> None:
    seen = read_pod(pod({"running": {}}), CONTAINER, deleted=True)
    why = "the pod was deleted by another client"
    assert seen.termination == Termination("killed", "Deleted", why, None, cause("deleted"))


def test_the_condition_of_a_preempted_pod_is_the_reason() -> None:
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": "default-scheduler: preempting to accommodate a higher priority pod",
    }
    seen = read_pod(pod(terminated(143, "Error"), deleting=True, conditions=[condition]), CONTAINER)
    assert seen.termination is not None
    assert (seen.termination.kind, seen.termination.reason) == ("killed", "PreemptionByScheduler")


def disruption(reason: str) -> list[dict[str, str]]:
    return [
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "message": "The message of the condition.",
        }
    ]


@pytest.mark.parametrize("reason", ["DeletionByTaintManager", "DeletionByPodGC"])
@pytest.mark.parametrize(
    ("state", "ran", "message"),
    [
        ({"running": {}}, True, "The message of the condition."),
        (
            {"waiting": {"reason": "ContainerCreating"}},
            None,
            "The message of the condition.",
        ),
    ],
)
def test_a_deleted_pod_on_a_lost_node_has_ended_even_if_its_object_remains(
    reason: str, state: dict[str, Any], ran: bool | None, message: str
) -> None:
    """No kubelet will report a final status."""
    termination = read_pod(pod(state, deleting=True, conditions=disruption(reason)), CONTAINER).termination
    assert termination is not None
    assert (termination.kind, termination.reason, termination.message) == ("killed", reason, message)
    assert (termination.ran, termination.cause) == (ran, cause("node_lost"))


@pytest.mark.parametrize("reason", ["PreemptionByScheduler", "EvictionByEvictionAPI"])
def test_a_deleted_pod_on_a_healthy_node_has_not_ended_before_the_kubelet_reports_it(reason: str) -> None:
    """The final status of the kubelet contains how the container ended, and whether it ran."""
    assert (
        read_pod(pod({"running": {}}, deleting=True, conditions=disruption(reason)), CONTAINER).termination is None
    )
    assert (
        read_pod(pod({"running": {}}, conditions=disruption("DeletionByTaintManager")), CONTAINER).termination
        is None
    )


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing", ""])
def test_a_container_that_is_being_created_has_no_wait_reason(reason: str) -> None:
    assert read_pod(pod({"waiting": {"reason": reason}}, phase="Pending"), CONTAINER).wait_reason is None


@pytest.mark.parametrize(("source", "reason", "message", "name"), MESSAGES)
def test_each_message_of_kubernetes_has_a_cause(source: Any, reason: str, message: str, name: str) -> None:
    found = match_cause(source, reason, message)
    assert found is not None
    assert found.name == name


def test_every_cause_has_a_unique_name_and_a_message_or_the_client_as_its_source() -> None:
    names = [each.name for each in CAUSES]
    assert len(names) == len(set(names))
    inferred = {each.name for each in CAUSES if not each.patterns}
    assert {name for *_, name in MESSAGES} | inferred == set(names)


@pytest.mark.parametrize("each", CAUSES, ids=lambda each: each.name)
def test_every_cause_has_a_summary_and_a_hint_in_sentences(each: Any) -> None:
    assert each.summary
    assert not each.summary.endswith(".")
    assert each.hint[0].isupper()
    assert each.hint.endswith(".")


PERMANENT = (
    "image_not_found",
    "image_pull_denied",
    "image_name_invalid",
    "registry_not_found",
    "cannot_scale_up",
    "init_container_failed",
)
TEMPORARY = (
    "image_pull_failed",
    "image_pull_throttled",
    "config_map_late",
    "container_config_late",
    "no_gvisor_node",
    "node_pressure",
    "node_not_ready",
    "node_cordoned",
    "node_tainted",
    "node_selector_unmatched",
    "init_container_retried",
    "node_is_being_made",
)


@pytest.mark.parametrize("name", [*PERMANENT, *TEMPORARY])
def test_only_permanent_causes_end_the_wait(name: str) -> None:
    assert cause(name).permanent is (name in PERMANENT)


def test_the_waiting_state_of_a_container_is_its_wait_reason() -> None:
    state = {"waiting": {"reason": "ErrImagePull", "message": f" {NO_SUCH_HOST}\n"}}
    wait = read_pod(pod(state, phase="Pending"), CONTAINER).wait_reason
    assert wait is not None
    assert (wait.cause.name, wait.reason, wait.message) == ("registry_not_found", "ErrImagePull", NO_SUCH_HOST)
    assert wait.is_permanent


def event(reason: str, message: str, at: str = "2026-11-22T21:20:09Z", **more: Any) -> dict[str, Any]:
    return {
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
        "metadata": {"resourceVersion": "9"},
        **more,
    }


def test_the_newest_event_of_a_pod_with_a_known_cause_is_used() -> None:
    events = [
        event("FailedScheduling", "0/3 nodes are available"),
        event("TriggeredScaleUp", "pod triggered scale-up", "2026-11-22T21:20:12Z"),
        event("NotTriggerScaleUp", "pod didn't trigger scale-up", "2026-11-22T21:20:10Z"),
        event("Unknown", "is new", "2026-11-22T21:20:30Z"),
    ]
    wait = pod_wait_reason(events)
    assert wait is not None
    assert wait.cause.name == "node_is_being_made"


def test_the_time_of_an_event_is_read_from_event_time_and_series_too() -> None:
    old = event("TriggeredScaleUp", "", "2026-11-22T21:20:12Z")
    new = event("NotTriggerScaleUp", "", lastTimestamp=None, eventTime="2026-11-22T21:20:13.000001Z")
    series = event("FailedScaleUp", "", series={"lastObservedTime": "2026-11-22T21:20:14.5Z"})
    for events, name in (([old, new], "cannot_scale_up"), ([old, new, series], "scale_up_failed")):
        wait = pod_wait_reason(events)
        assert wait is not None
        assert wait.cause.name == name


def test_events_of_the_same_second_are_ordered_by_resource_version() -> None:
    first = event("TriggeredScaleUp", "", metadata={"resourceVersion": "99"})
    second = event("NotTriggerScaleUp", "", metadata={"resourceVersion": "100"})
    for events in ([first, second], [second, first]):
        wait = pod_wait_reason(events)
        assert wait is not None
        assert wait.reason == "NotTriggerScaleUp"


def test_not_trigger_scale_up_is_ignored_if_an_existing_node_is_only_full() -> None:
    no_new_node = [event("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 node(s) didn't match")]
    full = WaitReason(cause("not_enough_cpu"), "Unschedulable", "0/3 nodes are available: 1 Insufficient cpu.")
    none = WaitReason(cause("no_gvisor_node"), "Unschedulable", "0/3 nodes are available: 3 node(s) didn't match")
    assert pod_wait_reason(no_new_node, full) is None
    found = pod_wait_reason(no_new_node, none)
    assert found is not None
    assert found.is_permanent


def test_events_of_the_autoscaler_are_out_of_date_once_the_pod_has_a_node() -> None:
    events = [
        event("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 node(s) didn't match"),
        event("FailedMount", 'MountVolume.SetUp failed for volume "app"', "2026-11-22T21:20:08Z"),
    ]
    found = pod_wait_reason(events, node="node1")
    assert found is not None
    assert found.cause.name == "mount_failed"
    waiting = WaitReason(cause("image_pull_failed"), "ErrImagePull", "timeout")
    assert pod_wait_reason(events, waiting, node="node1") is None


def test_events_without_a_cause_have_no_wait_reason() -> None:
    assert pod_wait_reason([event("Scheduled", "Successfully assigned"), {}]) is None
    assert job_wait_reason([event("SuccessfulCreate", "Created pod: x"), {}]) is None


def test_the_failed_create_event_of_a_job_is_its_wait_reason() -> None:
    message = 'Error creating: pods "x" is forbidden: exceeded quota: pods, requested: pods=1'
    wait = job_wait_reason([event("FailedCreate", message)])
    assert wait is not None
    assert (wait.cause.name, wait.is_permanent) == ("quota_exceeded", False)
    assert wait.message.startswith('pods "x"')
    created = event("SuccessfulCreate", "Created pod: x", "2026-11-22T21:20:10Z")
    assert job_wait_reason([created, event("FailedCreate", message)]) is None


def test_a_job_that_was_resumed_or_has_a_pod_is_not_suspended_any_more() -> None:
    suspended = event("Suspended", "Job suspended")
    wait = job_wait_reason([suspended])
    assert wait is not None
    assert (wait.cause.name, wait.is_permanent) == ("job_suspended", False)
    for reason in ("Resumed", "SuccessfulCreate"):
        assert job_wait_reason([suspended, event(reason, "", "2026-11-22T21:20:10Z")]) is None


@pytest.mark.parametrize(("has_run", "ran"), [(True, True), (False, None)])
def test_the_failed_condition_of_a_job_is_the_termination_of_its_missing_pod(
    has_run: bool, ran: bool | None
) -> None:
    """A Job status does not contain whether the program started, so the kind is never "not_started"."""
    deadline = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
    termination = job_termination(
        {"status": {"conditions": [{"type": "Suspended", "status": "True"}, deadline]}}, has_run=has_run
    )
    assert termination is not None
    assert (termination.kind, termination.reason, termination.ran) == ("killed", "DeadlineExceeded", ran)
    assert termination.cause == cause("job_deadline")
    suspended = {"type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended"}
    termination = job_termination({"status": {"conditions": [suspended]}}, has_run=has_run)
    assert termination is not None
    assert (termination.reason, termination.ran, termination.cause) == ("JobSuspended", ran, cause("suspended"))
    resumed = {**suspended, "status": "False", "reason": "JobResumed"}
    assert job_termination({"status": {"conditions": [resumed]}}, has_run=has_run) is None
    assert job_termination({"status": {}}, has_run=has_run) is None


def test_an_unschedulable_pod_has_a_temporary_wait_reason() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
    }
    wait = read_pod(pod(phase="Pending", node=None, conditions=[condition]), CONTAINER).wait_reason
    assert wait is not None
    assert (wait.reason, wait.is_permanent) == ("Unschedulable", False)
    assert "gVisor" in wait.cause.hint


# -- whether it ran ---------------------------------------------------------------------------------------

LOST = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": None}}
LAST_STATE = {"lastState": LOST}
RESTARTED = {"restartCount": 1}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
NOT_STARTED = {"terminated": {"exitCode": 128, "reason": "StartError", "startedAt": "1970-01-01T00:00:00Z"}}
STARTED = {"terminated": {"exitCode": 137, "reason": "Error", "startedAt": "2026-11-22T21:20:09Z"}}
LOW = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}


def with_entry(evicted: dict[str, Any], **entry: Any) -> dict[str, Any]:
    """Add fields to the status of the container and return the pod."""
    evicted["status"]["containerStatuses"][1].update(entry)
    return evicted


@pytest.mark.parametrize(
    ("state", "entry", "ran"),
    [
        (CREATING, {**LAST_STATE, **RESTARTED}, True),
        (CREATING, LAST_STATE, True),
        (LOST, RESTARTED, True),
        (STARTED, {}, True),
        ({"running": {}}, {}, True),
        (CREATING, {}, False),
        (LOST, {}, False),
        (NOT_STARTED, {}, False),
        (CREATING, {"lastState": NOT_STARTED, **RESTARTED}, False),
    ],
)
def test_the_status_of_an_evicted_pod_that_was_never_seen_running_contains_whether_it_ran(
    state: dict[str, Any], entry: dict[str, Any], ran: bool | None
) -> None:
    """Even if the watch missed that the program ran, it must not be "not_started": it must not run twice.

    In the recording `evicted` the container is waiting again, with `lastState` and a restart count of 1.
    """
    termination = read_pod(with_entry(pod(state, **LOW), **entry), CONTAINER).termination
    assert termination is not None
    assert (termination.ran, termination.cause) == (ran, cause("evicted"))
    assert termination.kind == ("killed" if ran else "not_started")


def test_a_pod_that_exceeded_its_storage_limit_has_run() -> None:
    full = {**LOW, "message": 'Usage of EmptyDir volume "tmp" exceeds the limit "16Mi".'}
    termination = read_pod(pod(CREATING, **full), CONTAINER).termination
    assert termination is not None
    assert (termination.kind, termination.ran) == ("killed", True)


def test_a_deleted_pod_without_a_final_status_from_its_kubelet_may_have_run() -> None:
    termination = read_pod(pod(CREATING, phase="Pending"), CONTAINER, deleted=True).termination
    assert termination is not None
    assert (termination.kind, termination.ran, termination.cause) == ("killed", None, cause("deleted"))
    assert termination.message == "the pod was deleted by another client"


def test_a_pod_that_never_had_a_node_has_not_run() -> None:
    termination = read_pod(pod(phase="Pending", node=None), CONTAINER, deleted=True).termination
    assert termination is not None
    assert (termination.kind, termination.ran) == ("not_started", False)


@pytest.mark.parametrize(("entry", "ran"), [({}, False), (LAST_STATE, True)])
def test_a_deleted_pod_whose_container_could_not_be_located_has_the_cause_deleted(
    entry: dict[str, Any], ran: bool | None
) -> None:
    """The node is healthy. The recording `image-pull-backoff` ends like this, deleted before it ran."""
    deleting = with_entry(pod(LOST, phase="Failed", deleting=True), **entry)
    termination = read_pod(deleting, CONTAINER).termination
    assert termination is not None
    assert (termination.ran, termination.cause) == (ran, cause("deleted"))


def diagnosed(source: str, reason: str, message: str, *, has_run: bool) -> WaitReason | Termination | None:
    """Return the diagnosis of a reason and a message at the given source."""
    fields = {"reason": reason, "message": message}
    if source == "waiting":
        return read_pod(pod({"waiting": fields}, phase="Pending"), CONTAINER).wait_reason
    if source == "init container":
        status = {"name": "added", "restartCount": 0, "state": terminated(1, "Error", message)}
        added = pod({"waiting": {"reason": "PodInitializing"}}, initContainerStatuses=[status])
        added["spec"]["initContainers"] = [
            {"name": "added", **({"restartPolicy": "Always"} if reason == "retried" else {})}
        ]
        added["status"]["phase"] = "Pending" if reason == "retried" else "Failed"
        seen = read_pod(added, CONTAINER)
        return seen.termination or seen.wait_reason
    if source == "scheduling":
        condition = {"type": "PodScheduled", "status": "False", **fields}
        return read_pod(pod(phase="Pending", node=None, conditions=[condition]), CONTAINER).wait_reason
    if source == "pod event":
        return pod_wait_reason([event(reason, message)])
    if source == "admission" and reason not in ("FailedCreate", "Suspended"):
        return rejection(ApiError(message, code=400, reason=reason, server_message=message))
    if source == "admission":
        return job_wait_reason([event(reason, message)])
    if source == "pod status":
        return read_pod(pod(CREATING, phase="Failed", **fields), CONTAINER, has_run=has_run).termination
    # Exit code 128 alone has no cause; 137 is SIGKILL.
    killed = {"terminated": {"exitCode": 137 if source == "terminated" else 128, **fields}}
    return read_pod(pod(killed), CONTAINER, has_run=has_run).termination


@pytest.mark.parametrize("each", CAUSES, ids=lambda each: each.name)
def test_whether_the_program_ran_is_the_same_in_the_table_of_causes_and_in_each_diagnosis(each: Any) -> None:
    """A wait reason becomes a StartError: the program did not run."""
    ran = set()
    for source, reason, message, name in MESSAGES:
        if name == each.name:
            for has_run in (True, False):
                found = diagnosed(source, reason, message, has_run=has_run)
                assert found is not None
                assert found.cause == each
                ran.add(found.ran if isinstance(found, Termination) else StartError.may_have_run)
    inferred = not each.patterns
    assert inferred or each.ran == (ran.pop() if len(ran) == 1 else None)
