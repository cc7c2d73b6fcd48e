"""Find the recorded step for each request of a replay. Pure.

The requests of several executions arrive in any order, and their Jobs have other names. The annotation with the
digest of the program decides which recorded Job a new Job replays; every later request about it replays the next
recorded request of the same kind about that Job.
"""

from __future__ import annotations

import json
import re
from collections import ChainMap, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .._wire.manifests import PROGRAM_ANNOTATION
from ..errors import ReplayMismatch
from ..settings import SESSION_LABEL
from .canonical import canonical_form, digest_of
from .jobs import RecordedJob, corresponding, is_warm_job, uid_roles
from .model import (
    SEND,
    Cassette,
    RecordedResponse,
    Request,
    Step,
    metadata_of,
)
from .placeholders import Bindings, Difference, match_template
from .stdin_request import readable_stdin

__all__ = ["Matcher", "ReplayRequest"]

_MAX_SHOWN_DIFFERENCES = 8
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_HINT = "If the change is intended, record it again."
_EMPTY_LIST = {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}


@dataclass
class ReplayRequest(Request):
    """One request of this run. `at` is when it arrived, `job` the recorded Job that it is about."""

    method: str
    path: str
    query: Mapping[str, str]
    content: bytes = b""
    at: float = 0.0
    job: RecordedJob | None = None

    @property
    def name(self) -> str:
        """The name of the object in the body."""
        return str(metadata_of(self.body).get("name", ""))

    @property
    def creates_job(self) -> bool:
        """Whether the request creates a Job."""
        return self.method == "POST" and self.path.endswith("/jobs")

    @property
    def mentions(self) -> Iterator[str]:
        """All names that may be those of Jobs, the likeliest first; a program may contain names of other Jobs."""
        yield self.name
        yield from _names_in(f"{self.path} {' '.join(self.query.values())}")
        yield from _names_in(self.content.decode("utf-8", "replace"))

    @cached_property
    def canonical(self) -> Any:
        """The part of the body that the caller chose."""
        return canonical_form(self.body)

    @cached_property
    def body(self) -> Any:
        """The JSON of the body; text if it is not JSON; None without a body."""
        if not self.content:
            return None
        if self.method == SEND:
            return readable_stdin(self.content)
        try:
            return json.loads(self.content)
        except ValueError:
            return self.content.decode("utf-8", "replace")


class Matcher:
    """Finds the step for each request, in any order of executions.

    Without `strict`, Jobs and ConfigMaps of this library are compared in their canonical form. `generate` returns
    the names that the server chooses.
    """

    def __init__(self, cassette: Cassette, *, strict: bool, generate: Callable[[re.Match[str]], str]) -> None:
        self.cassette = cassette
        self.by_name = {step.name: step for step in cassette.steps}
        self.suspect: ReplayMismatch | None = None
        """The first Job of this run whose program was not recorded."""
        self.uid_roles = uid_roles(cassette)
        """The recorded warm Jobs, with the uids of their objects: see `jobs.uid_roles`."""
        self._strict = strict
        self._generate = generate
        self._jobs: dict[str, RecordedJob] = {}
        # The requests about no Job.
        self._shared = RecordedJob("")
        for step in cassette.steps:
            if step.job:
                self._jobs.setdefault(step.job, RecordedJob(step.job)).steps.append(step)
            elif not step.is_pod_list_watch:
                self._shared.steps.append(step)
        # By step: it and the earlier steps of its Job, without status polls.
        self._needed: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}
        self._runs: dict[str, RecordedJob] = {}
        self._canonical: dict[str, Any] = {}
        for placeholder, job in self._jobs.items():
            job.is_warm, job.uids = placeholder in self.uid_roles, self.uid_roles.get(placeholder, {})
            job.program = job.digest({}, generate)

    # -- requests -----------------------------------------------------------------------------------------

    def take(self, request: ReplayRequest) -> Step:
        """Return the step of a request, and mark it as replayed.

        Raises `ReplayMismatch`, which names the nearest step and how it differs.
        """
        job = self._job_of(request)
        if job is None:
            step = self._first_match(request, self._shared.left, self._names)
            if step is None:
                raise self._unexpected(request, self.not_replayed())
            self._shared.arrived[step.name] = request.at
            return step
        request.job = job
        names = self.bindings([job])
        step = self._first_match(request, job.left, names)
        if step is None and (
            request.is_status_poll or (request.method == "DELETE" and (job.is_unused or job.spare))
        ):
            # As often as it polls, the last state stays; without one there is nothing to see.
            step = self._first_match(request, job.steps[::-1], names)
            step = step or _unrecorded_step(request, job, RecordedResponse(0, 200, json=_EMPTY_LIST))
        if step is None and job.is_unused and request.method == "GET" and request.path.endswith("/attach"):
            step = self._silent_attach(request, job)
        if step is None:
            anywhere = job.mismatched or (job.is_warm and request.method == SEND)
            raise self._unexpected(request, self.not_replayed() if anywhere else self._left_of(job))
        job.arrived.setdefault(step.name, request.at)
        return step

    def _job_of(self, request: ReplayRequest) -> RecordedJob | None:
        if request.creates_job and request.name:
            return self._runs.get(request.name) or self._start(request)
        named = next((self._runs[name] for name in request.mentions if name in self._runs), None)
        if named is not None:
            return named
        # A Job that this run did not create: it is deleted or read by its name.
        name = _job_in(request.path)
        if name and self._first_match(request, self._shared.left, ChainMap({}, self._names)) is None:
            for job in self._free():
                if self._first_match(request, job.steps, ChainMap({job.placeholder: name}, self._names)):
                    return self._replays(job, name)
        return None

    def _start(self, request: ReplayRequest) -> RecordedJob | None:
        """Choose the recorded Job for a new one: the next free one with the same program."""
        metadata = metadata_of(request.body)
        labels, annotations = metadata.get("labels"), metadata.get("annotations")
        digest = annotations.get(PROGRAM_ANNOTATION) if isinstance(annotations, Mapping) else None
        session = str(labels.get(SESSION_LABEL, "")) if isinstance(labels, Mapping) else ""
        warm = is_warm_job(request.body)
        for job in self._candidates(digest, warm):
            if self._creation_matches(job, request):
                return self._replays(job, request.name, session)
        if warm:
            for job in self._jobs.values():
                if job.is_warm and job.is_created and self._creation_matches(job, request):
                    # How many warm Jobs are created depends on time.
                    return self._replays(replace(job, arrived={}, spare=True), request.name, session)
        for job in self._free():
            if job.request_step is not None and not job.is_warm and self._creation_matches(job, request):
                # Go on: the request on stdin will show how the programs differ.
                self.suspect = self.suspect or self._unexpected(request, self.not_replayed())
                self._replays(job, request.name, session).mismatched = True
                return job
            # The digest says that no program is the same, but not how they differ: the ConfigMap will.
            if job.is_created and job.creates("ConfigMap") and self._creation_matches(job, request):
                self.suspect = self.suspect or self._unexpected(request, self.not_replayed())
                return self._replays(replace(job, arrived={}, mismatched=True), request.name, session)
        if not self._jobs:
            return None
        raise self._unexpected(request, [step for step in self.not_replayed() if step.job])

    def _free(self) -> list[RecordedJob]:
        """Return the recorded Jobs that no Job of this run replays yet."""
        return [job for job in self._jobs.values() if not job.name]

    def _candidates(self, digest: str | None, warm: bool) -> Iterator[RecordedJob]:
        free = [job for job in self._free() if job.is_warm == warm]
        if warm:
            # A warm Job without a program may have been created too late to become ready.
            yield from sorted(free, key=lambda job: job.is_unused)
        elif digest is None:
            yield from free
        else:
            yield from (job for job in free if job.program == digest)
            for job in free:
                if job.program is None and job.digest(self._names, self._generate) in (digest, None):
                    yield job

    def _creation_matches(self, job: RecordedJob, request: ReplayRequest) -> bool:
        names = ChainMap({job.placeholder: request.name}, self._names)
        return self._first_match(request, job.steps, names) is not None

    def _replays(self, job: RecordedJob, name: str, session: str = "") -> RecordedJob:
        """A Job of this run replays a recorded one."""
        job.replay_as(name, session)
        self._runs[name] = job
        if not job.mismatched and not job.spare:
            self._names[job.placeholder] = name
        return job

    # -- warm Jobs ----------------------------------------------------------------------------------------

    def choose_program(self, request: ReplayRequest) -> tuple[RecordedJob, RecordedJob] | None:
        """Let the Job that gets a program on stdin replay a recorded warm Job that got the same one.

        Return the recorded Job that it has replayed so far and the one from now on, if that is another one. If a
        Job of this run has replayed that one, the two are exchanged.
        """
        job = next((self._runs[name] for name in request.mentions if name in self._runs), None)
        if job is None or not job.is_warm or not isinstance(request.body, Mapping):
            return None
        if job.spare or (job.request_step is not None and not job.waits):
            return None
        digest = digest_of(request.body)
        candidates = [each for each in self._jobs.values() if each.program in (digest, None) and each.waits]
        for other in sorted(candidates, key=lambda each: (each is not job, each.program is None)):
            names = ChainMap({other.placeholder: job.name}, self._names)
            sent = (step for step in other.steps if step.sends_request)
            if self._first_match(request, sent, names) is not None:
                if other is job:
                    return None
                self._exchange(job, other)
                return job, other
        return None

    def _silent_attach(self, request: ReplayRequest, job: RecordedJob) -> Step | None:
        """Return an attach to a pod whose Sandbox was closed before it attached in the recording."""
        recorded = next((step for step in self.cassette.steps if step.response.status == 101), None)
        if recorded is None:
            return None
        response = RecordedResponse(0, 101, recorded.response.headers, chunks=(), ended_by="client")
        return _unrecorded_step(request, job, response)

    def starts(self) -> dict[str, deque[bool]]:
        """Return for the digest of each program whether its runs started in warm pods, in the recorded order."""
        found: dict[str, deque[bool]] = {}
        for job in self._jobs.values():
            if job.program is not None:
                found.setdefault(job.program, deque()).append(job.is_warm)
        return found

    def _exchange(self, job: RecordedJob, other: RecordedJob) -> None:
        """Exchange what two recorded warm Jobs replay. The first has reached the request on stdin."""
        name, session, now = job.name, job.session, max(job.arrived.values())
        job.arrived = corresponding(job, other)
        captured = job.captured
        job.replay_as(other.name, other.session, other.captured)
        other.arrived = dict.fromkeys((step.name for step in other.before_program), now)
        other.replay_as(name, session, captured)
        for each in (job, other):
            self._names.pop(each.placeholder, None)
            if each.name:
                self._runs[each.name] = each
                self._names[each.placeholder] = each.name

    def is_superseded(self, step: Step) -> bool:
        """Return whether the recorded client attached again, or went on with the log, about the same Job."""
        arrived = self._of(step).arrived
        return any(
            each.method == "GET" and each.path.endswith(("/attach", "/log")) and each.name not in arrived
            for each in self._after(step)
        )

    def sent_before(self, step: Step, at: int) -> tuple[str, ...]:
        """Return the last thing that was written to stdin after an attach and before a time."""
        sent = [
            each.name
            for each in self._after(step)
            if each.method == SEND and each.path == step.path and each.at <= at
        ]
        return tuple(sent[-1:])

    def _after(self, step: Step) -> list[Step]:
        """Return the later steps about the same Job, or about none."""
        steps = self._of(step).steps
        return steps[steps.index(step) + 1 :] if step in steps else []

    # -- steps --------------------------------------------------------------------------------------------

    def _first_match(self, request: ReplayRequest, steps: Iterable[Step], names: Bindings) -> Step | None:
        """Return the first step that the request matches, and bind its names."""
        for step in steps:
            if (step.method, step.path.count("/")) != (request.method, request.path.count("/")):
                continue
            found: dict[str, str] = {}
            if not self._differences(step, request, ChainMap(found, names)):
                names.update(found)
                return step
        return None

    def _differences(self, step: Step, request: ReplayRequest, names: Bindings) -> list[Difference]:
        if step.method != request.method:
            return [Difference("method", step.method, request.method)]
        differences = match_template(step.path, request.path, names, self._generate, "path")
        differences += match_template(step.query, request.query, names, self._generate, "query")
        if differences:
            return differences
        if step.name not in self._canonical:
            self._canonical[step.name] = canonical_form(step.body)
        template, body = self._canonical[step.name], request.canonical
        if self._strict or isinstance(template, Mapping) != isinstance(body, Mapping):
            template, body = _without_digest(step.body), _without_digest(request.body)
        return match_template(template, body, names, self._generate)

    # -- what has arrived ---------------------------------------------------------------------------------

    def arrived_at(self, name: str) -> float | None:
        """Return when a step's request and all earlier ones about its Job had arrived. Return None before."""
        step = self.by_name[name]
        job = self._of(step)
        if not step.job:
            return job.arrived.get(name)
        if name not in self._needed:
            earlier = job.steps[: job.steps.index(step) + 1]
            self._needed[name] = [each.name for each in earlier if not each.is_status_poll]
        needed = self._needed[name]
        if any(each not in job.arrived for each in needed):
            return None
        return max((job.arrived[each] for each in needed), default=None)

    def _of(self, step: Step) -> RecordedJob:
        return self._jobs[step.job] if step.job else self._shared

    def creation(self, job: str) -> list[str]:
        """Return the names of the steps that create a recorded Job and its ConfigMap."""
        steps = self._jobs[job].steps if job in self._jobs else []
        return [step.name for step in steps if step.method == "POST"][:2]

    def is_repeated(self, step: Step) -> bool:
        """Return whether the same request was recorded again, later, about the same Job."""
        later = self._after(step) if step.job else []
        return any((each.method, each.path, each.query) == (step.method, step.path, step.query) for each in later)

    def session_of(self, job: str) -> str:
        """Return the session label of the Sandbox that runs a recorded Job; empty for none."""
        return self._jobs[job].session if job in self._jobs else ""

    def bindings(self, jobs: Iterable[RecordedJob | str]) -> Bindings:
        """Return the names of this run in requests and responses about these Jobs."""
        found = (self._jobs.get(job) if isinstance(job, str) else job for job in jobs)
        return ChainMap(*(job.names for job in found if job is not None), self._names)

    def not_replayed(self) -> list[Step]:
        """Return the steps whose requests have not arrived, without status polls, lists and watches."""
        arrived = {name for job in (*self._jobs.values(), self._shared) for name in job.arrived}
        # How many warm Jobs are created, and what becomes of them without a program, depends on time.
        unused = {job.placeholder for job in self._jobs.values() if job.is_unused}
        return [
            step
            for step in self.cassette.steps
            if step.name not in arrived
            and step.job not in unused
            and not (step.is_status_poll or step.is_pod_list_watch)
        ]

    def _left_of(self, job: RecordedJob) -> list[Step]:
        left = self.not_replayed()
        return [step for step in left if step.job == job.placeholder] or left

    def _unexpected(self, request: ReplayRequest, candidates: list[Step]) -> ReplayMismatch:
        source = self.cassette.source
        lines = [f"{source}: unexpected request (not recorded, or recorded fewer times): {request}"]
        ranked = sorted(self._ranked(request, candidates), key=lambda each: each[0])
        if ranked:
            _, step, differences = ranked[0]
            lines.append(f"the nearest is {self.cassette.where(step)}: {step}")
            lines += [f"  {difference}" for difference in differences[:_MAX_SHOWN_DIFFERENCES]]
            if len(differences) > _MAX_SHOWN_DIFFERENCES:
                lines.append(f"  and {len(differences) - _MAX_SHOWN_DIFFERENCES} more")
            elif not differences:
                lines.append("  its program differs")
        else:
            lines.append("all recorded requests of this kind have already been replayed")
        return ReplayMismatch("\n".join(lines), hint=_HINT)

    def _ranked(
        self, request: ReplayRequest, candidates: list[Step]
    ) -> Iterator[tuple[int, Step, list[Difference]]]:
        weights = {"method": 1000, "path": 100}
        for step in candidates:
            names = self.bindings([] if request.job is None else [request.job])
            if step.job and request.job is None:
                names = ChainMap({step.job: request.name}, names)
            elif step.job and request.job is not None:
                names = ChainMap({step.job: request.job.name}, names)
            differences = self._differences(step, request, ChainMap({}, names))
            yield sum(weights.get(each.path, 1) for each in differences), step, differences


def _names_in(text: str) -> Iterator[str]:
    """Iterate over all names in a text. The name of a pod is that of its Job and a suffix: both are names."""
    for found in _NAME.finditer(text):
        name = found.group()
        while name:
            yield name
            name = name.rpartition("-")[0]


def _without_digest(body: Any) -> Any:
    """Return a body without the program's digest: the ConfigMap is compared, and older cassettes have none."""
    annotations = metadata_of(body).get("annotations")
    if not isinstance(annotations, Mapping) or PROGRAM_ANNOTATION not in annotations:
        return body
    rest = {name: value for name, value in annotations.items() if name != PROGRAM_ANNOTATION}
    metadata = {name: value for name, value in body["metadata"].items() if name != "annotations"}
    return {**body, "metadata": {**metadata, "annotations": rest} if rest else metadata}


def _unrecorded_step(request: ReplayRequest, job: RecordedJob, response: RecordedResponse) -> Step:
    return Step("not recorded", 0, request.method, request.path, request.query, None, response, job.placeholder)


def _job_in(path: str) -> str:
    _, found, rest = path.partition("/jobs/")
    return rest.partition("/")[0] if found else ""
