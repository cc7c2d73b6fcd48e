"""Compare the shapes of two recordings of a scenario, from different servers or versions. Pure.

Values such as names, times, messages and quantities are ignored. Compared are the requests and, for each response,
the status, the names of the headers, the fields with their types, and the values that programs act on (`reason`,
`phase`, ...); for a watch the order of the phases of each pod; for a log the order of its frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gke_sandbox._wire.frames import Decoder, Exit, Limits, Output, OutputFile, Start
from gke_sandbox.cassette.canonical import canonical_form
from gke_sandbox.cassette.model import Cassette, Step
from gke_sandbox.cassette.placeholders import PLACEHOLDER

__all__ = ["Drift", "drift"]

# Fields whose values are constants of the API, and numbers with a fixed meaning.
_WORDS = frozenset(
    {"apiVersion", "kind", "code", "exitCode", "phase", "qosClass", "reason", "restartPolicy", "status", "type"}
)
# The fields that identify the items of a list.
_KEYS = ("type", "name", "key", "field")
_Shape = dict[str, set[str]]
"""The path of a field, and the types or constants seen there."""


@dataclass(frozen=True)
class Drift:
    """One difference, at `path` in the recorded step named `step`."""

    step: str
    path: str
    recorded: str
    found: str

    def __str__(self) -> str:
        return f"{self.step}: {self.path}: recorded {self.recorded}, found {self.found}"


def drift(recorded: Cassette, found: Cassette) -> list[Drift]:
    """Return the differences of the shape of `found` from `recorded`, in the order of the recorded steps.

    The number of polls is not compared.

    If one client closed a stream, the rest of the other stream is not compared. Neither is the phase in which a
    client deleted a pod.
    """
    names = _job_names(recorded, found)
    sides = _Side(_deletions(recorded), {}), _Side(_deletions(found), names)
    left = {_renamed(step.name, step.job, names): step for step in found.steps}
    differences: list[Drift] = []
    for before in recorded.steps:
        after = left.pop(before.name, None)
        if after is None:
            if not before.is_status_poll:
                differences.append(Drift(before.name, "the request", "one", "none"))
        else:
            differences += _of_step(before, after, sides)
    more = [name for name, step in left.items() if not step.is_status_poll]
    return differences + [Drift(name, "the request", "none", "one") for name in more]


@dataclass(frozen=True)
class _Side:
    """Data about one of the two recordings: the deletions of its Jobs, and their names in the other one."""

    deletions: Mapping[str, int]
    names: Mapping[str, str]


_Sides = tuple[_Side, _Side]


def _job_names(recorded: Cassette, found: Cassette) -> dict[str, str]:
    """Map each found Job to a recorded one: with the same program, else the next."""
    before, after = _programs(recorded), _programs(found)
    free = list(before)
    names = {}
    for same in (True, False):
        for job, program in after.items():
            fit = next((each for each in free if before[each] == program or not same), None)
            if job not in names and fit is not None:
                names[job] = fit
                free.remove(fit)
    return names


def _programs(cassette: Cassette) -> dict[str, str]:
    found: dict[str, str] = {step.job: "" for step in cassette.steps if step.job}
    for step in cassette.steps:
        if step.job and isinstance(step.body, Mapping) and step.body.get("kind") == "ConfigMap":
            found[step.job] = json.dumps(_plain(canonical_form(step.body)), sort_keys=True)
        elif step.job and step.sends_request:
            found[step.job] = json.dumps(canonical_form(step.body), sort_keys=True)
    return found


def _renamed(name: str, job: str, names: Mapping[str, str]) -> str:
    before, after = job[1:-1], names.get(job, job)[1:-1]
    number = before.partition("-")[2]
    stem, _, again = name.partition(f"-{number}")
    if not number or not name.startswith(f"{stem}-{number}"):
        return name
    return f"{stem}-{after.partition('-')[2]}{again}"


def _deletions(cassette: Cassette) -> dict[str, int]:
    """Return the time of the DELETE request of each Job."""
    return {step.job: step.at for step in reversed(cassette.steps) if step.job and step.method == "DELETE"}


def _of_step(before: Step, after: Step, sides: _Sides) -> Iterator[Drift]:
    def differ(path: str, one: object, other: object) -> Iterator[Drift]:
        if one != other:
            yield Drift(before.name, path, str(one), str(other))

    one, other = before.response, after.response
    if one.status is None or other.status is None:
        yield from differ("the response", one.status or one.ended_by, other.status or other.ended_by)
        return
    yield from differ("status", one.status, other.status)
    yield from differ("headers", sorted(one.headers), sorted(other.headers))
    if one.status != other.status:
        return
    if one.chunks is None or other.chunks is None:
        yield from differ("the body", _kind_of_body(before), _kind_of_body(after))
        yield from _of_shapes(before.name, "", _shape(one.json), _shape(other.json))
        return
    closed_by_client = "client" in (one.ended_by, other.ended_by)
    if "watch" not in before.query:
        frames = _frames(before), _frames(after)
        shortest = min(map(len, frames)) if closed_by_client else None
        yield from differ("frames", *(", ".join(each[:shortest]) for each in frames))
        return
    yield from _of_watches(before, after, closed_by_client, sides)


def _kind_of_body(step: Step) -> str:
    response = step.response
    if response.chunks is not None:
        return "a stream"
    return "JSON" if response.json is not None else "bytes" if response.data else "none"


# -- the shape of JSON ----------------------------------------------------------------------------------------


def _of_shapes(step: str, where: str, before: _Shape, after: _Shape, *, whole: bool = True) -> Iterator[Drift]:
    """Return the differences. Unless `whole`, one of them is incomplete, and missing fields are not reported."""
    reported: list[str] = []
    for path in [*before, *(path for path in after if path not in before)]:
        one, other = before.get(path), after.get(path)
        if one is None or other is None:
            within = any(path.startswith((f"{each}.", f"{each}[")) for each in reported)
            if not whole or within:
                continue
            # Its content is part of this difference.
            reported.append(path)
        elif one & other:
            continue
        yield Drift(step, f"{where}{path}", _text(one), _text(other))


def _text(seen: set[str] | None) -> str:
    return "nothing" if seen is None else " or ".join(sorted(seen))


def _shape(value: Any, shape: _Shape | None = None) -> _Shape:
    """Add the path and the values of each field to `shape`."""
    shape = {} if shape is None else shape
    for path, what in _fields(value, ""):
        shape.setdefault(path, set()).add(what)
    return shape


def _fields(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if path:
            yield path, "an object"
        for name, item in value.items():
            name = _plain(str(name))
            where = f"{path}.{name}" if path else name
            word = name in _WORDS and isinstance(item, (str, int))
            yield from [(where, repr(item))] if word else _fields(item, where)
    elif isinstance(value, list):
        yield path, "a list"
        for item in value:
            yield from _fields(item, f"{path}[{_key(item)}]")
    else:
        kind = {str: "text", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
        yield path, kind


def _key(item: Any) -> str:
    if not isinstance(item, Mapping):
        return ""
    if "involvedObject" in item:
        # An Event; its type is Normal or Warning.
        return str(item.get("reason", ""))
    return next((_plain(item[key]) for key in _KEYS if isinstance(item.get(key), str)), "")


def _plain(value: Any) -> Any:
    """Return `value` with the numbers of all placeholders removed."""
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda found: f"<{found['kind']}>" if found["kind"] else found.group(), value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


# -- streams --------------------------------------------------------------------------------------------------


def _frames(step: Step) -> list[str]:
    """Return the kinds of the frames of a log; consecutive frames of the same kind count once."""
    decoder = Decoder(Limits())
    kinds = {Start: "start", Output: "output", OutputFile: "file", Exit: "exit"}
    found: list[str] = []
    for chunk in step.response.chunks or ():
        for frame in decoder.feed(chunk.data):
            kind = kinds[type(frame)]
            if found[-1:] != [kind]:
                found.append(kind)
    return found or (["no frame"] if decoder.unframed else [])


@dataclass
class _Phase:
    """A phase of an object in a watch, and the fields of all its events in that phase."""

    shown: str
    shape: _Shape


@dataclass
class _Life:
    """The phases of one object. `deleted` is the number of phases before this client deleted it."""

    phases: list[_Phase]
    deleted: int | None = None

    def text(self, length: int | None) -> str:
        return " > ".join(phase.shown for phase in self.phases[:length]) or "none"


def _of_watches(before: Step, after: Step, closed_by_client: bool, sides: _Sides) -> Iterator[Drift]:
    one, other = (_lives(step, side) for step, side in zip((before, after), sides, strict=True))
    for name in [*one, *(name for name in other if name not in one)]:
        recorded_life, found_life = one.get(name, _Life([])), other.get(name, _Life([]))
        ends = [life.deleted for life in (recorded_life, found_life) if life.deleted is not None]
        if closed_by_client:
            ends += [len(recorded_life.phases), len(found_life.phases)]
        compared = min(ends) if ends else None
        texts = recorded_life.text(compared), found_life.text(compared)
        if texts[0] != texts[1]:
            yield Drift(before.name, f"phases of {name}", *texts)
            continue
        seen = {phase.shown: phase.shape for phase in found_life.phases}
        for index, phase in enumerate(recorded_life.phases):
            # One recording may contain only part of the last compared phase and of later ones.
            whole = compared is None or index < compared - 1
            if phase.shown in seen:
                where = f"{phase.shown}: "
                yield from _of_shapes(before.name, where, phase.shape, seen[phase.shown], whole=whole)


def _lives(step: Step, side: _Side) -> dict[str, _Life]:
    """Return the phases of each pod, by a name like ``pod 1 of <job-1>``."""
    lives: dict[str, _Life] = {}
    counts: dict[str, int] = {}
    named: dict[str, str] = {}
    for chunk in step.response.chunks or ():
        if chunk.event is None or chunk.event["type"] == "BOOKMARK":
            continue
        body = chunk.event["object"]
        metadata = body.get("metadata") or {}
        job, uid = _job_of(metadata), str(metadata.get("uid", ""))
        if uid not in named:
            owner = side.names.get(job, job)
            counts[owner] = counts.get(owner, 0) + 1
            named[uid] = f"pod {counts[owner]}" + (f" of {owner}" if owner else "")
        life = lives.setdefault(named[uid], _Life([]))
        deleted = side.deletions.get(job)
        if (
            life.deleted is None
            and deleted is not None
            and chunk.at >= deleted
            and "deletionTimestamp" in metadata
        ):
            life.deleted = len(life.phases)
        shown = _shown(str(chunk.event["type"]), body)
        if not life.phases or life.phases[-1].shown != shown:
            life.phases.append(_Phase(shown, {}))
        _shape(body, life.phases[-1].shape)
    return lives


def _job_of(metadata: Mapping[str, Any]) -> str:
    """Return the placeholder of the Job in the name of an object, or an empty string."""
    found = PLACEHOLDER.search(str(metadata.get("name", "")))
    return found.group() if found is not None and found["kind"] == "job" else ""


def _shown(type_: str, body: Mapping[str, Any]) -> str:
    """Return the state that a client of a watch acts on, like ``Pending waiting ContainerCreating``."""
    metadata, status = body.get("metadata") or {}, body.get("status")
    if not isinstance(status, Mapping):
        return f"{type_} {body.get('reason', '')}".strip()
    parts = [type_] if type_ in ("DELETED", "ERROR") else []
    parts += [str(status.get("phase", "")), str(status.get("reason", ""))]
    for container in _items(status.get("containerStatuses")):
        for name, state in (container.get("state") or {}).items():
            code = state.get("exitCode")
            parts += [name, str(state.get("reason", "")), "" if code is None else str(code)]
    if "deletionTimestamp" in metadata and type_ != "DELETED":
        parts.append("(being deleted)")
    return " ".join(part for part in parts if part)


def _items(value: Any) -> Sequence[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
