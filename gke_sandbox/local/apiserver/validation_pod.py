"""The API server's rules for pods and Jobs, in its own words.

What the server would take and the embedded cluster does not act on is refused as well, with a message that
says so: a field that silently does nothing would be worse.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/
"""

from __future__ import annotations

from collections.abc import Sequence

from ...kube.names import config_map_key, dns_label, dns_subdomain, label_key
from ...kube.quantity import parse_quantity
from ..objects import Json
from .errors import FieldError, invalid_value, not_allowed, not_supported, required, value_not_found
from .validation import labels_errors, metadata_errors, rule, template_metadata_errors, unique

_NOT_NEGATIVE = "must be greater than or equal to 0"
_MOST_ID = 2**32 - 1
_MOST_SECONDS = 2**31 - 1

_UNUSED_IN_POD = [
    "initContainers",
    "ephemeralContainers",
    "affinity",
    "hostAliases",
    "readinessGates",
    "dnsConfig",
    "overhead",
    "os",
    "topologySpreadConstraints",
    "schedulingGates",
    "resourceClaims",
    "resources",
    "schedulingGroup",
    "workloadRef",
    "nodeName",
]
_UNUSED_IN_CONTAINER = [
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "volumeDevices",
    "restartPolicyRules",
]
_UNUSED_IN_JOB = ["podFailurePolicy", "successPolicy", "managedBy", "backoffLimitPerIndex", "maxFailedIndexes"]
_VOLUMES = ("configMap", "emptyDir")


def job_errors(job: Json) -> list[FieldError]:
    """Of a Job with its defaults."""
    metadata, spec = job["metadata"], job["spec"]
    errors = metadata_errors(metadata)
    if len(metadata.get("name", "")) > 63:
        # The name becomes a label of its pods.
        errors += rule("spec.template.labels", metadata["name"], dns_label)
    for field in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ):
        errors += _not_negative(f"spec.{field}", spec.get(field))
    errors += _one_of("spec.completionMode", spec["completionMode"], ("Indexed", "NonIndexed"))
    if spec["completionMode"] == "Indexed":
        errors.append(_unused("spec.completionMode", "Indexed Jobs"))
    policies = ("Failed", "TerminatingOrFailed")
    errors += _one_of("spec.podReplacementPolicy", spec["podReplacementPolicy"], policies)
    if spec["manualSelector"]:
        errors.append(_unused("spec.manualSelector", "selectors of their own"))
    errors += [_unused(f"spec.{field}", field) for field in _UNUSED_IN_JOB if field in spec]
    template = spec["template"]
    errors += template_metadata_errors(template["metadata"], "spec.template.metadata")
    errors += pod_spec_errors(template["spec"], "spec.template.spec")
    if template["spec"]["restartPolicy"] not in ("OnFailure", "Never"):
        errors.append(required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'))
    elif template["spec"]["restartPolicy"] == "OnFailure":
        errors.append(_unused("spec.template.spec.restartPolicy", "restarts of containers"))
    return errors


def pod_errors(pod: Json) -> list[FieldError]:
    """Of a pod that is created by itself, with its defaults."""
    errors = metadata_errors(pod["metadata"]) + pod_spec_errors(pod["spec"], "spec")
    if pod["spec"]["restartPolicy"] != "Never":
        errors.append(_unused("spec.restartPolicy", "restarts of containers"))
    return errors


def pod_spec_errors(spec: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    volumes = _volumes(spec.get("volumes", ()), f"{path}.volumes", errors)
    if not spec["containers"]:
        errors.append(required(f"{path}.containers"))
    if len(spec["containers"]) > 1:
        errors.append(_unused(f"{path}.containers", "more than one container"))
    for index, container in enumerate(spec["containers"]):
        errors += _container_errors(container, f"{path}.containers[{index}]", volumes)
    errors += unique(
        [
            (f"{path}.containers[{index}].name", container.get("name", ""))
            for index, container in enumerate(spec["containers"])
        ]
    )
    errors += _one_of(f"{path}.restartPolicy", spec["restartPolicy"], ("Always", "OnFailure", "Never"))
    dns = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
    errors += _one_of(f"{path}.dnsPolicy", spec["dnsPolicy"], dns)
    errors += _not_negative(f"{path}.terminationGracePeriodSeconds", spec["terminationGracePeriodSeconds"])
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MOST_SECONDS:
        why = f"must be between 1 and {_MOST_SECONDS}, inclusive"
        errors.append(invalid_value(f"{path}.activeDeadlineSeconds", deadline, why))
    errors += labels_errors(spec.get("nodeSelector", {}), f"{path}.nodeSelector")
    for field in ("runtimeClassName", "serviceAccountName", "priorityClassName"):
        if field in spec:
            errors += rule(f"{path}.{field}", spec[field], dns_subdomain)
    errors += _security_errors(spec["securityContext"], f"{path}.securityContext", in_pod=True)
    for index, toleration in enumerate(spec.get("tolerations", ())):
        errors += _toleration_errors(toleration, f"{path}.tolerations[{index}]")
    for index, secret in enumerate(spec.get("imagePullSecrets", ())):
        if not secret.get("name"):
            errors.append(required(f"{path}.imagePullSecrets[{index}].name"))
    errors += [_unused(f"{path}.{field}", field) for field in _UNUSED_IN_POD if spec.get(field)]
    return errors


def _volumes(volumes: Sequence[Json], path: str, errors: list[FieldError]) -> dict[str, Json]:
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        sources = [name for name in volume if name != "name"]
        if not volume.get("name"):
            errors.append(required(f"{at}.name"))
        else:
            errors += rule(f"{at}.name", volume["name"], dns_label)
        errors += [
            not_allowed(f"{at}.{source}", "may not specify more than 1 volume type") for source in sources[1:]
        ]
        errors += [_unused(f"{at}.{source}", source) for source in sources if source not in _VOLUMES]
        if "configMap" in volume:
            errors += _config_map_volume_errors(volume["configMap"], f"{at}.configMap")
        limit = volume.get("emptyDir", {}).get("sizeLimit")
        if limit is not None and parse_quantity(limit).value < 0:
            why = "SizeLimit field must be a valid resource quantity"
            errors.append(not_allowed(f"{at}.emptyDir.sizeLimit", why))
    errors += unique([(f"{path}[{index}].name", volume.get("name", "")) for index, volume in enumerate(volumes)])
    return {volume["name"]: volume for volume in volumes if volume.get("name")}


def _config_map_volume_errors(source: Json, path: str) -> list[FieldError]:
    errors = [] if source.get("name") else [required(f"{path}.name")]
    mode = source["defaultMode"]
    if not 0 <= mode <= 0o777:
        why = "must be a number between 0 and 0777 (octal), both inclusive"
        errors.append(invalid_value(f"{path}.defaultMode", mode, why))
    for index, item in enumerate(source.get("items", ())):
        at = f"{path}.items[{index}]"
        errors += [required(f"{at}.{field}") for field in ("key", "path") if not item.get(field)]
        target = item.get("path", "")
        if target.startswith("/"):
            errors.append(invalid_value(f"{at}.path", target, "must be a relative path"))
        if ".." in target.split("/"):
            errors.append(invalid_value(f"{at}.path", target, "must not contain '..'"))
    return errors


def _container_errors(container: Json, path: str, volumes: dict[str, Json]) -> list[FieldError]:
    errors = []
    if not container.get("name"):
        errors.append(required(f"{path}.name"))
    else:
        errors += rule(f"{path}.name", container["name"], dns_label)
    image = container.get("image", "")
    if not image:
        errors.append(required(f"{path}.image"))
    elif image != image.strip():
        why = "must not have leading or trailing whitespace"
        errors.append(invalid_value(f"{path}.image", image, why))
    policies = ("Always", "IfNotPresent", "Never")
    errors += _one_of(f"{path}.imagePullPolicy", container["imagePullPolicy"], policies)
    termination = ("FallbackToLogsOnError", "File")
    errors += _one_of(f"{path}.terminationMessagePolicy", container["terminationMessagePolicy"], termination)
    for index, entry in enumerate(container.get("env", ())):
        errors += _env_errors(entry, f"{path}.env[{index}]")
    errors += _mount_errors(container.get("volumeMounts", ()), f"{path}.volumeMounts", volumes)
    errors += _resource_errors(container["resources"], f"{path}.resources")
    if "securityContext" in container:
        errors += _security_errors(container["securityContext"], f"{path}.securityContext", in_pod=False)
    errors += [_unused(f"{path}.{field}", field) for field in _UNUSED_IN_CONTAINER if container.get(field)]
    return errors


def _env_errors(entry: Json, path: str) -> list[FieldError]:
    errors = []
    name = entry.get("name", "")
    if not name:
        errors.append(required(f"{path}.name"))
    elif any(not 32 <= ord(character) < 127 or character == "=" for character in name):
        # https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/
        why = "a valid environment variable name must consist only of printable ASCII characters other than '='"
        errors.append(invalid_value(f"{path}.name", name, why))
    if "valueFrom" not in entry:
        return errors
    source = entry["valueFrom"]
    if entry.get("value"):
        errors.append(invalid_value(f"{path}.valueFrom", "", "may not be specified when `value` is not empty"))
    if len(source) != 1:
        why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        if len(source) > 1:
            why = "may not have more than one field specified at a time"
        errors.append(invalid_value(f"{path}.valueFrom", "", why))
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if kind in source:
            at = f"{path}.valueFrom.{kind}"
            reference = source[kind]
            if not reference.get("name"):
                errors.append(required(f"{at}.name"))
            if not reference.get("key"):
                errors.append(required(f"{at}.key"))
            else:
                errors += rule(f"{at}.key", reference["key"], config_map_key)
    if "fieldRef" in source and not source["fieldRef"].get("fieldPath"):
        errors.append(required(f"{path}.valueFrom.fieldRef.fieldPath"))
    for kind in ("resourceFieldRef", "fileKeyRef"):
        if kind in source:
            errors.append(_unused(f"{path}.valueFrom.{kind}", kind))
    return errors


def _mount_errors(mounts: Sequence[Json], path: str, volumes: dict[str, Json]) -> list[FieldError]:
    errors = []
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        at = f"{path}[{index}]"
        if not mount.get("name"):
            errors.append(required(f"{at}.name"))
        elif mount["name"] not in volumes:
            errors.append(value_not_found(f"{at}.name", mount["name"]))
        target = mount.get("mountPath", "")
        if not target:
            errors.append(required(f"{at}.mountPath"))
        elif target in seen:
            errors.append(invalid_value(f"{at}.mountPath", target, "must be unique"))
        seen.add(target)
        errors += [
            _unused(f"{at}.{field}", field)
            for field in ("subPath", "subPathExpr", "mountPropagation")
            if mount.get(field)
        ]
    return errors


def _resource_errors(resources: Json, path: str) -> list[FieldError]:
    errors = []
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for name, amounts in (("limits", limits), ("requests", requests)):
        for resource, amount in amounts.items():
            at = f"{path}.{name}[{resource}]"
            errors += rule(at, resource, label_key)
            if "/" not in resource and resource not in ("cpu", "memory", "ephemeral-storage"):
                why = "must be a standard resource for containers"
                errors.append(invalid_value(at, resource, why))
            if parse_quantity(amount).nano < 0:
                errors.append(invalid_value(at, amount, _NOT_NEGATIVE))
    for resource, amount in requests.items():
        limit = limits.get(resource)
        if limit is not None and parse_quantity(amount).nano > parse_quantity(limit).nano:
            why = f"must be less than or equal to {resource} limit of {limit}"
            errors.append(invalid_value(f"{path}.requests", amount, why))
    return errors


def _security_errors(context: Json, path: str, *, in_pod: bool) -> list[FieldError]:
    errors = []
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        value = context.get(field)
        if value is not None and not 0 <= value <= _MOST_ID:
            why = f"must be between 0 and {_MOST_ID}, inclusive"
            errors.append(invalid_value(f"{path}.{field}", value, why))
    if "seccompProfile" in context:
        profile, at = context["seccompProfile"], f"{path}.seccompProfile"
        types = ("Localhost", "RuntimeDefault", "Unconfined")
        if not profile.get("type"):
            errors.append(required(f"{at}.type", "type is required when seccompProfile is set"))
        else:
            errors += _one_of(f"{at}.type", profile["type"], types)
        if profile.get("type") == "Localhost" and not profile.get("localhostProfile"):
            why = "must be set when seccomp type is Localhost"
            errors.append(required(f"{at}.localhostProfile", why))
    if not in_pod and context.get("allowPrivilegeEscalation") is False and context.get("privileged"):
        why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        errors.append(invalid_value(path, "", why))
    return errors


def _toleration_errors(toleration: Json, path: str) -> list[FieldError]:
    errors = []
    key, operator = toleration.get("key", ""), toleration.get("operator", "")
    if key:
        errors += rule(f"{path}.key", key, label_key)
    elif operator != "Exists":
        why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        errors.append(invalid_value(f"{path}.operator", operator, why))
    if operator:
        errors += _one_of(f"{path}.operator", operator, ("Equal", "Exists"))
    if operator == "Exists" and toleration.get("value"):
        why = "value must be empty when `operator` is 'Exists'"
        errors.append(invalid_value(f"{path}.operator", toleration, why))
    effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
    if toleration.get("effect"):
        errors += _one_of(f"{path}.effect", toleration["effect"], effects)
    if toleration.get("tolerationSeconds") is not None and toleration.get("effect") != "NoExecute":
        why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        errors.append(invalid_value(f"{path}.effect", toleration.get("effect", ""), why))
    return errors


def _one_of(field: str, value: str, supported: Sequence[str]) -> list[FieldError]:
    return [] if value in supported else [not_supported(field, value, supported)]


def _not_negative(field: str, value: int | None) -> list[FieldError]:
    return [] if value is None or value >= 0 else [invalid_value(field, value, _NOT_NEGATIVE)]


def _unused(field: str, what: str) -> FieldError:
    return not_allowed(field, f"the embedded cluster does not do this: {what}")
