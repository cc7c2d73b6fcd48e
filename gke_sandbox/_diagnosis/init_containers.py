"""Read the state of init containers and native sidecars: the program starts only after them. Pure.

This library sends none, so a webhook or a policy of the cluster has added each of them.
https://kubernetes.io/docs/concepts/workloads/pods/init-containers/
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from .causes import WaitReason, cause, match_cause

__all__ = ["NEVER_RAN", "STARTING", "STOPPED_CODES", "failed_init_container", "pending_init_container"]

STARTING = frozenset({"ContainerCreating", "PodInitializing"})
"""Waiting reasons of a container that is being created normally."""

NEVER_RAN = frozenset({"StartError", "ContainerCannotRun"})
"""Reasons in `terminated` for a container that was never started, of containerd and of older runtimes."""

STOPPED_CODES = (137, 143)
"""Exit codes of a container that was stopped because its pod is being deleted."""

MAX_CRASHES = 3
"""A sidecar that has crashed this often is not waited for any longer.

One or two crashes can pass: the sidecar may need a server that is just starting. The kubelet waits 10 s before the
first restart, 20 s before the second, and 40 s before the third.
"""


def failed_init_container(pod: Mapping[str, Any], *, deleting: bool) -> WaitReason | None:
    """Return the failure of an init container because of which the kubelet has given up a pod, or None."""
    for spec, status in _init_containers(pod):
        state, last = status.get("state") or {}, status.get("lastState") or {}
        ended = state.get("terminated") or last.get("terminated") or {}
        stopped = deleting and ended.get("exitCode") in STOPPED_CODES
        if ended.get("exitCode") and not stopped and not _is_sidecar(spec):
            message = f"{_title(spec, status)} {_ending(ended)}"
            return _found("failed", str(ended.get("reason") or "Error"), message)
    return None


def pending_init_container(pod: Mapping[str, Any]) -> tuple[str, WaitReason | None]:
    """Return the name of the first init container that has not ended, or the first sidecar that has not started.

    The name is empty if there is none. The reason is None if the container is only starting or running.
    """
    for spec, status in _init_containers(pod):
        state = status.get("state") or {}
        if _is_sidecar(spec):
            is_ready = state.get("running") is not None and status.get("started")
        else:
            is_ready = (state.get("terminated") or {}).get("exitCode") == 0
        if not is_ready:
            return str(spec.get("name")), _problem(spec, status)
    return "", None


def _init_containers(pod: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield the spec and the status of each init container that has a status, in the order of their start."""
    statuses = {each.get("name"): each for each in (pod.get("status") or {}).get("initContainerStatuses") or ()}
    for spec in (pod.get("spec") or {}).get("initContainers") or ():
        if spec.get("name") in statuses:
            yield spec, statuses[spec["name"]]


def _is_sidecar(spec: Mapping[str, Any]) -> bool:
    return spec.get("restartPolicy") == "Always"


def _problem(spec: Mapping[str, Any], status: Mapping[str, Any]) -> WaitReason | None:
    """Return why an init container is not ready, as far as its status shows it."""
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, detail = str(waiting.get("reason") or ""), str(waiting.get("message") or "").strip()
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
    title = _title(spec, status)
    if ended:
        # The kubelet starts it again. If it would not, the pod would have failed: see `failed_init_container`.
        running = "running" in state
        crashes = int(status.get("restartCount") or 0) + (not running)
        hopeless = not running and (crashes >= MAX_CRASHES or ended.get("reason") in NEVER_RAN)
        times = f"has failed {crashes} times, and the last time it" if crashes > 1 else "has failed: it"
        message = f"{title} {times} {_ending(ended)}" + (f". {detail}" if detail else "")
        known = reason or str(ended.get("reason") or "Error")
        return _found("failed" if hopeless else "retried", known, message)
    if not reason or reason in STARTING:
        return None
    known_cause = match_cause("waiting", reason, detail)
    kind: Literal["failed", "retried"] = (
        "failed" if known_cause is not None and known_cause.permanent else "retried"
    )
    summary = f": {known_cause.summary}" if known_cause is not None else ""
    return _found(kind, reason, f"{title} is waiting{summary}" + (f": {detail}" if detail else ""))


def _found(kind: Literal["failed", "retried"], reason: str, message: str) -> WaitReason:
    return WaitReason(cause(f"init_container_{kind}"), reason, message)


def _title(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    kind = "sidecar" if _is_sidecar(spec) else "init container"
    return f'{kind} "{spec.get("name")}" (image {spec.get("image") or status.get("image") or "unknown"})'


def _ending(ended: Mapping[str, Any]) -> str:
    """Return how a container ended, as the end of a sentence."""
    reason, message = str(ended.get("reason") or ""), str(ended.get("message") or "").strip()
    if reason in NEVER_RAN:
        text = "could not be started"
    elif reason == "OOMKilled":
        text = "was killed because it exceeded its memory limit"
    else:
        text = f"ended with exit code {ended.get('exitCode')}"
    return f"{text}: {message}" if message else text
