"""Label and field selectors: which objects a list or a watch is about.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..objects import Json
from .errors import bad_request
from .resources import EVENTS, JOBS, PODS, ResourceType

_Test = Callable[[Mapping[str, str]], bool]

_SET = re.compile(r"^(?P<key>\S+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^\s=!]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!]*)$")
_EXISTS = re.compile(r"^(?P<no>!?)\s*(?P<key>[^\s=!(),]+)$")
_LABEL_KEY = re.compile(r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")


@dataclass(frozen=True)
class Selector:
    """Label and field requirements, all of which must hold."""

    labels: tuple[_Test, ...] = ()
    fields: tuple[tuple[str, str, bool], ...] = ()

    def matches(self, obj: Json) -> bool:
        labels = obj["metadata"].get("labels", {})
        if not all(test(labels) for test in self.labels):
            return False
        return all((_field(obj, path) == value) is equal for path, value, equal in self.fields)


def parse(served: ResourceType, label_selector: str, field_selector: str) -> Selector:
    """Read both selectors as a query gives them. Raises `StatusError`."""
    return Selector(_parse_labels(label_selector), _parse_fields(served, label_selector, field_selector))


def _parse_labels(text: str) -> tuple[_Test, ...]:
    return tuple(_requirement(part.strip(), text) for part in _split(text)) if text.strip() else ()


def _split(text: str) -> list[str]:
    """Split at commas that are not inside parentheses."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def _requirement(part: str, whole: str) -> _Test:
    if match := _SET.match(part):
        key = _label_key(match["key"], whole)
        values = frozenset(value.strip() for value in match["values"].split(","))
        if match["op"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUALITY.match(part):
        key, value = _label_key(match["key"], whole), match["value"]
        if match["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _EXISTS.match(part):
        key = _label_key(match["key"], whole)
        if match["no"]:
            return lambda labels: key not in labels
        return lambda labels: key in labels
    raise bad_request(f"unable to parse requirement: found '{part}', expected: identifier, in '{whole}'")


def _label_key(key: str, whole: str) -> str:
    if not _LABEL_KEY.match(key):
        raise bad_request(f"unable to parse requirement: invalid label key \"{key}\" in '{whole}'")
    return key


# What each kind can be selected by, beside its name and namespace.
# https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/#list-of-supported-fields
_FIELDS = {
    PODS.plural: (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    ),
    EVENTS.plural: (
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "involvedObject.uid",
        "reason",
        "reportingComponent",
        "type",
    ),
    JOBS.plural: ("status.successful",),
}


def _parse_fields(served: ResourceType, label_selector: str, text: str) -> tuple[tuple[str, str, bool], ...]:
    requirements = []
    for part in text.split(",") if text else ():
        path, operator, value = _field_requirement(part)
        known = path in ("metadata.name", "metadata.namespace") or path in _FIELDS.get(served.plural, ())
        if not operator or not known:
            why = f"field label not supported: {path}" if operator else f"invalid selector: '{text}'"
            raise bad_request(
                f'Unable to find "{served.group}/{served.version}, Resource={served.plural}" that match '
                f'label selector "{label_selector}", field selector "{text}": {why}'
            )
        requirements.append((path, value, operator != "!="))
    return tuple(requirements)


def _field_requirement(part: str) -> tuple[str, str, str]:
    for operator in ("!=", "==", "="):
        path, found, value = part.partition(operator)
        if found:
            return path, found, value
    return part, "", ""


def _field(obj: Json, path: str) -> str:
    if path == "status.successful":
        return str(obj.get("status", {}).get("succeeded", 0))
    value: object = obj
    for name in path.split("."):
        value = value.get(name, "") if isinstance(value, dict) else ""
    return str(value)
