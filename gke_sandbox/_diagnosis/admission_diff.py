"""List everything that admission changed in a Job, safe or not. Pure.

`admission` finds the changes that are not safe. Defaults of the API server are not listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from .finding import json_text
from .pod_resources import same_quantity

__all__ = ["job_differences"]

_ANY = object()
_DEFAULTS: dict[str, object] = {
    "parallelism": 1,
    "completions": 1,
    "completionMode": "NonIndexed",
    "manualSelector": False,
    "podReplacementPolicy": "TerminatingOrFailed",
    "selector": _ANY,
    "suspend": False,
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "serviceAccount": _ANY,
    "terminationGracePeriodSeconds": 30,
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "defaultMode": 420,
    "creationTimestamp": _ANY,
}
"""Fields that the API server sets, with their values."""
_OWN_LABELS = ("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name")
_QUANTITIES = ("requests", "limits", "sizeLimit")
_text = partial(json_text, limit=80)


def job_differences(sent: Mapping[str, Any], received: Mapping[str, Any]) -> list[str]:
    """Return one text for each field that differs from what was sent, such as ``spec.suspend: added true``."""
    found: list[str] = []
    for name in ("labels", "annotations"):
        before, after = (((each.get("metadata") or {}).get(name) or {}) for each in (sent, received))
        found += _differences(f"metadata.{name}", before, after)
    found += _differences("spec", sent.get("spec") or {}, received.get("spec") or {})
    return found


def _differences(path: str, sent: Any, received: Any) -> Iterator[str]:
    if isinstance(sent, Mapping) and isinstance(received, Mapping):
        for name in [*sent, *(name for name in received if name not in sent)]:
            yield from _field(f"{path}.{name}", name, sent.get(name), received.get(name))
    elif (before := _by_name(sent)) is not None and (after := _by_name(received)) is not None:
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _field(f"{path}[{name}]", "", before.get(name), after.get(name))
    elif isinstance(sent, list) and isinstance(received, list):
        for each in received:
            if each not in sent:
                yield f"{path}: added {_text(each)}"
        for each in sent:
            if each not in received:
                yield f"{path}: removed {_text(each)}"
    elif sent != received and not (_is_quantity(path) and same_quantity(sent, received)):
        yield f"{path}: {_text(sent)} became {_text(received)}"


def _field(path: str, name: str, sent: Any, received: Any) -> Iterator[str]:
    if sent is None:
        is_default = name in _DEFAULTS and _DEFAULTS[name] in (_ANY, received)
        if received not in (None, {}, [], "") and not is_default and name not in _OWN_LABELS:
            yield f"{path}: added {_text(received)}"
    elif received is None:
        if sent not in ({}, [], ""):
            yield f"{path}: removed {_text(sent)}"
    else:
        yield from _differences(path, sent, received)


def _by_name(value: Any) -> dict[str, Any] | None:
    """Return the items of a list by their names, or None if they have none."""
    if not isinstance(value, list) or not all(isinstance(each, Mapping) and "name" in each for each in value):
        return None
    return {each["name"]: each for each in value}


def _is_quantity(path: str) -> bool:
    return any(part in _QUANTITIES for part in path.split("."))
