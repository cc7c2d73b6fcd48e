"""The fields that each kind has, with their types, as the API server's decoder knows them.

All fields of the objects on an execution's way are named, also those that the embedded cluster does not
act on (validation refuses those), so that a misspelt field is told from one that merely is not used here.
What lies below a field that is not used (``affinity``) is not looked at.

https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Scalar = Literal["string", "int32", "int64", "bool", "quantity", "bytes", "any"]


@dataclass(frozen=True)
class Struct:
    """An object with known fields. `name` is the Go type's, which error messages name."""

    name: str
    fields: Mapping[str, Type]


@dataclass(frozen=True)
class ListOf:
    item: Type


@dataclass(frozen=True)
class MapOf:
    item: Type


Type = Scalar | Struct | ListOf | MapOf

_STRINGS = ListOf("string")
_STRING_MAP = MapOf("string")


def _all(kind: Type, names: str) -> dict[str, Type]:
    return dict.fromkeys(names.split(), kind)


OWNER_REFERENCE = Struct(
    "OwnerReference",
    {**_all("string", "apiVersion kind name uid"), **_all("bool", "controller blockOwnerDeletion")},
)

OBJECT_META = Struct(
    "ObjectMeta",
    {
        **_all("string", "name generateName namespace selfLink uid resourceVersion creationTimestamp"),
        **_all("string", "deletionTimestamp"),
        **_all("int64", "generation deletionGracePeriodSeconds"),
        **_all(_STRING_MAP, "labels annotations"),
        "ownerReferences": ListOf(OWNER_REFERENCE),
        "finalizers": _STRINGS,
        "managedFields": "any",
    },
)

LABEL_SELECTOR = Struct("LabelSelector", {"matchLabels": _STRING_MAP, "matchExpressions": "any"})

_KEY_SELECTOR: dict[str, Type] = {"name": "string", "key": "string", "optional": "bool"}

ENV_VAR = Struct(
    "EnvVar",
    {
        "name": "string",
        "value": "string",
        "valueFrom": Struct(
            "EnvVarSource",
            {
                "configMapKeyRef": Struct("ConfigMapKeySelector", _KEY_SELECTOR),
                "secretKeyRef": Struct("SecretKeySelector", _KEY_SELECTOR),
                "fieldRef": Struct("ObjectFieldSelector", _all("string", "apiVersion fieldPath")),
                **_all("any", "resourceFieldRef fileKeyRef"),
            },
        ),
    },
)

_ENV_SOURCE: dict[str, Type] = {"name": "string", "optional": "bool"}

ENV_FROM = Struct(
    "EnvFromSource",
    {
        "prefix": "string",
        "configMapRef": Struct("ConfigMapEnvSource", _ENV_SOURCE),
        "secretRef": Struct("SecretEnvSource", _ENV_SOURCE),
    },
)

RESOURCES = Struct(
    "ResourceRequirements",
    {"limits": MapOf("quantity"), "requests": MapOf("quantity"), "claims": "any"},
)

VOLUME_MOUNT = Struct(
    "VolumeMount",
    {
        **_all("string", "name mountPath subPath subPathExpr mountPropagation recursiveReadOnly"),
        "readOnly": "bool",
    },
)

_SECCOMP_PROFILE = Struct("SeccompProfile", _all("string", "type localhostProfile"))

SECURITY_CONTEXT = Struct(
    "SecurityContext",
    {
        "capabilities": Struct("Capabilities", _all(_STRINGS, "add drop")),
        **_all("bool", "privileged runAsNonRoot readOnlyRootFilesystem allowPrivilegeEscalation"),
        **_all("int64", "runAsUser runAsGroup"),
        "procMount": "string",
        "seccompProfile": _SECCOMP_PROFILE,
        **_all("any", "seLinuxOptions windowsOptions appArmorProfile"),
    },
)

CONTAINER = Struct(
    "Container",
    {
        **_all("string", "name image workingDir imagePullPolicy restartPolicy"),
        **_all("string", "terminationMessagePath terminationMessagePolicy"),
        **_all(_STRINGS, "command args"),
        **_all("bool", "stdin stdinOnce tty"),
        "env": ListOf(ENV_VAR),
        "envFrom": ListOf(ENV_FROM),
        "resources": RESOURCES,
        "volumeMounts": ListOf(VOLUME_MOUNT),
        "securityContext": SECURITY_CONTEXT,
        **_all("any", "ports volumeDevices livenessProbe readinessProbe startupProbe lifecycle"),
        **_all("any", "resizePolicy restartPolicyRules"),
    },
)

VOLUME = Struct(
    "Volume",
    {
        "name": "string",
        "emptyDir": Struct("EmptyDirVolumeSource", {"medium": "string", "sizeLimit": "quantity"}),
        "configMap": Struct(
            "ConfigMapVolumeSource",
            {
                "name": "string",
                "items": ListOf(Struct("KeyToPath", {**_all("string", "key path"), "mode": "int32"})),
                "defaultMode": "int32",
                "optional": "bool",
            },
        ),
        **_all("any", "awsElasticBlockStore azureDisk azureFile cephfs cinder csi downwardAPI ephemeral fc"),
        **_all("any", "flexVolume flocker gcePersistentDisk gitRepo glusterfs hostPath image iscsi nfs"),
        **_all("any", "persistentVolumeClaim photonPersistentDisk portworxVolume projected quobyte rbd"),
        **_all("any", "scaleIO secret storageos vsphereVolume"),
    },
)

POD_SECURITY_CONTEXT = Struct(
    "PodSecurityContext",
    {
        **_all("int64", "runAsUser runAsGroup fsGroup"),
        "runAsNonRoot": "bool",
        "supplementalGroups": ListOf("int64"),
        **_all("string", "fsGroupChangePolicy supplementalGroupsPolicy seLinuxChangePolicy"),
        "seccompProfile": _SECCOMP_PROFILE,
        "sysctls": ListOf(Struct("Sysctl", _all("string", "name value"))),
        **_all("any", "seLinuxOptions windowsOptions appArmorProfile"),
    },
)

TOLERATION = Struct("Toleration", {**_all("string", "key operator value effect"), "tolerationSeconds": "int64"})

POD_SPEC = Struct(
    "PodSpec",
    {
        "volumes": ListOf(VOLUME),
        "containers": ListOf(CONTAINER),
        **_all("string", "restartPolicy dnsPolicy serviceAccountName serviceAccount nodeName hostname"),
        **_all("string", "subdomain schedulerName priorityClassName preemptionPolicy runtimeClassName"),
        **_all("string", "hostnameOverride"),
        **_all("int64", "terminationGracePeriodSeconds activeDeadlineSeconds"),
        "priority": "int32",
        "nodeSelector": _STRING_MAP,
        **_all("bool", "automountServiceAccountToken hostNetwork hostPID hostIPC hostUsers"),
        **_all("bool", "shareProcessNamespace setHostnameAsFQDN enableServiceLinks"),
        "securityContext": POD_SECURITY_CONTEXT,
        "imagePullSecrets": ListOf(Struct("LocalObjectReference", _all("string", "name"))),
        "tolerations": ListOf(TOLERATION),
        "overhead": MapOf("quantity"),
        **_all("any", "initContainers ephemeralContainers affinity hostAliases readinessGates dnsConfig"),
        **_all("any", "topologySpreadConstraints os schedulingGates resourceClaims resources"),
        **_all("any", "schedulingGroup workloadRef"),
    },
)

POD = Struct(
    "Pod",
    {
        **_all("string", "kind apiVersion"),
        "metadata": OBJECT_META,
        "spec": POD_SPEC,
        "status": "any",
    },
)

JOB = Struct(
    "Job",
    {
        **_all("string", "kind apiVersion"),
        "metadata": OBJECT_META,
        "spec": Struct(
            "JobSpec",
            {
                **_all("int32", "parallelism completions backoffLimit backoffLimitPerIndex"),
                **_all("int32", "maxFailedIndexes ttlSecondsAfterFinished"),
                "activeDeadlineSeconds": "int64",
                **_all("bool", "manualSelector suspend"),
                **_all("string", "completionMode podReplacementPolicy managedBy"),
                "selector": LABEL_SELECTOR,
                "template": Struct("PodTemplateSpec", {"metadata": OBJECT_META, "spec": POD_SPEC}),
                **_all("any", "podFailurePolicy successPolicy"),
            },
        ),
        "status": "any",
    },
)

CONFIG_MAP = Struct(
    "ConfigMap",
    {
        **_all("string", "kind apiVersion"),
        "metadata": OBJECT_META,
        "immutable": "bool",
        "data": _STRING_MAP,
        "binaryData": MapOf("bytes"),
    },
)

DELETE_OPTIONS = Struct(
    "DeleteOptions",
    {
        **_all("string", "kind apiVersion propagationPolicy"),
        "gracePeriodSeconds": "int64",
        "preconditions": Struct("Preconditions", _all("string", "uid resourceVersion")),
        "dryRun": _STRINGS,
        **_all("bool", "orphanDependents ignoreStoreReadErrorWithClusterBreakingPotential"),
    },
)

_RESOURCE_ATTRIBUTES = Struct(
    "ResourceAttributes",
    {
        **_all("string", "namespace verb group version resource subresource name"),
        **_all("any", "fieldSelector labelSelector"),
    },
)

ACCESS_REVIEW = Struct(
    "SelfSubjectAccessReview",
    {
        **_all("string", "kind apiVersion"),
        "metadata": OBJECT_META,
        "spec": Struct(
            "SelfSubjectAccessReviewSpec",
            {
                "resourceAttributes": _RESOURCE_ATTRIBUTES,
                "nonResourceAttributes": Struct("NonResourceAttributes", _all("string", "path verb")),
            },
        ),
        "status": "any",
    },
)

RULES_REVIEW = Struct(
    "SelfSubjectRulesReview",
    {
        **_all("string", "kind apiVersion"),
        "metadata": OBJECT_META,
        "spec": Struct("SelfSubjectRulesReviewSpec", {"namespace": "string"}),
        "status": "any",
    },
)

SELF_REVIEW = Struct(
    "SelfSubjectReview", {**_all("string", "kind apiVersion"), "metadata": OBJECT_META, "status": "any"}
)
