"""Label and field selectors of lists and watches. Each requirement has the form ``key=value``.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#equality-based-requirement
https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..objects import Json, field
from .errors import bad_request

_EQUALITY = re.compile(r"([^\s=!]+)=([^\s=!]*)")


@dataclass(frozen=True)
class Selector:
    """Requirements on labels and fields, all of which must hold."""

    labels: tuple[tuple[str, str], ...] = ()
    fields: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, labels: str, fields: str) -> Selector:
        """Parse the two selectors of a query. Raises `StatusError`."""
        return cls(_parse(labels), _parse(fields))

    def matches(self, obj: Json) -> bool:
        """Return whether an object is selected."""
        labels = obj["metadata"].get("labels", {})
        return all(labels.get(key) == value for key, value in self.labels) and all(
            field(obj, path) == value for path, value in self.fields
        )


def _parse(text: str) -> tuple[tuple[str, str], ...]:
    requirements = []
    for part in text.split(",") if text else ():
        match = _EQUALITY.fullmatch(part)
        if match is None:
            raise bad_request(f"unable to parse requirement: found '{part}', expected: key=value in '{text}'")
        requirements.append((match[1], match[2]))
    return tuple(requirements)
