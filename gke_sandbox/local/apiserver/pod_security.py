"""The Pod Security standards: what a namespace's level finds wrong with a pod, in the server's words.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
Its rules for volumes, ports and the like are missing: validation lets nothing come here that breaks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from ..objects import Json

Level = Literal["privileged", "baseline", "restricted"]

_BASELINE_CAPABILITIES = frozenset(
    [
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
    ]
)


def violations(spec: Json, level: Level) -> str:
    """What the level refuses about a pod, as one text; empty: nothing."""
    if level == "privileged":
        return ""
    checks = _RESTRICTED if level == "restricted" else _BASELINE
    return ", ".join(found for check in checks if (found := check(spec)))


def _contexts(spec: Json) -> Iterator[tuple[str, Json]]:
    for container in spec["containers"]:
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


def _baseline_capabilities(spec: Json) -> str:
    found: dict[str, list[str]] = {}
    for name, context in _contexts(spec):
        added = sorted(set(context.get("capabilities", {}).get("add", ())) - _BASELINE_CAPABILITIES)
        if added:
            found[name] = added
    if not found:
        return ""
    listed = ", ".join(f'"{one}"' for one in sorted({one for added in found.values() for one in added}))
    where = f"{_which(list(found))} must not include {listed} in securityContext.capabilities.add"
    return f"non-default capabilities ({where})"


def _restricted_capabilities(spec: Json) -> str:
    keeping, adding = [], []
    for name, context in _contexts(spec):
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()):
            keeping.append(name)
        if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            adding.append(name)
    why = []
    if keeping:
        why.append(f'{_which(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        added = sorted(
            {
                one
                for _, context in _contexts(spec)
                for one in context.get("capabilities", {}).get("add", ())
                if one != "NET_BIND_SERVICE"
            }
        )
        listed = ", ".join(f'"{one}"' for one in added)
        why.append(f"{_which(adding)} must not include {listed} in securityContext.capabilities.add")
    return f"unrestricted capabilities ({'; '.join(why)})" if why else ""


def _host_namespaces(spec: Json) -> str:
    shared = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return f"host namespaces ({', '.join(shared)})" if shared else ""


def _privileged(spec: Json) -> str:
    bad = [name for name, context in _contexts(spec) if context.get("privileged")]
    return f"privileged ({_which(bad)} must not set securityContext.privileged=true)" if bad else ""


def _non_root(spec: Json) -> str:
    whole = spec["securityContext"].get("runAsNonRoot")
    bad = [name for name, context in _contexts(spec) if context.get("runAsNonRoot", whole) is not True]
    if not bad:
        return ""
    return f"runAsNonRoot != true (pod or {_which(bad)} must set securityContext.runAsNonRoot=true)"


def _user(spec: Json) -> str:
    bad = [name for name, context in _contexts(spec) if context.get("runAsUser") == 0]
    if spec["securityContext"].get("runAsUser") == 0:
        return "runAsUser=0 (pod must not set runAsUser=0)"
    return f"runAsUser=0 ({_which(bad)} must not set runAsUser=0)" if bad else ""


def _baseline_seccomp(spec: Json) -> str:
    def unconfined(context: Json) -> bool:
        return bool(context.get("seccompProfile", {}).get("type") == "Unconfined")

    bad = [name for name, context in _contexts(spec) if unconfined(context)]
    where = ["pod"] if unconfined(spec["securityContext"]) else []
    where += [_which(bad)] if bad else []
    what = 'must not set securityContext.seccompProfile.type to "Unconfined"'
    return f"seccompProfile ({' and '.join(where)} {what})" if where else ""


def _restricted_seccomp(spec: Json) -> str:
    whole = spec["securityContext"].get("seccompProfile")
    bad = [
        name
        for name, context in _contexts(spec)
        if (context.get("seccompProfile", whole) or {}).get("type") not in ("RuntimeDefault", "Localhost")
    ]
    if not bad:
        return ""
    what = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return f"seccompProfile (pod or {_which(bad)} {what})"


# In the order of the checks' names, as the server goes through them.
_BASELINE: tuple[Callable[[Json], str], ...] = (
    _baseline_capabilities,
    _host_namespaces,
    _privileged,
    _baseline_seccomp,
)
_RESTRICTED: tuple[Callable[[Json], str], ...] = (
    _privilege_escalation,
    _restricted_capabilities,
    _host_namespaces,
    _privileged,
    _non_root,
    _user,
    _restricted_seccomp,
)
