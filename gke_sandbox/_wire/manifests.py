"""Build the Job and the ConfigMap of one execution as JSON: hardened, and without unnecessary fields. Pure.

With delivery ``attach`` there is no ConfigMap: the runner waits for the program on its standard input.

docs/manifests.md shows both for each delivery.
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/config-map-v1/
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ..kube.quantity import parse_quantity
from ..settings import MANAGED_BY, MANAGER, SESSION_LABEL, Settings, Toleration
from .payload import Content, Payload, env_variable, resolve_delivery, runner_text
from .program import Program

CONTAINER = "code-runner"
"""The name of the container."""
PROGRAM_ANNOTATION = "gke-sandbox/program"
"""The annotation of the Job with the digest of its program; see `Program.digest`."""

REQUEST_TIMEOUT = 60.0
"""How long a runner waits on stdin for its request, in seconds, if the program is known when the Job is created.

The client attaches as soon as the container runs; this ends the container of a client that died before.
"""

_DEADLINE_MARGIN = 30
"""The Job's deadline in seconds, in addition to startup_timeout and timeout, in case the client has died."""

_APP = "/app"
_TMP = "/tmp"
_FROM_ENV = "import os;exec(compile(os.environ.pop('GKE_SANDBOX_RUNNER'),'runner.py','exec'))"
_FROM_MOUNT = f"{_APP}/runner"

_Json = dict[str, Any]
Delivery = Literal["env", "mount", "attach"]


@dataclass(frozen=True)
class Manifests:
    """The objects of one execution: POST `job` first, then `config_map` with the uid that the server assigned."""

    name: str
    """The name of both objects."""
    delivery: Delivery
    job: _Json
    _labels: Mapping[str, str] = field(repr=False)
    _content: Content = field(repr=False)
    """The values of the ConfigMap. With ``attach`` they are in the Job."""
    request: bytes = field(default=b"", repr=False)
    """With ``attach``: what the client writes to the runner's standard input. Empty for a warm pod."""

    def config_map(self, job_uid: str) -> _Json:
        """Return the immutable ConfigMap, which is owned by the Job and deleted with it.

        `blockOwnerDeletion` is false: true requires permission to update the Job's finalizers on clusters that
        enforce it. https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents
        """
        binary = {key: base64.b64encode(value).decode() for key, value in self._content.binary_data.items()}
        return _without_empty(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": self.name,
                    "labels": dict(self._labels),
                    "ownerReferences": [
                        {
                            "apiVersion": "batch/v1",
                            "kind": "Job",
                            "name": self.name,
                            "uid": job_uid,
                            "controller": True,
                            "blockOwnerDeletion": False,
                        }
                    ],
                },
                "immutable": True,
                "data": dict(self._content.data),
                "binaryData": binary,
            }
        )


def build(
    settings: Settings, program: Program, *, name: str, session: str, slow_connection: bool = False
) -> Manifests:
    """Build the Job and the ConfigMap of one execution, both named `name` and labelled with `session`.

    `slow_connection`: whether requests to the API server are slow; see `payload.resolve_delivery`. Raises
    `SpecError`, including `PayloadTooLarge`.
    """
    annotation = {PROGRAM_ANNOTATION: program.digest(settings)}
    payload = Payload(program, settings)
    if settings.delivery == "attach":
        request = payload.attach_request()
        made = _build(settings, name, session, "attach", _waiting_runner(REQUEST_TIMEOUT), annotation)
        return dataclasses.replace(made, request=request)
    delivery = resolve_delivery(settings, payload, slow_connection)
    return _build(
        settings, name, session, delivery, payload.env if delivery == "env" else payload.mount, annotation
    )


def build_waiting(settings: Settings, *, name: str, session: str, idle_timeout: float) -> Manifests:
    """Build the Job of a warm pod, whose runner waits `idle_timeout` seconds for the request of any program."""
    return _build(settings, name, session, "attach", _waiting_runner(idle_timeout), {}, idle_timeout)


def _waiting_runner(seconds: float) -> Content:
    return Content({"runner": runner_text(), "wait": f"{seconds:g}"})


def _build(
    settings: Settings,
    name: str,
    session: str,
    delivery: Delivery,
    content: Content,
    annotations: Mapping[str, str],
    idle_timeout: float = 0.0,
) -> Manifests:
    labels = {**settings.labels, MANAGED_BY: MANAGER, SESSION_LABEL: session}
    metadata = {"name": name, "labels": dict(labels), "annotations": {**settings.annotations, **annotations}}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _without_empty(metadata),
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": _active_deadline(settings, idle_timeout),
            "ttlSecondsAfterFinished": settings.ttl_seconds_after_finished,
            "template": {
                "metadata": _without_empty({"labels": dict(labels), "annotations": dict(settings.annotations)}),
                "spec": _pod(settings, name, delivery, content),
            },
        },
    }
    return Manifests(name, delivery, job, labels, content)


def lifetime(settings: Settings, idle_timeout: float = 0.0) -> int:
    """Return the seconds after which a Job is deleted even without a client.

    `idle_timeout`: how long its pod may wait for a program, in seconds.
    """
    return _active_deadline(settings, idle_timeout) + settings.ttl_seconds_after_finished


def _active_deadline(settings: Settings, idle_timeout: float) -> int:
    return math.ceil(idle_timeout + settings.startup_timeout + settings.timeout + _DEADLINE_MARGIN)


def _without_empty(fields: _Json) -> _Json:
    """Return the fields that have a value: no None, "", {} or []."""
    return {name: value for name, value in fields.items() if value is not None and value not in ("", {}, [])}


def _pod(settings: Settings, name: str, delivery: Delivery, content: Content) -> _Json:
    volumes: list[_Json] = []
    if delivery == "mount":
        volumes = [
            {"name": "code", "configMap": {"name": name}},
            {"name": "tmp", "emptyDir": {"sizeLimit": settings.tmp_size}},
        ]
    return _without_empty(
        {
            "restartPolicy": "Never",
            "runtimeClassName": settings.runtime_class_name,
            "serviceAccountName": settings.service_account_name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "priorityClassName": settings.priority_class_name,
            "nodeSelector": dict(settings.node_selector),
            # `Settings` has converted each to a `Toleration`.
            "tolerations": [_toleration(each) for each in cast("Sequence[Toleration]", settings.tolerations)],
            "imagePullSecrets": [{"name": secret} for secret in settings.image_pull_secrets],
            # Required by the Pod Security standard `restricted`. The group owns everything that the program can
            # write. https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": settings.run_as_user,
                "runAsGroup": settings.run_as_group,
                "fsGroup": settings.run_as_group,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(settings, name, delivery, content)],
            "volumes": volumes,
        }
    )


def _toleration(toleration: Toleration) -> _Json:
    fields = dataclasses.asdict(toleration)
    fields["tolerationSeconds"] = fields.pop("toleration_seconds")
    return _without_empty(fields)


def _container(settings: Settings, name: str, delivery: Delivery, content: Content) -> _Json:
    mounts: list[_Json] = []
    variables: list[_Json] = []
    storage = settings.ephemeral_storage_request
    if delivery == "mount":
        command = ["python3", "-u", _FROM_MOUNT]
        mounts = [
            {"name": "code", "mountPath": _APP, "readOnly": True},
            {"name": "tmp", "mountPath": _TMP},
        ]
        # The volume counts as the pod's ephemeral storage, so request its size too.
        storage = str(parse_quantity(storage) + parse_quantity(settings.tmp_size))
    else:
        command = ["python3", "-u", "-c", _FROM_ENV]
        for key, value in content.data.items():
            source = {"configMapKeyRef": {"name": name, "key": key}}
            variable = env_variable(key)
            variables.append(
                _variable(variable, value) if delivery == "attach" else {"name": variable, "valueFrom": source}
            )
    variables += [_variable(*each) for each in settings.env.items()]
    return _without_empty(
        {
            "name": CONTAINER,
            "image": settings.image,
            "imagePullPolicy": settings.image_pull_policy,
            "command": command,
            "env": variables,
            "resources": {
                "requests": {
                    "cpu": settings.cpu_request,
                    "memory": settings.memory_request,
                    "ephemeral-storage": storage,
                },
                "limits": {
                    "cpu": settings.cpu_limit,
                    "memory": settings.memory_limit,
                    "ephemeral-storage": settings.ephemeral_storage_limit,
                },
            },
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": mounts,
            # If the first connection ends, so does the runner's standard input.
            "stdin": delivery == "attach" or None,
            "stdinOnce": delivery == "attach" or None,
        }
    )


def _variable(name: str, value: str) -> _Json:
    # Kubernetes expands $(X) in values, and $$ is an escaped $.
    # https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    return _without_empty({"name": name, "value": value.replace("$", "$$")})
