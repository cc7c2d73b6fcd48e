"""A recorded Job and the Job of a replay that takes its place. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .._wire.manifests import PROGRAM_ANNOTATION
from .canonical import digest_of_config_map
from .model import Step, metadata_of
from .placeholders import render
from .warm import names_of_warm_job

__all__ = ["UNKNOWN_YET", "RecordedJob", "corresponding"]

UNKNOWN_YET = "warm"
"""In the place of the digest of a program that is not known when its Job is created."""


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
    uids: Mapping[str, str] = field(default_factory=dict)
    """Of a warm Job: see `warm.uid_roles`."""

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
        own = {self.placeholder: name, **names_of_warm_job(name, self.uids)} if name else {}
        self.names = {**(captured or {}), **own}

    @property
    def captured(self) -> dict[str, str]:
        """The names in its requests, without its own."""
        own = {self.placeholder, *self.uids}
        return {placeholder: name for placeholder, name in self.names.items() if placeholder not in own}

    def digest(self, bindings: Mapping[str, str], generate: Callable[[re.Match[str]], str]) -> str | None:
        """Return the digest of the program; None if it is not known, or not yet.

        The ConfigMap decides, so that cassettes of every release have one. It is not known before the names of
        other Jobs in the program are.
        """
        if self.is_warm:
            return UNKNOWN_YET
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
