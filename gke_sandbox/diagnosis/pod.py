"""From what the cluster says of a pod to what it means. Pure: JSON in, words out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .causes import Cause, cause, recognise

# Waiting reasons that only say "on its way".
_ON_ITS_WAY = frozenset({"ContainerCreating", "PodInitializing"})

# `terminated` for a container that was never started: containerd's word and the older runtimes'.
_NEVER_RAN = frozenset({"StartError", "ContainerCannotRun"})


@dataclass(frozen=True)
class Ending:
    """The cluster's own word on how a pod's container ended; `cause` says why, but for ``exited``.

    ``exited``       it ran and left `exit_code`
    ``out_of_memory``  it was killed for its memory
    ``killed``       it ran, and something outside the program ended it
    ``not_started``  it never ran
    """

    kind: Literal["exited", "out_of_memory", "killed", "not_started"]
    reason: str
    message: str
    exit_code: int | None = None
    cause: Cause | None = None

    @property
    def hint(self) -> str:
        return self.cause.hint if self.cause is not None else ""


@dataclass(frozen=True)
class Wait:
    """What a pod waits for, in Kubernetes' words, and what that means."""

    cause: Cause
    reason: str
    message: str

    @property
    def hopeless(self) -> bool:
        """No waiting will mend it."""
        return self.cause.final

    @property
    def hint(self) -> str:
        return self.cause.hint


@dataclass(frozen=True)
class PodView:
    """One pod as one watch event shows it, reduced to what an execution asks about."""

    name: str
    node: str
    phase: str
    running: bool
    wait: Wait | None
    ending: Ending | None


def view(pod: Mapping[str, Any], container: str, *, deleted: bool = False, has_run: bool = False) -> PodView:
    """Read a Pod object; `deleted` says that it came in a DELETED event.

    `has_run`: the container was seen running before. An evicted pod's container falls back from running to
    waiting (`evicted` in the recordings), so this cannot be read off the object alone.
    """
    metadata = pod.get("metadata") or {}
    spec = pod.get("spec") or {}
    status = pod.get("status") or {}
    state = _state_of(status, container)
    terminated = state.get("terminated")
    running = "running" in state
    has_run = has_run or running or _has_run(terminated)
    going = deleted or bool(metadata.get("deletionTimestamp"))
    ending = _ending(status, terminated, has_run=has_run, going=going, deleted=deleted)
    return PodView(
        name=str(metadata.get("name", "")),
        node=str(spec.get("nodeName") or ""),
        phase=str(status.get("phase") or ""),
        running=running,
        wait=None if running or ending else _wait(status, state),
        ending=ending,
    )


def _state_of(status: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    for entry in status.get("containerStatuses") or ():
        if entry.get("name") == container:
            state: Mapping[str, Any] = entry.get("state") or {}
            return state
    return {}


def _has_run(terminated: Mapping[str, Any] | None) -> bool:
    """A container that ran between two looks at it was never seen running."""
    return bool(terminated and terminated.get("startedAt") and terminated.get("reason") not in _NEVER_RAN)


def _ending(
    status: Mapping[str, Any],
    terminated: Mapping[str, Any] | None,
    *,
    has_run: bool,
    going: bool,
    deleted: bool,
) -> Ending | None:
    # The pod's own reason comes first: eviction, a node that shuts down, admission by the kubelet.
    if status.get("phase") == "Failed" and status.get("reason"):
        reason = str(status["reason"])
        message = str(status.get("message") or "").strip()
        return _taken_away(reason, message or f"the pod failed: {reason}", has_run=has_run)
    if terminated:
        return _terminated(status, terminated, has_run=has_run, going=going)
    if deleted:
        return _taken_away(*_disruption(status), has_run=has_run)
    return None


def _taken_away(reason: str, message: str, *, has_run: bool, code: int | None = None) -> Ending:
    found = recognise("pod status", reason, message)
    return Ending("killed" if has_run else "not_started", reason, message, code, found)


def _terminated(status: Mapping[str, Any], terminated: Mapping[str, Any], *, has_run: bool, going: bool) -> Ending:
    reason = str(terminated.get("reason") or "")
    message = str(terminated.get("message") or "").strip()
    code = int(terminated.get("exitCode") or 0)
    if reason == "OOMKilled":
        message = "the container used more memory than its limit"
        return Ending("out_of_memory", reason, message, code, recognise("terminated", reason, message))
    if reason in _NEVER_RAN:
        message = message or "the container could not be started"
        return Ending("not_started", reason, message, code, recognise("start", reason, message))
    if reason == "ContainerStatusUnknown":
        found = recognise("terminated", reason, message)
        return Ending("killed" if has_run else "not_started", reason, message, code, found)
    # 143 and 137 are how a container leaves when its pod is taken away; the program's own are told apart by
    # the pod's deletion, for those that have an exit frame never come here.
    if going and code in (137, 143):
        return _taken_away(*_disruption(status), has_run=True, code=code)
    if code == 137:
        message = "the container's first process was killed with signal 9: by the program itself, or by the node"
        return Ending("killed", reason or "Error", message, code, cause("killed_by_signal"))
    return Ending("exited", reason, message, code)


def _disruption(status: Mapping[str, Any]) -> tuple[str, str]:
    """Who took the pod away, as far as its DisruptionTarget condition tells.

    https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
    """
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            reason = str(condition.get("reason") or "DisruptionTarget")
            return reason, str(condition.get("message") or f"the pod was disrupted: {reason}")
    return "Deleted", "the pod was deleted by somebody else"


def _wait(status: Mapping[str, Any], state: Mapping[str, Any]) -> Wait | None:
    waiting = state.get("waiting")
    if waiting:
        reason = str(waiting.get("reason") or "")
        message = str(waiting.get("message") or "").strip()
        if not reason or reason in _ON_ITS_WAY:
            return None
        return Wait(recognise("waiting", reason, message) or cause("container_waiting"), reason, message)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason = str(condition.get("reason") or "Unschedulable")
            message = str(condition.get("message") or "")
            return Wait(recognise("scheduling", reason, message) or cause("unschedulable"), reason, message)
    return None
