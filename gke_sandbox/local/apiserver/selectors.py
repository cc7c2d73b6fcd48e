"""Label and field selectors of lists and watches; equality-based requirements only.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#equality-based-requirement
https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..objects import Json, field
from .errors import bad_request
from .resources import EVENTS, PODS, ResourceType

_EQUALITY = re.compile(r"(?P<key>[^\s=!]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!]*)")
_LABEL_KEY = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")

# The fields that each kind can be selected by, in addition to its name and namespace.
_FIELDS = {
    PODS.plural: ("spec.nodeName", "status.phase"),
    EVENTS.plural: ("involvedObject.kind", "involvedObject.name", "involvedObject.uid", "reason", "type"),
}


@dataclass(frozen=True)
class _Requirement:
    key: str
    value: str
    equal: bool

    def matches(self, value: object) -> bool:
        return (value == self.value) is self.equal


@dataclass(frozen=True)
class Selector:
    """Requirements on labels and fields, all of which must hold."""

    labels: tuple[_Requirement, ...] = ()
    fields: tuple[_Requirement, ...] = ()

    def matches(self, obj: Json) -> bool:
        """Return whether an object is selected."""
        labels = obj["metadata"].get("labels", {})
        return all(one.matches(labels.get(one.key)) for one in self.labels) and all(
            one.matches(field(obj, one.key)) for one in self.fields
        )


def parse(resource: ResourceType, label_selector: str, field_selector: str) -> Selector:
    """Parse the two selectors of a query. Raises `StatusError`."""
    return Selector(_parse_labels(label_selector), _parse_fields(resource, label_selector, field_selector))


def _parse(text: str) -> list[tuple[str, _Requirement | None]]:
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    matches = [(part, _EQUALITY.fullmatch(part)) for part in parts]
    return [
        (part, _Requirement(match["key"], match["value"], match["op"] != "!=") if match else None)
        for part, match in matches
    ]


def _parse_labels(text: str) -> tuple[_Requirement, ...]:
    requirements = []
    for part, requirement in _parse(text):
        if requirement is None:
            raise bad_request(
                f"unable to parse requirement: found '{part}', expected: '=', '!=', '==' in '{text}'"
            )
        if not _LABEL_KEY.fullmatch(requirement.key):
            raise bad_request(f"unable to parse requirement: invalid label key \"{requirement.key}\" in '{text}'")
        requirements.append(requirement)
    return tuple(requirements)


def _parse_fields(resource: ResourceType, label_selector: str, text: str) -> tuple[_Requirement, ...]:
    known = ("metadata.name", "metadata.namespace", *_FIELDS.get(resource.plural, ()))
    requirements = []
    for _, requirement in _parse(text):
        if requirement is None or requirement.key not in known:
            why = f"field label not supported: {requirement.key}" if requirement else f"invalid selector: '{text}'"
            raise bad_request(
                f'Unable to find "{resource.group}/{resource.version}, Resource={resource.plural}" that match '
                f'label selector "{label_selector}", field selector "{text}": {why}'
            )
        requirements.append(requirement)
    return tuple(requirements)
