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
from ..objects import Json, Key, with_metadata
from .defaults import job_with_defaults, pod_with_defaults
from .errors import forbidden, invalid, not_found
from .resources import CONFIG_MAPS, JOBS, NAMESPACES, PODS, ResourceType
from .validation import config_map_errors, job_errors, pod_errors

_ERRORS = {JOBS.plural: job_errors, PODS.plural: pod_errors, CONFIG_MAPS.plural: config_map_errors}


def create(cluster: ClusterState, resource: ResourceType, obj: Json, namespace: str, dry_run: bool) -> Json:
    """Create a decoded object and return it. Raises `StatusError`."""
    if namespace not in cluster.namespaces:
        raise not_found(NAMESPACES, namespace)
    metadata = {"name": "", **obj.get("metadata", {}), "namespace": namespace}
    prepared = cluster.store.prepare({**obj, "metadata": metadata})
    if resource is JOBS:
        prepared = job_with_defaults(prepared)
        if mutated := _mutated(cluster, resource, prepared):
            prepared = job_with_defaults(mutated)
    _validate(resource, prepared)
    _check_quota(cluster, resource, namespace, prepared["metadata"]["name"])
    if dry_run:
        return prepared
    return cluster.store.create(resource, prepared)


def _validate(resource: ResourceType, obj: Json) -> None:
    if errors := _ERRORS[resource.plural](obj):
        raise invalid(resource.kind, resource.group, obj["metadata"]["name"], errors)


def admit_pod(cluster: ClusterState, pod: Json) -> Json:
    """Return a pod with its defaults, name and first status. Raises `StatusError`.

    Its metadata has a generateName, which is its name in the first errors.
    """
    metadata = pod["metadata"]
    early_name: str = metadata["generateName"]
    namespace = cluster.namespaces[metadata["namespace"]]
    spec = pod["spec"]
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
    # With the suffix, a name has at most 63 characters.
    # https://github.com/kubernetes/apiserver/blob/master/pkg/storage/names/generate.go
    name = early_name[:58] + cluster.ids.suffix()
    pod = with_metadata(pod, name=name)
    priority = PRIORITY_CLASSES.get(priority_class, 0)
    pod = cluster.store.prepare(pod_with_defaults(pod, priority))
    if mutated := _mutated(cluster, PODS, pod):
        pod = pod_with_defaults(mutated, priority)
    _validate(PODS, pod)
    if namespace.pod_security == "restricted" and (found := violations(pod["spec"])):
        raise forbidden(PODS, name, f'violates PodSecurity "restricted:latest": {found}')
    _check_quota(cluster, PODS, namespace.name, name)
    if fault := cluster.faults.first(RefusePod, Key(PODS.plural, namespace.name, name)):
        raise forbidden(PODS, name, fault.message)
    return pod


def _mutated(cluster: ClusterState, resource: ResourceType, obj: Json) -> Json | None:
    """Return the object as mutating admission policies changed it, or None if there are none."""
    metadata = obj["metadata"]
    changed = None
    for policy in cluster.faults.actions(Mutate, "", resource.plural, metadata["namespace"], metadata["name"]):
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
