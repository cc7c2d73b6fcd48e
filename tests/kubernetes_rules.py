"""Kubernetes' published rules, independent of the package: existing fields, keys of ConfigMaps.

See also `pod_security_rules`.

Tests compare built bodies with them. Only the fields that we use and some related ones are listed: any other field
is unknown, misspelt or misplaced, and the server rejects it with fieldValidation=Strict.
"""

from __future__ import annotations

import re
from typing import Any

QUANTITY = "a quantity"

# type -> field -> type: a Python type, QUANTITY, the name of another type, [type] for a list, {str: type} for a
# map.
FIELDS: dict[str, dict[str, Any]] = {
    # https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/
    "Job": {"apiVersion": str, "kind": str, "metadata": "ObjectMeta", "spec": "JobSpec", "status": "JobStatus"},
    "JobSpec": {
        "template": "PodTemplateSpec",
        "parallelism": int,
        "completions": int,
        "completionMode": str,
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "ttlSecondsAfterFinished": int,
        "suspend": bool,
        "manualSelector": bool,
        "podReplacementPolicy": str,
    },
    # https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-template-v1/#PodTemplateSpec
    "PodTemplateSpec": {"metadata": "ObjectMeta", "spec": "PodSpec"},
    # https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
    "ObjectMeta": {
        "name": str,
        "generateName": str,
        "namespace": str,
        "labels": {str: str},
        "annotations": {str: str},
        "finalizers": [str],
        "ownerReferences": ["OwnerReference"],
    },
    "OwnerReference": {
        "apiVersion": str,
        "kind": str,
        "name": str,
        "uid": str,
        "controller": bool,
        "blockOwnerDeletion": bool,
    },
    # https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#PodSpec
    "PodSpec": {
        "containers": ["Container"],
        "initContainers": ["Container"],
        "imagePullSecrets": ["LocalObjectReference"],
        "enableServiceLinks": bool,
        "volumes": ["Volume"],
        "nodeSelector": {str: str},
        "nodeName": str,
        "tolerations": ["Toleration"],
        "runtimeClassName": str,
        "priorityClassName": str,
        "priority": int,
        "terminationGracePeriodSeconds": int,
        "activeDeadlineSeconds": int,
        "restartPolicy": str,
        "hostname": str,
        "subdomain": str,
        "dnsPolicy": str,
        "hostNetwork": bool,
        "hostPID": bool,
        "hostIPC": bool,
        "hostUsers": bool,
        "shareProcessNamespace": bool,
        "serviceAccountName": str,
        "automountServiceAccountToken": bool,
        "securityContext": "PodSecurityContext",
    },
    "LocalObjectReference": {"name": str},
    "Toleration": {"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int},
    # https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#security-context
    "PodSecurityContext": {
        "runAsUser": int,
        "runAsNonRoot": bool,
        "runAsGroup": int,
        "supplementalGroups": [int],
        "fsGroup": int,
        "fsGroupChangePolicy": str,
        "seccompProfile": "SeccompProfile",
    },
    "SeccompProfile": {"type": str, "localhostProfile": str},
    # https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#Container
    "Container": {
        "name": str,
        "image": str,
        "imagePullPolicy": str,
        "command": [str],
        "args": [str],
        "workingDir": str,
        "ports": ["ContainerPort"],
        "env": ["EnvVar"],
        "volumeMounts": ["VolumeMount"],
        "resources": "ResourceRequirements",
        "terminationMessagePath": str,
        "terminationMessagePolicy": str,
        "securityContext": "SecurityContext",
        "stdin": bool,
        "stdinOnce": bool,
        "tty": bool,
    },
    "ContainerPort": {"containerPort": int, "hostPort": int, "name": str, "protocol": str},
    "EnvVar": {"name": str, "value": str, "valueFrom": "EnvVarSource"},
    "EnvVarSource": {"configMapKeyRef": "ConfigMapKeySelector"},
    "ConfigMapKeySelector": {"name": str, "key": str, "optional": bool},
    "VolumeMount": {"name": str, "mountPath": str, "readOnly": bool, "subPath": str, "mountPropagation": str},
    "ResourceRequirements": {"limits": {str: QUANTITY}, "requests": {str: QUANTITY}},
    "SecurityContext": {
        "runAsUser": int,
        "runAsNonRoot": bool,
        "runAsGroup": int,
        "readOnlyRootFilesystem": bool,
        "procMount": str,
        "privileged": bool,
        "allowPrivilegeEscalation": bool,
        "capabilities": "Capabilities",
        "seccompProfile": "SeccompProfile",
    },
    "Capabilities": {"add": [str], "drop": [str]},
    # https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/volume/
    "Volume": {
        "name": str,
        "configMap": "ConfigMapVolumeSource",
        "emptyDir": "EmptyDirVolumeSource",
        "hostPath": "HostPathVolumeSource",
        "secret": "SecretVolumeSource",
    },
    "ConfigMapVolumeSource": {"name": str, "optional": bool, "defaultMode": int},
    "EmptyDirVolumeSource": {"medium": str, "sizeLimit": QUANTITY},
    "HostPathVolumeSource": {"path": str, "type": str},
    "SecretVolumeSource": {"secretName": str},
    # https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/config-map-v1/
    "ConfigMap": {
        "apiVersion": str,
        "kind": str,
        "metadata": "ObjectMeta",
        "binaryData": {str: str},
        "data": {str: str},
        "immutable": bool,
    },
}

# Required fields of each type, except for metadata.name, which a template does not have.
REQUIRED = {
    "Job": {"apiVersion", "kind", "metadata", "spec"},
    "JobSpec": {"template"},
    "PodTemplateSpec": {"metadata", "spec"},
    "PodSpec": {"containers", "restartPolicy"},
    "Container": {"name", "image"},
    "EnvVar": {"name"},
    "ConfigMapKeySelector": {"name", "key"},
    "VolumeMount": {"name", "mountPath"},
    "Volume": {"name"},
    "LocalObjectReference": {"name"},
    "ConfigMapVolumeSource": {"name"},
    "SeccompProfile": {"type"},
    "OwnerReference": {"apiVersion", "kind", "name", "uid"},
    "ConfigMap": {"apiVersion", "kind", "metadata"},
}


def field_errors(kind: Any, value: Any, path: str = "") -> list[str]:
    """Return unknown fields, wrong types, missing fields, and unnecessary empty values."""
    if isinstance(kind, str) and kind in FIELDS:
        if not isinstance(value, dict):
            return [f"{path}: is not an object"]
        errors = [f"{path}.{name}: is missing" for name in REQUIRED.get(kind, set()) - set(value)]
        for name, item in value.items():
            at = f"{path}.{name}"
            if name not in FIELDS[kind]:
                errors.append(f"{at}: {kind} has no such field")
            elif item in (None, "", [], {}):
                errors.append(f"{at}: is empty")
            else:
                errors += field_errors(FIELDS[kind][name], item, at)
        return errors
    if isinstance(kind, list):
        if not isinstance(value, list):
            return [f"{path}: is not a list"]
        return [error for i, item in enumerate(value) for error in field_errors(kind[0], item, f"{path}[{i}]")]
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return [f"{path}: is not a map"]
        return [error for key, item in value.items() for error in field_errors(kind[str], item, f"{path}[{key}]")]
    wanted = str if kind == QUANTITY else kind
    return [] if type(value) is wanted else [f"{path}: {value!r} is no {kind}"]


def is_config_map_key(key: str) -> bool:
    """Return whether a key is valid in a ConfigMap. https://kubernetes.io/docs/concepts/configuration/configmap/"""
    return re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) is not None and key != "." and not key.startswith("..")
