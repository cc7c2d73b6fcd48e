"""The result of reading one part of a cluster. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "CheckStatus",
    "Finding",
    "is_selected",
    "join_some",
    "json_text",
    "mapping",
    "mappings",
    "object_name",
    "only",
]

CheckStatus = Literal["ok", "warning", "failure", "skipped"]
"""``failure``: no program can run. ``skipped``: unknown, because a permission is missing."""


@dataclass(frozen=True)
class Finding:
    """A status, the reason for it, and how to fix it."""

    status: CheckStatus
    message: str
    hint: str = ""


def join_some(parts: Sequence[str], limit: int = 3, separator: str = ", ") -> str:
    """Return the first parts, and how many more there are."""
    more = [f"and {len(parts) - limit} more"] if len(parts) > limit else []
    return separator.join([*parts[:limit], *more])


def json_text(value: object, limit: int) -> str:
    """Return a value as JSON, of which at most `limit` characters are kept."""
    text = json.dumps(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    """Return the mappings in a list; none for anything else."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, (list, tuple)) else []


def only(fields: object, names: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a mapping that have these names."""
    known = mapping(fields)
    return {name: known[name] for name in names if name in known}


def is_selected(expression: Mapping[str, Any], value: str | None) -> bool:
    """Return whether a value, or its absence, matches an expression of a selector."""
    values = expression.get("values") or ()
    return {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }.get(str(expression.get("operator")), False)


def object_name(obj: Mapping[str, Any]) -> str:
    """Return the name of a Kubernetes object, empty if it has none."""
    return str(mapping(obj.get("metadata")).get("name", ""))
