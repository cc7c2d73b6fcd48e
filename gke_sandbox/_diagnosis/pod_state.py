"""Read the state of one container from a Pod object. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from .causes import FailureCause, WaitReason, cause, match_cause
from .finding import only
from .init_containers import NEVER_RAN, STARTING, STOPPED_CODES, failed_init_container, pending_init_container
from .scheduling import scheduling_cause


@dataclass(frozen=True)
class Termination:
    """How a pod's container was terminated, as the cluster reports it.

    ``exited``       it ran and left `exit_code`; there is no `cause`
    ``out_of_memory``  it was killed for its memory
    ``killed``       something outside the program ended it; see `ran`
    ``not_started``  it never ran
    """

    kind: Literal["exited", "out_of_memory", "killed", "not_started"]
    reason: str
    message: str
    exit_code: int | None = None
    cause: FailureCause | None = None
    confirmed: bool = True
    """False if the pod is gone without a final status of its kubelet: only its log can show whether it ran. The
    kind is then ``killed``, because running it again may repeat its effects."""

    @property
    def may_pass(self) -> bool:
        """Whether the container did not run, and another pod may run later."""
        return self.kind == "not_started" and self.cause is not None and not self.cause.permanent

    @property
    def ran(self) -> bool | None:
        """Whether the container ran, or None if that is not known."""
        if self.kind == "not_started":
            return False
        return True if self.confirmed else None


@dataclass(frozen=True)
class PodState:
    """The fields of a Pod that an execution needs."""

    name: str
    node: str
    phase: str
    running: bool
    wait_reason: WaitReason | None
    termination: Termination | None
    init_container: str = ""
    """The init container or sidecar that has to come first, if the container waits for one."""


def read_pod(
    pod: Mapping[str, Any],
    container: str,
    *,
    deleted: bool = False,
    has_run: bool = False,
    node_selector: Mapping[str, str] = MappingProxyType({}),
) -> PodState:
    """Return the state of one container in a Pod object.

    `deleted`: this is the pod's last object. `has_run`: the container was seen running before, which the object
    may no longer show. `node_selector`: that of the pod as it was sent.
    """
    metadata = pod.get("metadata") or {}
    spec = pod.get("spec") or {}
    status = pod.get("status") or {}
    entry = _container_status(status, container)
    state = entry.get("state") or {}
    running = "running" in state
    node = str(spec.get("nodeName") or "")
    ran = True if has_run or _has_run(entry) else None if node else False
    deleting = deleted or bool(metadata.get("deletionTimestamp"))
    termination = _termination(pod, state.get("terminated"), ran=ran, deleting=deleting, deleted=deleted)
    init_container, pending = ("", None) if running or termination else pending_init_container(pod)
    return PodState(
        name=str(metadata.get("name", "")),
        node=node,
        phase=str(status.get("phase") or ""),
        running=running,
        wait_reason=None if running or termination else _wait_reason(pod, state, pending, node_selector),
        termination=termination,
        init_container=init_container,
    )


_KEPT_METADATA = ("namespace", "name", "uid", "resourceVersion", "deletionTimestamp", "labels")
_KEPT_SPEC = ("nodeName", "nodeSelector", "runtimeClassName", "initContainers")


def without_unread_fields(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pod with the fields that `read_pod` and the watch read: without its containers, for example.

    Most of a pod never changes, and many are kept at the same time.
    """
    return {
        "metadata": only(pod.get("metadata"), _KEPT_METADATA),
        "spec": only(pod.get("spec"), _KEPT_SPEC),
        "status": pod.get("status"),
    }


def _container_status(status: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    entries: Iterable[Mapping[str, Any]] = status.get("containerStatuses") or ()
    return next((entry for entry in entries if entry.get("name") == container), {})


def _has_run(entry: Mapping[str, Any]) -> bool:
    """Whether the kubelet reports that the container has run, even if its state does not show it.

    The container of an evicted pod can go back to waiting (`evicted` in the recordings): then `lastState` and
    `restartCount` show it, because the kubelet counts a container that it lost as restarted.
    """
    state, last = entry.get("state") or {}, (entry.get("lastState") or {}).get("terminated") or {}
    now = state.get("terminated") or {}
    if NEVER_RAN & {now.get("reason"), last.get("reason")}:
        return False
    return "running" in state or bool(now.get("startedAt") or last or entry.get("restartCount"))


def _termination(
    pod: Mapping[str, Any],
    terminated: Mapping[str, Any] | None,
    *,
    ran: bool | None,
    deleting: bool,
    deleted: bool,
) -> Termination | None:
    status = pod.get("status") or {}
    # A Failed phase or terminated state is final: unless the kubelet reported that the container ran, it did not.
    reported = bool(ran)
    # The pod's own reason comes first: eviction, node shutdown, admission by the kubelet.
    if status.get("phase") == "Failed" and status.get("reason"):
        reason = str(status["reason"])
        message = str(status.get("message") or "").strip()
        return _disrupted(reason, message or f"the pod failed: {reason}", ran=reported)
    if terminated:
        return _terminated(status, terminated, ran=reported, deleting=deleting)
    if status.get("phase") == "Failed":
        failed = None if reported else failed_init_container(pod, deleting=deleting)
        if failed is not None:
            return Termination("not_started", failed.reason, failed.message, None, failed.cause)
        if not deleting and _disruption(status)[0] == "Deleted":
            return _disrupted("Failed", "the pod failed, and its status contains no reason", ran=reported)
    # Without a final status the pod was deleted by force, or its node is gone and its object stays. The
    # container may have started in the meantime.
    if deleted or (deleting and _node_is_lost(status)):
        return _disrupted(*_disruption(status), ran=ran)
    return None


def _disrupted(reason: str, message: str, *, ran: bool | None, code: int | None = None) -> Termination:
    found = match_cause("pod status", reason, message)
    # A program that filled the disk has run.
    if found is not None and found.name == "storage_exceeded":
        ran = True
    if ran is None:
        return unconfirmed(reason, message, found)
    return Termination("killed" if ran else "not_started", reason, message, code, found)


def unconfirmed(reason: str, message: str, found: FailureCause | None) -> Termination:
    """Return the termination of a container that may or may not have run."""
    return Termination("killed", reason, message, None, found, confirmed=False)


def _terminated(
    status: Mapping[str, Any], terminated: Mapping[str, Any], *, ran: bool, deleting: bool
) -> Termination:
    reason = str(terminated.get("reason") or "")
    message = str(terminated.get("message") or "").strip()
    code = int(terminated.get("exitCode") or 0)
    if reason == "OOMKilled":
        message = "the container used more memory than its limit"
        return Termination("out_of_memory", reason, message, code, match_cause("terminated", reason, message))
    if reason in NEVER_RAN:
        message = message or "the container could not be started"
        return Termination("not_started", reason, message, code, match_cause("start", reason, message))
    if reason == "ContainerStatusUnknown":
        # Also reported for a pod deleted before it ran (`image-pull-backoff` in the recordings).
        if deleting:
            return _disrupted(*_disruption(status), ran=ran, code=code)
        found = match_cause("terminated", reason, message)
        return Termination("killed" if ran else "not_started", reason, message, code, found)
    # A program that exits so by itself has an exit frame, which takes precedence.
    if deleting and code in STOPPED_CODES:
        return _disrupted(*_disruption(status), ran=True, code=code)
    if code == 137:
        message = "the container's first process was killed with signal 9: by the program itself, or by the node"
        return Termination("killed", reason or "Error", message, code, cause("killed_by_signal"))
    return Termination("exited", reason, message, code)


def _disruption(status: Mapping[str, Any]) -> tuple[str, str]:
    """Return the reason and message of the condition DisruptionTarget, or of a deletion if there is none.

    https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
    """
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            reason = str(condition.get("reason") or "DisruptionTarget")
            return reason, str(condition.get("message") or f"the pod was disrupted: {reason}")
    return "Deleted", "the pod was deleted by another client"


def _node_is_lost(status: Mapping[str, Any]) -> bool:
    found = match_cause("pod status", *_disruption(status))
    return found is not None and found.name == "node_lost"


def _wait_reason(
    pod: Mapping[str, Any],
    state: Mapping[str, Any],
    pending: WaitReason | None,
    node_selector: Mapping[str, str],
) -> WaitReason | None:
    waiting = state.get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "").strip()
    if reason and reason not in STARTING:
        return WaitReason(match_cause("waiting", reason, message) or cause("container_waiting"), reason, message)
    if pending is not None:
        return pending
    if waiting:
        return None
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason, message = str(condition.get("reason") or "Unschedulable"), str(condition.get("message") or "")
            found, message = scheduling_cause(reason, message, pod.get("spec") or {}, node_selector)
            return WaitReason(found, reason, message)
    return None
