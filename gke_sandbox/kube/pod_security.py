"""The Pod Security Standard `restricted`, with the server's messages.

Not checked: volumes, ports, probes, sysctls, AppArmor, SELinux, procMount, Windows options and ephemeral
containers.
https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["violations"]

Json = dict[str, Any]


def violations(spec: Json) -> str:
    """Return the violations of a pod as one text, empty if there are none."""
    return ", ".join(found for check in _CHECKS if (found := check(spec)))


def _contexts(spec: Json) -> Iterator[tuple[str, Json]]:
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        yield container.get("name", ""), container.get("securityContext", {})


def _which(names: list[str]) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return f"container {listed}" if len(names) == 1 else f"containers {listed}"


def _privilege_escalation(spec: Json) -> str:
    bad = [name for name, context in _contexts(spec) if context.get("allowPrivilegeEscalation") is not False]
    if not bad:
        return ""
    return (
        "allowPrivilegeEscalation != false "
        f"({_which(bad)} must set securityContext.allowPrivilegeEscalation=false)"
    )


def _capabilities(spec: Json) -> str:
    keeping, adding = [], []
    added: set[str] = set()
    for name, context in _contexts(spec):
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()):
            keeping.append(name)
        if not_allowed := set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            adding.append(name)
            added |= not_allowed
    why = []
    if keeping:
        why.append(f'{_which(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        listed = ", ".join(f'"{one}"' for one in sorted(added))
        why.append(f"{_which(adding)} must not include {listed} in securityContext.capabilities.add")
    return f"unrestricted capabilities ({'; '.join(why)})" if why else ""


def _host_namespaces(spec: Json) -> str:
    shared = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return f"host namespaces ({', '.join(shared)})" if shared else ""


def _privileged(spec: Json) -> str:
    bad = [name for name, context in _contexts(spec) if context.get("privileged")]
    return f"privileged ({_which(bad)} must not set securityContext.privileged=true)" if bad else ""


def _non_root(spec: Json) -> str:
    whole = spec.get("securityContext", {}).get("runAsNonRoot")
    bad = [name for name, context in _contexts(spec) if context.get("runAsNonRoot", whole) is not True]
    if not bad:
        return ""
    return f"runAsNonRoot != true (pod or {_which(bad)} must set securityContext.runAsNonRoot=true)"


def _user(spec: Json) -> str:
    bad = [name for name, context in _contexts(spec) if context.get("runAsUser") == 0]
    if spec.get("securityContext", {}).get("runAsUser") == 0:
        return "runAsUser=0 (pod must not set runAsUser=0)"
    return f"runAsUser=0 ({_which(bad)} must not set runAsUser=0)" if bad else ""


def _seccomp(spec: Json) -> str:
    whole = spec.get("securityContext", {}).get("seccompProfile")
    bad = [
        name
        for name, context in _contexts(spec)
        if (context.get("seccompProfile", whole) or {}).get("type") not in ("RuntimeDefault", "Localhost")
    ]
    if not bad:
        return ""
    what = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return f"seccompProfile (pod or {_which(bad)} {what})"


# In the order of the server: by the names of the checks.
_CHECKS: tuple[Callable[[Json], str], ...] = (
    _privilege_escalation,
    _capabilities,
    _host_namespaces,
    _privileged,
    _non_root,
    _user,
    _seccomp,
)
