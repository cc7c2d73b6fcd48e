"""Recorded warm Jobs: pods that waited for a program. Pure.

A Job of a replay takes the next recorded warm Job, and its program is known only when it arrives on stdin. Then
the Job may have to go on as another recorded one. So that this changes nothing that the client has seen, the pods
of all recorded warm Jobs get names with the same suffix, and their uids follow from the name of the Job in the
replay.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .._wire.manifests import PROGRAM_ANNOTATION
from .model import SEND, Cassette, Chunk, Step, jobs_of, metadata_of

__all__ = ["is_warm_job", "names_of_warm_job", "uid_roles", "with_equal_suffixes"]


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
        if isinstance(value, str):
            return pattern.sub(lambda found: names[found.group()], value) if "<" in value else value
        if not isinstance(value, (dict, list)):
            return value
        if id(value) not in known:
            known[id(value)] = (
                {name: renamed(item) for name, item in value.items()}
                if isinstance(value, dict)
                else [renamed(item) for item in value]
            )
        return known[id(value)]

    def step(step: Step) -> Step:
        response = step.response
        chunks = response.chunks
        if chunks is not None:
            chunks = tuple(replace(chunk, event=renamed(chunk.event)) for chunk in chunks)
        response = replace(response, json=renamed(response.json), chunks=chunks)
        # What a program contains stays as it is.
        body = step.body if step.method == SEND else renamed(step.body)
        return replace(
            step, path=renamed(step.path), query=renamed(dict(step.query)), body=body, response=response
        )

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


def names_of_warm_job(name: str, roles: Mapping[str, str]) -> dict[str, str]:
    """Return the uids of the objects of a Job of this run."""
    return {uid: str(uuid.uuid5(uuid.NAMESPACE_OID, f"{role} {name}")) for uid, role in roles.items()}


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
            pods = [_object(chunk) for chunk in step.response.chunks or ()]
        for pod in pods:
            jobs = jobs_of(pod) if isinstance(pod, Mapping) else []
            if len(jobs) == 1 and jobs[0] in warm:
                yield jobs[0], pod


def _object(chunk: Chunk) -> Any:
    return None if chunk.event is None else chunk.event["object"]
