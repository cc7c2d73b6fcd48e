"""Names that are new in every run, and what stands for them in a cassette. Pure.

::

    <session-1>  <job-1>  <invocation-1>   chosen by the client: captured from its requests
    <uid-1>  <version-1>  <node-1>         chosen by the server: made up anew in every replay
    <time+9s>                              calendar time, seconds after the recording began
    <runner>                               the runner's text, the library's own
    <any>                                  in a request: anything

A text that looks like one of these and is none is written ``<literal:job-1>``.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

__all__ = [
    "CAPTURED",
    "PLACEHOLDER",
    "Bindings",
    "Difference",
    "ServerNames",
    "escape",
    "jobs_in",
    "render",
    "unify",
    "used",
]

PLACEHOLDER = re.compile(
    r"<(?P<literal>literal:)*"
    r"(?:(?P<kind>job|session|invocation|uid|version|node)-\d+|runner|any|time(?P<offset>[+-]\d+(?:\.\d+)?)s)>"
)
CAPTURED = frozenset({"job", "session", "invocation"})
"""Kinds of names that the client chooses."""

Bindings = dict[str, str]
"""What each placeholder stands for in this run: ``<job-1>`` -> ``gke-sandbox-0123456789``."""

# What an unbound placeholder may stand for.
_MAY_BE = {
    "job": r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?",
    "session": r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?",
    "uid": r"[0-9A-Za-z-]+",
    "version": r"\w*",
    "node": r"[-a-z0-9.]+",
}
_ANYTHING = r"[\s\S]*"
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"


@dataclass(frozen=True)
class Difference:
    """One place where a request is not what was recorded. `path` is the field's: ``spec.template.spec``."""

    path: str
    recorded: str
    got: str

    def __str__(self) -> str:
        return f"{self.path}: recorded {self.recorded}, got {self.got}"


def escape(match: re.Match[str]) -> str:
    """What to write for a text that looks like a placeholder."""
    return f"<literal:{match.group()[1:]}"


def used(value: Any) -> Iterator[re.Match[str]]:
    """Every placeholder in a value, in its keys too; literals are none."""
    for text in _texts(value):
        if "<" in text:
            yield from (found for found in PLACEHOLDER.finditer(text) if not found["literal"])


def jobs_in(value: Any) -> list[str]:
    """The placeholders of the Jobs that a value names."""
    return list(dict.fromkeys(found.group() for found in used(value) if found["kind"] == "job"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


@dataclass(frozen=True)
class ServerNames:
    """The names that this replay's server chooses, the same ones every time. `began` is its calendar time 0."""

    runner: str
    began: datetime

    def __call__(self, found: re.Match[str]) -> str:
        """What `found` is to stand for; raises KeyError for what is not the server's to choose."""
        kind = found["kind"]
        if found["offset"] is not None:
            return self._time(float(found["offset"]), found["offset"].partition(".")[2])
        if kind == "uid":
            return str(uuid.uuid5(uuid.NAMESPACE_OID, found.group()))
        if kind == "version":
            return str(1000 + int(found.group()[9:-1]))
        if kind == "node":
            return found.group()[1:-1]
        if found.group() == "<runner>":
            return self.runner
        raise KeyError(found.group())

    def _time(self, offset: float, fraction: str) -> str:
        moment = (self.began + timedelta(seconds=offset)).astimezone(timezone.utc)
        text = moment.isoformat(timespec="microseconds" if fraction else "seconds")
        return text.replace("+00:00", "Z")


def render(value: Any, bindings: Mapping[str, str], choose: Callable[[re.Match[str]], str]) -> Any:
    """`value` with the names of this run: from `bindings`, else as `choose` says. Raises KeyError."""

    def one(found: re.Match[str]) -> str:
        if found["literal"]:
            return f"<{found.group()[len('<literal:') :]}"
        bound = bindings.get(found.group())
        return choose(found) if bound is None else bound

    def text(given: str) -> str:
        return PLACEHOLDER.sub(one, given) if "<" in given else given

    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {text(key): render(item, bindings, choose) for key, item in value.items()}
    if isinstance(value, list):
        return [render(item, bindings, choose) for item in value]
    return value


def unify(template: Any, actual: Any, bindings: Bindings, runner: str, path: str = "") -> list[Difference]:
    """Where `actual` is not `template`; placeholders that are not in `bindings` yet are bound on the way.

    `runner` is what ``<runner>`` stands for; empty: anything.
    """
    if isinstance(template, str) and isinstance(actual, str):
        return [] if _same(template, actual, bindings, runner) else [_different(path, template, actual)]
    if isinstance(template, Mapping) and isinstance(actual, Mapping):
        return _unify_mappings(template, actual, bindings, runner, path)
    if isinstance(template, list) and isinstance(actual, list):
        differences = [
            found
            for index, (one, other) in enumerate(zip(template, actual, strict=False))
            for found in unify(one, other, bindings, runner, f"{path}[{index}]")
        ]
        if len(template) != len(actual):
            differences.append(Difference(path, f"{len(template)} items", f"{len(actual)}"))
        return differences
    if type(template) is type(actual) and template == actual:
        return []
    return [] if template == "<any>" else [_different(path, template, actual)]


def _unify_mappings(
    template: Mapping[str, Any], actual: Mapping[str, Any], bindings: Bindings, runner: str, path: str
) -> list[Difference]:
    differences = []
    rest = dict(actual)
    for name, item in template.items():
        where = f"{path}.{name}" if path else name
        if name in rest:
            differences += unify(item, rest.pop(name), bindings, runner, where)
        else:
            differences.append(_different(where, item, _NOTHING))
    differences += [_different(f"{path}.{name}" if path else name, _NOTHING, item) for name, item in rest.items()]
    return differences


def _same(template: str, actual: str, bindings: Bindings, runner: str) -> bool:
    if "<" not in template:
        return template == actual
    pattern = ""
    captured: list[str] = []
    pieces, end = _split(template)
    for before, found in pieces:
        name = found.group()
        pattern += before
        if found["literal"]:
            pattern += re.escape(f"<{name[len('<literal:') :]}")
        elif name == "<any>" or (name == "<runner>" and not runner):
            pattern += _ANYTHING
        elif name == "<runner>":
            pattern += re.escape(runner)
        elif found["offset"] is not None:
            pattern += _TIME
        elif name in bindings:
            pattern += re.escape(bindings[name])
        elif name in captured:
            pattern += f"(?P=n{captured.index(name)})"
        else:
            pattern += f"(?P<n{len(captured)}>{_MAY_BE.get(found['kind'], _ANYTHING)})"
            captured.append(name)
    matched = re.fullmatch(pattern + end, actual)
    if matched is None:
        return False
    bindings.update((name, matched[f"n{index}"]) for index, name in enumerate(captured))
    return True


@lru_cache(maxsize=4096)
def _split(template: str) -> tuple[list[tuple[str, re.Match[str]]], str]:
    """The placeholders in a text, each with a pattern for what stands before it; and one for the end."""
    pieces, position = [], 0
    for found in PLACEHOLDER.finditer(template):
        pieces.append((re.escape(template[position : found.start()]), found))
        position = found.end()
    return pieces, re.escape(template[position:])


_NOTHING = object()


def _different(path: str, template: Any, actual: Any) -> Difference:
    return Difference(path or "the body", _shown(template), _shown(actual))


def _shown(value: Any, limit: int = 120) -> str:
    if value is _NOTHING:
        return "nothing"
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
