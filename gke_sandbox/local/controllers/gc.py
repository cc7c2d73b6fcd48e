"""How objects go: grace, finalizers, and the garbage collector that takes what a gone object owned.

https://kubernetes.io/docs/concepts/architecture/garbage-collection/
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import anyio

from ..apiserver.errors import conflict, not_found
from ..apiserver.resources import ALL, JOBS, PODS, ResourceType
from ..cluster import ClusterState
from ..notify import Notifier
from ..objects import Json, Key, is_deleting, owner_uids, with_metadata
from ..store import Change

Propagation = Literal["Orphan", "Background", "Foreground"]

_FOREGROUND = "foregroundDeletion"
_ORPHAN = "orphan"


@dataclass(frozen=True)
class DeleteOptions:
    """`propagation` None: the default of the kind, which for Jobs is Orphan."""

    propagation: Propagation | None = None
    grace: int | None = None
    uid: str | None = None
    resource_version: str | None = None


def served_of(key: Key) -> ResourceType:
    return next(served for served in ALL if served.plural == key.plural)


def delete(cluster: ClusterState, key: Key, options: DeleteOptions, *, dry_run: bool = False) -> tuple[Json, bool]:
    """Delete an object, or begin to. Return it as it was last, and whether it is gone. Raises `StatusError`."""
    served = served_of(key)
    obj = cluster.store.get(key)
    if obj is None:
        raise not_found(served, key.name)
    _check_preconditions(served, obj, options)
    changed = _marked(cluster, obj, _finalizers(obj, options, served), _grace(obj, options, served))
    gone = not changed["metadata"].get("finalizers") and not changed["metadata"]["deletionGracePeriodSeconds"]
    if dry_run:
        return changed, gone
    if gone and served is not PODS:
        cluster.store.remove(key)
        return changed, True
    # A pod's last change is seen before it is gone (recorded); `update` then removes it.
    return cluster.store.update(key, changed), gone


def _check_preconditions(served: ResourceType, obj: Json, options: DeleteOptions) -> None:
    metadata = obj["metadata"]
    for what, wanted, is_now in (
        ("UID", options.uid, metadata["uid"]),
        ("ResourceVersion", options.resource_version, metadata["resourceVersion"]),
    ):
        if wanted is not None and wanted != is_now:
            why = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is_now}"
            raise conflict(served, metadata["name"], why)


def _finalizers(obj: Json, options: DeleteOptions, served: ResourceType) -> list[str]:
    policy = options.propagation or ("Orphan" if served is JOBS else "Background")
    kept = [one for one in obj["metadata"].get("finalizers", ()) if one not in (_FOREGROUND, _ORPHAN)]
    if policy == "Foreground":
        return [*kept, _FOREGROUND]
    return [*kept, _ORPHAN] if policy == "Orphan" else kept


def _grace(obj: Json, options: DeleteOptions, served: ResourceType) -> int:
    """A pod that has a node and has not ended is given time."""
    if served is not PODS or "nodeName" not in obj["spec"] or obj["status"]["phase"] in ("Succeeded", "Failed"):
        return 0
    grace: int = obj["spec"]["terminationGracePeriodSeconds"] if options.grace is None else options.grace
    if is_deleting(obj):
        # It can be shortened, not made longer.
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
    """Follows owner references: deletes, or orphans, what the objects owned that are being deleted."""

    def __init__(self, cluster: ClusterState) -> None:
        self._cluster = cluster
        self._blocked: dict[str, Notifier] = {}

    def changed(self, change: Change) -> None:
        """To be called with every change of the store."""
        obj = change.object
        uid = obj["metadata"]["uid"]
        for owner in owner_uids(obj):
            if owner in self._blocked:
                self._blocked[owner].notify()
        if change.type == "DELETED":
            if self._cluster.store.dependents(uid):
                self._cluster.tasks.start_soon(self._collect, uid)
        elif is_deleting(obj):
            if change.before is None or not is_deleting(change.before):
                finalizers = obj["metadata"].get("finalizers", ())
                if _FOREGROUND in finalizers:
                    self._cluster.tasks.start_soon(self._collect_first, change.key, uid)
                elif _ORPHAN in finalizers:
                    self._cluster.tasks.start_soon(self._orphan, change.key, uid)
        elif change.type == "ADDED":
            for owner in owner_uids(obj):
                if self._cluster.store.by_uid(owner) is None:
                    self._cluster.tasks.start_soon(self._collect, owner)

    async def _collect(self, owner: str) -> None:
        """The owner is gone: so go its dependents that have no other."""
        await anyio.sleep(self._cluster.pace.collect)
        self._delete_dependents(owner)

    def _delete_dependents(self, owner: str) -> None:
        store = self._cluster.store
        for key in store.dependents(owner):
            obj = store.get(key)
            if obj is None or is_deleting(obj):
                continue
            others = [uid for uid in owner_uids(obj) if uid != owner and store.by_uid(uid) is not None]
            if others:
                self._disown(key, obj, owner)
            else:
                delete(self._cluster, key, DeleteOptions("Background"))

    async def _collect_first(self, key: Key, owner: str) -> None:
        """Foreground: the owner stays until the dependents are gone that block its deletion."""
        await anyio.sleep(self._cluster.pace.collect)
        self._delete_dependents(owner)
        signal = self._blocked.setdefault(owner, Notifier())
        while self._blocks(owner):
            await signal.wait()
        del self._blocked[owner]
        self._unfinalize(key, owner, _FOREGROUND)

    def _blocks(self, owner: str) -> bool:
        for key in self._cluster.store.dependents(owner):
            obj = self._cluster.store.get(key)
            for reference in obj["metadata"]["ownerReferences"] if obj else ():
                if reference["uid"] == owner and reference.get("blockOwnerDeletion"):
                    return True
        return False

    async def _orphan(self, key: Key, owner: str) -> None:
        """Orphan: the dependents stay, and forget their owner."""
        await anyio.sleep(self._cluster.pace.collect)
        for dependent in self._cluster.store.dependents(owner):
            obj = self._cluster.store.get(dependent)
            if obj is not None:
                self._disown(dependent, obj, owner)
        self._unfinalize(key, owner, _ORPHAN)

    def _disown(self, key: Key, obj: Json, owner: str) -> None:
        kept = [one for one in obj["metadata"]["ownerReferences"] if one["uid"] != owner]
        self._cluster.store.update(key, with_metadata(obj, ownerReferences=kept or None))

    def _unfinalize(self, key: Key, uid: str, finalizer: str) -> None:
        obj = self._cluster.store.get(key)
        if obj is not None and obj["metadata"]["uid"] == uid:
            kept = [one for one in obj["metadata"].get("finalizers", ()) if one != finalizer]
            self._cluster.store.update(key, with_metadata(obj, finalizers=kept or None))
