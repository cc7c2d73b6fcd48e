"""What Pods, Jobs and Events mean. States and messages are those of the recorded server, where it has them."""

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
)
from gke_sandbox._diagnosis.causes import match_cause
from gke_sandbox.errors import StartError

from ..kubernetes_messages import MESSAGES, NO_SUCH_HOST

CONTAINER = "code-runner"


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
    seen = read_pod(pod({"running": {"startedAt": "2026-11-22T21:20:09Z"}}), CONTAINER)
    assert (seen.name, seen.node, seen.running, seen.wait_reason, seen.termination) == (
        "p",
        "node1",
        True,
        None,
        None,
    )


def test_an_object_with_nothing_in_it_is_a_pod_of_which_nothing_is_known() -> None:
    seen = read_pod({}, CONTAINER)
    assert (seen.name, seen.node, seen.running, seen.wait_reason, seen.termination) == ("", "", False, None, None)


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
    termination = read_pod(pod(state, going=going), CONTAINER, has_run=True).termination
    assert termination is not None
    assert (termination.kind, termination.reason) == (kind, reason)


def test_an_evicted_pod_was_killed_though_its_container_seems_to_wait() -> None:
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


def test_the_same_before_it_ran_means_that_it_did_not_start() -> None:
    seen = read_pod(pod(phase="Failed", reason="Evicted", message="the node was low on memory"), CONTAINER)
    assert seen.termination is not None
    assert seen.termination.kind == "not_started"


def test_a_pod_that_is_gone_without_a_word_was_deleted() -> None:
    seen = read_pod(pod({"running": {}}), CONTAINER, deleted=True)
    why = "the pod was deleted by another client"
    assert seen.termination == Termination("killed", "Deleted", why, None, cause("deleted"))


def test_a_preempted_pod_says_so_by_its_condition() -> None:
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": "default-scheduler: preempting to accommodate a higher priority pod",
    }
    seen = read_pod(pod(terminated(143, "Error"), going=True, conditions=[condition]), CONTAINER)
    assert seen.termination is not None
    assert (seen.termination.kind, seen.termination.reason) == ("killed", "PreemptionByScheduler")


def disruption(reason: str) -> list[dict[str, str]]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "Said by who did it."}]


@pytest.mark.parametrize("reason", ["DeletionByTaintManager", "DeletionByPodGC"])
@pytest.mark.parametrize(
    ("state", "ran", "message"),
    [
        ({"running": {}}, True, "Said by who did it."),
        (
            {"waiting": {"reason": "ContainerCreating"}},
            None,
            "Said by who did it.",
        ),
    ],
)
def test_a_pod_that_is_going_with_its_lost_node_has_ended_though_its_object_stays(
    reason: str, state: dict[str, Any], ran: bool | None, message: str
) -> None:
    """No kubelet will ever say more."""
    termination = read_pod(pod(state, going=True, conditions=disruption(reason)), CONTAINER).termination
    assert termination is not None
    assert (termination.kind, termination.reason, termination.message) == ("killed", reason, message)
    assert (termination.ran, termination.cause) == (ran, cause("node_lost"))


@pytest.mark.parametrize("reason", ["PreemptionByScheduler", "EvictionByEvictionAPI"])
def test_of_a_pod_that_is_going_from_a_node_that_is_well_the_kubelets_word_is_awaited(reason: str) -> None:
    """It tells how the container ended, and whether it ran."""
    assert read_pod(pod({"running": {}}, going=True, conditions=disruption(reason)), CONTAINER).termination is None
    assert (
        read_pod(pod({"running": {}}, conditions=disruption("DeletionByTaintManager")), CONTAINER).termination
        is None
    )


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing", ""])
def test_a_container_on_its_way_waits_for_nothing_worth_telling(reason: str) -> None:
    assert read_pod(pod({"waiting": {"reason": reason}}, phase="Pending"), CONTAINER).wait_reason is None


@pytest.mark.parametrize(("source", "reason", "message", "name"), MESSAGES)
def test_what_kubernetes_says_has_a_cause(source: Any, reason: str, message: str, name: str) -> None:
    found = match_cause(source, reason, message)
    assert found is not None
    assert found.name == name


def test_every_cause_has_a_name_of_its_own_and_is_reached_by_something() -> None:
    names = [each.name for each in CAUSES]
    assert len(names) == len(set(names))
    concluded = {each.name for each in CAUSES if all(pattern.source == "client" for pattern in each.patterns)}
    assert {name for *_, name in MESSAGES} | concluded == set(names)


@pytest.mark.parametrize("each", CAUSES, ids=lambda each: each.name)
def test_every_cause_says_what_and_what_to_do(each: Any) -> None:
    for text in (each.summary, each.hint):
        assert text
        assert not text.endswith(".")


FINAL = ("image_not_found", "image_pull_denied", "image_name_invalid", "registry_not_found", "cannot_scale_up")
PASSING = (
    "image_pull_failed",
    "image_pull_throttled",
    "config_map_late",
    "container_config_late",
    "no_gvisor_node",
    "node_is_being_made",
)


@pytest.mark.parametrize("name", [*FINAL, *PASSING])
def test_only_what_no_waiting_mends_ends_the_wait(name: str) -> None:
    assert cause(name).permanent is (name in FINAL)


def test_a_container_that_waits_says_for_what() -> None:
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


def test_of_the_events_of_a_pod_the_newest_that_means_something_counts() -> None:
    events = [
        event("FailedScheduling", "0/3 nodes are available"),
        event("TriggeredScaleUp", "pod triggered scale-up", "2026-11-22T21:20:12Z"),
        event("NotTriggerScaleUp", "pod didn't trigger scale-up", "2026-11-22T21:20:10Z"),
        event("Whatever", "is new", "2026-11-22T21:20:30Z"),
    ]
    wait = pod_wait_reason(events)
    assert wait is not None
    assert wait.cause.name == "node_is_being_made"


def test_events_of_the_new_kind_have_their_time_in_other_fields() -> None:
    old = event("TriggeredScaleUp", "", "2026-11-22T21:20:12Z")
    new = event("NotTriggerScaleUp", "", lastTimestamp=None, eventTime="2026-11-22T21:20:13.000001Z")
    series = event("FailedScaleUp", "", series={"lastObservedTime": "2026-11-22T21:20:14.5Z"})
    for events, name in (([old, new], "cannot_scale_up"), ([old, new, series], "scale_up_failed")):
        wait = pod_wait_reason(events)
        assert wait is not None
        assert wait.cause.name == name


def test_two_events_of_one_second_are_told_apart_by_their_versions() -> None:
    first = event("TriggeredScaleUp", "", metadata={"resourceVersion": "99"})
    second = event("NotTriggerScaleUp", "", metadata={"resourceVersion": "100"})
    for events in ([first, second], [second, first]):
        wait = pod_wait_reason(events)
        assert wait is not None
        assert wait.reason == "NotTriggerScaleUp"


def test_a_pod_that_may_get_room_on_a_node_that_is_there_needs_no_autoscaler() -> None:
    no_new_node = [event("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 node(s) didn't match")]
    full = WaitReason(cause("not_enough_cpu"), "Unschedulable", "0/3 nodes are available: 1 Insufficient cpu.")
    none = WaitReason(cause("no_gvisor_node"), "Unschedulable", "0/3 nodes are available: 3 node(s) didn't match")
    assert pod_wait_reason(no_new_node, full) is None
    told = pod_wait_reason(no_new_node, none)
    assert told is not None
    assert told.is_permanent


def test_events_that_say_nothing_of_a_cause_are_no_wait() -> None:
    assert pod_wait_reason([event("Scheduled", "Successfully assigned"), {}]) is None
    assert job_wait_reason([event("SuccessfulCreate", "Created pod: x"), {}]) is None


def test_why_a_job_has_no_pod() -> None:
    said = 'Error creating: pods "x" is forbidden: exceeded quota: pods, requested: pods=1'
    wait = job_wait_reason([event("FailedCreate", said)])
    assert wait is not None
    assert (wait.cause.name, wait.is_permanent) == ("quota_exceeded", False)
    assert wait.message.startswith('pods "x"')
    made = event("SuccessfulCreate", "Created pod: x", "2026-11-22T21:20:10Z")
    assert job_wait_reason([made, event("FailedCreate", said)]) is None


@pytest.mark.parametrize(("has_run", "ran"), [(True, True), (False, None)])
def test_a_job_that_failed_says_why_its_pod_is_gone(has_run: bool, ran: bool | None) -> None:
    """And not whether it had begun: nothing is called "not started" on a Job's word alone."""
    deadline = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
    termination = job_termination(
        {"status": {"conditions": [{"type": "Suspended", "status": "True"}, deadline]}}, has_run=has_run
    )
    assert termination is not None
    assert (termination.kind, termination.reason, termination.ran) == ("killed", "DeadlineExceeded", ran)
    assert termination.cause == cause("job_deadline")
    assert job_termination({"status": {}}, has_run=has_run) is None


def test_a_pod_without_a_node_waits_for_one_and_may_still_get_it() -> None:
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
USED_TO_RUN = {"lastState": LOST}
COUNTED = {"restartCount": 1}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
NOT_STARTED = {"terminated": {"exitCode": 128, "reason": "StartError", "startedAt": "1970-01-01T00:00:00Z"}}
STARTED = {"terminated": {"exitCode": 137, "reason": "Error", "startedAt": "2026-11-22T21:20:09Z"}}
LOW = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}


def with_entry(taken_away: dict[str, Any], **entry: Any) -> dict[str, Any]:
    """The pod with more said of its container."""
    taken_away["status"]["containerStatuses"][1].update(entry)
    return taken_away


@pytest.mark.parametrize(
    ("state", "entry", "ran"),
    [
        (CREATING, {**USED_TO_RUN, **COUNTED}, True),
        (CREATING, USED_TO_RUN, True),
        (LOST, COUNTED, True),
        (STARTED, {}, True),
        ({"running": {}}, {}, True),
        (CREATING, {}, False),
        (LOST, {}, False),
        (NOT_STARTED, {}, False),
        (CREATING, {"lastState": NOT_STARTED, **COUNTED}, False),
    ],
)
def test_an_evicted_pod_that_was_never_seen_running_says_whether_it_ran(
    state: dict[str, Any], entry: dict[str, Any], ran: bool | None
) -> None:
    """A watch that was away while the program ran must not have it called "not started": it may not run twice.

    `evicted` in the recordings: its container waits again, with `lastState` and a restart counted.
    """
    termination = read_pod(with_entry(pod(state, **LOW), **entry), CONTAINER).termination
    assert termination is not None
    assert (termination.ran, termination.cause) == (ran, cause("evicted"))
    assert termination.kind == ("killed" if ran else "not_started")


def test_a_pod_that_filled_its_disk_has_run_whatever_else_it_says() -> None:
    full = {**LOW, "message": 'Usage of EmptyDir volume "tmp" exceeds the limit "16Mi".'}
    termination = read_pod(pod(CREATING, **full), CONTAINER).termination
    assert termination is not None
    assert (termination.kind, termination.ran) == ("killed", True)


def test_a_pod_on_a_node_that_is_gone_without_its_kubelets_last_word_may_have_run() -> None:
    termination = read_pod(pod(CREATING, phase="Pending"), CONTAINER, deleted=True).termination
    assert termination is not None
    assert (termination.kind, termination.ran, termination.cause) == ("killed", None, cause("deleted"))
    assert termination.message == "the pod was deleted by another client"


def test_a_pod_that_never_had_a_node_has_not_run() -> None:
    termination = read_pod(pod(phase="Pending", node=None), CONTAINER, deleted=True).termination
    assert termination is not None
    assert (termination.kind, termination.ran) == ("not_started", False)


@pytest.mark.parametrize(("entry", "ran"), [({}, False), (USED_TO_RUN, True)])
def test_a_pod_that_was_deleted_and_could_not_be_located_was_deleted(
    entry: dict[str, Any], ran: bool | None
) -> None:
    """The node is well. `image-pull-backoff` in the recordings ends so, deleted before it ran."""
    going = with_entry(pod(LOST, phase="Failed", going=True), **entry)
    termination = read_pod(going, CONTAINER).termination
    assert termination is not None
    assert (termination.ran, termination.cause) == (ran, cause("deleted"))


def diagnosed(source: str, reason: str, message: str, *, has_run: bool) -> WaitReason | Termination | None:
    """What Kubernetes' word leads to."""
    said = {"reason": reason, "message": message}
    if source == "waiting":
        return read_pod(pod({"waiting": said}, phase="Pending"), CONTAINER).wait_reason
    if source == "scheduling":
        condition = {"type": "PodScheduled", "status": "False", **said}
        return read_pod(pod(phase="Pending", node=None, conditions=[condition]), CONTAINER).wait_reason
    if source == "pod event":
        return pod_wait_reason([event(reason, message)])
    if source == "admission":
        return job_wait_reason([event(reason, message)])
    if source == "pod status":
        return read_pod(pod(CREATING, phase="Failed", **said), CONTAINER, has_run=has_run).termination
    # An exit code that says nothing by itself, but for SIGKILL's.
    killed = {"terminated": {"exitCode": 137 if source == "terminated" else 128, **said}}
    return read_pod(pod(killed), CONTAINER, has_run=has_run).termination


@pytest.mark.parametrize("each", CAUSES, ids=lambda each: each.name)
def test_the_table_says_of_each_cause_whether_the_program_ran_as_what_comes_of_it_does(each: Any) -> None:
    """A wait, and an termination that is not a start, are a StartError, which did not run."""
    ran = set()
    for source, reason, message, name in MESSAGES:
        if name == each.name:
            for has_run in (True, False):
                found = diagnosed(source, reason, message, has_run=has_run)
                assert found is not None
                assert found.cause == each
                ran.add(found.ran if isinstance(found, Termination) else StartError.may_have_run)
    concluded = all(pattern.source == "client" for pattern in each.patterns)
    assert concluded or each.ran == (ran.pop() if len(ran) == 1 else None)
