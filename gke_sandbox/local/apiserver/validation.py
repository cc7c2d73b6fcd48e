"""The API server's validation of Jobs, pods and ConfigMaps, with its messages.

Only the rules that an object of this package, or a setting of its user, can break.
https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
https://kubernetes.io/docs/concepts/configuration/configmap/
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

from ...kube.names import annotation_key, config_map_key, dns_label, dns_subdomain, label_key, label_value
from ...kube.quantity import parse_quantity
from ..objects import Json
from .errors import FieldError, invalid_value, not_supported, required, too_long, value_not_found

MAX_CONFIG_MAP = 1024 * 1024

_NOT_NEGATIVE = "must be greater than or equal to 0"
_JOB_NUMBERS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")
_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def job_errors(job: Json) -> list[FieldError]:
    """Return the errors of a Job with its defaults."""
    metadata, spec = job["metadata"], job["spec"]
    errors = _metadata_errors(metadata)
    if len(metadata.get("name", "")) > 63:
        # The name becomes a label of the pods.
        errors += _check_name("spec.template.labels", metadata["name"], dns_label)
    for field in _JOB_NUMBERS:
        errors += _not_negative(f"spec.{field}", spec.get(field))
    template = spec["template"]
    errors += _labels_errors(template["metadata"], "spec.template.metadata")
    errors += _pod_spec_errors(template["spec"], "spec.template.spec")
    if template["spec"]["restartPolicy"] != "Never":
        errors += _one_of("spec.template.spec.restartPolicy", template["spec"]["restartPolicy"], ("Never",))
    return errors


def pod_errors(pod: Json) -> list[FieldError]:
    """Return the errors of a pod with its defaults."""
    return _metadata_errors(pod["metadata"]) + _pod_spec_errors(pod["spec"], "spec")


def config_map_errors(config_map: Json) -> list[FieldError]:
    """Return the errors of a ConfigMap."""
    errors = _metadata_errors(config_map["metadata"])
    data, binary = config_map.get("data", {}), config_map.get("binaryData", {})
    for key in data:
        errors += _check_name(f"data[{key}]", key, config_map_key)
        if key in binary:
            errors.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
    for key in binary:
        errors += _check_name(f"binaryData[{key}]", key, config_map_key)
    size = sum(len(value.encode()) for value in data.values())
    size += sum(len(base64.b64decode(value)) for value in binary.values())
    if size > MAX_CONFIG_MAP:
        # The server reports this error without a field, which it prints as [].
        errors.append(too_long("[]", MAX_CONFIG_MAP))
    return errors


def _check_name(field: str, value: str, rule: Callable[[str], list[str]]) -> list[FieldError]:
    return [invalid_value(field, value, why) for why in rule(value)]


def _metadata_errors(metadata: Json) -> list[FieldError]:
    errors = _labels_errors(metadata, "metadata")
    if metadata.get("name"):
        errors += _check_name("metadata.name", metadata["name"], dns_subdomain)
    else:
        errors.append(required("metadata.name", "name or generateName is required"))
    return errors


def _labels_errors(metadata: Json, path: str) -> list[FieldError]:
    errors = []
    for key, value in metadata.get("labels", {}).items():
        errors += _check_name(f"{path}.labels", key, label_key)
        errors += _check_name(f"{path}.labels", value, label_value)
    for index, owner in enumerate(metadata.get("ownerReferences", ())):
        if not owner.get("uid"):
            errors.append(invalid_value(f"{path}.ownerReferences[{index}].uid", "", "must not be empty"))
    for key in metadata.get("annotations", {}):
        errors += _check_name(f"{path}.annotations", key, annotation_key)
    return errors


def _pod_spec_errors(spec: Json, path: str) -> list[FieldError]:
    if not spec["containers"]:
        return [required(f"{path}.containers")]
    errors: list[FieldError] = []
    volumes = [volume.get("name", "") for volume in spec.get("volumes", ())]
    for index, volume in enumerate(spec.get("volumes", ())):
        if "configMap" in volume and not volume["configMap"].get("name"):
            errors.append(required(f"{path}.volumes[{index}].configMap.name"))
    for index, container in enumerate(spec["containers"]):
        errors += _container_errors(container, f"{path}.containers[{index}]", volumes)
    for index, container in enumerate(spec.get("initContainers", ())):
        errors += _container_errors(container, f"{path}.initContainers[{index}]", volumes)
    errors += _not_negative(f"{path}.terminationGracePeriodSeconds", spec["terminationGracePeriodSeconds"])
    for field in ("runtimeClassName", "serviceAccountName", "priorityClassName"):
        if field in spec:
            errors += _check_name(f"{path}.{field}", spec[field], dns_subdomain)
    return errors


def _container_errors(container: Json, path: str, volumes: Sequence[str]) -> list[FieldError]:
    errors = []
    if container.get("name"):
        errors += _check_name(f"{path}.name", container["name"], dns_label)
    else:
        errors.append(required(f"{path}.name"))
    image = container.get("image", "")
    if not image:
        errors.append(required(f"{path}.image"))
    elif image != image.strip():
        why = "must not have leading or trailing whitespace"
        errors.append(invalid_value(f"{path}.image", image, why))
    policies = ("Always", "IfNotPresent", "Never")
    errors += _one_of(f"{path}.imagePullPolicy", container["imagePullPolicy"], policies)
    for index, entry in enumerate(container.get("env", ())):
        field = f"{path}.env[{index}]"
        if not entry.get("name"):
            errors.append(required(f"{field}.name"))
        reference = entry.get("valueFrom", {}).get("configMapKeyRef")
        if reference is not None:
            errors += [
                required(f"{field}.valueFrom.configMapKeyRef.{key}")
                for key in ("name", "key")
                if not reference.get(key)
            ]
    for index, mount in enumerate(container.get("volumeMounts", ())):
        field = f"{path}.volumeMounts[{index}]"
        if mount.get("name", "") not in volumes:
            errors.append(value_not_found(f"{field}.name", mount.get("name", "")))
        if not mount.get("mountPath"):
            errors.append(required(f"{field}.mountPath"))
    return errors + _resource_errors(container["resources"], f"{path}.resources")


def _resource_errors(resources: Json, path: str) -> list[FieldError]:
    errors = []
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            field = f"{path}.{kind}[{name}]"
            if name not in _RESOURCES:
                errors.append(invalid_value(field, name, "must be a standard resource for containers"))
            if parse_quantity(amount).nano < 0:
                errors.append(invalid_value(field, amount, _NOT_NEGATIVE))
    for name, amount in requests.items():
        limit = limits.get(name)
        if limit is not None and parse_quantity(amount).nano > parse_quantity(limit).nano:
            why = f"must be less than or equal to {name} limit of {limit}"
            errors.append(invalid_value(f"{path}.requests", amount, why))
    return errors


def _one_of(field: str, value: str, supported: Sequence[str]) -> list[FieldError]:
    return [] if value in supported else [not_supported(field, value, supported)]


def _not_negative(field: str, value: int | None) -> list[FieldError]:
    return [] if value is None or value >= 0 else [invalid_value(field, value, _NOT_NEGATIVE)]
