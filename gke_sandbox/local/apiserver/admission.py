"""Creation of objects: defaults, validation, and the admission plugins for pods.

The order is the API server's: plugins that change a pod (service account, priority, RuntimeClass), then its name,
then mutating policies, then validation, then plugins that can reject it (Pod Security, quota).
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

import copy

from ...kube.pod_security import violations
from ..cluster import PRIORITY_CLASSES, RUNTIME_CLASS, SERVICE_ACCOUNT, ClusterState
from ..faults import Mutate, RefusePod
from ..objects import Json, with_metadata
from .defaults import job_with_defaults, pod_with_defaults
from .errors import FieldError, bad_request, forbidden, invalid, not_found
from .resources import CONFIG_MAPS, JOBS, NAMESPACES, PODS, ResourceType
from .validation import config_map_errors, job_errors, pod_errors

_SET_BY_SERVER = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
]
_SUFFIX_LENGTH = 5


def create(cluster: ClusterState, resource: ResourceType, obj: Json, namespace: str, dry_run: bool) -> Json:
    """Create a decoded object and return it. Raises `StatusError`."""
    obj = _in_namespace(obj, namespace)
    if namespace not in cluster.namespaces:
        raise not_found(NAMESPACES, namespace)
    prepared = cluster.store.prepare(with_metadata(obj, name=_name(cluster, obj)))
    if resource is JOBS:
        prepared = job_with_defaults(prepared)
        if mutated := _mutated(cluster, resource, prepared):
            prepared = job_with_defaults(mutated)
    _validate(resource, prepared)
    _check_quota(cluster, resource, namespace, prepared["metadata"]["name"])
    if dry_run:
        return prepared
    return cluster.store.create(resource, prepared)


def _in_namespace(obj: Json, namespace: str) -> Json:
    metadata = {name: value for name, value in obj.get("metadata", {}).items() if name not in _SET_BY_SERVER}
    given = metadata.get("namespace")
    if given and given != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    return {**obj, "metadata": {**metadata, "namespace": namespace}}


def _name(cluster: ClusterState, obj: Json) -> str:
    """Return the object's name, or a new one with its generateName as the prefix."""
    metadata = obj["metadata"]
    name: str = metadata.get("name", "")
    if not name and metadata.get("generateName"):
        # https://github.com/kubernetes/apiserver/blob/master/pkg/storage/names/generate.go
        name = metadata["generateName"][: 63 - _SUFFIX_LENGTH] + cluster.ids.suffix()
    return name


def _validate(resource: ResourceType, obj: Json) -> None:
    errors: list[FieldError] = []
    if resource is JOBS:
        errors = job_errors(obj)
    elif resource is PODS:
        errors = pod_errors(obj)
    elif resource is CONFIG_MAPS:
        errors = config_map_errors(obj)
    if errors:
        raise invalid(resource.kind, resource.group, obj["metadata"].get("name", ""), errors)


def admit_pod(cluster: ClusterState, pod: Json) -> Json:
    """Return a pod with its defaults, name and first status. Raises `StatusError`."""
    metadata = pod["metadata"]
    early_name = metadata.get("name") or metadata.get("generateName", "")
    namespace = cluster.namespaces[metadata["namespace"]]
    spec = pod.get("spec", {})
    account = spec.get("serviceAccountName") or SERVICE_ACCOUNT
    if account != SERVICE_ACCOUNT:
        why = f'error looking up service account {namespace.name}/{account}: serviceaccount "{account}" not found'
        raise forbidden(PODS, early_name, why)
    priority_class = spec.get("priorityClassName", "")
    if priority_class and priority_class not in PRIORITY_CLASSES:
        raise forbidden(PODS, early_name, f"no PriorityClass with name {priority_class} was found")
    runtime_class = spec.get("runtimeClassName")
    # An empty name is looked up as well, and not found.
    if runtime_class is not None and runtime_class != RUNTIME_CLASS:
        raise forbidden(PODS, early_name, f'pod rejected: RuntimeClass "{runtime_class}" not found')
    pod = with_metadata({**pod, "spec": spec}, name=_name(cluster, pod))
    priority = PRIORITY_CLASSES.get(priority_class, 0)
    pod = cluster.store.prepare(pod_with_defaults(pod, priority))
    if mutated := _mutated(cluster, PODS, pod):
        pod = pod_with_defaults(mutated, priority)
    _validate(PODS, pod)
    name = pod["metadata"]["name"]
    if namespace.pod_security == "restricted" and (found := violations(pod["spec"])):
        raise forbidden(PODS, name, f'violates PodSecurity "restricted:latest": {found}')
    _check_quota(cluster, PODS, namespace.name, name)
    if fault := cluster.faults.first(RefusePod, PODS.plural, namespace.name, name):
        raise forbidden(PODS, name, fault.message)
    return pod


def _mutated(cluster: ClusterState, resource: ResourceType, obj: Json) -> Json | None:
    """Return the object as mutating admission policies changed it, or None if there are none."""
    metadata = obj["metadata"]
    changed = None
    for policy in cluster.faults.actions_for(
        "mutate", "", resource.plural, metadata["namespace"], metadata["name"]
    ):
        if isinstance(policy, Mutate):
            changed = copy.deepcopy(obj) if changed is None else changed
            policy.change(changed)
    return changed


def _check_quota(cluster: ClusterState, resource: ResourceType, namespace: str, name: str) -> None:
    quota = cluster.namespaces[namespace].quota
    if quota is None:
        return
    counted = f"count/{resource.qualified}" if resource.group else resource.plural
    limit = quota.hard.get(counted)
    if limit is None:
        return
    used = used_quota(cluster, namespace)[counted]
    if used >= limit:
        numbers = f"requested: {counted}=1, used: {counted}={used}, limited: {counted}={limit}"
        raise forbidden(resource, name, f"exceeded quota: {quota.name}, {numbers}")


def used_quota(cluster: ClusterState, namespace: str) -> dict[str, int]:
    """Return what a ResourceQuota counts: pods that have not ended, Jobs, ConfigMaps."""
    pods = cluster.store.select(PODS, namespace)
    return {
        "pods": sum(each["status"]["phase"] not in ("Succeeded", "Failed") for each in pods),
        "count/jobs.batch": len(cluster.store.select(JOBS, namespace)),
        "configmaps": len(cluster.store.select(CONFIG_MAPS, namespace)),
    }


def job_warnings(cluster: ClusterState, job: Json) -> list[str]:
    """Return the warnings in the response to the creation of a Job."""
    if cluster.namespaces[job["metadata"]["namespace"]].pod_security == "privileged":
        return []
    found = violations(job["spec"]["template"]["spec"])
    return [f'would violate PodSecurity "restricted:latest": {found}'] if found else []
