"""The scheduler: binds pods to the node, or reports why they do not fit.

There is one node of unlimited size. A pod fits if its nodeSelector matches the labels of the node.
https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/
"""

from __future__ import annotations

import anyio

from ..apiserver.resources import NODES, PODS
from ..cluster import NODE, ClusterState
from ..faults import NoNode
from ..objects import Json, Key, is_deleting
from ..store import StoreChange
from .gc import DeleteOptions, delete
from .pod_status import disrupted, scheduled, unschedulable


class Scheduler:
    """Schedules each new pod in a separate task."""

    def __init__(self, cluster: ClusterState) -> None:
        self._cluster = cluster

    def on_change(self, change: StoreChange) -> None:
        """Handle a change in the store."""
        if change.key.plural == PODS.plural and change.type == "ADDED":
            uid = change.object["metadata"]["uid"]
            self._cluster.tasks.start_soon(self._schedule, change.key, uid)

    async def _schedule(self, key: Key, uid: str) -> None:
        await anyio.sleep(self._cluster.pace.schedule)
        while pod := self._unbound(key, uid):
            fault = self._cluster.faults.first(NoNode, key)
            if fault is None and not self._fits(pod):
                fault = NoNode()
            if fault is None:
                self._bind(key, pod)
                return
            self._report_unschedulable(key, pod, fault.message)
            if fault.autoscaler is not None:
                self._cluster.events.autoscaler(pod, *fault.autoscaler)
            if fault.seconds is None:
                return
            await anyio.sleep(fault.seconds)

    def _unbound(self, key: Key, uid: str) -> Json | None:
        pod = self._cluster.store.get(key)
        if pod is None or pod["metadata"]["uid"] != uid or is_deleting(pod):
            return None
        return pod

    def _fits(self, pod: Json) -> bool:
        node = self._cluster.store.get(Key(NODES.plural, "", NODE))
        labels = node["metadata"].get("labels", {}) if node else {}
        return all(labels.get(key) == value for key, value in pod["spec"].get("nodeSelector", {}).items())

    def _bind(self, key: Key, pod: Json) -> None:
        message = f"Successfully assigned {key.namespace}/{key.name} to {NODE}"
        self._cluster.store.update(key, scheduled(pod, NODE, self._cluster.calendar.stamp()))
        self._cluster.events.scheduler(pod, "Normal", "Scheduled", message, "Binding")

    def _report_unschedulable(self, key: Key, pod: Json, message: str) -> None:
        self._cluster.store.update(key, unschedulable(pod, message, self._cluster.calendar.stamp()))
        self._cluster.events.scheduler(pod, "Warning", "FailedScheduling", message, "Scheduling")


def preempt(cluster: ClusterState, key: Key) -> None:
    """Delete a pod in favour of one with a higher priority.

    https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
    """
    pod = cluster.store.get(key)
    if pod is not None and not is_deleting(pod):
        message = "default-scheduler: preempting to accommodate a higher priority pod"
        stamp = cluster.calendar.stamp()
        cluster.store.update(key, disrupted(pod, "PreemptionByScheduler", message, stamp))
        cluster.events.scheduler(pod, "Normal", "Preempted", f"Preempted on node {NODE}", "Preempting")
        delete(cluster, key, DeleteOptions())
