"""Read what a namespace enforces on our pod: Pod Security, and NetworkPolicies. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..kube.pod_security import violations
from .finding import Finding, is_selected, join_some, mapping, mappings, object_name

__all__ = ["namespace_finding", "network_policies_finding"]

_ENFORCE = "pod-security.kubernetes.io/enforce"


def namespace_finding(namespace: Mapping[str, Any], spec: Mapping[str, Any]) -> Finding:
    """Return whether a namespace accepts pods with this spec, which is that of the Job after admission.

    https://kubernetes.io/docs/concepts/security/pod-security-admission/
    """
    metadata = mapping(namespace.get("metadata"))
    name = metadata.get("name", "")
    if metadata.get("deletionTimestamp") or mapping(namespace.get("status")).get("phase") == "Terminating":
        return Finding(
            "failure", f"{name} is being deleted", "Use another namespace, or wait and create it again."
        )
    level = mapping(metadata.get("labels")).get(_ENFORCE, "privileged")
    if level == "privileged":
        hint = f"Reject unsafe pods: kubectl label namespace {name} {_ENFORCE}=restricted."
        return Finding("ok", f"{name} enforces no Pod Security standard", hint)
    hint = "A webhook may have changed the Job: see the dry run. Exclude the namespace from it."
    if level not in ("baseline", "restricted"):
        # https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/pod-security-admission/api/helpers.go
        level = f'restricted (its level is unknown: "{level}")'
        hint = f"Correct the label {_ENFORCE}. {hint}"
    found = violations(dict(spec))
    if not found:
        return Finding(
            "ok",
            f"{name} enforces Pod Security {level}, and the pod violates none of the rules that are checked here",
        )
    if level == "baseline":
        return Finding("warning", f"{name} enforces Pod Security {level}, and the pod has {found}", hint)
    return Finding("failure", f"{name} enforces Pod Security {level}, which rejects the pod: {found}", hint)


def network_policies_finding(
    policies: Sequence[Mapping[str, Any]], labels: Mapping[str, str], namespace: str
) -> Finding:
    """Return whether NetworkPolicies deny the traffic of pods with these labels.

    https://kubernetes.io/docs/concepts/services-networking/network-policies/#the-two-sorts-of-pod-isolation
    """
    hint = (
        f"Apply the NetworkPolicy of: gke-sandbox rbac --namespace {namespace}. --run tests whether the cluster "
        "enforces it."
    )
    selecting = [
        each for each in policies if _selects(mapping(mapping(each.get("spec")).get("podSelector")), labels)
    ]
    egress = [each for each in selecting if "Egress" in _types(each)]
    if not egress:
        return Finding("warning", "no NetworkPolicy restricts what the programs can reach", hint)
    allowing = [object_name(each) for each in egress if mapping(each.get("spec")).get("egress")]
    if allowing:
        return Finding("ok", f"some egress is allowed by {join_some(allowing)}")
    message = f"{join_some([object_name(each) for each in egress])} denies all egress"
    if not any("Ingress" in _types(each) for each in selecting):
        return Finding("warning", f"{message}, but no NetworkPolicy restricts ingress", hint)
    return Finding("ok", f"{message}, if the network plugin enforces it")


def _types(policy: Mapping[str, Any]) -> Sequence[str]:
    spec = mapping(policy.get("spec"))
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted = mapping(selector.get("matchLabels"))
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        is_selected(each, labels.get(str(each.get("key")))) for each in mappings(selector.get("matchExpressions"))
    )
