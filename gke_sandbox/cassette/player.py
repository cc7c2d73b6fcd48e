"""One replay of a cassette: which requests have arrived, and what may be sent now. No HTTP."""

from __future__ import annotations

import heapq
import math
import threading
from collections import deque
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any, Protocol

import anyio

from .._wire.payload import runner_text
from ..errors import CassetteError, ReplayMismatch
from ..settings import SESSION_LABEL
from .matcher import Matcher, RecordedJob, ReplayRequest
from .model import Cassette, Chunk, RecordedResponse, Step
from .placeholders import GeneratedNames, render
from .timeline import PodTimeline, TimelineEvent, read_timelines

__all__ = ["Player"]

_START = datetime(2026, 1, 1, tzinfo=timezone.utc)
_MAX_LISTED = 10


class _LogStream(Protocol):
    """An open log, whose output was recorded before some changes of its pod."""

    def has_output_before(self, at: int) -> bool:
        """Return whether output that was recorded before a time was not sent yet."""


class Player:
    """One replay of a cassette from its first step to its last; for one event loop at a time.

    `timing` keeps the recorded pauses. `strict` compares bodies in full; see `Matcher`. In the replayed responses
    the recording starts at the calendar time `start`.
    """

    def __init__(
        self,
        cassette: Cassette,
        *,
        strict: bool = False,
        timing: bool = False,
        start: datetime | None = None,
    ) -> None:
        self.cassette = cassette
        self.timing = timing
        self.broken: CassetteError | None = None
        """The first error: the replay cannot go on."""
        self.logs: dict[str, list[_LogStream]] = {}
        """The open logs of each Job."""
        # The rendered parts of the cassette, by their ids, for each combination of Jobs.
        self._rendered: dict[tuple[RecordedJob | str, ...], dict[int, Any]] = {}
        self._generate = GeneratedNames(runner_text(), _START if start is None else start)
        known = self._generate if strict else GeneratedNames(None, self._generate.start)
        self.matcher = Matcher(cassette, strict=strict, generate=known)
        self._events, self._failures = read_timelines(cassette)
        self._selectors = list(self._failures)
        self._timelines: dict[str, PodTimeline] = {}
        self._opened: set[str] = set()
        # Which changes wait for a request about a Job, and which for a time.
        self._waiting: dict[str, set[str]] = {}
        self._due: list[tuple[float, str]] = []
        self._open = 0
        self._thread = 0
        self._changed: dict[str, anyio.Event] = {}

    def finish(self) -> None:
        """Raise the first error; or `ReplayMismatch` if recorded requests did not arrive."""
        if self.broken is not None:
            raise self.broken
        if self.matcher.suspect is not None:
            raise self.matcher.suspect
        left = self.matcher.not_replayed()
        if left:
            where = "\n".join(f"  {self.cassette.where(step)}: {step}" for step in left[:_MAX_LISTED])
            more = f"\n  and {len(left) - _MAX_LISTED} more" if len(left) > _MAX_LISTED else ""
            raise ReplayMismatch(
                f"{self.cassette.source}: {len(left)} of {len(self.cassette.steps)} recorded requests were not "
                f"sent:\n{where}{more}",
                hint="If the change is intended, record it again.",
            )

    def enter(self) -> None:
        """Count an opened transport. Raises `CassetteError` if one is open in another thread."""
        here = threading.get_ident()
        if self._open and self._thread != here:
            raise CassetteError(
                f"{self.cassette.source} is being replayed in another thread",
                hint="Give each Sandbox that runs at the same time its own cassette.",
            )
        self._thread = here
        self._open += 1

    def leave(self) -> None:
        """Count a closed transport."""
        self._open -= 1

    # -- requests ------------------------------------------------------------------------------------------

    def take(self, request: ReplayRequest) -> Step:
        """Return the step of a request. Raises `ReplayMismatch`, from then on for every request."""
        if self.broken is not None:
            raise self.broken
        try:
            step = self.matcher.take(request)
        except ReplayMismatch as error:
            raise self._break(error) from None
        for job in {step.job, *self._waiting.pop(step.job, ())}:
            self.release(job)
        self.notify(step.job)
        return step

    def expire(self, step: Step) -> None:
        """Stop the replay if a response still depends on requests that were never sent."""
        missing = [name for name in step.response.after if self.matcher.arrived_at(name) is None]
        if missing and self.broken is None:
            self._break(
                CassetteError(
                    f"{self.cassette.where(step)}: its response depends on {' and '.join(missing)}, which was "
                    "never requested",
                    hint="`after` names requests that are sent before the response.",
                )
            )

    def _break(self, error: CassetteError) -> CassetteError:
        self.broken = error
        self.notify(*self._changed)
        return error

    # -- time ----------------------------------------------------------------------------------------------

    def notify(self, *keys: str) -> None:
        """Wake everything that waits for one of these Jobs or selectors."""
        for key in keys:
            changed = self._changed.pop(key, None)
            if changed is not None:
                changed.set()

    async def changed(self, key: str, until: float = math.inf) -> None:
        """Wait for a change of a Job or a selector, or until a time. Raises the first error of the replay."""
        event = self._changed.setdefault(key, anyio.Event())
        with anyio.move_on_after(until - anyio.current_time()):
            await event.wait()
        self.check()

    def check(self) -> None:
        """Raise the first error of the replay."""
        if self.broken is not None:
            raise self.broken

    def due(self, piece: RecordedResponse | Chunk, since: float, base: int) -> float | None:
        """Return when a response, or a piece of one, is due; None if a request that it follows is missing.

        `since` and `base` are when its own request arrived, in this run and in the recording.
        """
        due = since + (piece.at - base) / 1000
        for name in piece.after:
            arrived = self.matcher.arrived_at(name)
            if arrived is None:
                return None
            due = max(due, arrived + (piece.at - self.matcher.by_name[name].at) / 1000)
        return due if self.timing else 0.0

    def missing_for(self, piece: RecordedResponse | Chunk) -> str | None:
        """Return the Job of a request that must arrive before this piece; None if nothing is missing."""
        missing = (name for name in piece.after if self.matcher.arrived_at(name) is None)
        name = next(missing, None)
        return None if name is None else self.matcher.by_name[name].job

    def jobs_of(self, piece: RecordedResponse | Chunk) -> list[str]:
        """Return the Jobs of the requests that a piece follows."""
        return [job for name in piece.after if (job := self.matcher.by_name[name].job)]

    def rendered(self, value: Any, jobs: Iterable[RecordedJob | str], step: Step, line: int = 0) -> Any:
        """Return `value`, which is in `step` at `line`, with the names of this run."""
        jobs = tuple(jobs)
        known = self._rendered.setdefault(jobs, {})
        try:
            return render(value, self.matcher.bindings(jobs), self._generate, known)
        except KeyError as error:
            raise self._break(
                CassetteError(
                    f"{self.cassette.where(step, line)}: {error.args[0]} is in a response that is sent before the "
                    "request with that name",
                    hint="`after` names the request that the response follows.",
                )
            ) from None

    # -- pods ----------------------------------------------------------------------------------------------

    def open_timeline(self, selector: str) -> PodTimeline:
        """Return the timeline of the Sandbox with this label selector, which lists or watches its pods.

        The Sandboxes of this run get the failures of the recorded ones in the order of their first requests.
        """
        timeline = self._timeline(selector)
        if selector not in self._opened:
            self._opened.add(selector)
            recorded = self._selectors.pop(0) if self._selectors else ""
            timeline.failures = self._failures.get(recorded, timeline.failures)
            timeline.failures.update(anyio.current_time())
            # Pods that belong to no Job.
            self._events[selector] = self._events.pop(recorded, deque())
            self.release(selector)
        self.release_due()
        return timeline

    def _timeline(self, selector: str) -> PodTimeline:
        return self._timelines.setdefault(selector, PodTimeline(selector))

    def snapshot(self, timeline: PodTimeline) -> dict[str, Any]:
        """Return a list of the pods, and count it as delivered."""
        timeline.count_list()
        self._release_held(timeline, listing=True)
        found = timeline.snapshot()
        self.delivered(timeline, len(timeline.history))
        return found

    def delivered(self, timeline: PodTimeline, position: int) -> None:
        """The client has received the changes up to a position."""
        timeline.delivered = max(timeline.delivered, position)
        self._release_held(timeline)

    def open_watch(self, timeline: PodTimeline) -> None:
        """Release what was waiting for a watch."""
        timeline.count_watch()
        self._release_held(timeline)

    def _release_held(self, timeline: PodTimeline, *, listing: bool = False) -> None:
        held, timeline.held = timeline.held, set()
        for job in held:
            self.release(job, listing=listing)

    def release_due(self) -> None:
        """Release the changes whose time has come."""
        while self._due and self._due[0][0] <= anyio.current_time():
            self.release(heapq.heappop(self._due)[1])

    @property
    def next_due(self) -> float:
        """When the next change is due."""
        return self._due[0][0] if self._due else math.inf

    def release(self, job: str, *, listing: bool = False) -> None:
        """Release the changes of a Job's pod that are due, in their order, to the Sandbox that runs the Job."""
        events = self._events.get(job)
        if not events:
            return
        session = self.matcher.session_of(job)
        timeline = self._timeline(f"{SESSION_LABEL}={session}" if session else job)
        while events:
            event = events[0]
            due = self._event_due(event, job)
            if due is None or any(log.has_output_before(event.chunk.at) for log in self.logs.get(job, ())):
                break
            if due > anyio.current_time():
                heapq.heappush(self._due, (due, job))
                break
            # A client that has not seen a pod before it is gone would never learn what happened to it.
            gone = event.removes and not (timeline.is_delivered(job) and (listing or not event.missing))
            if gone or not timeline.is_live:
                timeline.held.add(job)
                break
            events.popleft()
            self._release(event, timeline, job)
        self.notify(timeline.selector)

    def _release(self, event: TimelineEvent, timeline: PodTimeline, job: str) -> None:
        assert event.chunk.event is not None
        pod = self.rendered(event.chunk.event["object"], event.jobs, event.step, event.chunk.line)
        timeline.add(event, pod, job)
        if event.failure is not None:
            event.failure.pending -= 1
            for failures in self._failures.values():
                failures.update(anyio.current_time())

    def _event_due(self, event: TimelineEvent, job: str) -> float | None:
        """Return when a change is due. If it still waits for a request, remember which and return None.

        A change that does not name a request of its Job follows those that create the Job.
        """
        followed = {self.matcher.by_name[name].job for name in event.chunk.after}
        names = list(event.chunk.after)
        for each in event.jobs:
            if each not in followed:
                names += self.matcher.creation(each) or [""]
        due = 0.0
        for name in names:
            arrived = self.matcher.arrived_at(name) if name else None
            if arrived is None:
                waits_for = self.matcher.by_name[name].job if name else ""
                self._waiting.setdefault(waits_for, set()).add(job)
                return None
            due = max(due, arrived + (event.chunk.at - self.matcher.by_name[name].at) / 1000)
        return due if self.timing else 0.0
