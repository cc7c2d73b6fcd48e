"""Objects, their resourceVersions, and the history of their changes.

Everything here is synchronous: a change is complete, and every listener has been told of it, when the call
returns. https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
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

# The kinds whose metadata.generation counts changes of their spec.
_WITH_GENERATION = (JOBS.kind, PODS.kind)

# No cluster is new: the first resourceVersion is one that has a past.
_FIRST_REVISION = 1000


@dataclass(frozen=True)
class Change:
    """One change of one object. `before` is the object as it was, None when it was added."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    revision: int
    key: Key
    object: Json
    before: Json | None


class History:
    """The latest changes of one resource, oldest first, numbered from 0 for ever."""

    def __init__(self, window: int, revision: int) -> None:
        self._window = window
        self._changes: list[Change] = []
        self._revisions: list[int] = []
        self._first = 0
        self.expired_to = revision
        """The revision of the last change that is no longer held: a watch from before it has expired."""
        self.changed = Notifier()

    def append(self, change: Change) -> None:
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
        """Drop every change, as compaction up to `revision` does."""
        self.forget(len(self._changes))
        self.expired_to = revision

    @property
    def end(self) -> int:
        """The number that the next change will have."""
        return self._first + len(self._changes)

    def after(self, revision: int) -> int:
        """The number of the first change after `revision`."""
        return self._first + bisect_right(self._revisions, revision)

    def get(self, number: int) -> Change | None:
        """The change with this number; None when it is no longer held, or not yet there."""
        index = number - self._first
        return self._changes[index] if 0 <= index < len(self._changes) else None

    def holds(self, number: int) -> bool:
        return number >= self._first


class Store:
    """All objects of the cluster."""

    def __init__(self, calendar: Calendar, names: IdGenerator) -> None:
        self._calendar = calendar
        self._ids = names
        self._objects: dict[str, dict[Key, Json]] = {served.plural: {} for served in ALL}
        self._histories = {served.plural: History(served.window, _FIRST_REVISION) for served in ALL}
        self._dependents: dict[str, dict[Key, None]] = {}
        self._uids: dict[str, Key] = {}
        self._listeners: list[Callable[[Change], None]] = []
        self.revision = _FIRST_REVISION
        self.changed = Notifier()

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` with every change from now on, in order. It must not itself change objects."""
        self._listeners.append(listener)

    def history(self, served: ResourceType) -> History:
        return self._histories[served.plural]

    def get(self, key: Key) -> Json | None:
        return self._objects[key.plural].get(key)

    def by_uid(self, uid: str) -> Key | None:
        return self._uids.get(uid)

    def select(self, served: ResourceType, namespace: str = "") -> list[Json]:
        """Objects of one namespace, or of all, in the order of their names."""
        return [obj for key, obj in self._sorted(served) if not namespace or key.namespace == namespace]

    def _sorted(self, served: ResourceType) -> Iterator[tuple[Key, Json]]:
        objects = self._objects[served.plural]
        yield from sorted(objects.items(), key=lambda item: (item[0].namespace, item[0].name))

    def dependents(self, uid: str) -> list[Key]:
        """The objects that name this uid as an owner, oldest first."""
        return list(self._dependents.get(uid, ()))

    def prepare(self, obj: Json) -> Json:
        """`obj` as it would be created: with uid, creationTimestamp and generation."""
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

    def create(self, served: ResourceType, obj: Json) -> Json:
        """Store a prepared object under its name. Raises `StatusError` (409) if there is one."""
        metadata = obj["metadata"]
        key = Key(served.plural, metadata.get("namespace", ""), metadata["name"])
        if key in self._objects[served.plural]:
            raise already_exists(served, key.name)
        stored = self._versioned(obj)
        self._objects[key.plural][key] = stored
        self._uids[stored["metadata"]["uid"]] = key
        self._link(key, [], owner_uids(stored))
        self._record("ADDED", key, stored, None)
        return stored

    def update(self, key: Key, obj: Json) -> Json:
        """Put `obj` in the place of what is stored.

        An update that changes nothing is none. An object that is being deleted and has lost its last
        finalizer (a pod's grace must be over, too) is removed.
        """
        before = self._objects[key.plural][key]
        if obj == before:
            return before
        stored = self._versioned(obj)
        self._objects[key.plural][key] = stored
        self._link(key, owner_uids(before), owner_uids(stored))
        self._record("MODIFIED", key, stored, before)
        metadata = stored["metadata"]
        held = metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds")
        if is_deleting(stored) and not held:
            self.remove(key)
        return stored

    def remove(self, key: Key) -> None:
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
        change = Change(kind, self.revision, key, obj, before)
        self._histories[key.plural].append(change)
        for listener in self._listeners:
            listener(change)
        self.changed.notify()
