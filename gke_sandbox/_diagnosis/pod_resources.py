"""Add up the requests or limits of a pod's containers. Pure.

https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..kube.quantity import Quantity, QuantityError, parse_quantity

__all__ = ["container_resources", "pod_resources", "read_quantities", "same_quantity"]


def pod_resources(spec: Mapping[str, Any], kind: Literal["requests", "limits"]) -> dict[str, Quantity]:
    """Return the effective requests or limits of a pod: those that a scheduler and a quota count.

    Containers and sidecars run together; before them, each init container runs with the sidecars that precede it.
    """
    total: dict[str, Quantity] = {}
    for container in spec.get("containers") or ():
        total = _add(total, container_resources(container, kind))
    sidecars: dict[str, Quantity] = {}
    peak: dict[str, Quantity] = {}
    for container in spec.get("initContainers") or ():
        own = container_resources(container, kind)
        if container.get("restartPolicy") == "Always":
            sidecars = _add(sidecars, own)
            own = {}
        peak = _largest(peak, _add(sidecars, own))
    needed = _largest(_add(total, sidecars), peak)
    overhead = read_quantities(spec.get("overhead"))
    # A resource without a limit has none with the overhead, either.
    return _add(needed, {name: more for name, more in overhead.items() if kind == "requests" or name in needed})


def container_resources(container: Mapping[str, Any], kind: Literal["requests", "limits"]) -> dict[str, Quantity]:
    """Return the requests or the limits of a container. The default of a request is the limit."""
    resources = container.get("resources") or {}
    defaults = resources.get("limits") or {} if kind == "requests" else {}
    return read_quantities({**defaults, **(resources.get(kind) or {})})


def read_quantities(value: object) -> dict[str, Quantity]:
    """Return the valid quantities of a mapping, such as `requests` or a quota's `hard`."""
    found = {}
    for name, text in value.items() if isinstance(value, Mapping) else ():
        try:
            found[name] = parse_quantity(str(text))
        except QuantityError:
            continue
    return found


def same_quantity(first: object, second: object) -> bool:
    """Return whether two values are the same quantity, rounded to thousandths as by the server: 0.5 is 500m."""
    try:
        return parse_quantity(str(first)).milli == parse_quantity(str(second)).milli
    except QuantityError:
        return first == second


def _add(first: Mapping[str, Quantity], second: Mapping[str, Quantity]) -> dict[str, Quantity]:
    return {**first, **{name: first[name] + more if name in first else more for name, more in second.items()}}


def _largest(first: Mapping[str, Quantity], second: Mapping[str, Quantity]) -> dict[str, Quantity]:
    names = [*first, *(name for name in second if name not in first)]
    return {
        name: max((each[name] for each in (first, second) if name in each), key=lambda quantity: quantity.nano)
        for name in names
    }
