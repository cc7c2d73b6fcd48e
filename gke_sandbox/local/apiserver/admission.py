"""How objects come into being: defaults, validation, and the admission plugins that look at pods.

The order is the API server's: what changes a pod (service account, priority, RuntimeClass), then its name,
then mutating policies, then validation, then what may refuse it (Pod Security, quota).
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

import copy

from ..cluster import ClusterState
from ..faults import Mutate, RefusePod
from ..objects import Json, Key, with_metadata
from .defaults import job_with_defaults, pod_with_defaults
from .errors import FieldError, bad_request, conflict, forbidden, invalid, not_found
from .pod_security import violations
from .resources import CONFIG_MAPS, JOBS, NAMESPACES, PODS, ResourceType
from .validation import config_map_errors, config_map_update_errors
from .validation_pod import job_errors, pod_errors

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
_SET_BY_CLIENT = ("labels", "annotations", "ownerReferences", "finalizers")
_SUFFIX_LENGTH = 5


def create(cluster: ClusterState, served: ResourceType, obj: Json, namespace: str, dry_run: bool) -> Json:
    """Create a decoded object; return what the server answers. Raises `StatusError`."""
    obj = _placed(obj, namespace)
    if namespace not in cluster.namespaces:
        raise not_found(NAMESPACES, namespace)
    if served is PODS:
        prepared = admit_pod(cluster, obj)
    else:
        metadata = {**obj["metadata"], "name": _generated(cluster, obj)}
        prepared = cluster.store.prepare({**obj, "metadata": metadata})
        if served is JOBS:
            prepared = job_with_defaults(prepared)
            if mutated := _mutated(cluster, served, prepared):
                prepared = job_with_defaults(mutated)
        _refuse_invalid(served, prepared)
    if dry_run:
        return prepared
    return cluster.store.create(served, prepared)


def update(cluster: ClusterState, served: ResourceType, existing: Json, obj: Json, dry_run: bool) -> Json:
    """Put a decoded ConfigMap in the place of the existing one. Raises `StatusError`."""
    given, metadata = obj.get("metadata", {}), existing["metadata"]
    name = metadata["name"]
    if given.get("name") != name:
        why = f"the name of the object ({given.get('name', '')}) does not match the name on the URL ({name})"
        raise bad_request(why)
    if given.get("resourceVersion") not in (None, metadata["resourceVersion"]):
        why = "the object has been modified; please apply your changes to the latest version and try again"
        raise conflict(served, name, why)
    kept = {field: value for field, value in metadata.items() if field not in _SET_BY_CLIENT}
    kept.update({field: given[field] for field in _SET_BY_CLIENT if given.get(field)})
    changed = {**obj, "metadata": kept}
    errors = config_map_update_errors(changed, existing)
    if errors:
        raise invalid(served.kind, served.group, name, errors)
    if dry_run:
        return changed
    return cluster.store.update(Key(served.plural, metadata["namespace"], name), changed)


def _placed(obj: Json, namespace: str) -> Json:
    metadata = {name: value for name, value in obj.get("metadata", {}).items() if name not in _SET_BY_SERVER}
    given = metadata.get("namespace")
    if given and given != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    return {**obj, "metadata": {**metadata, "namespace": namespace}}


def _generated(cluster: ClusterState, obj: Json) -> str:
    """The object's name; one made from its generateName if it has none."""
    metadata = obj["metadata"]
    name: str = metadata.get("name", "")
    if not name and metadata.get("generateName"):
        # https://github.com/kubernetes/apiserver/blob/master/pkg/storage/names/generate.go
        name = metadata["generateName"][: 63 - _SUFFIX_LENGTH] + cluster.ids.suffix()
    return name


def _refuse_invalid(served: ResourceType, obj: Json) -> None:
    errors: list[FieldError] = []
    if served is JOBS:
        errors = job_errors(obj)
    elif served is PODS:
        errors = pod_errors(obj)
    elif served is CONFIG_MAPS:
        errors = config_map_errors(obj)
    if errors:
        raise invalid(served.kind, served.group, obj["metadata"].get("name", ""), errors)


def admit_pod(cluster: ClusterState, pod: Json) -> Json:
    """A pod with its defaults, its name and its first status, not yet stored. Raises `StatusError`."""
    metadata = pod["metadata"]
    early_name = metadata.get("name") or metadata.get("generateName", "")
    namespace = cluster.namespaces[metadata["namespace"]]
    spec = pod.get("spec", {})
    account = spec.get("serviceAccountName") or "default"
    if account not in namespace.service_accounts:
        why = f'error looking up service account {namespace.name}/{account}: serviceaccount "{account}" not found'
        raise forbidden(PODS, early_name, why)
    priority_class = spec.get("priorityClassName", "")
    if priority_class and priority_class not in cluster.priority_classes:
        raise forbidden(PODS, early_name, f"no PriorityClass with name {priority_class} was found")
    runtime_class = spec.get("runtimeClassName")
    # An empty name is a name, and there is no RuntimeClass of it.
    if runtime_class is not None and runtime_class not in cluster.settings.runtime_classes:
        raise forbidden(PODS, early_name, f'pod rejected: RuntimeClass "{runtime_class}" not found')
    pod = with_metadata({**pod, "spec": spec}, name=_generated(cluster, pod))
    priority = cluster.priority_classes.get(priority_class, 0)
    pod = cluster.store.prepare(pod_with_defaults(pod, priority))
    if mutated := _mutated(cluster, PODS, pod):
        pod = pod_with_defaults(mutated, priority)
    _refuse_invalid(PODS, pod)
    name = pod["metadata"]["name"]
    if bad := violations(pod["spec"], namespace.pod_security):
        raise forbidden(PODS, name, f'violates PodSecurity "{namespace.pod_security}:latest": {bad}')
    _check_quota(cluster, namespace.name, name)
    if fault := cluster.faults.first(RefusePod, PODS.plural, namespace.name, name):
        raise forbidden(PODS, name, fault.message)
    return pod


def _mutated(cluster: ClusterState, served: ResourceType, obj: Json) -> Json | None:
    """The object as mutating admission policies changed it; None if there are none."""
    metadata = obj["metadata"]
    changed = None
    for policy in cluster.faults.actions_for("mutate", "", served.plural, metadata["namespace"], metadata["name"]):
        if isinstance(policy, Mutate):
            changed = copy.deepcopy(obj) if changed is None else changed
            policy.change(changed)
    return changed


def _check_quota(cluster: ClusterState, namespace: str, name: str) -> None:
    quota = cluster.namespaces[namespace].quota
    if quota is None:
        return
    running = (pod["status"]["phase"] for pod in cluster.store.select(PODS, namespace))
    used = sum(phase not in ("Succeeded", "Failed") for phase in running)
    if used >= quota.pods:
        why = f"exceeded quota: {quota.name}, requested: pods=1, used: pods={used}, limited: pods={quota.pods}"
        raise forbidden(PODS, name, why)


def job_warnings(cluster: ClusterState, job: Json) -> list[str]:
    """What the server warns of, in the answer to a Job's creation."""
    level = cluster.namespaces[job["metadata"]["namespace"]].pod_security
    bad = violations(job["spec"]["template"]["spec"], level)
    return [f'would violate PodSecurity "{level}:latest": {bad}'] if bad else []
