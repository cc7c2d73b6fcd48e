"""Every control of the Pod Security standard `restricted`, which includes `baseline`, as data.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ (Kubernetes 1.34), independent of the package.
Controls that the standard relaxes for Windows pods and for user namespaces are not relaxed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple


class Undefined:
    """The value of a field that is not set."""

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED = Undefined()
Allows = Callable[[Any], bool]


class Rule(NamedTuple):
    """One row of the tables of the standard, or a part of it."""

    control: str
    profile: Literal["baseline", "restricted"]
    paths: tuple[str, ...]
    """Fields of the pod template. ``containers`` includes initContainers and ephemeralContainers."""
    allows: Allows
    inherited: bool = False
    """A container without a value has that of the pod, which is the first path; one of them must be set."""


def one_of(*values: Any) -> Allows:
    # Not `in`: False == 0, and a list cannot be hashed.
    return lambda value: any(type(value) is type(each) and value == each for each in values)


def subset_of(*values: str) -> Allows:
    return lambda value: value is UNDEFINED or set(value) <= set(values)


def _profile(value: Any) -> bool:
    return value in (UNDEFINED, "runtime/default") or str(value).startswith("localhost/")


def _contains_all(value: Any) -> bool:
    return value is not UNDEFINED and "ALL" in value


_DEFAULT_CAPABILITIES = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
_SAFE_SYSCTLS = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
)
_VOLUMES = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
_POD = "spec.securityContext"
_BOX = "spec.containers[*].securityContext"
_not_true = one_of(UNDEFINED, False)
_profile_type = one_of(UNDEFINED, "RuntimeDefault", "Localhost")

RULES = (
    Rule(
        "HostProcess",
        "baseline",
        (f"{_POD}.windowsOptions.hostProcess", f"{_BOX}.windowsOptions.hostProcess"),
        _not_true,
    ),
    Rule("Host Namespaces", "baseline", ("spec.hostNetwork", "spec.hostPID", "spec.hostIPC"), _not_true),
    Rule("Privileged Containers", "baseline", (f"{_BOX}.privileged",), _not_true),
    Rule("Capabilities", "baseline", (f"{_BOX}.capabilities.add",), subset_of(*_DEFAULT_CAPABILITIES)),
    Rule("HostPath Volumes", "baseline", ("spec.volumes[*].hostPath",), one_of(UNDEFINED)),
    Rule("Host Ports", "baseline", ("spec.containers[*].ports[*].hostPort",), one_of(UNDEFINED, 0)),
    Rule(
        "Host Probes / Lifecycle Hooks",
        "baseline",
        tuple(
            f"spec.containers[*].{handler}.{kind}.host"
            for handler in (
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
                "lifecycle.postStart",
                "lifecycle.preStop",
            )
            for kind in ("httpGet", "tcpSocket")
        ),
        one_of(UNDEFINED, ""),
    ),
    Rule("AppArmor", "baseline", (f"{_POD}.appArmorProfile.type", f"{_BOX}.appArmorProfile.type"), _profile_type),
    Rule(
        "AppArmor",
        "baseline",
        ("metadata.annotations[container.apparmor.security.beta.kubernetes.io/]",),
        _profile,
    ),
    Rule(
        "SELinux",
        "baseline",
        (f"{_POD}.seLinuxOptions.type", f"{_BOX}.seLinuxOptions.type"),
        one_of(UNDEFINED, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"),
    ),
    Rule(
        "SELinux",
        "baseline",
        tuple(f"{base}.seLinuxOptions.{name}" for base in (_POD, _BOX) for name in ("user", "role")),
        one_of(UNDEFINED, ""),
    ),
    Rule("/proc Mount Type", "baseline", (f"{_BOX}.procMount",), one_of(UNDEFINED, "Default")),
    Rule("Seccomp", "baseline", (f"{_POD}.seccompProfile.type", f"{_BOX}.seccompProfile.type"), _profile_type),
    Rule("Sysctls", "baseline", (f"{_POD}.sysctls[*].name",), one_of(UNDEFINED, *_SAFE_SYSCTLS)),
    Rule("Volume Types", "restricted", ("spec.volumes[*]",), subset_of("name", *_VOLUMES)),
    Rule("Privilege Escalation", "restricted", (f"{_BOX}.allowPrivilegeEscalation",), one_of(False)),
    Rule(
        "Running as Non-root", "restricted", (f"{_POD}.runAsNonRoot", f"{_BOX}.runAsNonRoot"), one_of(True), True
    ),
    Rule(
        "Running as Non-root user",
        "restricted",
        (f"{_POD}.runAsUser", f"{_BOX}.runAsUser"),
        lambda value: value is UNDEFINED or value > 0,
    ),
    Rule(
        "Seccomp",
        "restricted",
        (f"{_POD}.seccompProfile.type", f"{_BOX}.seccompProfile.type"),
        one_of("RuntimeDefault", "Localhost"),
        True,
    ),
    Rule("Capabilities", "restricted", (f"{_BOX}.capabilities.drop",), _contains_all),
    Rule("Capabilities", "restricted", (f"{_BOX}.capabilities.add",), subset_of("NET_BIND_SERVICE")),
)


def values(at: Any, path: str, done: str = "") -> Iterator[tuple[str, Any]]:
    """Return each value at a path, by its path in the template; `UNDEFINED` where the field is not set."""
    if not path:
        yield done, at
        return
    step, _, rest = path.partition(".") if not path.startswith("annotations[") else (path, "", "")
    name, _, index = step.partition("[")
    where = f"{done}.{name}" if done else name
    found = at.get(name, UNDEFINED) if isinstance(at, dict) else UNDEFINED
    if not index:
        yield from values(found, rest, where)
    elif index == "*]":
        for i, item in enumerate(() if found is UNDEFINED else found):
            yield from values(item, rest, f"{where}[{i}]")
    else:
        prefix = index.removesuffix("]")
        annotations = {} if found is UNDEFINED else found
        yield from ((f"{where}[{key}]", item) for key, item in annotations.items() if key.startswith(prefix))


def _expanded(rule: Rule) -> Iterator[str]:
    for path in rule.paths:
        kinds = ("containers", "initContainers", "ephemeralContainers") if ".containers[" in path else ("",)
        yield from (path.replace("containers", kind, 1) if kind else path for kind in kinds)


def violations(template: dict[str, Any]) -> list[str]:
    """Return the violations in a pod template, each as ``profile, control: path = value``."""
    found = []
    for rule in RULES:
        at = [each for path in _expanded(rule) for each in values(template, path)]
        if rule.inherited:
            (_, of_pod), *of_containers = at
            # A value of the pod counts even if every container has another one.
            effective = [(path, of_pod if value is UNDEFINED else value) for path, value in of_containers]
            at = effective if of_pod is UNDEFINED else [at[0], *effective]
        found += [
            f"{rule.profile}, {rule.control}: {path} = {value!r}" for path, value in at if not rule.allows(value)
        ]
    return found
