"""Find the nodes that can run a pod, and why the others cannot. Pure.

The free room is not known: that depends on the other pods of each node.
https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .finding import Finding, join_some, mapping, mappings, object_name
from .pod_resources import pod_resources, read_quantities
from .scheduling import GVISOR_LABEL

__all__ = ["nodes_finding"]

_AUTOSCALED_LABELS = (
    "cloud.google.com/gke-nodepool",
    "karpenter.sh/nodepool",
    "eks.amazonaws.com/nodegroup",
    "kubernetes.azure.com/agentpool",
)
"""Labels of nodes from pools that an autoscaler may extend. It may also add a node of another pool."""
_AUTOPILOT_PREFIX = "gk3-"
_OWN_TAINTS = (
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
)
"""Taints that only repeat the field `unschedulable` or the condition `Ready`."""
_PRESSURE = ("MemoryPressure", "DiskPressure", "PIDPressure")

_GVISOR_HINT = (
    "On GKE Standard, add a node pool with gVisor: gcloud container node-pools create gvisor --cluster=CLUSTER "
    "--location=LOCATION --image-type=cos_containerd --sandbox=type=gvisor."
)


def nodes_finding(
    nodes: Sequence[Mapping[str, Any]], spec: Mapping[str, Any], runtime_class: Mapping[str, Any]
) -> Finding:
    """Return how many nodes can run a pod with this spec and RuntimeClass, by their labels, taints and size."""
    scheduling = mapping(runtime_class.get("scheduling"))
    selector = {**mapping(scheduling.get("nodeSelector")), **mapping(spec.get("nodeSelector"))}
    tolerations = [*mappings(spec.get("tolerations")), *mappings(scheduling.get("tolerations"))]
    reasons = {object_name(node): _reason(node, spec, selector, tolerations) for node in nodes}
    fitting = [name for name, reason in reasons.items() if reason is None]
    count = f"{len(nodes)} node{'s' * (len(nodes) != 1)}"
    if fitting:
        return Finding("ok", f"{len(fitting)} of {count} can run the pod: {join_some(fitting)}")
    counted = Counter(reason for reason in reasons.values() if reason is not None)
    listed = join_some([f"{number} {what}" for (what, _), number in counted.most_common()], 5)
    hint = " ".join(dict.fromkeys(hint for (_, hint), _ in counted.most_common(2) if hint))
    message = f"none of {count} can run the pod: {listed}" if nodes else "the cluster has no nodes now"
    if not nodes or any(map(_is_autoscaled, nodes)):
        return Finding("warning", f"{message}; an autoscaler may add one", hint)
    return Finding("failure", message, hint)


def _is_autoscaled(node: Mapping[str, Any]) -> bool:
    labels = mapping(mapping(node.get("metadata")).get("labels"))
    return object_name(node).startswith(_AUTOPILOT_PREFIX) or any(label in labels for label in _AUTOSCALED_LABELS)


def _reason(
    node: Mapping[str, Any],
    spec: Mapping[str, Any],
    selector: Mapping[str, str],
    tolerations: Iterable[Mapping[str, Any]],
) -> tuple[str, str] | None:
    """Return why a node cannot run the pod, with a hint, or None if it can."""
    labels = mapping(mapping(node.get("metadata")).get("labels"))
    for key, value in selector.items():
        if labels.get(key) != value:
            hint = _GVISOR_HINT if key == GVISOR_LABEL else f"Label a node: kubectl label node NODE {key}={value}."
            return f"without the label {key}={value}", hint
    node_spec, status = mapping(node.get("spec")), mapping(node.get("status"))
    if node_spec.get("unschedulable"):
        return "cordoned", f"Allow pods on it again: kubectl uncordon {object_name(node)}."
    conditions = {each.get("type"): each.get("status") for each in mappings(status.get("conditions"))}
    if conditions.get("Ready", "True") != "True":
        return "not ready", f"Find out why: kubectl describe node {object_name(node)}."
    for name in _PRESSURE:
        if conditions.get(name) == "True":
            return f"with {name}", f"Find out why: kubectl describe node {object_name(node)}."
    for taint in mappings(node_spec.get("taints")):
        if taint.get("effect") not in ("NoSchedule", "NoExecute") or taint.get("key") in _OWN_TAINTS:
            continue
        if not any(_tolerates(each, taint) for each in tolerations):
            value = f"={taint['value']}" if taint.get("value") else ""
            text = f"{taint.get('key')}{value}:{taint.get('effect')}"
            return f"with the taint {text}", "If the taint is for sandboxes, tolerate it: --toleration KEY=VALUE."
    room = read_quantities(status.get("allocatable"))
    for name, wanted in pod_resources(spec, "requests").items():
        if name in room and wanted.nano > room[name].nano:
            return f"with only {room[name]} of {name}", "Lower cpu_request or memory_request, or use larger nodes."
    return None


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")
