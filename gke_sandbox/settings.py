"""What is asked for: `Settings` of a Sandbox and the `Program` of one execution. Pure values, checked when made.

Whatever the API server would refuse, and what it would take though it cannot work, is refused here with a
`SpecError` that names the field, before any request.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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
)
from .errors import SpecError
from .kube import names

__all__ = ["GVISOR", "MANAGED_BY", "MANAGER", "SESSION_LABEL", "Settings", "Toleration"]

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "gke-sandbox"
SESSION_LABEL = "gke-sandbox/session"
#: GKE's name for the RuntimeClass, and the value of the taint on its nodes.
#: https://cloud.google.com/kubernetes-engine/docs/how-to/sandbox-pods
GVISOR = "gvisor"

_OWN_PREFIX = "gke-sandbox/"
#: The Job controller sets these on every pod of a Job, and refuses a Job that sets them otherwise.
#: https://kubernetes.io/docs/reference/labels-annotations-taints/#batch-kubernetes-io-job-name
_CONTROLLER_LABELS = {
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
}
_OWN_ENV_PREFIX = "GKE_SANDBOX_"

_MAX_INT32 = (1 << 31) - 1
_MAX_INT64 = (1 << 63) - 1
#: The runner ends the log at 8 MiB, whatever it is told.
_MAX_OUTPUT_BYTES = 8 << 20
#: Files travel compressed, so more of them than 8 MiB may come back.
_MAX_FILE_BYTES = 64 << 20
_MAX_FILES = 10_000
#: Linux gives a program no single string above 128 KiB: name, `=`, value and a NUL.
#: https://man7.org/linux/man-pages/man2/execve.2.html
_MAX_ENV_STRING = (128 << 10) - 2
#: The Job carries them, and so does every one of the pod's watch events, several times over.
_MAX_ENV_ENTRIES = 256
_MAX_ENV_BYTES = 256 << 10
#: https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/
_MAX_ANNOTATION_BYTES = 256 << 10
_MIN_MEMORY_LIMIT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """A taint that the pod tolerates; fields are Kubernetes', None is not sent.

    https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    """

    key: str | None = None
    operator: Literal["Equal", "Exists"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None

    @classmethod
    def from_json(cls, path: str, given: object) -> Toleration:
        """A `Toleration`, or a mapping with Kubernetes' own keys. Raises `SpecError` with `path`."""
        if isinstance(given, Toleration):
            given._check(path)
            return given
        if not isinstance(given, Mapping):
            raise SpecError(path, f"must be a Toleration or a mapping, not {describe(given)}")
        known = {"key", "operator", "value", "effect", "tolerationSeconds"}
        unknown = [key for key in given if key not in known]
        if unknown:
            raise SpecError(path, f"has no field {unknown[0]!r}; the fields are {', '.join(sorted(known))}")
        toleration = cls(
            key=given.get("key"),
            operator=given.get("operator"),
            value=given.get("value"),
            effect=given.get("effect"),
            toleration_seconds=given.get("tolerationSeconds"),
        )
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
            raise SpecError(f"{path}.operator", "must be Exists when there is no key (it tolerates every taint)")
        if self.operator == "Exists":
            if self.value:
                raise SpecError(f"{path}.value", "must be left out when the operator is Exists")
        elif self.value is not None:
            check_name(f"{path}.value", self.value, names.label_value)
        if self.toleration_seconds is not None:
            check_integer(f"{path}.tolerationSeconds", self.toleration_seconds, -_MAX_INT64, _MAX_INT64)
            if self.effect != "NoExecute":
                raise SpecError(f"{path}.effect", "must be NoExecute when there are tolerationSeconds")


_GVISOR_TOLERATION = Toleration(key="sandbox.gke.io/runtime", operator="Equal", value=GVISOR, effect="NoSchedule")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything about a Sandbox that shapes an execution. Immutable; `override` makes a changed copy.

    Seconds and bytes where nothing else is said; resources are Kubernetes' quantities. Lists and mappings are
    copied. Raises `SpecError` when made with something that cannot be.
    """

    namespace: str = "default"
    image: str = "python:3.11-slim"
    #: The program's own time, from the runner's fork to its end.
    timeout: float = 300.0
    #: From the Job's creation until the container runs: scheduling, a node's provisioning, the image's pull.
    startup_timeout: float = 300.0
    cpu_request: str = "200m"
    memory_request: str = "256Mi"
    cpu_limit: str = "500m"
    memory_limit: str = "512Mi"
    #: Without what `tmp_size` adds to it when there is a volume.
    ephemeral_storage_request: str = "64Mi"
    ephemeral_storage_limit: str = "256Mi"
    #: The volume at /tmp, when the program is mounted; by environment there is no volume.
    tmp_size: str = "64Mi"
    delivery: Literal["auto", "env", "mount"] = "auto"
    #: None: not sent, the cluster's default runtime.
    runtime_class_name: str | None = GVISOR
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Toleration | Mapping[str, Any]] = (_GVISOR_TOLERATION,)
    #: The program's environment variables; `$(X)` in a value is not expanded.
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Names of Secrets in the namespace.
    image_pull_secrets: Sequence[str] = ()
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    priority_class_name: str | None = None
    service_account_name: str | None = None
    #: On Job, pod and ConfigMap.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: On Job and pod.
    annotations: Mapping[str, str] = field(default_factory=dict)
    run_as_user: int = 1001
    run_as_group: int = 1001
    #: How long a finished Job stays if nobody deletes it.
    ttl_seconds_after_finished: int = 60
    #: Of stdout, and of stderr.
    max_output_bytes: int = 1 << 20
    #: Of all files that come back, together.
    max_file_bytes: int = 4 << 20
    max_files: int = 100

    def __post_init__(self) -> None:
        check_name("namespace", self.namespace, names.dns_label)
        self._check_image()
        for name in ("timeout", "startup_timeout"):
            self._put(name, check_seconds(name, getattr(self, name)))
        self._check_resources()
        check_choice("delivery", self.delivery, ("auto", "env", "mount"))
        check_choice("image_pull_policy", self.image_pull_policy, ("Always", "IfNotPresent", "Never"))
        for name in ("runtime_class_name", "priority_class_name", "service_account_name"):
            value = getattr(self, name)
            if value is not None:
                check_name(name, value, names.dns_subdomain, hint=f"{name}=None leaves it out")
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
        # The container may not run as root (runAsNonRoot), and group 0 owns half of an image.
        check_integer("run_as_user", self.run_as_user, 1, _MAX_INT32)
        check_integer("run_as_group", self.run_as_group, 1, _MAX_INT32)
        check_integer("ttl_seconds_after_finished", self.ttl_seconds_after_finished, 0, _MAX_INT32)
        check_integer("max_output_bytes", self.max_output_bytes, 0, _MAX_OUTPUT_BYTES)
        check_integer("max_file_bytes", self.max_file_bytes, 0, _MAX_FILE_BYTES)
        check_integer("max_files", self.max_files, 0, _MAX_FILES)

    def override(self, **changes: Any) -> Settings:
        """A copy with these fields changed, checked again. Raises `SpecError`, also for a name that is none."""
        known = [each.name for each in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"settings are {', '.join(known)}"
                raise SpecError(name, "there is no such setting", hint=hint)
        return dataclasses.replace(self, **changes)

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_image(self) -> None:
        image = check_text("image", self.image)
        if not image.strip():
            raise SpecError("image", "must not be empty")
        if re.search(r"[\s\x00-\x1f\x7f]", image):
            raise SpecError("image", f"{image!r} must not contain white space or control characters")

    def _check_resources(self) -> None:
        quantity = {
            name: check_quantity(name, getattr(self, name))
            for name in (
                "cpu_request",
                "cpu_limit",
                "memory_request",
                "memory_limit",
                "ephemeral_storage_request",
                "ephemeral_storage_limit",
                "tmp_size",
            )
        }
        if quantity["memory_limit"].value < _MIN_MEMORY_LIMIT:
            raise SpecError(
                "memory_limit",
                f"{self.memory_limit!r} is less than 1Mi, and no program fits into that",
                hint="m is a thousandth of a byte, M a million bytes, Mi 2^20 bytes",
            )
        for resource in ("cpu", "memory", "ephemeral_storage"):
            request, limit = f"{resource}_request", f"{resource}_limit"
            # The server rounds both up to thousandths before it compares them.
            if quantity[request].milli > quantity[limit].milli:
                raise SpecError(
                    request,
                    f"{getattr(self, request)!r} is above {limit}, {getattr(self, limit)!r}",
                    hint=f"set {request} and {limit} together",
                )
        # https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#local-ephemeral-storage
        with_tmp = quantity["ephemeral_storage_request"] + quantity["tmp_size"]
        if self.delivery != "env" and with_tmp.milli > quantity["ephemeral_storage_limit"].milli:
            raise SpecError(
                "tmp_size",
                f"{self.tmp_size!r} and ephemeral_storage_request, {self.ephemeral_storage_request!r}, are "
                f"together above ephemeral_storage_limit, {self.ephemeral_storage_limit!r}",
                hint="raise ephemeral_storage_limit",
            )

    def _check_env(self) -> None:
        env = check_strings("env", self.env)
        total = 0
        for key, value in env.items():
            path = entry_path("env", key)
            check_name(path, key, names.env_name, what="the name ")
            if key.startswith(_OWN_ENV_PREFIX):
                raise SpecError(path, f"names that begin with {_OWN_ENV_PREFIX} are the runner's own")
            if "\0" in value:
                raise SpecError(path, "must not contain a NUL")
            size = len(key.encode()) + len(value.encode())
            if size > _MAX_ENV_STRING:
                raise SpecError(path, f"is {size} bytes long with its name; {_MAX_ENV_STRING} are the most")
            total += size
        if len(env) > _MAX_ENV_ENTRIES:
            raise SpecError("env", f"has {len(env)} variables; {_MAX_ENV_ENTRIES} are the most")
        if total > _MAX_ENV_BYTES:
            raise SpecError(
                "env", f"is {total} bytes in all; {_MAX_ENV_BYTES} are the most", hint="pass large data as files"
            )
        self._put("env", env)

    def _check_metadata(self) -> None:
        labels, annotations = check_strings("labels", self.labels), check_strings("annotations", self.annotations)
        for key, value in labels.items():
            check_name(entry_path("labels", key), key, names.label_key, what="the key ")
            check_name(entry_path("labels", key), value, names.label_value)
            if key == MANAGED_BY or key.startswith(_OWN_PREFIX) or key in _CONTROLLER_LABELS:
                raise SpecError(entry_path("labels", key), "is set by gke-sandbox or by the Job controller")
        size = 0
        for key, value in annotations.items():
            check_name(entry_path("annotations", key), key, names.annotation_key, what="the key ")
            if key.startswith(_OWN_PREFIX):
                raise SpecError(entry_path("annotations", key), f"keys that begin with {_OWN_PREFIX} are our own")
            size += len(key.encode()) + len(value.encode())
        if size > _MAX_ANNOTATION_BYTES:
            raise SpecError("annotations", f"are {size} bytes in all; {_MAX_ANNOTATION_BYTES} are the most")
        self._put("labels", labels)
        self._put("annotations", annotations)
