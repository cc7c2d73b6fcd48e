"""Find the recorded step for each request of a replay. Pure.

The requests of several executions arrive in any order, and their Jobs have other names. The annotation with the
digest of the program decides which recorded Job a new Job replays; every later request about it replays the next
recorded request of the same kind about that Job.
"""

from __future__ import annotations

import json
import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from .._wire.manifests import PROGRAM_ANNOTATION
from ..errors import ReplayMismatch
from ..settings import SESSION_LABEL
from .canonical import canonical_form, digest_of_config_map
from .model import (
    Cassette,
    RecordedResponse,
    Step,
    is_pod_list_watch,
    is_status_poll,
    metadata_of,
    query_text,
)
from .placeholders import Bindings, Difference, match_template, render

__all__ = ["Matcher", "RecordedJob", "ReplayRequest"]

_MAX_SHOWN_DIFFERENCES = 8
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_HINT = "If the change is intended, record it again."
_EMPTY_LIST = {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}


@dataclass
class ReplayRequest:
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
        try:
            return json.loads(self.content)
        except ValueError:
            return self.content.decode("utf-8", "replace")

    @property
    def is_poll(self) -> bool:
        """Whether the request polls the state of a single sandbox."""
        return is_status_poll(self.method, self.path, self.query)

    @property
    def is_list_watch(self) -> bool:
        """Whether the request lists or watches all pods of a Sandbox."""
        return is_pod_list_watch(self.method, self.path, self.query)

    def __str__(self) -> str:
        return f"{self.method} {self.path}{query_text(self.query)}"


@dataclass(eq=False)
class RecordedJob:
    """A recorded Job, and the Job of this run that replays it.

    `arrived` has the times of the replayed steps by their names. A `mismatched` Job is not in the recording: it
    replays the creation of another one, until its ConfigMap shows how the programs differ.
    """

    placeholder: str
    steps: list[Step] = field(default_factory=list)
    name: str = ""
    session: str = ""
    """The label of the Sandbox that runs it."""
    names: dict[str, str] = field(default_factory=dict)
    arrived: dict[str, float] = field(default_factory=dict)
    mismatched: bool = False

    def creates(self, kind: str) -> Step | None:
        """Return the first step that creates an object of this kind."""
        posts = (step for step in self.steps if step.method == "POST" and isinstance(step.body, Mapping))
        return next((step for step in posts if step.body.get("kind") == kind), None)

    def digest(self, bindings: Mapping[str, str], generate: Callable[[re.Match[str]], str]) -> str | None:
        """Return the digest of the program; None if it is not known, or not yet.

        The ConfigMap decides, so that cassettes of every release have one. It is not known before the names of
        other Jobs in the program are.
        """
        config_map, job = self.creates("ConfigMap"), self.creates("Job")
        if config_map is None:
            annotations = metadata_of(job.body).get("annotations") if job is not None else None
            return annotations.get(PROGRAM_ANNOTATION) if isinstance(annotations, Mapping) else None
        data, binary = config_map.body.get("data"), config_map.body.get("binaryData")
        if not isinstance(data, Mapping):
            return None
        data = {key: text for key, text in data.items() if key != "runner"}
        try:
            return digest_of_config_map(render({"data": data, "binaryData": binary}, bindings, generate))
        except KeyError:
            return None


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
        self._strict = strict
        self._generate = generate
        self._jobs: dict[str, RecordedJob] = {}
        self._shared: dict[str, Step] = {}
        for step in cassette.steps:
            if step.job:
                self._jobs.setdefault(step.job, RecordedJob(step.job)).steps.append(step)
            elif not step.is_pod_list_watch:
                self._shared[step.name] = step
        self._shared_arrived: dict[str, float] = {}
        # By step: it and the earlier steps of its Job, without status polls.
        self._needed: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}
        self._runs: dict[str, RecordedJob] = {}
        self._canonical: dict[str, Any] = {}
        # The recorded Jobs that no Job of this run replays yet: by digest, and those without one.
        self._free = dict(self._jobs)
        self._by_digest: dict[str | None, dict[str, RecordedJob]] = {}
        self._digests: dict[str, str | None] = {}
        for placeholder, job in self._jobs.items():
            digest = self._digests[placeholder] = job.digest({}, generate)
            self._by_digest.setdefault(digest, {})[placeholder] = job

    # -- requests -----------------------------------------------------------------------------------------

    def take(self, request: ReplayRequest) -> Step:
        """Return the step of a request, and mark it as replayed.

        Raises `ReplayMismatch`, which names the nearest step and how it differs.
        """
        job = self._job_of(request)
        if job is None:
            step = self._first_match(request, self._shared.values(), self._names)
            if step is None:
                raise self._unexpected(request, self.not_replayed())
            del self._shared[step.name]
            self._shared_arrived[step.name] = request.at
            return step
        request.job = job
        names = self.bindings([job])
        left = [step for step in job.steps if step.name not in job.arrived]
        step = self._first_match(request, left, names)
        if step is None and request.is_poll:
            # As often as it polls, the last state stays; without one there is nothing to see.
            step = self._first_match(request, job.steps[::-1], names) or _empty_poll(request, job)
        if step is None:
            raise self._unexpected(request, self.not_replayed() if job.mismatched else self._left_of(job))
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
        if name and self._first_match(request, self._shared.values(), ChainMap({}, self._names)) is None:
            for job in self._free.values():
                if self._first_match(request, job.steps, ChainMap({job.placeholder: name}, self._names)):
                    return self._replays(job, name)
        return None

    def _start(self, request: ReplayRequest) -> RecordedJob | None:
        """Choose the recorded Job for a new one: the next free one with the same program."""
        metadata = metadata_of(request.body)
        labels, annotations = metadata.get("labels"), metadata.get("annotations")
        digest = annotations.get(PROGRAM_ANNOTATION) if isinstance(annotations, Mapping) else None
        session = str(labels.get(SESSION_LABEL, "")) if isinstance(labels, Mapping) else ""
        for job in list(self._candidates(digest)):
            if self._creation_matches(job, request):
                return self._replays(job, request.name, session)
        for job in self._free.values():
            # The digest says that no program is the same, but not how they differ: the ConfigMap will.
            created = job.creates("Job")
            succeeded = created is not None and created.response.status == 201
            if succeeded and job.creates("ConfigMap") and self._creation_matches(job, request):
                self.suspect = self.suspect or self._unexpected(request, self.not_replayed())
                return self._replays(replace(job, arrived={}, mismatched=True), request.name, session)
        if not self._jobs:
            return None
        raise self._unexpected(request, [step for step in self.not_replayed() if step.job])

    def _candidates(self, digest: str | None) -> Iterator[RecordedJob]:
        if digest is None:
            yield from self._free.values()
            return
        yield from self._by_digest.get(digest, {}).values()
        for job in self._by_digest.get(None, {}).values():
            if job.digest(self._names, self._generate) in (digest, None):
                yield job

    def _creation_matches(self, job: RecordedJob, request: ReplayRequest) -> bool:
        names = ChainMap({job.placeholder: request.name}, self._names)
        return self._first_match(request, job.steps, names) is not None

    def _replays(self, job: RecordedJob, name: str, session: str = "") -> RecordedJob:
        """A Job of this run replays a recorded one."""
        job.name, job.session, job.names = name, session, {job.placeholder: name}
        self._runs[name] = job
        if not job.mismatched:
            self._names[job.placeholder] = name
            del self._free[job.placeholder]
            del self._by_digest[self._digests[job.placeholder]][job.placeholder]
        return job

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
        if not step.job:
            return self._shared_arrived.get(name)
        job = self._jobs[step.job]
        if name not in self._needed:
            earlier = job.steps[: job.steps.index(step) + 1]
            self._needed[name] = [each.name for each in earlier if not each.is_status_poll]
        needed = self._needed[name]
        if any(each not in job.arrived for each in needed):
            return None
        return max((job.arrived[each] for each in needed), default=None)

    def creation(self, job: str) -> list[str]:
        """Return the names of the steps that create a recorded Job and its ConfigMap."""
        steps = self._jobs[job].steps if job in self._jobs else []
        return [step.name for step in steps if step.method == "POST"][:2]

    def is_repeated(self, step: Step) -> bool:
        """Return whether the same request was recorded again, later, about the same Job."""
        steps = self._jobs[step.job].steps if step.job else []
        later = steps[steps.index(step) + 1 :] if step in steps else []
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
        arrived = {name for job in self._jobs.values() for name in job.arrived} | self._shared_arrived.keys()
        return [
            step
            for step in self.cassette.steps
            if step.name not in arrived and not (step.is_status_poll or step.is_pod_list_watch)
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


def _empty_poll(request: ReplayRequest, job: RecordedJob) -> Step:
    response = RecordedResponse(0, 200, json=_EMPTY_LIST)
    return Step("not recorded", 0, request.method, request.path, request.query, None, response, job.placeholder)


def _job_in(path: str) -> str:
    _, found, rest = path.partition("/jobs/")
    return rest.partition("/")[0] if found else ""
