"""Find the reason for a wait or a termination in Events, responses and a Job's status. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ApiError, SandboxError
from ..kube.status import is_rbac_denial
from .causes import WaitReason, cause, match_cause
from .pod_state import Termination, unconfirmed

__all__ = ["job_termination", "job_wait_reason", "pod_wait_reason", "rejection", "suspension"]


def rejection(error: SandboxError) -> WaitReason | None:
    """Return why admission rejected a Job or a ConfigMap, or None if that is not the reason of the error."""
    if not isinstance(error, ApiError) or not error.server_message or is_rbac_denial(error.server_message):
        return None
    found = match_cause("admission", error.reason, error.server_message)
    if found is None or found is cause("pod_refused"):
        return None
    return WaitReason(found, error.reason, error.server_message)


# Reason and message are those of the Event.
_SUSPENDED = WaitReason(cause("job_suspended"), "Suspended", "Job suspended")


def suspension(job: Mapping[str, Any]) -> WaitReason | None:
    """Return the reason to wait for a Job that admission suspended, or None."""
    return _SUSPENDED if (job.get("spec") or {}).get("suspend") is True else None


def job_wait_reason(events: Iterable[Mapping[str, Any]]) -> WaitReason | None:
    """Return why a Job has no pod: the newest Event FailedCreate or Suspended.

    Return None if a pod was created, or the Job resumed, after it.
    """
    for event in _newest_first(events):
        if event.get("reason") in ("SuccessfulCreate", "Resumed"):
            return None
        if event.get("reason") == "Suspended":
            return _SUSPENDED
        if event.get("reason") == "FailedCreate":
            message = str(event.get("message") or "").removeprefix("Error creating: ")
            found = match_cause("admission", "FailedCreate", message)
            return WaitReason(found, "FailedCreate", message) if found is not None else None
    return None


# An existing node may accept the pod later.
_MAY_FIT_LATER = frozenset(
    {"not_enough_cpu", "not_enough_memory", "not_enough_room", "node_pressure", "node_not_ready", "node_cordoned"}
)
_OF_AUTOSCALER = frozenset({"TriggeredScaleUp", "FailedScaleUp", "NotTriggerScaleUp"})


def pod_wait_reason(
    events: Iterable[Mapping[str, Any]], pod_reason: WaitReason | None = None, *, node: str = ""
) -> WaitReason | None:
    """Return why a pod does not run yet, from its newest Event with a known cause, or None.

    `pod_reason` is the reason that the pod itself reports: while an existing node may still accept the pod, an
    autoscaler that cannot add one is not a permanent failure. On its `node`, the reason of a container is newer
    than any Event with a cause, and those of the autoscaler are out of date.
    """
    if node and pod_reason is not None:
        return None
    may_fit_later = pod_reason is not None and pod_reason.cause.name in _MAY_FIT_LATER
    for event in _newest_first(events):
        reason, message = str(event.get("reason") or ""), str(event.get("message") or "")
        found = match_cause("pod event", reason, message)
        if found is None or (node and reason in _OF_AUTOSCALER):
            continue
        if found.name == "cannot_scale_up" and may_fit_later:
            return None
        return WaitReason(found, reason, message)
    return None


def job_termination(job: Mapping[str, Any], *, has_run: bool) -> Termination | None:
    """Return the termination of a pod that the Job controller deleted, or None.

    It deletes the pods at the Job's deadline, and when the Job is suspended. BackoffLimitExceeded only repeats
    that the pod failed, so it is ignored. The status of the Job does not include whether the pod had started:
    without `has_run` the termination is unconfirmed.
    """
    status = job.get("status") or {}
    conditions = [each for each in status.get("conditions") or () if each.get("status") == "True"]
    # A Job that has failed is not suspended any more.
    for types in (("Failed", "FailureTarget"), ("Suspended",)):
        for condition in conditions:
            if condition.get("type") in types:
                reason, message = str(condition.get("reason") or ""), str(condition.get("message") or "")
                found = match_cause("pod status", reason, message)
                if found is None or found.name not in ("job_deadline", "suspended"):
                    return None
                if not has_run:
                    return unconfirmed(reason, message, found)
                return Termination("killed", reason, message, None, found)
    return None


def _newest_first(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(events, key=_time, reverse=True)


def _time(event: Mapping[str, Any]) -> tuple[str, int]:
    """Return when an Event was last seen, as a sort key: RFC 3339 text to the second, then the resourceVersion."""
    series = event.get("series") or {}
    metadata = event.get("metadata") or {}
    seen = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    version = str(metadata.get("resourceVersion") or "")
    text = str(seen or metadata.get("creationTimestamp") or "")
    return text[:19], int(version) if version.isdecimal() else 0
