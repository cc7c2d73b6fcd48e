"""Deletion of objects: grace periods, finalizers, and the garbage collector for dependents.

https://kubernetes.io/docs/concepts/architecture/garbage-collection/
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import anyio

from ..apiserver.errors import conflict, not_found
from ..apiserver.resources import ALL, PODS, ResourceType
from ..cluster import ClusterState
from ..notify import Notifier
from ..objects import Json, Key, is_deleting, owner_uids, with_metadata
from ..store import StoreChange

Propagation = Literal["Background", "Foreground"]

_FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True)
class DeleteOptions:
    """The options of a DELETE, with the uid as its precondition."""

    propagation: Propagation = "Background"
    grace: int | None = None
    """Seconds; None for the grace period of the pod."""
    uid: str | None = None


def resource_of(key: Key) -> ResourceType:
    """Return the resource type of a key."""
    return next(resource for resource in ALL if resource.plural == key.plural)


def delete(cluster: ClusterState, key: Key, options: DeleteOptions) -> tuple[Json, bool]:
    """Delete an object. Return its last version and whether it is removed already. Raises `StatusError`."""
    resource = resource_of(key)
    obj = cluster.store.get(key)
    if obj is None:
        raise not_found(resource, key.name)
    uid = obj["metadata"]["uid"]
    if options.uid not in (None, uid):
        why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {uid}"
        raise conflict(resource, key.name, why)
    changed = _marked(cluster, obj, _finalizers(obj, options), _grace(obj, options, resource))
    removed = not changed["metadata"].get("finalizers") and not changed["metadata"]["deletionGracePeriodSeconds"]
    if removed and resource is not PODS:
        cluster.store.remove(key)
        return changed, True
    # Watches see the last change of a pod before its removal (recorded); `update` then removes it.
    return cluster.store.update(key, changed), removed


def _finalizers(obj: Json, options: DeleteOptions) -> list[str]:
    kept = [one for one in obj["metadata"].get("finalizers", ()) if one != _FOREGROUND]
    return [*kept, _FOREGROUND] if options.propagation == "Foreground" else kept


def _grace(obj: Json, options: DeleteOptions, resource: ResourceType) -> int:
    """Return the grace period in seconds: 0 except for pods that run."""
    if resource is not PODS or "nodeName" not in obj["spec"] or obj["status"]["phase"] in ("Succeeded", "Failed"):
        return 0
    grace: int = obj["spec"]["terminationGracePeriodSeconds"] if options.grace is None else options.grace
    if is_deleting(obj):
        # A later DELETE can shorten the grace period, but not extend it.
        grace = min(grace, obj["metadata"]["deletionGracePeriodSeconds"])
    return grace


def _marked(cluster: ClusterState, obj: Json, finalizers: list[str], grace: int) -> Json:
    metadata = obj["metadata"]
    changes: Json = {"finalizers": finalizers or None}
    if not is_deleting(obj) or metadata["deletionGracePeriodSeconds"] != grace:
        changes["deletionTimestamp"] = cluster.calendar.stamp(grace)
        changes["deletionGracePeriodSeconds"] = grace
    if not is_deleting(obj) and "generation" in metadata:
        changes["generation"] = metadata["generation"] + 1
    return with_metadata(obj, **changes)


class GarbageCollector:
    """Deletes the dependents of deleted objects, found by their owner references. Each has one owner."""

    def __init__(self, cluster: ClusterState) -> None:
        self._cluster = cluster
        self._blocked: dict[str, Notifier] = {}

    def on_change(self, change: StoreChange) -> None:
        """Handle a change in the store."""
        obj = change.object
        uid = obj["metadata"]["uid"]
        for owner in owner_uids(obj):
            if owner in self._blocked:
                self._blocked[owner].notify()
        if change.type == "DELETED":
            if self._cluster.store.dependents(uid):
                self._cluster.tasks.start_soon(self._collect, uid)
        elif is_deleting(obj):
            starts = change.before is None or not is_deleting(change.before)
            if starts and _FOREGROUND in obj["metadata"].get("finalizers", ()):
                self._cluster.tasks.start_soon(self._delete_foreground, change.key, uid)
        elif change.type == "ADDED":
            for owner in owner_uids(obj):
                if self._cluster.store.by_uid(owner) is None:
                    self._cluster.tasks.start_soon(self._collect, owner)

    async def _collect(self, owner: str) -> None:
        """Delete the dependents of a removed owner."""
        await anyio.sleep(self._cluster.pace.collect)
        self._delete_dependents(owner)

    def _delete_dependents(self, owner: str) -> None:
        store = self._cluster.store
        for key in store.dependents(owner):
            obj = store.get(key)
            if obj is not None and not is_deleting(obj):
                delete(self._cluster, key, DeleteOptions())

    async def _delete_foreground(self, key: Key, owner: str) -> None:
        """Delete the dependents, and remove the owner when none of them blocks its deletion."""
        await anyio.sleep(self._cluster.pace.collect)
        self._delete_dependents(owner)
        notifier = self._blocked.setdefault(owner, Notifier())
        while self._is_blocked(owner):
            await notifier.wait()
        del self._blocked[owner]
        obj = self._cluster.store.get(key)
        if obj is not None and obj["metadata"]["uid"] == owner:
            kept = [one for one in obj["metadata"]["finalizers"] if one != _FOREGROUND]
            self._cluster.store.update(key, with_metadata(obj, finalizers=kept or None))

    def _is_blocked(self, owner: str) -> bool:
        for key in self._cluster.store.dependents(owner):
            obj = self._cluster.store.get(key)
            for reference in obj["metadata"]["ownerReferences"] if obj else ():
                if reference["uid"] == owner and reference.get("blockOwnerDeletion"):
                    return True
        return False
