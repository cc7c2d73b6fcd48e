"""Events of the scheduler, the autoscaler, the kubelet and the Job controller.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from ..apiserver.resources import EVENTS
from ..objects import Calendar, Json, Key
from ..store import Store

EventType = Literal["Normal", "Warning"]

_Same = tuple[str, str, str, str]

# A real server removes an Event after an hour. A maximum also limits the memory of a busy cluster.
MAX_EVENTS = 2000


class EventRecorder:
    """Writes core/v1 Events. A repeated Event only increments the count of the first one."""

    def __init__(self, store: Store, calendar: Calendar, node: str) -> None:
        self._store = store
        self._calendar = calendar
        self._node = node
        self._known: dict[_Same, Key] = {}
        self._order: deque[tuple[_Same | None, Key]] = deque()
        self._last = 0

    def scheduler(self, pod: Json, kind: EventType, reason: str, message: str, action: str) -> None:
        """Record an Event of the scheduler, which has an eventTime and no count."""
        event = self._event(pod, kind, reason, message)
        event.update(
            source={},
            firstTimestamp=None,
            lastTimestamp=None,
            eventTime=self._calendar.micro_stamp(),
            action=action,
            reportingComponent="default-scheduler",
            reportingInstance="default-scheduler-node",
        )
        self._create(event, None)

    def kubelet(self, pod: Json, kind: EventType, reason: str, message: str, path: str | None = None) -> None:
        """Record an Event of the kubelet, about the pod or about the container at `path`."""
        source = {"component": "kubelet", "host": self._node}
        self._count(pod, kind, reason, message, source, path)

    def autoscaler(self, pod: Json, reason: str, message: str) -> None:
        """Record an Event of the cluster autoscaler."""
        self._count(pod, "Normal", reason, message, {"component": "cluster-autoscaler"}, None)

    def job_controller(self, job: Json, kind: EventType, reason: str, message: str) -> None:
        """Record an Event of the Job controller."""
        self._count(job, kind, reason, message, {"component": "job-controller"}, None)

    def _count(
        self, about: Json, kind: EventType, reason: str, message: str, source: Json, path: str | None
    ) -> None:
        same = (about["metadata"]["uid"], source["component"], reason, message)
        stamp = self._calendar.stamp()
        known = self._known.get(same)
        before = self._store.get(known) if known else None
        if known is not None and before is not None:
            self._store.update(known, {**before, "count": before["count"] + 1, "lastTimestamp": stamp})
            return
        event = self._event(about, kind, reason, message)
        if path:
            event["involvedObject"]["fieldPath"] = path
        event.update(
            source=source,
            firstTimestamp=stamp,
            lastTimestamp=stamp,
            count=1,
            eventTime=None,
            reportingComponent=source["component"],
            reportingInstance=source.get("host", ""),
        )
        self._known[same] = self._create(event, same)

    def _event(self, about: Json, kind: EventType, reason: str, message: str) -> Json:
        metadata = about["metadata"]
        # The name ends in nanoseconds, which must differ for two Events at the same moment.
        self._last = max(self._last + 1, int(self._calendar.now().timestamp() * 1_000_000) * 1000)
        return {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {
                "name": f"{metadata['name']}.{self._last:x}",
                "namespace": metadata.get("namespace", "default"),
            },
            "involvedObject": {
                "kind": about["kind"],
                "namespace": metadata.get("namespace", ""),
                "name": metadata["name"],
                "uid": metadata["uid"],
                "apiVersion": about["apiVersion"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "reason": reason,
            "message": message,
            "type": kind,
        }

    def _create(self, event: Json, same: _Same | None) -> Key:
        stored = self._store.create(EVENTS, self._store.prepare(event))
        key = Key(EVENTS.plural, stored["metadata"]["namespace"], stored["metadata"]["name"])
        self._order.append((same, key))
        if len(self._order) > MAX_EVENTS:
            forgotten, oldest = self._order.popleft()
            self._store.remove(oldest)
            if forgotten is not None:
                del self._known[forgotten]
        return key
