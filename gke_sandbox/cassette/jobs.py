"""A recorded Job and the Job of a replay that takes its place. Pure.

A warm Job of a replay takes the next recorded warm Job, and its program is known only when it arrives on stdin.
Then the Job may have to go on as another recorded one. So that this changes nothing that the client has seen, the
pods of all recorded warm Jobs get names with the same suffix, and their uids follow from the name of the Job in
the replay.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .._wire.manifests import PROGRAM_ANNOTATION
from .canonical import digest_of
from .model import SEND, Cassette, Step, jobs_of, metadata_of
from .placeholders import render, replace_text

__all__ = ["RecordedJob", "corresponding", "is_warm_job", "uid_roles", "with_equal_suffixes"]


@dataclass(eq=False)
class RecordedJob:
    """A recorded Job, and the Job of this run that replays it.

    `arrived` has the times of the replayed steps by their names. A `mismatched` Job is not in the recording: it
    replays the creation of another one, until its ConfigMap shows how the programs differ. A `spare` one is a warm
    Job that was not recorded: it replays the creation and the deletion of another one, and never runs.
    """

    placeholder: str
    steps: list[Step] = field(default_factory=list)
    name: str = ""
    session: str = ""
    """The label of the Sandbox that runs it."""
    names: dict[str, str] = field(default_factory=dict)
    arrived: dict[str, float] = field(default_factory=dict)
    mismatched: bool = False
    spare: bool = False
    is_warm: bool = False
    program: str | None = None
    """Its digest if that depends on no other Job: see `digest`."""
    uids: Mapping[str, str] = field(default_factory=dict)
    """Of a warm Job: see `uid_roles`."""

    @property
    def left(self) -> list[Step]:
        """The steps that were not replayed."""
        return [step for step in self.steps if step.name not in self.arrived]

    def creates(self, kind: str) -> Step | None:
        """Return the first step that creates an object of this kind."""
        posts = (step for step in self.steps if step.method == "POST" and isinstance(step.body, Mapping))
        return next((step for step in posts if step.body.get("kind") == kind), None)

    @property
    def request_step(self) -> Step | None:
        """The step that sends its program on stdin."""
        return next((step for step in self.steps if step.sends_request), None)

    @property
    def before_program(self) -> list[Step]:
        """The steps before its program arrives on stdin."""
        found = self.request_step
        return self.steps if found is None else self.steps[: self.steps.index(found)]

    @property
    def is_created(self) -> bool:
        """Whether the server returned the Job."""
        created = self.creates("Job")
        return created is not None and created.response.status == 201

    @property
    def is_unused(self) -> bool:
        """Whether it is a warm Job that got no program, and whose creation was not refused."""
        created = self.creates("Job")
        failed = created is not None and (created.response.status or 0) >= 400
        return self.is_warm and self.request_step is None and not failed

    @property
    def waits(self) -> bool:
        """Whether it is a warm Job whose program has not arrived, but was recorded."""
        step = self.request_step
        return self.is_warm and step is not None and step.name not in self.arrived

    def replay_as(self, name: str, session: str = "", captured: Mapping[str, str] | None = None) -> None:
        """Become a Job of this run; without a name, of none. `captured` are other names in its requests."""
        self.name, self.session = name, session
        uids = {uid: str(uuid.uuid5(uuid.NAMESPACE_OID, f"{role} {name}")) for uid, role in self.uids.items()}
        self.names = {**(captured or {}), **({self.placeholder: name, **uids} if name else {})}

    @property
    def captured(self) -> dict[str, str]:
        """The names in its requests, without its own."""
        own = {self.placeholder, *self.uids}
        return {placeholder: name for placeholder, name in self.names.items() if placeholder not in own}

    def digest(self, bindings: Mapping[str, str], generate: Callable[[re.Match[str]], str]) -> str | None:
        """Return the digest of the program; None if it is not known, or not yet.

        The ConfigMap decides, so that cassettes of every release have one; for a warm Job, the request on stdin.
        It is not known before the names of other Jobs in the program are.
        """
        config_map, job = self.creates("ConfigMap"), self.creates("Job")
        if self.is_warm:
            found = None if self.request_step is None else self.request_step.body
        elif config_map is None:
            annotations = metadata_of(job.body).get("annotations") if job is not None else None
            return annotations.get(PROGRAM_ANNOTATION) if isinstance(annotations, Mapping) else None
        elif isinstance(data := config_map.body.get("data"), Mapping):
            data = {key: text for key, text in data.items() if key != "runner"}
            found = {"data": data, "binaryData": config_map.body.get("binaryData")}
        else:
            return None
        try:
            return digest_of(render(found, bindings, generate))
        except KeyError:
            return None


def corresponding(job: RecordedJob, other: RecordedJob) -> dict[str, float]:
    """Return the steps of one Job that correspond to those of another one that have arrived, with their times."""
    left, found = list(job.steps), dict[str, float]()
    for step in other.steps:
        if step.name in other.arrived:
            kind = step.method, step.path.replace(step.job, job.placeholder)
            same = next((each for each in left if (each.method, each.path) == kind), None)
            if same is not None:
                left.remove(same)
                found[same.name] = other.arrived[step.name]
    return found


# -- warm Jobs -------------------------------------------------------------------------------------------------


def is_warm_job(body: Any) -> bool:
    """Return whether a Job waits on stdin for a program that is not known when it is created."""
    annotations = metadata_of(body).get("annotations") or {}
    if not isinstance(body, Mapping) or body.get("kind") != "Job" or PROGRAM_ANNOTATION in annotations:
        return False
    try:
        containers = body["spec"]["template"]["spec"]["containers"]
        return any(each.get("stdin") is True for each in containers)
    except (KeyError, TypeError, AttributeError):
        return False


def with_equal_suffixes(cassette: Cassette) -> Cassette:
    """Return the cassette with the same suffix in the names of the pods of all warm Jobs."""
    warm = _warm_jobs(cassette)
    if len(warm) < 2:
        return cassette
    names: dict[str, str] = {}
    suffix = ""
    for job, pod in _pods(cassette, warm):
        name = str(metadata_of(pod).get("name", ""))
        suffix = suffix or name.removeprefix(job)
        if name.startswith(job):
            names[name] = job + suffix
    if not names:
        return cassette
    pattern = re.compile("|".join(rf"{re.escape(name)}(?![0-9A-Za-z])" for name in names))
    known: dict[int, Any] = {}

    def renamed(value: Any) -> Any:
        return replace_text(value, lambda text: pattern.sub(lambda found: names[found.group()], text), known)

    def step(step: Step) -> Step:
        chunks = step.response.chunks
        if chunks is not None:
            chunks = tuple(replace(chunk, event=renamed(chunk.event)) for chunk in chunks)
        response = replace(step.response, json=renamed(step.response.json), chunks=chunks)
        # What a program contains stays as it is.
        body = step.body if step.method == SEND else renamed(step.body)
        return replace(step, path=renamed(step.path), query=renamed(step.query), body=body, response=response)

    return replace(cassette, steps=tuple(map(step, cassette.steps)))


def uid_roles(cassette: Cassette) -> dict[str, dict[str, str]]:
    """Return the placeholders of the uids of each warm Job, with the kind of the object."""
    warm = _warm_jobs(cassette)
    roles: dict[str, dict[str, str]] = {job: {} for job in warm}
    for step in cassette.steps:
        if step.job in warm and step.method == "POST":
            roles[step.job][str(metadata_of(step.response.json).get("uid"))] = "job"
    for job, pod in _pods(cassette, warm):
        roles[job].setdefault(str(metadata_of(pod).get("uid")), "pod")
    return roles


def _warm_jobs(cassette: Cassette) -> set[str]:
    return {step.job for step in cassette.steps if step.job and step.method == "POST" and is_warm_job(step.body)}


def _pods(cassette: Cassette, warm: set[str]) -> Iterator[tuple[str, Any]]:
    """Iterate over the pods of warm Jobs in lists and watches."""
    for step in cassette.steps:
        if not warm or not step.is_pod_list_watch:
            continue
        found = step.response.json.get("items") if isinstance(step.response.json, dict) else None
        pods = found if isinstance(found, list) else []
        if step.is_watch:
            pods = [chunk.event["object"] for chunk in step.response.chunks or () if chunk.event is not None]
        for pod in pods:
            jobs = jobs_of(pod) if isinstance(pod, Mapping) else []
            if len(jobs) == 1 and jobs[0] in warm:
                yield jobs[0], pod
