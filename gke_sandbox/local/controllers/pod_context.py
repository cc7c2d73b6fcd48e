"""One pod on the node: what every stage of its lifecycle needs."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from ..cluster import ClusterState
from ..notify import Notifier
from ..objects import Json, Key, is_deleting
from .events import EventType
from .pod_status import PodStatus


class PodDeleted(Exception):
    """The pod is being deleted; its worker has to stop it."""


class PodRejected(Exception):
    """The kubelet does not accept the pod, with a reason and a message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message


class InitContainerFailed(Exception):
    """An init container has failed, and is not started again."""


class PodRemoved(Exception):
    """The pod no longer exists; its worker has nothing left to do."""


class PodContext:
    """One pod and its status. `changed` is notified after each change of the pod."""

    def __init__(self, cluster: ClusterState, key: Key, uid: str) -> None:
        self.cluster = cluster
        self.pace = cluster.pace
        self.key = key
        self.uid = uid
        self.status = PodStatus()
        self.changed = Notifier()

    def pod(self) -> Json:
        """Return the current pod. Raises `PodRemoved`."""
        pod = self.cluster.store.get(self.key)
        if pod is None or pod["metadata"]["uid"] != self.uid:
            raise PodRemoved
        return pod

    def report(self) -> None:
        """Write the status to the pod. Raises `PodRemoved`."""
        pod = self.pod()
        self.cluster.store.update(self.key, {**pod, "status": self.status.to_json(pod, self.cluster.calendar)})

    async def pause(self, seconds: float) -> None:
        """Wait. Raises `PodDeleted` as soon as the pod is being deleted, and `PodRemoved`."""
        await anyio.lowlevel.checkpoint()
        end = anyio.current_time() + seconds
        while not is_deleting(self.pod()):
            if anyio.current_time() >= end:
                return
            await self.changed.wait_until(end)
        raise PodDeleted

    def record_event(
        self, kind: EventType, reason: str, message: str, *, of_container: bool = True, init: str = ""
    ) -> None:
        """Record an Event of the kubelet on the pod, or on its init container `init`. Raises `PodRemoved`."""
        pod = self.pod()
        path = f"spec.containers{{{pod['spec']['containers'][0]['name']}}}" if of_container else None
        self.cluster.events.kubelet(pod, kind, reason, message, f"spec.initContainers{{{init}}}" if init else path)
