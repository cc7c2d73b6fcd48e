"""Objects, their resourceVersions, and the history of their changes.

All functions are synchronous: when a call returns, the change is complete and all listeners were called.
https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from .apiserver.errors import already_exists
from .apiserver.resources import ALL, JOBS, PODS, ResourceType
from .notify import Notifier
from .objects import Calendar, IdGenerator, Json, Key, is_deleting, owner_uids, with_metadata

# The kinds that have a metadata.generation.
_WITH_GENERATION = (JOBS.kind, PODS.kind)

# As in a cluster that has existed for a while.
_FIRST_REVISION = 1000


@dataclass(frozen=True)
class StoreChange:
    """One change of one object. `before` is the previous version, None for a new object."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    revision: int
    key: Key
    object: Json
    before: Json | None


class History:
    """The latest changes of one resource type, oldest first. Their numbers start at 0 and are never reused."""

    def __init__(self, window: int, revision: int) -> None:
        self._window = window
        self._changes: list[StoreChange] = []
        self._revisions: list[int] = []
        self._first = 0
        self.expired_to = revision
        """The revision of the last dropped change; a watch from an earlier revision has expired."""
        self.changed = Notifier()

    def append(self, change: StoreChange) -> None:
        """Add a change; drop the oldest ones beyond the window."""
        self._changes.append(change)
        self._revisions.append(change.revision)
        if len(self._changes) >= 2 * self._window:
            self.forget(len(self._changes) - self._window)
        self.changed.notify()

    def forget(self, count: int) -> None:
        """Drop the oldest `count` changes."""
        if count <= 0:
            return
        self.expired_to = self._revisions[count - 1]
        del self._changes[:count]
        del self._revisions[:count]
        self._first += count

    def forget_all(self, revision: int) -> None:
        """Drop all changes, as compaction up to `revision` does."""
        self.forget(len(self._changes))
        self.expired_to = revision

    @property
    def end(self) -> int:
        """The number of the next change."""
        return self._first + len(self._changes)

    def after(self, revision: int) -> int:
        """Return the number of the first change after `revision`."""
        return self._first + bisect_right(self._revisions, revision)

    def get(self, number: int) -> StoreChange | None:
        """Return the change with this number, or None if it was dropped or does not exist yet."""
        index = number - self._first
        return self._changes[index] if 0 <= index < len(self._changes) else None


class Store:
    """All objects of the cluster."""

    def __init__(self, calendar: Calendar, names: IdGenerator) -> None:
        self._calendar = calendar
        self._ids = names
        self._objects: dict[str, dict[Key, Json]] = {resource.plural: {} for resource in ALL}
        self._histories = {resource.plural: History(resource.window, _FIRST_REVISION) for resource in ALL}
        self._dependents: dict[str, dict[Key, None]] = {}
        self._uids: dict[str, Key] = {}
        self._listeners: list[Callable[[StoreChange], None]] = []
        self.revision = _FIRST_REVISION
        self.changed = Notifier()

    def listen(self, listener: Callable[[StoreChange], None]) -> None:
        """Call `listener` with every later change, in order. It must not change objects."""
        self._listeners.append(listener)

    def history(self, resource: ResourceType) -> History:
        """Return the history of a resource type."""
        return self._histories[resource.plural]

    def get(self, key: Key) -> Json | None:
        """Return the object, or None."""
        return self._objects[key.plural].get(key)

    def by_uid(self, uid: str) -> Key | None:
        """Return the key of the object with this uid, or None."""
        return self._uids.get(uid)

    def select(self, resource: ResourceType, namespace: str = "") -> list[Json]:
        """Return the objects of one namespace, or of all, sorted by name."""
        return [obj for key, obj in self._sorted(resource) if not namespace or key.namespace == namespace]

    def _sorted(self, resource: ResourceType) -> Iterator[tuple[Key, Json]]:
        objects = self._objects[resource.plural]
        yield from sorted(objects.items(), key=lambda item: (item[0].namespace, item[0].name))

    def dependents(self, uid: str) -> list[Key]:
        """Return the objects with this owner, oldest first."""
        return list(self._dependents.get(uid, ()))

    def prepare(self, obj: Json) -> Json:
        """Return `obj` with uid, creationTimestamp and generation, ready to be created."""
        metadata = obj["metadata"]
        named: Json = {"name": metadata["name"]}
        for field in ("generateName", "namespace"):
            if metadata.get(field):
                named[field] = metadata[field]
        named["uid"] = metadata.get("uid") or self._ids.uid()
        if obj["kind"] in _WITH_GENERATION:
            named["generation"] = 1
        named["creationTimestamp"] = self._calendar.stamp()
        for field in ("labels", "annotations", "ownerReferences", "finalizers"):
            if metadata.get(field):
                named[field] = metadata[field]
        return {"kind": obj["kind"], "apiVersion": obj["apiVersion"], **obj, "metadata": named}

    def create(self, resource: ResourceType, obj: Json) -> Json:
        """Store a prepared object. Raises `StatusError` (409) if its name exists."""
        metadata = obj["metadata"]
        key = Key(resource.plural, metadata.get("namespace", ""), metadata["name"])
        if key in self._objects[resource.plural]:
            raise already_exists(resource, key.name)
        stored = self._versioned(obj)
        self._objects[key.plural][key] = stored
        self._uids[stored["metadata"]["uid"]] = key
        self._link(key, [], owner_uids(stored))
        self._record("ADDED", key, stored, None)
        return stored

    def update(self, key: Key, obj: Json) -> Json:
        """Replace a stored object.

        An update without changes has no effect. An object that is being deleted is removed when it has no
        finalizer and no grace period any more.
        """
        before = self._objects[key.plural][key]
        if obj == before:
            return before
        stored = self._versioned(obj)
        self._objects[key.plural][key] = stored
        self._link(key, owner_uids(before), owner_uids(stored))
        self._record("MODIFIED", key, stored, before)
        metadata = stored["metadata"]
        blocked = metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds")
        if is_deleting(stored) and not blocked:
            self.remove(key)
        return stored

    def remove(self, key: Key) -> None:
        """Remove an object."""
        before = self._objects[key.plural].pop(key)
        del self._uids[before["metadata"]["uid"]]
        self._link(key, owner_uids(before), [])
        self._record("DELETED", key, self._versioned(before), before)

    def _versioned(self, obj: Json) -> Json:
        self.revision += 1
        return with_metadata(obj, resourceVersion=str(self.revision))

    def _link(self, key: Key, before: list[str], after: list[str]) -> None:
        for uid in set(before) - set(after):
            del self._dependents[uid][key]
            if not self._dependents[uid]:
                del self._dependents[uid]
        for uid in after:
            self._dependents.setdefault(uid, {})[key] = None

    def _record(
        self, kind: Literal["ADDED", "MODIFIED", "DELETED"], key: Key, obj: Json, before: Json | None
    ) -> None:
        change = StoreChange(kind, self.revision, key, obj, before)
        self._histories[key.plural].append(change)
        for listener in self._listeners:
            listener(change)
        self.changed.notify()
