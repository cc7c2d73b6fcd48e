"""One replay of a cassette: which requests have arrived, and what may be sent now. No HTTP."""

from __future__ import annotations

import heapq
import math
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

import anyio

from .._wire.payload import runner_text
from ..errors import CassetteError, ReplayMismatch
from ..settings import SESSION_LABEL
from .jobs import RecordedJob, with_equal_suffixes
from .matcher import Matcher, ReplayRequest
from .model import ONE_THREAD_HINT, SEND, Cassette, Chunk, RecordedResponse, Step
from .placeholders import GeneratedNames, render
from .timeline import PodTimeline, TimelineEvent, read_timelines

__all__ = ["OpenStream", "Player"]

_START = datetime(2026, 1, 1, tzinfo=timezone.utc)
_MAX_LISTED = 10


class OpenStream:
    """An open log or an attached client, whose output was recorded before some changes of its pod."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.left = list(step.response.chunks or ())
        """The pieces that were not sent yet."""
        self.sent = 0
        """How many pieces were sent to an attached client."""

    def has_output_before(self, at: int) -> bool:
        """Return whether output that was recorded before a time was not sent yet."""
        return bool(self.left) and self.left[0].at < at

    def continue_as(self, step: Step | None, sent: int) -> None:
        """Go on as another recorded stream, whose first `sent` pieces count as sent. None: stay silent."""
        self.left = []
        if step is not None:
            self.step, self.sent = step, sent
            self.left = list(step.response.chunks or ())[sent:]


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
        self.cassette = cassette = with_equal_suffixes(cassette)
        self.timing = timing
        self.broken: CassetteError | None = None
        """The first error: the replay cannot go on."""
        self.logs: dict[str, list[OpenStream]] = {}
        """The open logs of each Job."""
        self.attached: dict[str, list[OpenStream]] = {}
        """The attached clients of each Job."""
        # The rendered parts of the cassette, by their ids, for each combination of Jobs.
        self._rendered: dict[tuple[RecordedJob | str, ...], dict[int, Any]] = {}
        self._generate = GeneratedNames(runner_text(), _START if start is None else start)
        known = self._generate if strict else GeneratedNames(None, self._generate.start)
        self.matcher = Matcher(cassette, strict=strict, generate=known)
        self._events, self._failures = read_timelines(cassette)
        self._starts = self.matcher.starts()
        # All changes of the pods of warm Jobs.
        self._of_warm = {job: tuple(self._events.get(job, ())) for job in self.matcher.uid_roles}
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
        self.check()
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
            source = self.cassette.source
            raise CassetteError(f"{source} is being replayed in another thread", hint=ONE_THREAD_HINT)
        self._thread = here
        self._open += 1

    def leave(self) -> None:
        """Count a closed transport."""
        self._open -= 1

    def starts_warm(self, digest: str) -> bool | None:
        """Return whether the next run of the program with this digest started in a warm pod.

        Return None if it is not in the recording, or if its digest is not known.
        """
        left = self._starts.get(digest)
        return left.popleft() if left else None

    # -- requests ------------------------------------------------------------------------------------------

    def take(self, request: ReplayRequest) -> Step:
        """Return the step of a request. Raises `ReplayMismatch`, from then on for every request."""
        self.check()
        try:
            if request.method == SEND and (exchanged := self.matcher.choose_program(request)) is not None:
                self._exchange(*exchanged)
            step = self.matcher.take(request)
        except ReplayMismatch as error:
            raise self._break(error) from None
        for job in {step.job, *self._waiting.pop(step.job, ())}:
            self.release(job)
        self.notify(step.job)
        return step

    def _exchange(self, job: RecordedJob, other: RecordedJob) -> None:
        """Exchange the pods of two warm Jobs, of which the second gets the program that has arrived."""
        first, second = job.placeholder, other.placeholder
        self._rendered.clear()
        ready, reached = _ready(job, self._of_warm[first]), self._reached(second)
        # The client has seen as much of the first one's pod now as it had seen of the second one's.
        if reached < _ready(other, self._of_warm[second]):
            ready = min(reached, max(ready - 1, 0))
        self._go_to(first, ready if job.name else 0)
        self._go_to(second, _unsent(other, [event.chunk for event in self._of_warm[second]]))
        for timeline in self._timelines.values():
            timeline.exchange(first, second)
        of_first, of_second = self.attached.pop(first, []), self.attached.pop(second, [])
        self.attached[first], self.attached[second] = of_second, of_first
        for streams, each in ((of_first, other), (of_second, job)):
            attach = next((step for step in each.before_program[::-1] if step.response.status == 101), None)
            known = 0 if attach is None else _unsent(each, attach.response.chunks or ())
            for stream in streams:
                stream.continue_as(attach, known if each is other else min(known, stream.sent))
        for key in (first, second):
            self.release(key)
            self.notify(key)

    def _reached(self, job: str) -> int:
        """Return how many changes of a warm Job's pod were released."""
        return len(self._of_warm[job]) - len(self._events.get(job, ()))

    def _go_to(self, job: str, position: int) -> None:
        """Release no change of a warm Job's pod before a position, and all after it."""
        events = self._of_warm[job]
        for event in events[:position]:
            self._count(event)
        self._events[job] = deque(events[position:])

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

    async def changed(self, key: str, until: float | None, piece: RecordedResponse | Chunk | None = None) -> None:
        """Wait for a change of a Job or a selector, or until a time. Raises the first error of the replay.

        `until` None is no limit. If `piece` follows a request that has not arrived, wait for a change of the Job
        of that request instead.
        """
        if piece is not None:
            _, missing = self._due_after(piece.after, piece.at)
            key = self.matcher.by_name[missing].job if missing else key
        until = math.inf if until is None else until
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
        return self._due_after(piece.after, piece.at, since + (piece.at - base) / 1000)[0]

    def _due_after(self, names: Iterable[str], at: int, due: float = 0.0) -> tuple[float | None, str]:
        """Return when something is due that was recorded `at` a time, after these requests.

        If one has not arrived, return None and its name.
        """
        for name in names:
            arrived = self.matcher.arrived_at(name) if name else None
            if arrived is None:
                return None, name
            due = max(due, arrived + (at - self.matcher.by_name[name].at) / 1000)
        return due if self.timing else 0.0, ""

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
            open_streams = (*self.logs.get(job, ()), *self.attached.get(job, ()))
            if due is None or any(stream.has_output_before(event.chunk.at) for stream in open_streams):
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
        self._count(event)

    def _count(self, event: TimelineEvent) -> None:
        """Count a change as released, for the failure that was recorded after it. A change counts once."""
        if event.failure is not None:
            event.failure.pending -= 1
            event.failure = None
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
        due, missing = self._due_after(names, event.chunk.at)
        if due is None:
            waits_for = self.matcher.by_name[missing].job if missing else ""
            self._waiting.setdefault(waits_for, set()).add(job)
        return due


def _unsent(job: RecordedJob, pieces: Sequence[Chunk]) -> int:
    """Return how many pieces come before those that follow the program of a warm Job, or its deletion."""
    before = {step.name for step in job.before_program if step.method != "DELETE"}
    later = {step.name for step in job.steps} - before
    return next((number for number, piece in enumerate(pieces) if later & {*piece.after}), len(pieces))


def _ready(job: RecordedJob, events: Sequence[TimelineEvent]) -> int:
    """Return how many changes of a warm Job's pod come before the client attaches to it."""
    created = {step.name for step in job.steps if step.method == "POST"}
    later = {step.name for step in job.steps} - created
    return next((number for number, event in enumerate(events) if later & {*event.chunk.after}), len(events))
