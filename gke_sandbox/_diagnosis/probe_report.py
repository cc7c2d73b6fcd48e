"""Judge what a program saw of its sandbox from inside. Pure: see `_wire.probe`.

The report comes from the sandbox, so it is only as trustworthy as the program that printed it, which is ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..kube.quantity import parse_quantity
from .finding import Finding, join_some
from .limits import changed_limits_finding

__all__ = ["Expected", "probe_findings"]

_ALLOWED = ("/tmp", "/dev/shm")
_ISOLATED_HINT = "Use runtime_class_name gvisor; with --local, install runsc (--isolation gvisor)."
_NETWORK_HINT = (
    "Apply the NetworkPolicy of gke-sandbox rbac, and check that the cluster enforces it (on GKE: Dataplane V2, "
    "or network policy enforcement)."
)

Expected = Mapping[str, Any]
"""``run_as_user``, ``run_as_group``, ``memory_limit`` as in `Settings`, and ``changed_limits`` of the result."""


def probe_findings(output: str, expected: Expected) -> dict[str, Finding]:
    """Return the findings by the names of the checks. `output` is what the probe printed."""
    try:
        report = dict(json.loads(output))
        return {name: judge(report, expected) for name, judge in _JUDGES.items()}
    except (KeyError, TypeError, ValueError):
        hint = "Check that python3 in the image is CPython 3.8 or newer, without a sitecustomize that prints."
        message = f"the probe printed no valid report: {output[-200:]!r}"
        return {"inside: report": Finding("failure", message, hint)}


def _kernel(report: Mapping[str, Any], _: Expected) -> Finding:
    version = str(report["version"]).partition(" (")[0][:80]
    if report["is_gvisor"]:
        return Finding("ok", f"gVisor ({version})")
    return Finding("failure", f"not gVisor: the kernel is {version}", _ISOLATED_HINT)


def _network(report: Mapping[str, Any], _: Expected) -> Finding:
    found = [str(each) for each in report["reachable"]]
    if found:
        return Finding("failure", f"reachable: {join_some(found, 5)}", _NETWORK_HINT)
    return Finding("ok", f"not reachable: {', '.join(str(each) for each in report['tested'])}")


def _token(report: Mapping[str, Any], _: Expected) -> Finding:
    if report["token"]:
        hint = "A webhook may have mounted it. Exclude the namespace from it."
        return Finding("failure", "there is a service account token", hint)
    return Finding("ok", "no service account token")


def _files(report: Mapping[str, Any], _: Expected) -> Finding:
    found = [str(each) for each in report["writable"]]
    others = [each for each in found if not any(each == top or each.startswith(f"{top}/") for top in _ALLOWED)]
    if others:
        return Finding("failure", f"writable: {join_some(others, 5)}", _ISOLATED_HINT)
    if not report["directory_writable"]:
        return Finding(
            "failure", "the working directory is not writable", "The image may replace /tmp or /dev/shm."
        )
    return Finding("ok", f"only {join_some(found)} can be written" if found else "no directory can be written")


def _user(report: Mapping[str, Any], expected: Expected) -> Finding:
    uid, gid = report["uid"], report["gid"]
    text = f"uid {uid}, gid {gid}"
    wanted = (expected["run_as_user"], expected["run_as_group"])
    if (uid, gid) != wanted:
        return Finding("failure", f"{text}, not uid {wanted[0]}, gid {wanted[1]}", _ISOLATED_HINT)
    if report["capabilities"]:
        return Finding("failure", f"{text}, with capabilities {report['capabilities']:#x}", _ISOLATED_HINT)
    return Finding("ok", f"{text}, no capabilities")


def _limits(report: Mapping[str, Any], expected: Expected) -> Finding:
    if expected["changed_limits"]:
        return changed_limits_finding(expected["changed_limits"])
    seen, limit = report["memory"], parse_quantity(str(expected["memory_limit"]))
    if seen is not None and seen <= limit.value:
        return Finding("ok", f"memory {seen >> 20} Mi, CPUs {report['cpus']}")
    shown = "" if seen is None else f" (it sees {seen >> 20} Mi)"
    return Finding("skipped", f"the program cannot see its memory limit of {limit}{shown}")


def _home(report: Mapping[str, Any], _: Expected) -> Finding:
    if report["home_writable"]:
        return Finding("ok", f"HOME is {report['home']}")
    return Finding(
        "failure", f"HOME is not writable: {report['home'] or 'not set'}", "Set env HOME to a directory."
    )


_JUDGES: dict[str, Callable[[Mapping[str, Any], Expected], Finding]] = {
    "inside: kernel": _kernel,
    "inside: network": _network,
    "inside: token": _token,
    "inside: files": _files,
    "inside: user": _user,
    "inside: limits": _limits,
    "inside: HOME": _home,
}
