"""From Events and a Job's status to what they mean. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .causes import recognise
from .pod_state import Ending, Wait, unsure

__all__ = ["job_ending", "job_wait", "pod_wait"]


def job_wait(events: Iterable[Mapping[str, Any]]) -> Wait | None:
    """Why a Job has no pod: what its newest Event FailedCreate says, unless a pod was made after that."""
    for event in _newest_first(events):
        if event.get("reason") == "SuccessfulCreate":
            return None
        if event.get("reason") == "FailedCreate":
            message = str(event.get("message") or "").removeprefix("Error creating: ")
            found = recognise("admission", "FailedCreate", message)
            return Wait(found, "FailedCreate", message) if found is not None else None
    return None


# A node that is there would take the pod, were it not for others.
_ROOM_MAY_COME = frozenset({"not_enough_cpu", "not_enough_memory", "not_enough_room"})


def pod_wait(events: Iterable[Mapping[str, Any]], said: Wait | None = None) -> Wait | None:
    """What a pod that is not running yet waits for, as far as its Events say; the newest counts.

    `said` is what the pod itself says: where it may still get room on a node that is there, an autoscaler that
    cannot make one is not the end.
    """
    for event in _newest_first(events):
        reason, message = str(event.get("reason") or ""), str(event.get("message") or "")
        found = recognise("pod event", reason, message)
        if found is not None:
            if found.name == "cannot_scale_up" and said is not None and said.cause.name in _ROOM_MAY_COME:
                return None
            return Wait(found, reason, message)
    return None


def job_ending(job: Mapping[str, Any], *, has_run: bool) -> Ending | None:
    """Why a Job's pod was taken away by the Job's own controller: at its deadline. None: not by that.

    That a Job without retries has failed since its pod has (BackoffLimitExceeded) is no reason. The Job does not
    tell whether its pod had begun: without `has_run` the ending is not certain.
    """
    status = job.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") in ("Failed", "FailureTarget") and condition.get("status") == "True":
            reason, message = str(condition.get("reason") or ""), str(condition.get("message") or "")
            found = recognise("pod status", reason, message)
            if found is None or found.name != "job_deadline":
                return None
            return Ending("killed", reason, message, None, found) if has_run else unsure(reason, message, found)
    return None


def _newest_first(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(events, key=_time, reverse=True)


def _time(event: Mapping[str, Any]) -> tuple[str, int]:
    """When an event was last seen. RFC 3339 in UTC sorts as text, to the second; the version tells the rest."""
    series = event.get("series") or {}
    metadata = event.get("metadata") or {}
    seen = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    version = str(metadata.get("resourceVersion") or "")
    text = str(seen or metadata.get("creationTimestamp") or "")
    return text[:19], int(version) if version.isdecimal() else 0
