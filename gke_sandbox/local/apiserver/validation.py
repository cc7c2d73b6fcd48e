"""The API server's validation of Jobs, pods and ConfigMaps, with its messages.

Only the rules that a setting of the user, or a mutating policy in a test, can break.
https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
https://kubernetes.io/docs/concepts/configuration/configmap/
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

from ...kube.names import dns_label, dns_subdomain
from ...kube.quantity import parse_quantity
from ..objects import Json
from .errors import FieldError, invalid_value, not_supported, required, too_long, value_not_found

MAX_CONFIG_MAP = 1024 * 1024

_NOT_NEGATIVE = "must be greater than or equal to 0"
_JOB_NUMBERS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")


def job_errors(job: Json) -> list[FieldError]:
    """Return the errors of a Job with its defaults."""
    metadata, spec = job["metadata"], job["spec"]
    errors = _name_errors(job)
    if len(metadata["name"]) > 63:
        # The name becomes a label of the pods.
        errors += _check_name("spec.template.labels", metadata["name"], dns_label)
    for field in _JOB_NUMBERS:
        errors += _not_negative(f"spec.{field}", spec.get(field))
    template = spec["template"]
    errors += _pod_spec_errors(template["spec"], "spec.template.spec")
    if (policy := template["spec"]["restartPolicy"]) != "Never":
        errors.append(not_supported("spec.template.spec.restartPolicy", policy, ("Never",)))
    return errors


def pod_errors(pod: Json) -> list[FieldError]:
    """Return the errors of a pod with its defaults."""
    return _name_errors(pod) + _pod_spec_errors(pod["spec"], "spec")


def config_map_errors(config_map: Json) -> list[FieldError]:
    """Return the errors of a ConfigMap."""
    errors = _name_errors(config_map)
    data, binary = config_map.get("data", {}), config_map.get("binaryData", {})
    size = sum(len(value.encode()) for value in data.values())
    size += sum(len(base64.b64decode(value)) for value in binary.values())
    if size > MAX_CONFIG_MAP:
        # The server reports this error without a field, which it prints as [].
        errors.append(too_long("[]", MAX_CONFIG_MAP))
    return errors


def _check_name(field: str, value: str, rule: Callable[[str], list[str]]) -> list[FieldError]:
    return [invalid_value(field, value, why) for why in rule(value)]


def _name_errors(obj: Json) -> list[FieldError]:
    return _check_name("metadata.name", obj["metadata"]["name"], dns_subdomain)


def _pod_spec_errors(spec: Json, path: str) -> list[FieldError]:
    if not spec["containers"]:
        return [required(f"{path}.containers")]
    errors: list[FieldError] = []
    volumes = [volume.get("name", "") for volume in spec.get("volumes", ())]
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(kind, ())):
            errors += _container_errors(container, f"{path}.{kind}[{index}]", volumes)
    errors += _not_negative(f"{path}.terminationGracePeriodSeconds", spec["terminationGracePeriodSeconds"])
    for field in ("runtimeClassName", "serviceAccountName", "priorityClassName"):
        if field in spec:
            errors += _check_name(f"{path}.{field}", spec[field], dns_subdomain)
    return errors


def _container_errors(container: Json, path: str, volumes: Sequence[str]) -> list[FieldError]:
    errors = _check_name(f"{path}.name", container.get("name", ""), dns_label)
    if not container.get("image"):
        errors.append(required(f"{path}.image"))
    for index, mount in enumerate(container.get("volumeMounts", ())):
        if (name := mount.get("name", "")) not in volumes:
            errors.append(value_not_found(f"{path}.volumeMounts[{index}].name", name))
    return errors + _resource_errors(container["resources"], f"{path}.resources")


def _resource_errors(resources: Json, path: str) -> list[FieldError]:
    errors = []
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for name, amount in requests.items():
        limit = limits.get(name)
        if limit is not None and parse_quantity(amount).nano > parse_quantity(limit).nano:
            why = f"must be less than or equal to {name} limit of {limit}"
            errors.append(invalid_value(f"{path}.requests", amount, why))
    return errors


def _not_negative(field: str, value: int | None) -> list[FieldError]:
    return [] if value is None or value >= 0 else [invalid_value(field, value, _NOT_NEGATIVE)]
