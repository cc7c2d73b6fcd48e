"""The fields that the embedded cluster supports, with their types.

A dict is an object (the key ``*`` allows any key), a list is an array of its only item, and a string is a scalar
type: string, int, bool or quantity.
https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/
"""

from __future__ import annotations

from typing import TypeAlias

Schema: TypeAlias = "str | list[Schema] | dict[str, Schema]"
Fields: TypeAlias = "dict[str, Schema]"


def _all(schema: Schema, names: str) -> Fields:
    return dict.fromkeys(names.split(), schema)


_STRINGS: Schema = ["string"]
_STRING_MAP: Schema = {"*": "string"}

_METADATA: Fields = {
    **_all("string", "name namespace"),
    **_all(_STRING_MAP, "labels annotations"),
    "ownerReferences": [
        {**_all("string", "apiVersion kind name uid"), **_all("bool", "controller blockOwnerDeletion")}
    ],
    "finalizers": _STRINGS,
}

_SECURITY: Fields = {
    **_all("int", "runAsUser runAsGroup"),
    "runAsNonRoot": "bool",
    "seccompProfile": _all("string", "type localhostProfile"),
}

_CONTAINER: Fields = {
    **_all("string", "name image workingDir imagePullPolicy"),
    **_all("string", "terminationMessagePath terminationMessagePolicy"),
    **_all(_STRINGS, "command args"),
    **_all("bool", "stdin stdinOnce"),
    "env": [{**_all("string", "name value"), "valueFrom": {"configMapKeyRef": _all("string", "name key")}}],
    "resources": _all({"*": "quantity"}, "limits requests"),
    "volumeMounts": [{**_all("string", "name mountPath"), "readOnly": "bool"}],
    "securityContext": {
        **_SECURITY,
        **_all("bool", "privileged readOnlyRootFilesystem allowPrivilegeEscalation"),
        "capabilities": _all(_STRINGS, "add drop"),
    },
}

_POD_SPEC: Fields = {
    "containers": [_CONTAINER],
    "volumes": [
        {
            "name": "string",
            "configMap": {"name": "string", "defaultMode": "int"},
            "emptyDir": {"medium": "string", "sizeLimit": "quantity"},
        }
    ],
    **_all(
        "string", "restartPolicy dnsPolicy serviceAccountName schedulerName priorityClassName runtimeClassName"
    ),
    **_all("int", "terminationGracePeriodSeconds activeDeadlineSeconds"),
    "nodeSelector": _STRING_MAP,
    **_all("bool", "automountServiceAccountToken hostNetwork hostPID hostIPC enableServiceLinks"),
    "securityContext": {**_SECURITY, "fsGroup": "int"},
    "imagePullSecrets": [{"name": "string"}],
    "tolerations": [{**_all("string", "key operator value effect"), "tolerationSeconds": "int"}],
}

_TYPE: Fields = _all("string", "kind apiVersion")

JOB: Fields = {
    **_TYPE,
    "metadata": _METADATA,
    "spec": {
        **_all("int", "parallelism completions backoffLimit ttlSecondsAfterFinished activeDeadlineSeconds"),
        "suspend": "bool",
        "template": {"metadata": _METADATA, "spec": _POD_SPEC},
    },
}

CONFIG_MAP: Fields = {
    **_TYPE,
    "metadata": _METADATA,
    "immutable": "bool",
    **_all(_STRING_MAP, "data binaryData"),
}

DELETE_OPTIONS: Fields = {
    **_TYPE,
    "propagationPolicy": "string",
    "gracePeriodSeconds": "int",
    "preconditions": {"uid": "string"},
}

ACCESS_REVIEW: Fields = {
    **_TYPE,
    "spec": {"resourceAttributes": _all("string", "namespace verb group version resource subresource name")},
}

SELF_REVIEW: Fields = _TYPE
