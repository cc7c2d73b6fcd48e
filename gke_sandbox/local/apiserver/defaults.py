"""The defaults that the API server adds to Jobs and pods.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/
https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
"""

from __future__ import annotations

from ...kube.quantity import Quantity, parse_quantity
from ..objects import Json

JOB_FINALIZER = "batch.kubernetes.io/job-tracking"

# https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions
_NODE_TOLERATIONS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_TOLERATION_SECONDS = 300


def job_with_defaults(job: Json) -> Json:
    """Return a decoded Job with its defaults, selector and labels; its metadata must contain the uid."""
    metadata, spec = job["metadata"], dict(job.get("spec", {}))
    spec.setdefault("completions", 1)
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    spec["manualSelector"] = False
    template = dict(spec.get("template", {}))
    template_metadata = dict(template.get("metadata", {}))
    uid, name = metadata["uid"], metadata.get("name", "")
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    # The labels without a prefix are older; the server keeps them for compatibility.
    template_metadata["labels"] = {
        **template_metadata.get("labels", {}),
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    template["metadata"] = template_metadata
    template["spec"] = _pod_spec_with_defaults(template.get("spec", {}))
    spec["template"] = template
    return {**job, "spec": spec, "status": {}}


def _pod_spec_with_defaults(given: Json) -> Json:
    spec = dict(given)
    if "volumes" in spec:
        spec["volumes"] = [_volume(volume) for volume in spec["volumes"]]
    spec["containers"] = [_container(container) for container in spec.get("containers", ())]
    if "initContainers" in spec:
        spec["initContainers"] = [_container(container) for container in spec["initContainers"]]
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    return spec


def _volume(volume: Json) -> Json:
    if "configMap" in volume:
        return {**volume, "configMap": {"defaultMode": 0o644, **volume["configMap"]}}
    if len(volume) == 1 and "name" in volume:
        return {**volume, "emptyDir": {}}
    return volume


def _container(given: Json) -> Json:
    container = dict(given)
    container["resources"] = {
        # An amount from a policy can be a number.
        kind: {name: str(parse_quantity(str(amount)).rounded_to_milli()) for name, amount in amounts.items()}
        for kind, amounts in container.get("resources", {}).items()
    }
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", _pull_policy(container.get("image", "")))
    return container


def _pull_policy(image: str) -> str:
    # https://kubernetes.io/docs/concepts/containers/images/#imagepullpolicy-defaulting
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "IfNotPresent" if tag and tag != "latest" else "Always"


def pod_with_defaults(pod: Json, priority: int) -> Json:
    """Return the pod with its defaults and first status, as the mutating admission plugins leave it."""
    spec = _pod_spec_with_defaults(pod["spec"])
    for container in [*spec["containers"], *spec.get("initContainers", ())]:
        limits = container["resources"].get("limits", {})
        if limits:
            requests = {**limits, **container["resources"].get("requests", {})}
            container["resources"] = {**container["resources"], "requests": requests}
    account = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = account
    tolerations = list(spec.get("tolerations", ()))
    tolerations.extend(
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TOLERATION_SECONDS}
        for key in _NODE_TOLERATIONS
        if not any(_tolerates(toleration, key) for toleration in tolerations)
    )
    spec["tolerations"] = tolerations
    spec["priority"] = priority
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    return {**pod, "spec": spec, "status": {"phase": "Pending", "qosClass": qos_class(spec)}}


def _tolerates(toleration: Json, key: str) -> bool:
    return toleration.get("key") in (key, None) and toleration.get("effect") in ("NoExecute", None)


def qos_class(spec: Json) -> str:
    """Return Guaranteed, Burstable or BestEffort."""
    containers = [one["resources"] for one in [*spec["containers"], *spec.get("initContainers", ())]]
    if not any(resources.get("limits") or resources.get("requests") for resources in containers):
        return "BestEffort"
    for resources in containers:
        for name in ("cpu", "memory"):
            limit = resources.get("limits", {}).get(name)
            if limit is None or _amount(limit) != _amount(resources.get("requests", {}).get(name, limit)):
                return "Burstable"
    return "Guaranteed"


def _amount(text: str) -> int:
    quantity: Quantity = parse_quantity(text)
    return quantity.milli
