"""Changes that mutating admission made to a Job or to its pod, and that are not safe. Pure: JSON in, changes out.

A change is unsafe if it removes hardening, gives the program access that it was not given, or can run the program
twice. Defaults of the API server, stricter values, and changes of resources, labels, environment, volumes, init
containers and sidecars are safe. The comparison is with what was sent, not with an ideal.
https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .finding import json_text, mapping, mappings, only

__all__ = ["FIELDS", "RELEASE_FIELDS", "Change", "compared_fields", "job_changes", "pod_changes", "pod_spec_of"]

RELEASE_FIELDS = frozenset({"activeDeadlineSeconds", "args", "command"})
"""Fields whose sent value depends on this package's release, or on a setting that a cassette does not match on."""

_TOKEN = "automountServiceAccountToken"
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_MAX_VALUE_LENGTH = 120

IsSafe = Callable[[Any, Any], bool]
"""Whether a value may be received for the one that was sent. None is a field that is not set."""


@dataclass(frozen=True)
class Change:
    """One unsafe change. `field` is the name that accepts it, "" if it cannot be accepted."""

    field: str
    path: str
    sent: object
    received: object

    def __str__(self) -> str:
        return f"{self.path}: sent {_format(self.sent)}, received {_format(self.received)}"


def _format(value: object) -> str:
    return "nothing" if value is None else json_text(value, _MAX_VALUE_LENGTH)


# -- the rules ------------------------------------------------------------------------------------------------


def _at_most(default: float) -> IsSafe:
    """A number that may not grow; `default` is its meaning when it is not set."""

    def is_safe(sent: Any, received: Any) -> bool:
        allowed = default if sent is None else sent
        value = default if received is None else received
        return isinstance(value, (int, float)) and bool(value <= allowed)

    return is_safe


def _stays(value: bool) -> IsSafe:
    """A switch that must still have `value` if it was sent so."""
    return lambda sent, received: sent is not value or received is value


def _stays_off(sent: Any, received: Any) -> bool:
    return not received or bool(sent)


def _same(sent: Any, received: Any) -> bool:
    return (sent or None) == (received or None)


def _id_kept(sent: Any, received: Any) -> bool:
    """A user or group that is not removed and does not become root; another one is safe."""
    return bool(received == sent) or received not in (None, 0)


def _still_confined(sent: Any, received: Any) -> bool:
    """A seccomp profile: none, and a type that is not known, confine nothing."""
    confined = ("RuntimeDefault", "Localhost")
    return mapping(sent).get("type") not in confined or mapping(received).get("type") in confined


def _usual_selinux(sent: Any, received: Any) -> bool:
    """As the Pod Security standard `baseline` allows it."""
    options = mapping(received)
    usual = (None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
    return received == sent or (options.get("type") in usual and not (options.get("user") or options.get("role")))


def _no_more_capabilities(sent: Any, received: Any) -> bool:
    sent, received = mapping(sent), mapping(received)
    dropped = _list(received.get("drop"))
    return ("ALL" in dropped or all(each in dropped for each in _list(sent.get("drop")))) and all(
        each in _list(sent.get("add")) for each in _list(received.get("add"))
    )


def _every_failure_counts(sent: Any, received: Any) -> bool:
    """A failure that is ignored is not counted: the pod is replaced, whatever the backoffLimit."""
    rules = mappings(mapping(received).get("rules"))
    return received == sent or all(rule.get("action") in ("FailJob", "FailIndex", "Count") for rule in rules)


_JOB: dict[str, IsSafe] = {
    "parallelism": _at_most(1),
    "completions": _at_most(1),
    "backoffLimit": _at_most(6),
    "backoffLimitPerIndex": _at_most(0),
    "podFailurePolicy": _every_failure_counts,
    "activeDeadlineSeconds": _at_most(math.inf),
}
_POD: dict[str, IsSafe] = {
    "restartPolicy": lambda sent, received: received in ("Never", sent),
    "runtimeClassName": lambda sent, received: sent is None or received == sent,
    "serviceAccountName": lambda sent, received: (received or "default") == (sent or "default"),
    _TOKEN: _stays(False),
    "hostNetwork": _stays_off,
    "hostPID": _stays_off,
    "hostIPC": _stays_off,
    "hostUsers": _stays(False),
    "shareProcessNamespace": _stays_off,
}
_POD_SECURITY: dict[str, IsSafe] = {
    "fsGroup": lambda sent, received: received != 0 or sent == 0,
    "supplementalGroups": lambda sent, received: 0 not in _list(received) or 0 in _list(sent),
}
# The container's value counts; if it has none, the pod's.
_EITHER_SECURITY: dict[str, IsSafe] = {
    "runAsNonRoot": _stays(True),
    "runAsUser": _id_kept,
    "runAsGroup": _id_kept,
    "seccompProfile": _still_confined,
    "appArmorProfile": lambda sent, received: received == sent or mapping(received).get("type") != "Unconfined",
    "seLinuxOptions": _usual_selinux,
}
_CONTAINER_SECURITY: dict[str, IsSafe] = {
    "privileged": _stays_off,
    "allowPrivilegeEscalation": _stays(False),
    "readOnlyRootFilesystem": _stays(True),
    "capabilities": _no_more_capabilities,
    "procMount": lambda sent, received: received in (None, "", "Default", sent),
}
# Since Kubernetes 1.34 each container can have its own restart policy.
_CONTAINER: dict[str, IsSafe] = {
    "command": _same,
    "args": _same,
    "restartPolicy": lambda sent, received: received in (None, "Never", sent),
    "restartPolicyRules": _same,
}

_TABLES = (_JOB, _POD, _POD_SECURITY, _EITHER_SECURITY, _CONTAINER_SECURITY, _CONTAINER)
FIELDS = frozenset(name for table in _TABLES for name in table) | {"hostPath", "podCertificate"}
"""The names that accept a change. A missing container cannot be accepted: it would run unseen."""


# -- the comparison -------------------------------------------------------------------------------------------


def job_changes(sent: Mapping[str, Any], received: Mapping[str, Any], container: str) -> list[Change]:
    """The unsafe changes of a Job: `sent` as it was posted, `received` as the API server returned it.

    An object without a spec is not compared: admission cannot remove it, an API server always returns it.
    """
    before, after = mapping(sent.get("spec")), received.get("spec")
    if not isinstance(after, Mapping):
        return []
    template = mapping(mapping(after.get("template")).get("spec"))
    return [
        *_compare(_JOB, "spec", before, after),
        *_pod_spec_changes(pod_spec_of(sent), template, container, "spec.template.spec"),
    ]


def pod_changes(sent: Mapping[str, Any], pod: Mapping[str, Any], container: str) -> list[Change]:
    """The unsafe changes of a pod, compared with the template of the Job as it was posted."""
    spec = pod.get("spec")
    return list(_pod_spec_changes(pod_spec_of(sent), spec, container, "spec")) if isinstance(spec, Mapping) else []


def compared_fields(sent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a Job as it was posted with those fields only that `job_changes` and `pod_changes` read.

    Without the variables of its container, for example, which are most of it. Equal Jobs share the result.
    """
    spec, names = pod_spec_of(sent), (*_CONTAINER, "name", "resources", "securityContext")
    containers = [only(each, names) for each in mappings(spec.get("containers"))]
    template = {"spec": {**only(spec, (*_POD, "securityContext")), "containers": containers}}
    return _shared(json.dumps({"spec": {**mapping(sent.get("spec")), "template": template}}))


@lru_cache(maxsize=64)
def _shared(job: str) -> Mapping[str, Any]:
    return mapping(json.loads(job))


def pod_spec_of(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the spec of a Job's pod template."""
    return mapping(mapping(mapping(job.get("spec")).get("template")).get("spec"))


def _pod_spec_changes(
    sent: Mapping[str, Any], received: Mapping[str, Any], container: str, path: str
) -> Iterator[Change]:
    yield from _compare(_POD, path, sent, received)
    sent_pod, pod = mapping(sent.get("securityContext")), mapping(received.get("securityContext"))
    yield from _compare(_POD_SECURITY, f"{path}.securityContext", sent_pod, pod)
    containers = mappings(received.get("containers"))
    names = [each.get("name") for each in containers]
    if container not in names:
        yield Change("", f"{path}.containers", [container], names)
        return
    index = names.index(container)
    at, after = f"{path}.containers[{index}]", containers[index]
    before = next((each for each in mappings(sent.get("containers")) if each.get("name") == container), {})
    yield from _compare(_CONTAINER, at, before, after)
    sent_own, own = mapping(before.get("securityContext")), mapping(after.get("securityContext"))
    yield from _compare(_CONTAINER_SECURITY, f"{at}.securityContext", sent_own, own)
    for name, is_safe in _EITHER_SECURITY.items():
        wanted, found = _either(sent_own, sent_pod, name), _either(own, pod, name)
        if not is_safe(wanted, found):
            where = at if own.get(name) is not None else path
            yield Change(name, f"{where}.securityContext.{name}", wanted, found)
    yield from _restart_changes(received, container, path)
    yield from _mount_changes(received, after, path, at)


def _compare(
    table: Mapping[str, IsSafe], path: str, sent: Mapping[str, Any], received: Mapping[str, Any]
) -> Iterator[Change]:
    for name, is_safe in table.items():
        wanted, found = sent.get(name), received.get(name)
        if not is_safe(wanted, found):
            yield Change(name, f"{path}.{name}", wanted, found)


def _restart_changes(spec: Mapping[str, Any], container: str, path: str) -> Iterator[Change]:
    """Return restart rules of other containers that can restart the program: all actions except Restart.

    https://www.kubernetes.dev/resources/keps/5532/
    """
    for kind in ("initContainers", "containers"):
        for i, each in enumerate(mappings(spec.get(kind))):
            rules = mappings(each.get("restartPolicyRules"))
            if each.get("name") != container and any(rule.get("action") != "Restart" for rule in rules):
                yield Change("restartPolicyRules", f"{path}.{kind}[{i}].restartPolicyRules", None, rules)


def _mount_changes(spec: Mapping[str, Any], container: Mapping[str, Any], path: str, at: str) -> Iterator[Change]:
    """The node's files, service account tokens and pod certificates in the container. None is ever sent."""
    volumes = {each.get("name"): (i, each) for i, each in enumerate(mappings(spec.get("volumes")))}
    for i, mount in enumerate(mappings(container.get("volumeMounts"))):
        place = str(mount.get("mountPath") or "")
        number, volume = volumes.get(mount.get("name"), (0, {}))
        if "hostPath" in volume:
            yield Change("hostPath", f"{path}.volumes[{number}].hostPath", None, volume["hostPath"])
        credentials = [
            Change(field, f"{path}.volumes[{number}].projected.sources[{j}].{name}", None, source[name])
            for j, source in enumerate(mappings(mapping(volume.get("projected")).get("sources")))
            for name, field in (("serviceAccountToken", _TOKEN), ("podCertificate", "podCertificate"))
            if name in source
        ]
        yield from credentials
        if not credentials and (place == _TOKEN_PATH or place.startswith(f"{_TOKEN_PATH}/")):
            yield Change(_TOKEN, f"{at}.volumeMounts[{i}].mountPath", None, place)


def _either(container: Mapping[str, Any], pod: Mapping[str, Any], name: str) -> Any:
    own = container.get(name)
    return pod.get(name) if own is None else own


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
