"""The settings of a Sandbox: plain values, checked when they are created.

Values that the API server would reject, and values that it accepts but that cannot work, raise a `SpecError` with
the path of the field before any request is sent.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from ._checks import (
    check_choice,
    check_integer,
    check_name,
    check_quantity,
    check_seconds,
    check_sequence,
    check_strings,
    check_text,
    describe,
    entry_path,
    shorten,
)
from ._output_limits import DEFAULTS, check_output_limits
from ._setting_names import suggest
from .errors import SpecError
from .kube import names
from .kube.quantity import QuantityError, parse_quantity

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "ADMISSION_FIELDS",
    "AGENT_LABEL",
    "GVISOR",
    "INVOCATION_ANNOTATION",
    "MANAGED_BY",
    "MANAGER",
    "SESSION_LABEL",
    "Settings",
    "SettingsDict",
    "Toleration",
    "capped_request",
]

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "gke-sandbox"
SESSION_LABEL = "gke-sandbox/session"
INVOCATION_ANNOTATION = "adk.agent.google.com/invocation-id"
"""Annotation with the ID of the invocation, as in google-adk's executor."""
AGENT_LABEL = "adk.agent.google.com/agent-name"
"""Label with the name of the agent, if the name is a valid label value (at most 63 characters)."""
GVISOR = "gvisor"
"""GKE's RuntimeClass for gVisor, and the value of the taint on its nodes.

https://cloud.google.com/kubernetes-engine/docs/how-to/sandbox-pods
"""

_RESERVED_PREFIX = "gke-sandbox/"
_RESERVED_ENV_PREFIX = "GKE_SANDBOX_"
ADMISSION_FIELDS = (
    "activeDeadlineSeconds",
    "allowPrivilegeEscalation",
    "appArmorProfile",
    "args",
    "automountServiceAccountToken",
    "backoffLimit",
    "backoffLimitPerIndex",
    "capabilities",
    "command",
    "completions",
    "fsGroup",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPath",
    "hostUsers",
    "parallelism",
    "podCertificate",
    "podFailurePolicy",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
    "restartPolicy",
    "restartPolicyRules",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "runtimeClassName",
    "seLinuxOptions",
    "seccompProfile",
    "serviceAccountName",
    "shareProcessNamespace",
    "supplementalGroups",
)
"""The fields of Job and pod whose unsafe changes can be accepted, in Kubernetes' own names."""

_CONTROLLER_LABELS = {
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
}
"""Labels that the Job controller sets on every pod of a Job. It rejects a Job that sets other values.

https://kubernetes.io/docs/reference/labels-annotations-taints/#batch-kubernetes-io-job-name
"""

_MAX_INT32 = (1 << 31) - 1
_MAX_INT64 = (1 << 63) - 1
_MAX_ENV_STRING = (128 << 10) - 2
"""Linux limits one string (name, ``=``, value and a NUL) to 128 KiB.

https://man7.org/linux/man-pages/man2/execve.2.html
"""
_MAX_ENV_ENTRIES = 256
_MAX_ENV_BYTES = 256 << 10
"""The Job and each watch event of the pod contain the variables, several times."""
_MAX_ANNOTATION_BYTES = 256 << 10
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/"""
_MIN_MEMORY_LIMIT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """A taint that the pod tolerates. The fields are those of Kubernetes; None is not sent.

    https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    """

    key: str | None = None
    """Key of the taint. Default: None, every key (`operator` must be ``Exists``)."""
    operator: Literal["Equal", "Exists"] | None = None
    """How `value` is compared. Default: None, which means ``Equal``."""
    value: str | None = None
    """Value of the taint, for ``Equal``. Default: None."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Default: None, every effect."""
    toleration_seconds: int | None = None
    """Seconds until eviction, for ``NoExecute``. Default: None, no eviction."""

    @classmethod
    def from_json(cls, path: str, given: object) -> Toleration:
        """Return a `Toleration`, made from a mapping with Kubernetes' keys if necessary.

        Raises `SpecError` with `path` if it is invalid.
        """
        if isinstance(given, Toleration):
            given._check(path)
            return given
        if not isinstance(given, Mapping):
            raise SpecError(path, f"must be a Toleration or a mapping, got {describe(given)}")
        known = {"key", "operator", "value", "effect", "tolerationSeconds"}
        unknown = [key for key in given if key not in known]
        if unknown:
            raise SpecError(path, f"unknown field {unknown[0]!r}; the fields are {', '.join(sorted(known))}")
        values = dict(given)
        toleration = cls(toleration_seconds=values.pop("tolerationSeconds", None), **values)
        toleration._check(path)
        return toleration

    def _check(self, path: str) -> None:
        if self.key is not None:
            check_name(f"{path}.key", self.key, names.label_key)
        if self.operator is not None:
            check_choice(f"{path}.operator", self.operator, ("Equal", "Exists"))
        if self.effect is not None:
            check_choice(f"{path}.effect", self.effect, ("NoSchedule", "PreferNoSchedule", "NoExecute"))
        if self.key is None and self.operator != "Exists":
            raise SpecError(f"{path}.operator", "must be Exists if there is no key (it tolerates every taint)")
        if self.operator == "Exists":
            if self.value:
                raise SpecError(f"{path}.value", "must be left out if the operator is Exists")
        elif self.value is not None:
            check_name(f"{path}.value", self.value, names.label_value)
        if self.toleration_seconds is not None:
            check_integer(f"{path}.tolerationSeconds", self.toleration_seconds, -_MAX_INT64, _MAX_INT64)
            if self.effect != "NoExecute":
                raise SpecError(f"{path}.effect", "must be NoExecute if tolerationSeconds is set")


_GVISOR_TOLERATION = Toleration(key="sandbox.gke.io/runtime", operator="Equal", value=GVISOR, effect="NoSchedule")


class _DefaultRequest(str):
    """The default of a request, which is capped. Its type distinguishes it from an equal value of the caller."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a Sandbox or of one execution. Immutable; `override` returns a changed copy.

    Times are in seconds, sizes in bytes; resources are Kubernetes quantities (``"500m"``, ``"1.5Gi"``). Lists and
    mappings are copied. Raises `SpecError` if a value is invalid. docs/settings.md lists the names of each setting
    in Python, on the command line and in the ADK executor.
    """

    namespace: str = "default"
    """Namespace of the Jobs. Default: that of the kubeconfig's context or of the pod, else ``default``."""
    image: str = "python:3.11-slim"
    """Container image; it needs ``python3``, 3.8 or newer. Default: ``python:3.11-slim``."""
    timeout: float = 300.0
    """Seconds that the program may run, counted from its start. Default: 300; maximum: 7 days."""
    startup_timeout: float = 300.0
    """Seconds from the creation of the Job until the container runs (scheduling, a new node, the image pull).

    Default: 300; maximum: 7 days.
    """
    cpu_request: str = _DefaultRequest("200m")
    """CPU request, in cores. Default: ``200m``, or `cpu_limit` if that is smaller."""
    memory_request: str = _DefaultRequest("256Mi")
    """Memory request, in bytes. Default: ``256Mi``, or `memory_limit` if that is smaller."""
    cpu_limit: str = "500m"
    """CPU limit, in cores. Default: ``500m``."""
    memory_limit: str = "512Mi"
    """Memory limit, in bytes. Default: ``512Mi``; minimum: ``1Mi``."""
    ephemeral_storage_request: str = _DefaultRequest("64Mi")
    """Disk space request, in bytes; if there is a volume, `tmp_size` is added to it.

    Default: ``64Mi``, or `ephemeral_storage_limit` if that is smaller.
    """
    ephemeral_storage_limit: str = "256Mi"
    """Disk space limit, in bytes. Default: ``256Mi``."""
    tmp_size: str = "64Mi"
    """Size of the volume at /tmp, in bytes, if the program is delivered by a volume. Default: ``64Mi``."""
    delivery: Literal["auto", "env", "mount", "attach"] = "auto"
    """How the program enters the pod: by environment variables, by a volume, or over a connection to the running
    container (``attach``, see docs/warm.md). Default: ``auto``, by environment variables if possible, because a
    pod without volumes starts sooner.
    """
    runtime_class_name: str | None = GVISOR
    """RuntimeClass. Default: ``gvisor``. None uses the default runtime of the cluster, which may isolate less."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that a node must have. Default: none."""
    tolerations: Sequence[Toleration | Mapping[str, Any]] = (_GVISOR_TOLERATION,)
    """Taints that the pod tolerates. Default: the taint of GKE's gVisor nodes."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment variables of the program; ``$(X)`` in a value is not expanded. Default: none."""
    image_pull_secrets: Sequence[str] = ()
    """Names of Secrets in the namespace for the image's registry. Default: none."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When a node pulls the image. Default: ``IfNotPresent``."""
    priority_class_name: str | None = None
    """PriorityClass. Default: None, the default of the cluster."""
    service_account_name: str | None = None
    """Service account of the pod; its token is never mounted. Default: None, ``default``."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Additional labels of Job, pod and ConfigMap. Default: none."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Additional annotations of Job and pod. Default: none."""
    run_as_user: int = 1001
    """User ID of the program, not 0. Default: 1001."""
    run_as_group: int = 1001
    """Group ID of the program, not 0. Default: 1001."""
    accept_admission_changes: Sequence[str] = ()
    """Fields (`ADMISSION_FIELDS`) whose unsafe changes by mutating admission are accepted. Default: none.

    Each name removes a protection from every run: a change that is not accepted ends the run.
    """
    ttl_seconds_after_finished: int = 300
    """Seconds until Kubernetes deletes a finished Job that the client could not delete. Default: 300."""
    max_output_bytes: int = DEFAULTS["max_output_bytes"]
    """Bytes of stdout, and of stderr, that are kept, with any content. Default: 1 MiB (1048576); maximum:
    1294146, with lower limits of files up to 3400787; 64 MiB for delivery by ``attach``.
    """
    max_file_bytes: int = DEFAULTS["max_file_bytes"]
    """Bytes of all output files together that are kept, with any content. Default: 4 MiB (4194304); maximum:
    4685445, with lower limits of the others up to 6801575; 64 MiB for delivery by ``attach``.
    """
    max_files: int = DEFAULTS["max_files"]
    """Number of output files that are kept. Default: 100; maximum: 2688, with lower limits of bytes 10000."""

    _default_requests: ClassVar[Sequence[str]] = ()
    """Requests that the caller did not set. Each instance has its list; it is not a field."""

    def __post_init__(self) -> None:
        check_name("namespace", self.namespace, names.dns_label)
        self._check_image()
        for name in ("timeout", "startup_timeout"):
            self._put(name, check_seconds(name, getattr(self, name)))
        self._check_resources()
        check_choice("delivery", self.delivery, ("auto", "env", "mount", "attach"))
        check_choice("image_pull_policy", self.image_pull_policy, ("Always", "IfNotPresent", "Never"))
        for name in ("runtime_class_name", "priority_class_name", "service_account_name"):
            value = getattr(self, name)
            if value is not None:
                check_name(name, value, names.dns_subdomain, hint="None leaves it out.")
        self._put("node_selector", check_strings("node_selector", self.node_selector))
        for key, value in self.node_selector.items():
            check_name(entry_path("node_selector", key), key, names.label_key, what="the key ")
            check_name(entry_path("node_selector", key), value, names.label_value)
        given = check_sequence("tolerations", self.tolerations)
        self._put(
            "tolerations",
            tuple(Toleration.from_json(f"tolerations[{i}]", item) for i, item in enumerate(given)),
        )
        secrets = check_sequence("image_pull_secrets", self.image_pull_secrets)
        for i, secret in enumerate(secrets):
            check_name(f"image_pull_secrets[{i}]", secret, names.dns_subdomain)
        self._put("image_pull_secrets", secrets)
        self._check_env()
        self._check_metadata()
        self._check_accepted()
        # The container may not run as root (runAsNonRoot), and group 0 owns half of an image.
        check_integer("run_as_user", self.run_as_user, 1, _MAX_INT32)
        check_integer("run_as_group", self.run_as_group, 1, _MAX_INT32)
        check_integer("ttl_seconds_after_finished", self.ttl_seconds_after_finished, 0, _MAX_INT32)
        limits = {name: getattr(self, name) for name in ("max_output_bytes", "max_file_bytes", "max_files")}
        check_output_limits(limits, self.delivery)

    def override(self, **changes: Unpack[SettingsDict]) -> Settings:
        """Return a copy with changed fields. Raises `SpecError` if a name or a value is invalid."""
        known = {each.name: each.name for each in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                near = suggest(name, known)
                hint = f"Did you mean {near}?" if near else f"The settings are {', '.join(known)}."
                raise SpecError(name, "unknown setting", hint=hint, mentions=(near,) if near else ())
        kept = {name: getattr(self, name) for name in known if name not in self._default_requests}
        return Settings(**{**kept, **changes})

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_image(self) -> None:
        image = check_text("image", self.image)
        if not image.strip():
            raise SpecError("image", "must not be empty")
        if re.search(r"[\s\x00-\x1f\x7f]", image):
            raise SpecError("image", f"{image!r} must not contain white space or control characters")

    def _check_resources(self) -> None:
        default_requests = [name for name in _DEFAULT_REQUESTS if isinstance(getattr(self, name), _DefaultRequest)]
        self._put("_default_requests", default_requests)
        for request in default_requests:
            self._put(request, capped_request(request, getattr(self, request.replace("request", "limit"))))
        resources = ("cpu", "memory", "ephemeral_storage")
        fields = [f"{resource}_{kind}" for resource in resources for kind in ("request", "limit")]
        quantity = {name: check_quantity(name, getattr(self, name)) for name in (*fields, "tmp_size")}
        if quantity["memory_limit"].value < _MIN_MEMORY_LIMIT:
            raise SpecError(
                "memory_limit",
                f"must be at least 1Mi, got {self.memory_limit!r}",
                hint="The suffix m means a thousandth of a byte, M a million bytes, Mi 2^20 bytes.",
            )
        for resource in resources:
            request, limit = f"{resource}_request", f"{resource}_limit"
            # The server rounds both up to thousandths and then compares them.
            if quantity[request].milli > quantity[limit].milli:
                raise SpecError(
                    request,
                    f"{getattr(self, request)!r} is above {limit}, {getattr(self, limit)!r}",
                    hint=f"Set {request} and {limit} together.",
                    mentions=(request, limit),
                )
        # https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#local-ephemeral-storage
        with_tmp = quantity["ephemeral_storage_request"] + quantity["tmp_size"]
        if self.delivery not in ("env", "attach") and with_tmp.milli > quantity["ephemeral_storage_limit"].milli:
            raise SpecError(
                "tmp_size",
                f"{self.tmp_size!r} and ephemeral_storage_request, {self.ephemeral_storage_request!r}, are "
                f"together above ephemeral_storage_limit, {self.ephemeral_storage_limit!r}",
                hint="Raise ephemeral_storage_limit or lower tmp_size.",
                mentions=("ephemeral_storage_request", "ephemeral_storage_limit", "tmp_size"),
            )

    def _check_accepted(self) -> None:
        accepted = check_sequence("accept_admission_changes", self.accept_admission_changes)
        for i, name in enumerate(accepted):
            path = f"accept_admission_changes[{i}]"
            if check_text(path, name) not in ADMISSION_FIELDS:
                near = suggest(name, {field: field for field in ADMISSION_FIELDS})
                hint = f"Did you mean {near}?" if near else f"The fields are {', '.join(ADMISSION_FIELDS)}."
                raise SpecError(path, f"must be a field that can be accepted, got {shorten(name)}", hint=hint)
        self._put("accept_admission_changes", accepted)

    def _check_env(self) -> None:
        env = check_strings("env", self.env)
        total = 0
        for key, value in env.items():
            path = entry_path("env", key)
            check_name(path, key, names.env_name, what="the name ")
            if key.startswith(_RESERVED_ENV_PREFIX):
                raise SpecError(path, f"names starting with {_RESERVED_ENV_PREFIX} are reserved")
            if "\0" in value:
                raise SpecError(path, "must not contain a NUL")
            size = len(key.encode()) + len(value.encode())
            if size > _MAX_ENV_STRING:
                raise SpecError(path, f"has {size} bytes with its name; the maximum is {_MAX_ENV_STRING}")
            total += size
        if len(env) > _MAX_ENV_ENTRIES:
            raise SpecError("env", f"has {len(env)} variables; the maximum is {_MAX_ENV_ENTRIES}")
        if total > _MAX_ENV_BYTES:
            raise SpecError(
                "env",
                f"has {total} bytes in total; the maximum is {_MAX_ENV_BYTES}",
                hint="Pass large data as files.",
            )
        self._put("env", env)

    def _check_metadata(self) -> None:
        labels, annotations = check_strings("labels", self.labels), check_strings("annotations", self.annotations)
        for key, value in labels.items():
            check_name(entry_path("labels", key), key, names.label_key, what="the key ")
            check_name(entry_path("labels", key), value, names.label_value)
            if key == MANAGED_BY or key.startswith(_RESERVED_PREFIX) or key in _CONTROLLER_LABELS:
                raise SpecError(entry_path("labels", key), "is set by gke-sandbox or by the Job controller")
        size = 0
        for key, value in annotations.items():
            check_name(entry_path("annotations", key), key, names.annotation_key, what="the key ")
            if key.startswith(_RESERVED_PREFIX):
                raise SpecError(
                    entry_path("annotations", key), f"keys starting with {_RESERVED_PREFIX} are reserved"
                )
            size += len(key.encode()) + len(value.encode())
        if size > _MAX_ANNOTATION_BYTES:
            raise SpecError("annotations", f"have {size} bytes in total; the maximum is {_MAX_ANNOTATION_BYTES}")
        self._put("labels", labels)
        self._put("annotations", annotations)


def capped_request(request: str, limit: object) -> str:
    """Return the default of the setting `request` (``cpu_request``, ...), or `limit` if that is smaller.

    An invalid limit is not considered: the error should name the limit, not a request that the caller did not set.
    """
    default = _DEFAULT_REQUESTS[request]
    try:
        cap = parse_quantity(limit).milli if isinstance(limit, str) else 0
    except QuantityError:
        cap = 0
    return str(limit) if 0 < cap < parse_quantity(default).milli else default


_DEFAULT_REQUESTS = {
    each.name: str(each.default)
    for each in dataclasses.fields(Settings)
    if isinstance(each.default, _DefaultRequest)
}


class SettingsDict(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments. See there for units and defaults."""

    namespace: str
    image: str
    timeout: float
    startup_timeout: float
    cpu_request: str
    memory_request: str
    cpu_limit: str
    memory_limit: str
    ephemeral_storage_request: str
    ephemeral_storage_limit: str
    tmp_size: str
    delivery: Literal["auto", "env", "mount", "attach"]
    runtime_class_name: str | None
    node_selector: Mapping[str, str]
    tolerations: Sequence[Toleration | Mapping[str, Any]]
    env: Mapping[str, str]
    image_pull_secrets: Sequence[str]
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"]
    priority_class_name: str | None
    service_account_name: str | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    run_as_user: int
    run_as_group: int
    accept_admission_changes: Sequence[str]
    ttl_seconds_after_finished: int
    max_output_bytes: int
    max_file_bytes: int
    max_files: int
