"""Faults of the embedded cluster, to test how your code handles failures without a real cluster.

A `Fault` combines an action (what goes wrong), a `Match` (for which requests or pods) and a count (how often).
A `FaultPlan` holds the faults of one cluster and counts how often each has occurred. You can add faults while
the cluster runs::

    cluster = LocalTransport(runtime, faults=FaultPlan(
        Fault(Respond.too_many_requests(retry_after=1), Match("create", "jobs"), times=2),
        Fault(Drop(), Match("create", "configmaps")),
        Fault(ExpireWatch(), Match("watch", "pods"), times=None),
    ))

Faults apply in the order in which they were added; every fault that matches and is not used up applies. Actions
are plain values. They act on a request, on a response body, on a watch, on an attached connection, or on the
lifecycle of a pod or Job.
docs/faults.md has an example of each.
"""

from __future__ import annotations

from .attach import CloseAttach, CutAttach, DelayAttach, GarbleAttach, StallAttach
from .plan import Action, Fault, FaultPlan, Match
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

__all__ = [
    "Action",
    "BadImage",
    "CloseAttach",
    "CutAttach",
    "CutBody",
    "Delay",
    "DelayAttach",
    "Drop",
    "EndJob",
    "EndWatch",
    "Evict",
    "ExpireWatch",
    "Fault",
    "FaultPlan",
    "Forbid",
    "GarbleAttach",
    "GarbleBody",
    "HideConfigMap",
    "Match",
    "Mutate",
    "NoNode",
    "NoPodSandbox",
    "OmitEvents",
    "Preempt",
    "Refuse",
    "RefusePod",
    "RejectPod",
    "RepeatEvents",
    "Respond",
    "ShutDownNode",
    "StallAttach",
    "StallBody",
    "StopKubelet",
    "SwapEvents",
]
