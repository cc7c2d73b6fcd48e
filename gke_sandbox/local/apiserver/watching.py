"""Watches: the changes of one resource type as JSON lines, from a resourceVersion on.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import json
import math
from collections import deque

import anyio

from ..cluster import ClusterState
from ..faults import EndWatch, ExpireWatch, OmitEvents, RepeatEvents, SwapEvents, WatchAction
from ..objects import Json
from ..store import StoreChange
from .errors import failure
from .resources import ResourceType
from .selectors import Selector

_BOOKMARK_EVERY = 60.0
# The server sends a last bookmark before the timeout.
_BOOKMARK_BEFORE_END = 2.0


class WatchStream:
    """The response body of one watch.

    If `revision` is None, it starts with an ADDED event for each existing object. `timeout` is in seconds.
    """

    def __init__(
        self,
        cluster: ClusterState,
        resource: ResourceType,
        faults: list[WatchAction],
        *,
        namespace: str,
        selector: Selector,
        revision: int | None,
        timeout: float,
        bookmarks: bool,
    ) -> None:
        self._cluster = cluster
        self._resource = resource
        self._namespace = namespace
        self._selector = selector
        self._bookmarks = bookmarks
        self._history = cluster.store.history(resource)
        now = anyio.current_time()
        self._end = now + timeout
        self._last_bookmark = now + (timeout - _BOOKMARK_BEFORE_END)
        self._next_bookmark = self._bookmark_after(now)
        self._lines: deque[bytes] = deque()
        self._faulty = _FaultyEvents(faults)
        self._over = False
        self._start(revision)

    def _start(self, revision: int | None) -> None:
        if revision is None:
            self._at = self._history.end
            for obj in self._cluster.store.select(self._resource, self._namespace):
                if self._selector.matches(obj):
                    self._emit("ADDED", obj)
            if self._bookmarks:
                self._bookmark({"k8s.io/initial-events-end": "true"})
        elif revision < self._history.expired_to:
            self._expire(revision)
        else:
            self._at = self._history.after(revision)

    async def next(self) -> bytes | None:
        """Wait for the next line and return it, or None at the end."""
        while True:
            if self._faulty.ends:
                self._over = True
            elif self._faulty.expires and not self._over:
                self._expire(self._cluster.store.revision)
            if self._lines:
                return self._lines.popleft()
            if self._over:
                return None
            if not self._read():
                await self._history.changed.wait_until(min(self._next_bookmark, self._end))
                self._tick()

    def _read(self) -> bool:
        """Read changes until one matches the selection. Return False if none does."""
        while self._at < self._history.end:
            change = self._history.get(self._at)
            if change is None:
                # The history has dropped changes that this watch has not read yet.
                self._expire(self._cluster.store.revision)
                return True
            self._at += 1
            if self._emit_if_selected(change):
                return True
        return False

    def _emit_if_selected(self, change: StoreChange) -> bool:
        """Emit the change and return True if it concerns the selection; DELETED if the object leaves it."""
        if self._namespace and change.key.namespace != self._namespace:
            return False
        matches = change.type != "DELETED" and self._selector.matches(change.object)
        matched = change.before is not None and self._selector.matches(change.before)
        if not (matches or matched):
            return False
        self._emit("DELETED" if not matches else "MODIFIED" if matched else "ADDED", change.object)
        return True

    def _bookmark_after(self, now: float) -> float:
        """Return the time of the next bookmark: every minute, and once before the end."""
        if not self._bookmarks:
            return math.inf
        last = self._last_bookmark
        return min(now + _BOOKMARK_EVERY, last) if last > now else math.inf

    def _tick(self) -> None:
        now = anyio.current_time()
        if now >= self._end:
            self._over = True
        elif now >= self._next_bookmark:
            self._next_bookmark = self._bookmark_after(now)
            if not self._read():
                self._bookmark({})

    def _bookmark(self, annotations: Json) -> None:
        metadata: Json = {"resourceVersion": str(self._cluster.store.revision)}
        if annotations:
            metadata["annotations"] = annotations
        resource = self._resource
        body = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        self._emit("BOOKMARK", body)

    def _expire(self, revision: int) -> None:
        oldest = max(self._history.expired_to, 1)
        message = f"too old resource version: {revision} ({oldest})"
        self._lines.append(_line("ERROR", failure(410, "Expired", message)))
        self._at = self._history.end
        self._over = True

    def _emit(self, kind: str, obj: Json) -> None:
        self._lines.extend(self._faulty.apply(_line(kind, obj)))


def _line(kind: str, obj: Json) -> bytes:
    event = {"type": kind, "object": obj}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


class _FaultyEvents:
    """Applies faults to the events of one watch."""

    def __init__(self, faults: list[WatchAction]) -> None:
        self._faults = faults
        self._number = 0
        self._held: bytes | None = None

    @property
    def expires(self) -> bool:
        return any(isinstance(fault, ExpireWatch) and fault.after <= self._number for fault in self._faults)

    @property
    def ends(self) -> bool:
        return any(isinstance(fault, EndWatch) and fault.after <= self._number for fault in self._faults)

    def apply(self, line: bytes) -> list[bytes]:
        """Return the lines to send instead of this one."""
        number = self._number
        self._number += 1
        for fault in self._faults:
            if isinstance(fault, OmitEvents) and fault.first <= number < fault.first + fault.count:
                return []
            if isinstance(fault, RepeatEvents) and fault.first <= number < fault.first + fault.count:
                return [line, line]
            if isinstance(fault, SwapEvents) and fault.first == number:
                self._held = line
                return []
        if self._held is not None:
            line, held, self._held = line, self._held, None
            return [line, held]
        return [line]
