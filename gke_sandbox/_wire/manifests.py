"""The Job and the ConfigMap of one execution, as JSON: hardened, and nothing in them that need not be. Pure.

`build` makes both from `Settings` and a `Program`; docs/manifests.md shows them for each delivery. The dataclasses
know only the fields that we use, in Kubernetes' own words.
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/config-map-v1/
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ..errors import SpecError
from ..kube import names
from ..kube.quantity import parse_quantity
from ..settings import MANAGED_BY, MANAGER, SESSION_LABEL, Settings, Toleration
from .payload import Content, Payload, env_variable, resolve_delivery
from .program import Program

__all__ = ["CONTAINER", "MANAGED_BY", "SESSION_LABEL", "Manifests", "build", "to_json"]

CONTAINER = "code-runner"

#: Beyond startup_timeout and timeout: the Job ends by itself, should the client be gone.
_GRACE_SECONDS = 30
_APP = "/app"
_TMP = "/tmp"
_FROM_ENV = "import os;exec(compile(os.environ.pop('GKE_SANDBOX_RUNNER'),'runner.py','exec'))"
_FROM_MOUNT = f"{_APP}/runner"


@dataclass(frozen=True, kw_only=True)
class OwnerReference:
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool
    block_owner_deletion: bool


@dataclass(frozen=True, kw_only=True)
class ObjectMeta:
    name: str | None = None
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    owner_references: Sequence[OwnerReference] = ()


@dataclass(frozen=True, kw_only=True)
class ConfigMapKeySelector:
    name: str
    key: str


@dataclass(frozen=True, kw_only=True)
class EnvVarSource:
    config_map_key_ref: ConfigMapKeySelector


@dataclass(frozen=True, kw_only=True)
class EnvVar:
    name: str
    value: str | None = None
    value_from: EnvVarSource | None = None


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    drop: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class SecurityContext:
    allow_privilege_escalation: bool
    read_only_root_filesystem: bool
    capabilities: Capabilities


@dataclass(frozen=True, kw_only=True)
class SeccompProfile:
    type: str


@dataclass(frozen=True, kw_only=True)
class PodSecurityContext:
    run_as_non_root: bool
    run_as_user: int
    run_as_group: int
    fs_group: int
    seccomp_profile: SeccompProfile


@dataclass(frozen=True, kw_only=True)
class ResourceRequirements:
    requests: Mapping[str, str]
    limits: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class VolumeMount:
    name: str
    mount_path: str
    read_only: bool | None = None


@dataclass(frozen=True, kw_only=True)
class LocalObjectReference:
    name: str


@dataclass(frozen=True, kw_only=True)
class EmptyDirVolumeSource:
    size_limit: str


@dataclass(frozen=True, kw_only=True)
class Volume:
    name: str
    config_map: LocalObjectReference | None = None
    empty_dir: EmptyDirVolumeSource | None = None


@dataclass(frozen=True, kw_only=True)
class Container:
    name: str
    image: str
    image_pull_policy: str
    command: Sequence[str]
    env: Sequence[EnvVar]
    resources: ResourceRequirements
    security_context: SecurityContext
    volume_mounts: Sequence[VolumeMount]


@dataclass(frozen=True, kw_only=True)
class PodSpec:
    restart_policy: str
    runtime_class_name: str | None
    service_account_name: str | None
    automount_service_account_token: bool
    enable_service_links: bool
    termination_grace_period_seconds: int
    priority_class_name: str | None
    node_selector: Mapping[str, str]
    tolerations: Sequence[Toleration]
    image_pull_secrets: Sequence[LocalObjectReference]
    security_context: PodSecurityContext
    containers: Sequence[Container]
    volumes: Sequence[Volume]


@dataclass(frozen=True, kw_only=True)
class PodTemplateSpec:
    metadata: ObjectMeta
    spec: PodSpec


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    backoff_limit: int
    active_deadline_seconds: int
    ttl_seconds_after_finished: int
    template: PodTemplateSpec


@dataclass(frozen=True, kw_only=True)
class Job:
    api_version: str = "batch/v1"
    kind: str = "Job"
    metadata: ObjectMeta
    spec: JobSpec


@dataclass(frozen=True, kw_only=True)
class ConfigMap:
    api_version: str = "v1"
    kind: str = "ConfigMap"
    metadata: ObjectMeta
    immutable: bool
    data: Mapping[str, str]
    binary_data: Mapping[str, str]


def to_json(value: object) -> Any:
    """A builder's JSON: ``restart_policy`` becomes ``restartPolicy``; fields that are None or empty are left out.

    Keys and values of mappings (labels, data) are the caller's and stay as they are.
    """
    if dataclasses.is_dataclass(value):
        fields = {each.name: to_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return {
            _camel(name): item for name, item in fields.items() if item is not None and item not in ("", {}, [])
        }
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


@functools.cache
def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


@dataclass(frozen=True)
class Manifests:
    """What is POSTed for one execution: first `job`, then, with the uid that the server gave it, `config_map`."""

    name: str
    delivery: Literal["env", "mount"]
    job: dict[str, Any]
    _labels: Mapping[str, str] = field(repr=False)
    _content: Content = field(repr=False)

    def config_map(self, job_uid: str) -> dict[str, Any]:
        """The immutable ConfigMap that the Job names, owned by the Job and collected with it.

        `blockOwnerDeletion` is false: true would need the right to update the Job's finalizers on clusters that
        enforce it. https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents
        """
        owner = OwnerReference(
            api_version="batch/v1",
            kind="Job",
            name=self.name,
            uid=job_uid,
            controller=True,
            block_owner_deletion=False,
        )
        body: dict[str, Any] = to_json(
            ConfigMap(
                metadata=ObjectMeta(name=self.name, labels=self._labels, owner_references=[owner]),
                immutable=True,
                data=self._content.data,
                binary_data={
                    key: base64.b64encode(value).decode() for key, value in self._content.binary_data.items()
                },
            )
        )
        return body


def build(
    settings: Settings, program: Program, *, name: str, session: str, slow_connection: bool = False
) -> Manifests:
    """Make the Job and the ConfigMap of one execution, both called `name`, labelled with `session`.

    `slow_connection` says that the API server is far away, see `payload.resolve_delivery`. Pure: no clock, no
    network, no chance. Raises `SpecError`, `PayloadTooLarge` among them.
    """
    # The Job's name becomes the pod's host name and a label.
    for path, errors in (("name", names.dns_label(name)), ("session", names.label_value(session))):
        if errors:
            raise SpecError(path, f"is not valid: {'; '.join(errors)}")
    payload = Payload(program, settings)
    delivery = resolve_delivery(settings, payload, slow_connection)
    content = payload.env if delivery == "env" else payload.mount
    labels = {**settings.labels, MANAGED_BY: MANAGER, SESSION_LABEL: session}
    job = Job(
        metadata=ObjectMeta(name=name, labels=labels, annotations=settings.annotations),
        spec=JobSpec(
            backoff_limit=0,
            active_deadline_seconds=_active_deadline(settings),
            ttl_seconds_after_finished=settings.ttl_seconds_after_finished,
            template=PodTemplateSpec(
                metadata=ObjectMeta(labels=labels, annotations=settings.annotations),
                spec=_pod(settings, name, delivery, content),
            ),
        ),
    )
    return Manifests(name, delivery, to_json(job), labels, content)


def lifetime(settings: Settings) -> int:
    """The seconds after which a Job is gone, though nobody deletes it."""
    return _active_deadline(settings) + settings.ttl_seconds_after_finished


def _active_deadline(settings: Settings) -> int:
    return math.ceil(settings.startup_timeout + settings.timeout + _GRACE_SECONDS)


def _pod(settings: Settings, name: str, delivery: Literal["env", "mount"], content: Content) -> PodSpec:
    volumes = []
    if delivery == "mount":
        volumes = [
            Volume(name="code", config_map=LocalObjectReference(name=name)),
            Volume(name="tmp", empty_dir=EmptyDirVolumeSource(size_limit=settings.tmp_size)),
        ]
    return PodSpec(
        restart_policy="Never",
        runtime_class_name=settings.runtime_class_name,
        service_account_name=settings.service_account_name,
        automount_service_account_token=False,
        enable_service_links=False,
        termination_grace_period_seconds=1,
        priority_class_name=settings.priority_class_name,
        node_selector=settings.node_selector,
        # `Settings` has made a `Toleration` of each.
        tolerations=cast("Sequence[Toleration]", settings.tolerations),
        image_pull_secrets=[LocalObjectReference(name=secret) for secret in settings.image_pull_secrets],
        # What the `restricted` standard asks for, and the group of everything that the program can write to.
        # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
        security_context=PodSecurityContext(
            run_as_non_root=True,
            run_as_user=settings.run_as_user,
            run_as_group=settings.run_as_group,
            fs_group=settings.run_as_group,
            seccomp_profile=SeccompProfile(type="RuntimeDefault"),
        ),
        containers=[_container(settings, name, delivery, content)],
        volumes=volumes,
    )


def _container(settings: Settings, name: str, delivery: Literal["env", "mount"], content: Content) -> Container:
    mounts: list[VolumeMount] = []
    variables: list[EnvVar] = []
    storage = settings.ephemeral_storage_request
    if delivery == "mount":
        command = ["python3", "-u", _FROM_MOUNT]
        mounts = [
            VolumeMount(name="code", mount_path=_APP, read_only=True),
            VolumeMount(name="tmp", mount_path=_TMP),
        ]
        # The volume counts as the pod's local storage: what is not asked for may not be there.
        storage = str(parse_quantity(storage) + parse_quantity(settings.tmp_size))
    else:
        command = ["python3", "-u", "-c", _FROM_ENV]
        for key in content.data:
            source = EnvVarSource(config_map_key_ref=ConfigMapKeySelector(name=name, key=key))
            variables.append(EnvVar(name=env_variable(key), value_from=source))
    for key, value in settings.env.items():
        # $(X) in a value would be expanded, and $$ is how a $ is written.
        # https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
        variables.append(EnvVar(name=key, value=value.replace("$", "$$")))
    return Container(
        name=CONTAINER,
        image=settings.image,
        image_pull_policy=settings.image_pull_policy,
        command=command,
        env=variables,
        resources=ResourceRequirements(
            requests={
                "cpu": settings.cpu_request,
                "memory": settings.memory_request,
                "ephemeral-storage": storage,
            },
            limits={
                "cpu": settings.cpu_limit,
                "memory": settings.memory_limit,
                "ephemeral-storage": settings.ephemeral_storage_limit,
            },
        ),
        security_context=SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=Capabilities(drop=["ALL"]),
        ),
        volume_mounts=mounts,
    )
