"""Faults, and the plan that counts how often each has occurred."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from .attach import AttachAction
from .match import Match, Point
from .pods import (
    BadImage,
    EndJob,
    Evict,
    HideConfigMap,
    Mutate,
    NoNode,
    NoPodSandbox,
    Preempt,
    RefusePod,
    RejectPod,
    ShutDownNode,
    StopKubelet,
)
from .requests import (
    CutBody,
    Delay,
    Drop,
    EndWatch,
    ExpireWatch,
    Forbid,
    GarbleBody,
    OmitEvents,
    Refuse,
    RepeatEvents,
    Respond,
    StallBody,
    SwapEvents,
)

Action = (
    AttachAction
    | Refuse
    | Drop
    | Delay
    | Respond
    | Forbid
    | CutBody
    | StallBody
    | GarbleBody
    | ExpireWatch
    | EndWatch
    | OmitEvents
    | RepeatEvents
    | SwapEvents
    | EndJob
    | Mutate
    | RefusePod
    | RejectPod
    | NoNode
    | NoPodSandbox
    | BadImage
    | HideConfigMap
    | Evict
    | Preempt
    | ShutDownNode
    | StopKubelet
)

A = TypeVar("A", bound=Action)


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

    def actions_for(self, point: Point, verb: str, resource: str, namespace: str, name: str) -> Iterator[Action]:
        """Yield the actions that apply to this request or pod at this point, and count them."""
        for index, fault in enumerate(self._faults):
            if fault.action.point == point and fault.match.matches(verb, resource, namespace, name):
                before = self._count(index)
                self._seen[index] += 1
                if self._count(index) > before:
                    yield fault.action

    def first(self, kind: type[A], resource: str, namespace: str, name: str) -> A | None:
        """Return the first action of this kind that applies to this object, or None."""
        for action in list(self.actions_for(kind.point, "", resource, namespace, name)):
            if isinstance(action, kind):
                return action
        return None
