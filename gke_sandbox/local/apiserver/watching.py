"""A watch: the changes of one resource as JSON lines, from a resourceVersion on.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass

import anyio

from ..cluster import ClusterState
from ..faults import Action, EndWatch, ExpireWatch, OmitEvents, RepeatEvents, SwapEvents
from ..objects import Json
from ..store import Change
from .errors import failure
from .resources import CONFIG_MAPS, JOBS, PODS, ResourceType
from .selectors import Selector

_BOOKMARK_EVERY = 60.0
# A watch that is about to end says once more how far it has come.
_BOOKMARK_BEFORE_END = 2.0

_EMPTY: dict[str, Json] = {
    PODS.plural: {"spec": {"containers": None}, "status": {}},
    JOBS.plural: {"spec": {"template": {"metadata": {}, "spec": {"containers": None}}}, "status": {}},
    CONFIG_MAPS.plural: {},
}


@dataclass(frozen=True)
class WatchOptions:
    """`revision` None: first every object there is, as ADDED, then what changes. `timeout` in seconds."""

    namespace: str
    selector: Selector
    revision: int | None
    timeout: float
    bookmarks: bool
    mark_initial: bool


class WatchStream:
    """The stream of one watch; `next` gives its lines."""

    def __init__(
        self, cluster: ClusterState, served: ResourceType, options: WatchOptions, faults: list[Action]
    ) -> None:
        self._cluster = cluster
        self._served = served
        self._options = options
        self._history = cluster.store.history(served)
        now = anyio.current_time()
        self._end = now + options.timeout
        self._last_bookmark = now + (options.timeout - _BOOKMARK_BEFORE_END)
        self._next_bookmark = self._bookmark_after(now)
        self._lines: deque[bytes] = deque()
        self._tamper = _Tamper(faults)
        self._over = False
        self._begin()

    def _begin(self) -> None:
        store, options = self._cluster.store, self._options
        if options.revision is None:
            self._at = self._history.end
            for obj in store.select(self._served, options.namespace):
                if options.selector.matches(obj):
                    self._emit("ADDED", obj)
            if options.mark_initial and options.bookmarks:
                self._bookmark({"k8s.io/initial-events-end": "true"})
        elif options.revision < self._history.expired_to:
            self._expire(options.revision)
        else:
            self._at = self._history.after(options.revision)

    async def next(self) -> bytes | None:
        """The next line; None at the end. Waits for it."""
        while True:
            if self._tamper.ends:
                self._over = True
            elif self._tamper.expires and not self._over:
                self._expire(self._cluster.store.revision)
            if self._lines:
                return self._lines.popleft()
            if self._over:
                return None
            if not self._read():
                await self._history.changed.wait_until(min(self._next_bookmark, self._end))
                self._tick()

    def _read(self) -> bool:
        """Take changes from the history until one is of interest; False: there is none."""
        while self._at < self._history.end:
            if not self._history.holds(self._at):
                # The reader was slower than the history is long.
                self._expire(self._cluster.store.revision)
                return True
            change = self._history.get(self._at)
            self._at += 1
            if change is not None and self._interesting(change):
                return True
        return False

    def _interesting(self, change: Change) -> bool:
        """Emit the change as this watch sees it: an object that leaves its selection is DELETED for it."""
        options = self._options
        if options.namespace and change.key.namespace != options.namespace:
            return False
        matches = options.selector.matches(change.object)
        matched = change.before is not None and options.selector.matches(change.before)
        if change.type == "DELETED":
            kind = "DELETED" if matched else ""
        elif matches:
            kind = "MODIFIED" if matched else "ADDED"
        else:
            kind = "DELETED" if matched else ""
        if not kind:
            return False
        self._emit(kind, change.object)
        return True

    def _bookmark_after(self, now: float) -> float:
        """When the next one is due: every minute, and once before the end."""
        if not self._options.bookmarks:
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
        served = self._served
        body = {"kind": served.kind, "apiVersion": served.api_version, "metadata": metadata}
        self._emit("BOOKMARK", {**body, **_EMPTY.get(served.plural, {})})

    def _expire(self, revision: int) -> None:
        oldest = max(self._history.expired_to, 1)
        message = f"too old resource version: {revision} ({oldest})"
        self._lines.append(_line("ERROR", failure(410, "Expired", message)))
        self._at = self._history.end
        self._over = True

    def _emit(self, kind: str, obj: Json) -> None:
        self._lines.extend(self._tamper.through(_line(kind, obj)))


def _line(kind: str, obj: Json) -> bytes:
    event = {"type": kind, "object": obj}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


class _Tamper:
    """What faults make of the events of one watch."""

    def __init__(self, faults: list[Action]) -> None:
        self._faults = faults
        self._number = 0
        self._held: bytes | None = None

    @property
    def expires(self) -> bool:
        return any(isinstance(fault, ExpireWatch) and fault.after <= self._number for fault in self._faults)

    @property
    def ends(self) -> bool:
        return any(isinstance(fault, EndWatch) and fault.after <= self._number for fault in self._faults)

    def through(self, line: bytes) -> list[bytes]:
        """The lines that come in the place of this one."""
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
