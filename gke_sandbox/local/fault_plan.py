"""Faults, and the plan that counts how often each has occurred."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeVar

from .._fakes.api_request import ApiRequest
from .objects import Key


class Action:
    """Something that a `Fault` does to requests, response bodies, watches, attached connections, Jobs or pods."""


A = TypeVar("A", bound=Action)


@dataclass(frozen=True)
class Match:
    """Selects requests or pods. A field that is None matches everything.

    For actions on a pod, `resource` is ``pods`` and the verb is empty. `HideConfigMap` matches the ConfigMap and
    `EndJob` matches the Job.
    """

    verb: str | None = None
    """The API verb: ``get``, ``list``, ``watch``, ``create`` or ``delete``."""
    resource: str | None = None
    """A plural name, with its subresource if there is one: ``jobs``, ``pods/log``, ``pods/attach``."""
    namespace: str | None = None
    name: str | None = None
    """The name of the object, or a pattern such as ``gke-sandbox-*``."""

    def matches(self, verb: str, resource: str, namespace: str, name: str) -> bool:
        return (
            self.verb in (None, verb)
            and self.resource in (None, resource)
            and self.namespace in (None, namespace)
            and (self.name is None or fnmatchcase(name, self.name))
        )


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong: an action, and when it applies."""

    action: Action
    """The action of the fault."""
    match: Match = field(default_factory=Match)
    """Which requests or pods it applies to; all by default."""
    times: int | None = 1
    """How often it applies; None for every time."""
    skip: int = 0
    """How many matching requests or pods to leave alone first."""


class FaultPlan:
    """The faults of one cluster, and how often each has occurred. Use each value for one cluster only."""

    def __init__(self, *faults: Fault) -> None:
        self._faults: list[Fault] = []
        self._seen: list[int] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Add a fault; the cluster may be running."""
        self._faults.append(fault)
        self._seen.append(0)

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()
        self._seen.clear()

    def count(self, fault: Fault) -> int:
        """Return how often a fault of this plan has occurred."""
        return sum(
            self._count(index) for index, added in enumerate(self._faults) if added is fault or added == fault
        )

    def _count(self, index: int) -> int:
        fault = self._faults[index]
        count = max(self._seen[index] - fault.skip, 0)
        return count if fault.times is None else min(count, fault.times)

    def actions(self, kind: type[A], verb: str, resource: str, namespace: str, name: str) -> Iterator[A]:
        """Yield the actions of this kind that apply to this request or object, and count them."""
        for index, fault in enumerate(self._faults):
            if isinstance(fault.action, kind) and fault.match.matches(verb, resource, namespace, name):
                before = self._count(index)
                self._seen[index] += 1
                if self._count(index) > before:
                    yield fault.action

    def for_request(self, kind: type[A], request: ApiRequest) -> list[A]:
        """Return the actions of this kind that apply to a request, and count them."""
        return list(self.actions(kind, request.verb, request.resource, request.namespace, request.name))

    def first(self, kind: type[A], key: Key) -> A | None:
        """Return the first action of this kind that applies to an object, or None. All that apply are counted."""
        found = list(self.actions(kind, "", key.plural, key.namespace, key.name))
        return found[0] if found else None
