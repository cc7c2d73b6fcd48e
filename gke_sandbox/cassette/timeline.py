"""The pods of a recording as a timeline per Job, and as one history per Sandbox. Pure.

A Sandbox lists its pods and watches them for as long as it lives. How often it does so, and where one watch ends
and the next starts, depends on time, and a replay has other times. So a replay keeps only the changes of each pod,
from all recorded lists and watches, and releases each when the requests that it follows have arrived. A list is a
snapshot of the released changes; a watch is every change released after a resourceVersion. Recorded failures of
lists and watches are replayed in their order, each after the changes that were recorded before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .model import ERRORS, Cassette, Chunk, Step, jobs_of, metadata_of

__all__ = ["Failure", "FailureQueue", "PodTimeline", "TimelineEvent", "read_timelines"]

FailureKind = Literal["list", "watch", "stream"]


@dataclass(eq=False)
class Failure:
    """A recorded failure: a list or a watch that was refused, or an open watch (``stream``) that broke.

    `chunk` is the ERROR event or the incomplete line of a stream. `delay` is the pause before it in the recording,
    in seconds.
    """

    kind: FailureKind
    step: Step
    chunk: Chunk | None = None
    delay: float = 0.0
    pending: int = 0
    """How many changes, recorded after the failure before this one, were not released yet."""
    ready_at: float | None = None
    """When all changes recorded before it had been released."""


@dataclass(eq=False)
class TimelineEvent:
    """One change of a pod. `jobs` are placeholders, `failure` is the recorded failure that came next.

    With `missing` the pod was only missing from a list: a list shows that, and no watch does.
    """

    step: Step
    chunk: Chunk
    jobs: tuple[str, ...]
    missing: bool = False
    failure: Failure | None = None

    @property
    def type(self) -> str:
        """The type of the watch event."""
        return str(self.chunk.event["type"]) if self.chunk.event is not None else ""

    @property
    def removes(self) -> bool:
        """Whether the pod does not exist afterwards."""
        return self.missing or self.type == "DELETED"


@dataclass(eq=False)
class FailureQueue:
    """The recorded failures of one Sandbox's lists and watches, in their order."""

    failures: list[Failure] = field(default_factory=list)
    _ready: int = 0

    def update(self, now: float) -> None:
        """Find the failures that have become ready."""
        while self._ready < len(self.failures) and not self.failures[self._ready].pending:
            self.failures[self._ready].ready_at = now
            self._ready += 1

    def next(self, kind: FailureKind) -> Failure | None:
        """Return the next failure of this kind if it is ready."""
        return next((each for each in self.failures[: self._ready] if each.kind == kind), None)

    def remove(self, failure: Failure) -> None:
        """A failure was replayed."""
        self.failures.remove(failure)
        self._ready -= 1


class PodTimeline:
    """The changes that were released to one Sandbox of this run: what its lists and watches show."""

    def __init__(self, selector: str) -> None:
        self.selector = selector
        self.failures = FailureQueue()
        self.history: list[tuple[TimelineEvent, Any]] = []
        """Every released change with its pod."""
        self.delivered = 0
        """How much of the history the client has received."""
        self.held: set[str] = set()
        """Jobs with changes that wait for a watch or a list of the client."""
        self.watches = 0
        """How many watches are open."""
        self._listed = False
        self._polled = False
        self._pods: dict[str, Any] = {}
        self._released: dict[str, int] = {}
        self._version = "1000"
        self._positions: dict[str, int] = {}

    def add(self, event: TimelineEvent, pod: Mapping[str, Any], job: str) -> None:
        """Release a change."""
        self.history.append((event, pod))
        name = str(metadata_of(pod).get("name", ""))
        if event.removes:
            self._pods.pop(name, None)
        else:
            self._pods[name] = pod
        self._version = str(metadata_of(pod).get("resourceVersion") or self._version)
        self._positions[self._version] = self._released[job] = len(self.history)

    def exchange(self, job: str, other: str) -> None:
        """Two recorded Jobs replay each other's Job of this run from now on."""
        found = [self._released.pop(each, None) for each in (job, other)]
        for each, count in zip((other, job), found, strict=True):
            if count is not None:
                self._released[each] = count

    @property
    def is_live(self) -> bool:
        """Whether changes are released: there is a watch, or there are lists only.

        Between a list and its watch they are not, so that the watch shows each of them.
        """
        return bool(self.watches) or self._polled

    def count_list(self) -> None:
        """A list was requested; a second one without a watch between them means that the client polls."""
        self._polled, self._listed = self._listed, True

    def count_watch(self) -> None:
        """A watch was opened."""
        self.watches += 1
        self._polled = self._listed = False

    def is_delivered(self, job: str) -> bool:
        """Return whether the client has received all changes of a Job's pod."""
        return self._released.get(job, 0) <= self.delivered

    def position(self, version: str | None) -> int:
        """Return where in the history a watch from a resourceVersion starts."""
        return self._positions.get(version or "", 0)

    def snapshot(self) -> dict[str, Any]:
        """Return a list of the pods as they are now."""
        items = [
            {name: value for name, value in pod.items() if name not in ("kind", "apiVersion")}
            for pod in self._pods.values()
        ]
        metadata = {"resourceVersion": self._version}
        return {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}


def read_timelines(cassette: Cassette) -> tuple[dict[str, deque[TimelineEvent]], dict[str, FailureQueue]]:
    """Return the changes of pods by Job, and the failures of each Sandbox by the label selector of its requests.

    Changes that are about no Job are under the selector.
    """
    reader = _Reader(cassette)
    return reader.events, reader.failures


class _Reader:
    def __init__(self, cassette: Cassette) -> None:
        self.events: dict[str, deque[TimelineEvent]] = {}
        self.failures: dict[str, FailureQueue] = {}
        self._by_name = {step.name: step for step in cassette.steps}
        self._of_job: dict[str, list[Step]] = {}
        for step in cassette.steps:
            if step.job and not step.is_status_poll:
                self._of_job.setdefault(step.job, []).append(step)
        # By selector: the last change of each pod, all of its versions, and the changes since the last failure.
        self._known: dict[str, dict[str, TimelineEvent]] = {}
        self._versions: dict[str, set[tuple[str, str, bool]]] = {}
        self._unfailed: dict[str, list[TimelineEvent]] = {}
        for step in cassette.steps:
            if step.is_pod_list_watch:
                self._read(step)

    def _read(self, step: Step) -> None:
        selector, response = step.query["labelSelector"], step.response
        self.failures.setdefault(selector, FailureQueue())
        watch = step.is_watch
        if watch and response.chunks is not None:
            self._read_watch(step, selector, response.chunks)
        elif not watch and _is_list(step):
            self._read_list(step, selector)
        elif response.status is not None or response.ended_by in ERRORS:
            delay = (response.at - step.at) / 1000
            self._fail(Failure("watch" if watch else "list", step, delay=delay), selector)

    def _read_watch(self, step: Step, selector: str, chunks: Sequence[Chunk]) -> None:
        last, broken = step.response.at, False
        for chunk in chunks:
            type_ = None if chunk.event is None else chunk.event["type"]
            if type_ in ("ADDED", "MODIFIED", "DELETED"):
                self._add(step, chunk, selector)
            elif type_ != "BOOKMARK" and not broken:
                # The client does not read on.
                broken = True
                self._fail(Failure("stream", step, chunk, (chunk.at - last) / 1000), selector)
            last = chunk.at
        if step.response.ended_by in ERRORS and not broken:
            ended = last if step.response.ended_at is None else step.response.ended_at
            self._fail(Failure("stream", step, None, (ended - last) / 1000), selector)

    def _read_list(self, step: Step, selector: str) -> None:
        response, known = step.response, self._known.setdefault(selector, {})
        found = response.json.get("items")
        items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
        for item in items:
            before, jobs = known.get(_name(item)), jobs_of(item)
            type_ = "ADDED" if before is None or before.removes else "MODIFIED"
            # The items of a list have no kind.
            event = {"type": type_, "object": {"kind": "Pod", "apiVersion": "v1", **item}}
            after = tuple(name for name in response.after if self._by_name[name].job in jobs)
            self._add(step, Chunk(response.at, event=event, after=after, line=step.line), selector)
        for name in known.keys() - {_name(item) for item in items}:
            before = known[name]
            if not before.removes:
                sent = (each for job in before.jobs for each in self._of_job.get(job, ()) if each.at < response.at)
                after = tuple({each.job: each.name for each in sent}.values())
                chunk = Chunk(response.at, event=before.chunk.event, after=after, line=step.line)
                self._append(TimelineEvent(step, chunk, before.jobs, missing=True), selector)

    def _add(self, step: Step, chunk: Chunk, selector: str) -> None:
        assert chunk.event is not None
        pod = chunk.event["object"]
        jobs = [*jobs_of(pod), *(self._by_name[name].job for name in chunk.after)]
        event = TimelineEvent(step, chunk, tuple(dict.fromkeys(job for job in jobs if job)))
        # What a watch showed, a list or the next watch may show again. A pod without a version is always new.
        version = str(metadata_of(pod).get("resourceVersion") or f"{id(event)}")
        versions, key = self._versions.setdefault(selector, set()), (_name(pod), version, event.removes)
        if key not in versions:
            versions.add(key)
            self._append(event, selector)

    def _append(self, event: TimelineEvent, selector: str) -> None:
        assert event.chunk.event is not None
        self._known.setdefault(selector, {})[_name(event.chunk.event["object"])] = event
        self._unfailed.setdefault(selector, []).append(event)
        self.events.setdefault(next(iter(event.jobs), selector), deque()).append(event)

    def _fail(self, failure: Failure, selector: str) -> None:
        before = self._unfailed.pop(selector, [])
        failure.pending = len(before)
        for event in before:
            event.failure = failure
        self.failures[selector].failures.append(failure)


def _is_list(step: Step) -> bool:
    response = step.response
    return response.status == 200 and isinstance(response.json, dict) and response.ended_by not in ERRORS


def _name(pod: Mapping[str, Any]) -> str:
    return str(metadata_of(pod).get("name", ""))
