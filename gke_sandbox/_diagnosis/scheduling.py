"""Find out why no node accepts a pod, from the scheduler's message. Pure.

The message counts the nodes for each reason: "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match
Pod's node affinity/selector. preemption: ...". The scheduler reports one reason for each node, the first that it
finds: a taint before a label that does not match, and that before a lack of room.
https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/

Since Kubernetes 1.34.2 the message does not contain which taint it is; then the cause is `node_tainted`.
https://github.com/kubernetes/kubernetes/pull/135023
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .causes import CAUSES, FailureCause, cause, match_cause

__all__ = ["GVISOR_LABEL", "scheduling_cause"]

GVISOR_LABEL = "sandbox.gke.io/runtime"
"""The label of GKE's gVisor nodes. The RuntimeClass selects it, and a caller can."""

_COUNTED = re.compile(r"\d+ nodes? (?:is|are) available: (.*?)(?:\. (?:no new claims|preemption)|\.?$)", re.DOTALL)
_ONE_REASON = re.compile(r"(?:^|, )\d+ (.*?)(?=, \d+ |$)", re.DOTALL)
_CONTROL_PLANE = re.compile(r"taint \{node-role\.kubernetes\.io/(control-plane|master)\b")


def scheduling_cause(
    reason: str, message: str, spec: Mapping[str, Any], node_selector: Mapping[str, str]
) -> tuple[FailureCause, str]:
    """Return the cause and the message for a pod that no node accepts. `node_selector`: as in the settings.

    Of several reasons, the first in the table of causes counts, because it is about nodes that may accept the pod
    later.
    """
    counted = _COUNTED.search(message)
    reasons = _ONE_REASON.findall(counted[1]) if counted is not None else []
    # A program never runs on the nodes of the control plane.
    reasons = [each for each in reasons if not _CONTROL_PLANE.search(each)] or reasons or [message]
    found = {match_cause("scheduling", reason, each) or cause("unschedulable") for each in reasons}
    first = min(found, key=CAUSES.index)
    if first.name == "node_tainted" and cause("no_gvisor_node") in found:
        # Nodes without gVisor, and nodes with a taint for other programs; or nodes for this one, with a taint.
        return cause("unschedulable"), message
    if first.name != "no_gvisor_node":
        return first, message
    selected = spec.get("nodeSelector") or node_selector
    if selected:
        message += f" The pod selects nodes with {', '.join(f'{key}={value}' for key, value in selected.items())}."
    if any(key != GVISOR_LABEL for key in node_selector):
        return cause("node_selector_unmatched"), message
    if spec.get("runtimeClassName") or GVISOR_LABEL in node_selector:
        return first, message
    return cause("unschedulable"), message
