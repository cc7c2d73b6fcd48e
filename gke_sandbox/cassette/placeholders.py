"""Names that change with every run, and their placeholders in a cassette. Pure.

::

    <session-1>  <job-1>  <invocation-1>   chosen by the client: captured from its requests
    <uid-1>  <version-1>  <node-1>         chosen by the server: generated for each replay
    <time+9s>                              calendar time, seconds after the start of the recording
    <runner>                               the text of the runner
    <any>                                  in a request: anything

Text that only looks like a placeholder is written ``<literal:job-1>``.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from operator import is_
from typing import Any

__all__ = [
    "CAPTURED",
    "PLACEHOLDER",
    "Bindings",
    "Difference",
    "GeneratedNames",
    "escape_literal",
    "jobs_in",
    "match_template",
    "placeholders_in",
    "render",
    "replace_text",
]

# Three hundred years from the recording are ten digits: calendars do not contain all longer times.
PLACEHOLDER = re.compile(
    r"<(?P<literal>literal:)*(?:(?P<kind>job|session|invocation|uid|version|node)-\d{1,9}|runner|any"
    r"|time(?P<offset>[+-]\d{1,10}(?:\.\d+)?)s)>"
)
CAPTURED = frozenset({"job", "session", "invocation"})
"""Kinds of names that the client chooses."""

Bindings = MutableMapping[str, str]
"""The names of this run by their placeholders: ``<job-1>`` -> ``gke-sandbox-0123456789``."""

# What an unbound placeholder may match.
_CAPTURABLE = {
    "job": r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?",
    "session": r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?",
    "invocation": r"[\s\S]*",
}


@dataclass(frozen=True)
class Difference:
    """One place where a request differs from the recorded one. `path` is a field: ``spec.template.spec``."""

    path: str
    recorded: str
    got: str

    def __str__(self) -> str:
        return f"{self.path}: recorded {self.recorded}, got {self.got}"


def escape_literal(match: re.Match[str]) -> str:
    """Return the escaped form of text that looks like a placeholder."""
    return f"<literal:{match.group()[1:]}"


def placeholders_in(value: Any, seen: set[int] | None = None) -> Iterator[re.Match[str]]:
    """Iterate over the placeholders in a value and in its keys, without literals.

    Objects and arrays whose ids are in `seen` are skipped, and the others are added to it.
    """
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            if "<" in item:
                yield from (found for found in PLACEHOLDER.finditer(item) if not found["literal"])
        elif isinstance(item, (dict, list)) and (seen is None or id(item) not in seen):
            if seen is not None:
                seen.add(id(item))
            parts = item if isinstance(item, list) else [part for pair in item.items() for part in pair]
            # The last part is taken first. Most parts are text without placeholders.
            left += [part for part in parts[::-1] if not isinstance(part, str) or "<" in part]


def jobs_in(value: Any) -> list[str]:
    """Return the placeholders of the Jobs that a value names."""
    return list(dict.fromkeys(found.group() for found in placeholders_in(value) if found["kind"] == "job"))


@dataclass(frozen=True)
class GeneratedNames:
    """The names that the server of a replay chooses, the same in every replay.

    `start` is the calendar time of ``<time+0s>``. Without a `runner`, ``<runner>`` has no value.
    """

    runner: str | None
    start: datetime
    _known: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, found: re.Match[str]) -> str:
        """Return the value of a placeholder; raise KeyError if the server does not choose it."""
        name = found.group()
        if name not in self._known:
            self._known[name] = self._generate(name, found["kind"], found["offset"])
        return self._known[name]

    def _generate(self, name: str, kind: str | None, offset: str | None) -> str:
        if offset is not None:
            moment = (self.start + timedelta(seconds=float(offset))).astimezone(timezone.utc)
            text = moment.isoformat(timespec="microseconds" if "." in offset else "seconds")
            return text.replace("+00:00", "Z")
        if kind == "uid":
            return str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        if kind == "version":
            return str(1000 + int(name[9:-1]))
        if kind == "node":
            return name[1:-1]
        if name == "<runner>" and self.runner is not None:
            return self.runner
        raise KeyError(name)


def render(
    value: Any,
    bindings: Mapping[str, str],
    generate: Callable[[re.Match[str]], str],
    known: dict[int, Any] | None = None,
) -> Any:
    """Return `value` with the names of this run: from `bindings`, else from `generate`. Raises KeyError.

    `known` has the objects and arrays that were already rendered with these names; see `replace_text`.
    """

    def replace(found: re.Match[str]) -> str:
        if found["literal"]:
            return f"<{found.group()[len('<literal:') :]}"
        try:
            return bindings[found.group()]
        except KeyError:
            return generate(found)

    return replace_text(value, lambda text: PLACEHOLDER.sub(replace, text), {} if known is None else known)


def replace_text(value: Any, replace: Callable[[str], str], known: dict[int, Any]) -> Any:
    """Return `value` with all texts and keys that contain ``<`` replaced.

    Objects and arrays that do not change are not copied. `known` has those that were already replaced, by their
    ids; the others are added to it, and must not be freed before it: a new object may have the id of a freed one.
    """

    def replaced(value: Any) -> Any:
        if isinstance(value, str):
            return replace(value) if "<" in value else value
        if not isinstance(value, (dict, list)):
            return value
        if id(value) in known:
            return known[id(value)]
        # Most parts are text without placeholders.
        if isinstance(value, dict):
            new: Any = {
                name if "<" not in name else replaced(name): (
                    item if isinstance(item, str) and "<" not in item else replaced(item)
                )
                for name, item in value.items()
            }
            same = all(map(is_, new.values(), value.values())) and all(map(is_, new, value))
        else:
            new = [replaced(item) for item in value]
            same = all(map(is_, new, value))
        known[id(value)] = value if same else new
        return known[id(value)]

    return replaced(value)


def match_template(
    template: Any,
    actual: Any,
    bindings: Bindings,
    generate: Callable[[re.Match[str]], str],
    path: str = "",
) -> list[Difference]:
    """Return the differences between a request and a recorded one.

    Placeholders have the values that `render` gives them. One without a value is bound to what it matches.
    """
    if isinstance(template, str) and isinstance(actual, str):
        same = template == actual if "<" not in template else _text_matches(template, actual, bindings, generate)
        return [] if same else [_difference(path, template, actual)]
    if isinstance(template, Mapping) and isinstance(actual, Mapping):
        differences = []
        for name in [*template, *(name for name in actual if name not in template)]:
            where = f"{path}.{name}" if path else name
            if name in template and name in actual:
                differences += match_template(template[name], actual[name], bindings, generate, where)
            else:
                differences.append(_difference(where, template.get(name, _NOTHING), actual.get(name, _NOTHING)))
        return differences
    if isinstance(template, list) and isinstance(actual, list):
        differences = [
            found
            for index, (item, other) in enumerate(zip(template, actual, strict=False))
            for found in match_template(item, other, bindings, generate, f"{path}[{index}]")
        ]
        if len(template) != len(actual):
            differences.append(Difference(path, f"{len(template)} items", f"{len(actual)}"))
        return differences
    same = template == "<any>" or (type(template) is type(actual) and template == actual)
    return [] if same else [_difference(path, template, actual)]


def _text_matches(
    template: str, actual: str, bindings: Bindings, generate: Callable[[re.Match[str]], str]
) -> bool:
    try:
        return bool(render(template, bindings, generate) == actual)
    except KeyError:
        # Names without a value are in the template.
        pass
    pattern, captured, position = "", dict[str, str](), 0
    for found in PLACEHOLDER.finditer(template):
        pattern += re.escape(template[position : found.start()])
        position, name = found.end(), found.group()
        try:
            pattern += re.escape(render(name, bindings, generate))
        except KeyError:
            if name in captured:
                pattern += f"(?P={captured[name]})"
            elif found["kind"]:
                captured[name] = f"n{len(captured)}"
                pattern += f"(?P<{captured[name]}>{_CAPTURABLE[found['kind']]})"
            else:
                pattern += r"[\s\S]*"
    matched = re.fullmatch(pattern + re.escape(template[position:]), actual)
    if matched is None:
        return False
    bindings.update((name, matched[group]) for name, group in captured.items())
    return True


_NOTHING = object()


def _difference(path: str, template: Any, actual: Any) -> Difference:
    return Difference(path or "the body", _shown(template), _shown(actual))


def _shown(value: Any, limit: int = 120) -> str:
    if value is _NOTHING:
        return "nothing"
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
