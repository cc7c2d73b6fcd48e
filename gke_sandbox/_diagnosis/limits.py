"""Limits of the container that the cluster changed, such as GKE Autopilot, which sets limits to requests. Pure.

https://cloud.google.com/kubernetes-engine/docs/concepts/autopilot-resource-requests
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .finding import Finding
from .pod_resources import same_quantity

__all__ = ["changed_limits", "changed_limits_finding", "describe_changes", "memory_hint", "memory_limit"]

NO_LIMIT = "none"


def changed_limits(sent: Mapping[str, Any], received: Mapping[str, Any], container: str) -> dict[str, str] | None:
    """Return the received limits that differ from the sent ones, by resource; `NO_LIMIT` for one that was removed.

    `sent` and `received` are the specs of a pod. Return None if `received` does not show the container's limits.
    """
    before, after = (_limits(spec, container) for spec in (sent, received))
    if before is None or after is None:
        return None
    return {name: after.get(name, NO_LIMIT) for name in before if not same_quantity(before[name], after.get(name))}


def _limits(spec: Mapping[str, Any], container: str) -> dict[str, str] | None:
    containers = spec.get("containers")
    for each in containers if isinstance(containers, list) else ():
        if each.get("name") == container and isinstance(each.get("resources"), Mapping):
            return {name: str(value) for name, value in (each["resources"].get("limits") or {}).items()}
    return None


def describe_changes(sent: Mapping[str, Any], changed: Mapping[str, str], container: str) -> str:
    """Return a sentence for the log."""
    before = _limits(sent, container) or {}
    listed = ", ".join(f"{name} from {before.get(name, NO_LIMIT)} to {value}" for name, value in changed.items())
    return f"the cluster changed the limits of the container: {listed}"


def changed_limits_finding(changed: Mapping[str, str]) -> Finding:
    """Return a warning with the limits that the cluster changed; a failure if it removed any."""
    listed = ", ".join(f"{name} {value}" for name, value in changed.items())
    message = f"the cluster changed the limits: {listed}"
    if NO_LIMIT in changed.values():
        hint = "A webhook or policy removed limits: a program can use up its node. Exclude the namespace from it."
        return Finding("failure", message, hint)
    hint = "GKE Autopilot sets limits to the requests: raise cpu_request and memory_request, too."
    return Finding("warning", message, hint)


def memory_limit(changed: Mapping[str, str], requested: str) -> str:
    """Return the memory limit that applied, for a message."""
    applied = changed.get("memory")
    return requested if applied is None else f"{applied}, which the cluster set instead of {requested}"


def memory_hint(changed: Mapping[str, str], usual: str) -> str:
    """Return the hint for a program that was killed for its memory; `usual` if the limit was not changed."""
    if "memory" not in changed:
        return usual
    return f"The cluster changed the limit. GKE Autopilot sets it to memory_request: raise that, too. {usual}"
