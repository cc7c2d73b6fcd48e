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
    pod = spec.get("securityContext", {})
    # In the order of the server: by the names of the checks.
    found = [
        _violation(
            spec,
            "allowPrivilegeEscalation != false ({} must set securityContext.allowPrivilegeEscalation=false)",
            lambda context: context.get("allowPrivilegeEscalation") is not False,
        ),
        _capabilities(spec),
        _host_namespaces(spec),
        _violation(
            spec,
            "privileged ({} must not set securityContext.privileged=true)",
            lambda context: bool(context.get("privileged")),
        ),
        _violation(
            spec,
            "runAsNonRoot != true (pod or {} must set securityContext.runAsNonRoot=true)",
            lambda context: context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True,
        ),
        "runAsUser=0 (pod must not set runAsUser=0)"
        if pod.get("runAsUser") == 0
        else _violation(
            spec, "runAsUser=0 ({} must not set runAsUser=0)", lambda context: context.get("runAsUser") == 0
        ),
        _violation(
            spec,
            "seccompProfile (pod or {} must set securityContext.seccompProfile.type to "
            '"RuntimeDefault" or "Localhost")',
            lambda context: (
                (context.get("seccompProfile", pod.get("seccompProfile")) or {}).get("type")
                not in ("RuntimeDefault", "Localhost")
            ),
        ),
    ]
    return ", ".join(filter(None, found))


def _contexts(spec: Json) -> Iterator[tuple[str, Json]]:
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        yield container.get("name", ""), container.get("securityContext", {})


def _which(names: list[str]) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return f"container {listed}" if len(names) == 1 else f"containers {listed}"


def _violation(spec: Json, text: str, is_violated: Callable[[Json], bool]) -> str:
    bad = [name for name, context in _contexts(spec) if is_violated(context)]
    return text.format(_which(bad)) if bad else ""


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
