"""From what the cluster says of a pod to what it means. Pure: JSON in, words out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .causes import Cause, Ran, cause, recognise

# Waiting reasons that only say "on its way".
_ON_ITS_WAY = frozenset({"ContainerCreating", "PodInitializing"})

# `terminated` for a container that was never started: containerd's word and the older runtimes'.
_NEVER_RAN = frozenset({"StartError", "ContainerCannotRun"})


@dataclass(frozen=True)
class Ending:
    """The cluster's own word on how a pod's container ended; `cause` says why, but for ``exited``.

    ``exited``       it ran and left `exit_code`
    ``out_of_memory``  it was killed for its memory
    ``killed``       something outside the program ended it; `ran` tells whether it is known to have run
    ``not_started``  it never ran

    Not `certain`: the pod went without its kubelet's last word, so that its log alone can tell whether it ran. It
    counts as killed, since it must not be run again without a thought.
    """

    kind: Literal["exited", "out_of_memory", "killed", "not_started"]
    reason: str
    message: str
    exit_code: int | None = None
    cause: Cause | None = None
    certain: bool = True

    @property
    def ran(self) -> Ran:
        if self.kind == "not_started":
            return "no"
        return "yes" if self.certain else "maybe"


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

    `has_run`: the container was seen running before, which the object alone may not tell any more.
    """
    metadata = pod.get("metadata") or {}
    spec = pod.get("spec") or {}
    status = pod.get("status") or {}
    entry = _entry_of(status, container)
    state = entry.get("state") or {}
    running = "running" in state
    node = str(spec.get("nodeName") or "")
    ran: Ran = "yes" if has_run or _has_run(entry) else "maybe" if node else "no"
    going = deleted or bool(metadata.get("deletionTimestamp"))
    ending = _ending(status, state.get("terminated"), ran=ran, going=going, deleted=deleted)
    return PodView(
        name=str(metadata.get("name", "")),
        node=node,
        phase=str(status.get("phase") or ""),
        running=running,
        wait=None if running or ending else _wait(status, state),
        ending=ending,
    )


def _entry_of(status: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    entries: Iterable[Mapping[str, Any]] = status.get("containerStatuses") or ()
    return next((entry for entry in entries if entry.get("name") == container), {})


def _has_run(entry: Mapping[str, Any]) -> bool:
    """Whether the kubelet says that the container has run, though nobody may have seen it running.

    The container of a pod that is taken away may fall back to waiting (`evicted` in the recordings): then
    `lastState` and `restartCount` tell, for the kubelet counts a container that it has lost as restarted.
    """
    state, last = entry.get("state") or {}, (entry.get("lastState") or {}).get("terminated") or {}
    now = state.get("terminated") or {}
    if _NEVER_RAN & {now.get("reason"), last.get("reason")}:
        return False
    return "running" in state or bool(now.get("startedAt") or last or entry.get("restartCount"))


def _ending(
    status: Mapping[str, Any],
    terminated: Mapping[str, Any] | None,
    *,
    ran: Ran,
    going: bool,
    deleted: bool,
) -> Ending | None:
    # Failed or terminated is the kubelet's last word: what it does not know to have run has not.
    said: Ran = "yes" if ran == "yes" else "no"
    # The pod's own reason comes first: eviction, a node that shuts down, admission by the kubelet.
    if status.get("phase") == "Failed" and status.get("reason"):
        reason = str(status["reason"])
        message = str(status.get("message") or "").strip()
        return _taken_away(reason, message or f"the pod failed: {reason}", ran=said)
    if terminated:
        return _terminated(status, terminated, ran=said, going=going)
    # Without that word: deleted by force, or the node is gone, whose pods linger. It may have begun meanwhile.
    if deleted or (going and _node_is_lost(status)):
        return _taken_away(*_disruption(status), ran=ran)
    return None


def _taken_away(reason: str, message: str, *, ran: Ran, code: int | None = None) -> Ending:
    found = recognise("pod status", reason, message)
    # Who filled the disk has run.
    if found is not None and found.name == "storage_exceeded":
        ran = "yes"
    if ran == "no":
        return Ending("not_started", reason, message, code, found)
    if ran == "maybe":
        return unsure(reason, message, found)
    return Ending("killed", reason, message, code, found)


def unsure(reason: str, message: str, found: Cause | None) -> Ending:
    """The ending of a container of which nobody knows whether it ran."""
    return Ending("killed", reason, message, None, found, certain=False)


def _terminated(status: Mapping[str, Any], terminated: Mapping[str, Any], *, ran: Ran, going: bool) -> Ending:
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
        # So ends, too, what was deleted before it ran (`image-pull-backoff` in the recordings).
        if going:
            return _taken_away(*_disruption(status), ran=ran, code=code)
        found = recognise("terminated", reason, message)
        return Ending("killed" if ran == "yes" else "not_started", reason, message, code, found)
    # 143 and 137 are how a container leaves when its pod is taken away; the program's own are told apart by
    # the pod's deletion, for those that have an exit frame never come here.
    if going and code in (137, 143):
        return _taken_away(*_disruption(status), ran="yes", code=code)
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


def _node_is_lost(status: Mapping[str, Any]) -> bool:
    found = recognise("pod status", *_disruption(status))
    return found is not None and found.name == "node_lost"


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
