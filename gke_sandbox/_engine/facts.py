"""The facts of one execution: what is known of its Job, its pod and its log, and the polls that find it out.

Pure; `state` has the transitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from .._diagnosis import (
    PodState,
    Termination,
    WaitReason,
    job_wait_reason,
    pod_wait_reason,
    read_pod,
    without_unread_fields,
)
from .._diagnosis.admission import Change, pod_changes, pod_spec_of
from .._diagnosis.limits import changed_limits, describe_changes
from .._wire.manifests import CONTAINER
from ..errors import Forbidden, NetworkError, SandboxError
from ..kube.resources import EVENTS, JOBS, PODS
from ..kube.status import RequestInfo
from ..result import OutputChunk, PhaseChanged, PhaseName, PodWaiting
from ..settings import Settings
from . import steps
from .log_stream import LogStream
from .startup_probe import POLL_INTERVAL, WARM_POLL_INTERVAL, StartupProbe
from .steps import Effect, JobAttempt, Poll

Phase = Literal[
    "creating",
    "pausing",
    "confirming",
    "starting",
    "attaching",
    "waiting",
    "reading",
    "overtime",
    "status",
    "status poll",
    "finished",
]


class ExecutionFacts:
    """The facts of one execution, and the effects of the current input.

    `new_name` returns the name for a new Job, `uniform` a random number from 0 to 1. `ignored_changes` are fields
    that admission may change, in addition to those that the settings accept. `has_program`: whether there is a
    program; if not, `Assigned` gives it one.
    """

    # Thousands of runs can be in flight. An instance with a dict of this size takes 2 KiB more.
    __slots__ = (
        "_accepted_changes", "_attach_failures", "_attaches", "_began", "_changed_limits",
        "_config_map_may_exist", "_create_error", "_deadline", "_effects", "_has_program", "_has_run",
        "_is_last_poll", "_log", "_missing", "_new_name", "_next_polls", "_now", "_number", "_pending", "_pod",
        "_pod_object", "_pods_were_listed", "_poll", "_polled_pod", "_polled_version", "_probe",
        "_request_sent", "_rereads", "_seen", "_sent_job", "_settings", "_uid", "_uniform", "_unsafe_changes",
        "_wait_reason", "_warm", "_was_accepted", "_watch_error", "_watch_failed", "attempts", "may_have_run",
        "phase",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        now: float,
        new_name: Callable[[], str],
        uniform: Callable[[], float],
        ignored_changes: Collection[str] = (),
        *,
        has_program: bool = True,
    ) -> None:
        self._settings = settings
        self._new_name = new_name
        self._uniform = uniform
        self._accepted_changes = {*settings.accept_admission_changes, *ignored_changes}
        self._now = self._began = now
        self._effects: list[Effect] = []
        self.phase: Phase = "creating"
        self.may_have_run = False
        """Whether the container may have started. Never goes back to False, and is copied to the run's error."""
        self.attempts: list[JobAttempt] = []
        """The Jobs that were created, or may have been. Only the last can have a result."""
        self._has_program = has_program
        self._warm = False
        self._attach_failures = 0
        self._number = 0
        self._pending = 1
        self._watch_error: SandboxError | None = None
        self._watch_failed = False
        self._reset()

    def _reset(self) -> None:
        """Forget everything about the Job and its pod."""
        self._attaches = self._settings.delivery == "attach"
        self._sent_job: Mapping[str, Any] = {}
        self._uid: str | None = None
        self._unsafe_changes: list[Change] = []
        self._changed_limits: dict[str, str] = {}
        self._config_map_may_exist = self._request_sent = False
        self._create_error: SandboxError | None = None
        self._seen: dict[PhaseName, float] = {}
        self._pod: PodState | None = None
        self._pod_object: Mapping[str, Any] = {}
        self._has_run = self._missing = False
        # Whether the node had accepted the pod before its last state.
        self._was_accepted = False
        self._wait_reason: WaitReason | None = None
        self._probe = self._new_probe()
        # The poll whose response is awaited, those that follow it, and the pod that was known when it was sent.
        self._poll: Poll | None = None
        self._next_polls: list[Literal["pods", "events"]] = []
        self._polled_pod: PodState | None = None
        self._polled_version = ""
        self._pods_were_listed = self._is_last_poll = False
        # When the phase is over.
        self._deadline = math.inf
        self._rereads = 0
        self._log = LogStream(self._settings, self._uniform, self._now)

    @property
    def _job(self) -> str:
        return self.attempts[-1].name if self.attempts else ""

    @property
    def _pod_name(self) -> str:
        return self._pod.name if self._pod is not None else ""

    @property
    def _termination(self) -> Termination | None:
        return self._pod.termination if self._pod is not None else None

    @property
    def _start_limit(self) -> float:
        return self._began + self._settings.startup_timeout

    def _new_probe(self) -> StartupProbe:
        return StartupProbe(self._now, POLL_INTERVAL if self._has_program else WARM_POLL_INTERVAL)

    @property
    def _next_poll_at(self) -> float:
        return self._probe.next_poll_at(self._pending, has_pod=self._pod is not None)

    # -- the pod --------------------------------------------------------------------------------------------

    def _observe(self, pod: Mapping[str, Any], *, deleted: bool = False, missing: bool = False) -> None:
        """Take over the state of the pod. It does not change any more once the container has ended."""
        name = str((pod.get("metadata") or {}).get("name") or "")
        if not missing and (self._pod is None or self._pod.name != name):
            # The compared fields cannot change after a pod's creation. A Job can have more than one pod.
            found = self._not_accepted(pod_changes(self._sent_job, pod, CONTAINER))
            self._unsafe_changes = self._unsafe_changes or found
            self._compare_limits(pod.get("spec"))
        if self._termination is not None:
            return
        if missing:
            self._missing = True
            if not self._has_run:
                # It may have run unseen.
                return
        selector = self._settings.node_selector
        pod = without_unread_fields(pod)
        seen = read_pod(pod, CONTAINER, deleted=deleted or missing, has_run=self._has_run, node_selector=selector)
        moved = self._pod is None or (seen.node, seen.phase, seen.wait_reason) != (
            self._pod.node,
            self._pod.phase,
            self._pod.wait_reason,
        )
        self._was_accepted = bool((self._pod_object.get("status") or {}).get("containerStatuses"))
        self._pod, self._pod_object = seen, pod
        self._has_run = self._has_run or seen.running
        if not self._attaches and (
            self._has_run or (seen.termination is not None and seen.termination.ran is not False)
        ):
            self.may_have_run = True
        if seen.termination is not None:
            self._log.container_ended(self._now, kept=seen.termination.kind != "killed")
        if seen.node:
            self._mark_phase("scheduled", seen.node)
        if seen.running or (seen.termination is not None and seen.termination.ran):
            self._mark_phase("started")
        if moved:
            self._set_wait_reason(seen.wait_reason)
            self._probe.reset_timer(self._now)

    def _compare_limits(self, received: object) -> None:
        """Note which limits of the container the cluster changed; `received` is the spec of a pod or template."""
        sent = pod_spec_of(self._sent_job)
        found = changed_limits(sent, received, CONTAINER) if isinstance(received, Mapping) else None
        if found is not None and found != self._changed_limits:
            self._changed_limits = found
            if found:
                self._effects.append(steps.Warn(describe_changes(sent, found, CONTAINER)))

    def _not_accepted(self, changes: list[Change]) -> list[Change]:
        return [each for each in changes if each.field not in self._accepted_changes]

    def _set_wait_reason(self, reason: WaitReason | None) -> None:
        if reason != self._wait_reason:
            self._wait_reason = reason
            if reason is not None:
                self._emit(PodWaiting(reason.reason, reason.message, self._elapsed, reason.cause.name))

    @property
    def _has_started(self) -> bool:
        """Whether the container runs, or has run."""
        pod = self._pod
        return pod is not None and (
            pod.running or (pod.termination is not None and pod.termination.kind != "not_started")
        )

    @property
    def _pod_decides(self) -> bool:
        """Whether the pod has started, or waiting cannot help."""
        return (
            self._missing
            or bool(self._unsafe_changes)
            or self._has_started
            or self._termination is not None
            or (self._wait_reason is not None and self._wait_reason.is_permanent)
        )

    # -- requests -------------------------------------------------------------------------------------------

    def _create_job(self, name: str) -> None:
        """Create a Job. Under a new name everything starts over, and the Job before it is deleted."""
        if name != self._job:
            self._delete_job()
            self._reset()
            self.attempts.append(JobAttempt(name))
        self.attempts[-1] = JobAttempt(name)
        self._effects.append(steps.CreateJob(name))

    def _delete_job(self) -> None:
        if self.attempts and self.attempts[-1].job_may_exist:
            self._effects.append(steps.DeleteJob(self.attempts[-1]))

    def _create_config_map(self) -> None:
        if self._uid is not None:
            self._config_map_may_exist = True
            self._effects.append(steps.CreateConfigMap(self._job, self._uid))

    def _may_have_arrived(self, arrived: bool) -> None:
        if self._uid is not None:
            self._config_map_may_exist = arrived
        else:
            self.attempts[-1] = JobAttempt(self._job, job_may_exist=arrived, response_pending=arrived)

    def _start_polls(self, *kinds: Literal["pods", "events"]) -> None:
        self._next_polls = list(kinds)
        self._send_next_poll()

    def _send_next_poll(self) -> None:
        """Send the next of `_next_polls`, if there is one."""
        self._poll = None
        self._pods_were_listed = False
        self._number += 1
        if self.phase == "starting" and self._pod_decides:
            self._next_polls = []
        if self._next_polls and self._next_polls[0] == "events" and self._probe.events_error is not None:
            del self._next_polls[0]
        if not self._next_polls:
            return
        self._polled_pod, self._polled_version = self._pod, _version(self._pod_object)
        if self._next_polls.pop(0) == "events":
            self._poll = steps.PollEvents(self._number, self._pod_name or self._job)
        else:
            self._poll = steps.PollPods(self._number, self._job)
            self._probe.record_list(self._now, no_response(self._poll, self._settings.namespace))
        self._effects.append(self._poll)

    def _take_over(self, poll: steps.PollPods | steps.PollEvents, input_: steps.PollResponse) -> None:
        """Take over the response to a poll, and send the next one."""
        is_current = False
        if isinstance(input_, steps.PollFailed):
            self._on_poll_failed(poll, input_.error)
        elif isinstance(poll, steps.PollPods) and isinstance(input_, steps.PodsListed):
            self._probe.pods_error = None
            if is_current := is_newer(input_.version, self._polled_version):
                self._on_pods_listed(input_.pods)
        elif isinstance(poll, steps.PollEvents) and isinstance(input_, steps.EventsListed):
            pod = self._polled_pod
            found = (
                job_wait_reason(input_.events)
                if pod is None
                else pod_wait_reason(input_.events, pod.wait_reason, node=pod.node)
            )
            if self._pod is pod and found is not None:
                self._set_wait_reason(found)
        else:
            return
        self._send_next_poll()
        self._pods_were_listed = is_current

    def _on_poll_failed(self, poll: steps.PollPods | steps.PollEvents, error: SandboxError) -> None:
        if isinstance(poll, steps.PollPods):
            self._probe.pods_error = error
        if isinstance(poll, steps.PollEvents) and isinstance(error, Forbidden) and not error.retryable:
            # Without Events the diagnosis is less precise, but the run goes on.
            self._probe.events_error = error
        else:
            self._probe.record_failure(self._now, error)

    def _on_pods_listed(self, pods: Sequence[Mapping[str, Any]]) -> None:
        known = self._pod
        for pod in pods:
            self._observe(pod)
        if not pods and known is not None and known is self._polled_pod:
            self._observe(self._pod_object, missing=True)

    def _stop_polling(self) -> None:
        self._next_polls = []
        if self._poll is not None:
            self._poll = None
            self._effects.append(steps.StopPolling())

    def _open_log(self, *, attach: bool = False) -> None:
        self._number += 1
        self._close_connection(self._log.connect(self._number, self._now, attach=attach))
        effect = steps.OpenAttach if attach else steps.OpenLog
        self._effects.append(effect(self._number, self._pod_name))

    def _close_log(self) -> None:
        self._close_connection(self._log.take_replacement())
        self._close_connection(self._log.number)
        self._log.number = None

    def _close_connection(self, number: int | None) -> None:
        if number is not None:
            self._effects.append(steps.CloseLog(number))

    # -- time -----------------------------------------------------------------------------------------------

    @property
    def _elapsed(self) -> float:
        return self._now - self._began

    def _emit(self, event: PhaseChanged | PodWaiting | OutputChunk) -> None:
        self._effects.append(steps.Emit(event))

    def _mark_phase(self, phase: PhaseName, detail: str = "") -> None:
        if phase not in self._seen:
            self._seen[phase] = self._elapsed
            self._emit(PhaseChanged(phase, self._elapsed, detail))


def no_response(poll: Poll, namespace: str) -> NetworkError:
    """Return the error of a poll that had no response in time."""
    resource = PODS if isinstance(poll, steps.PollPods) else EVENTS if isinstance(poll, steps.PollEvents) else JOBS
    verb = "get" if isinstance(poll, steps.PollJob) else "list"
    call = RequestInfo(verb, "GET", resource, namespace, poll.job if isinstance(poll, steps.PollJob) else None)
    return NetworkError(f"{call}: no complete response in time", sent=True, request=str(call))


def _version(known: Mapping[str, Any]) -> str:
    return str((known.get("metadata") or {}).get("resourceVersion") or "")


def is_newer(listed: str, known: str) -> bool:
    """Whether a list is newer than an object. Only replays return lists without a resourceVersion."""
    # Versions are increasing numbers: since Kubernetes 1.35 by contract, before that in practice.
    # https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    if not (listed.isdigit() and known.isdigit()):
        return bool(listed) or not known
    return int(listed) >= int(known)
