"""One execution as a state machine without I/O.

Everything that changes the state of an execution, and every decision that follows from it, is in this file, in
`ending` (from the phase ``reading`` on) and in `facts` (the pod and the requests that find out about it). Inputs
and effects are in `steps`; `execution` feeds the inputs and carries out the effects.

::

    creating -> starting -> (attaching -> waiting ->) reading -> finished
      |  ^  |                                         |  ^
      v  |  v                                         v  |
    pausing  confirming                           overtime, status, status poll

``creating``      the Job and the ConfigMap are being created
``pausing``       a node has rejected the pod: wait a while before the next Job is created
``confirming``    the ConfigMap may have arrived, although its creation failed: the pod is listed once
``starting``      wait until the container runs
``attaching``     delivery ``attach`` only: connect to the container, whose runner waits for the program
``waiting``       connected; without a program until one is assigned
``reading``       read the log, or the container's output from the connection
``overtime``      the time limit has passed without an exit frame: the pod is listed once
``status``        wait for the pod's final status: the log ended, or its exit frame leaves a doubt
``status poll``   get the final status with requests
``finished``      `Done` or `Fail` was returned, or the run was abandoned
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace

from .._diagnosis import Termination, WaitReason, job_termination, messages, suspension
from .._diagnosis.admission import compared_fields, job_changes, pod_spec_of
from .._wire.manifests import CONTAINER
from ..errors import NotFound
from ..kube.resources import PODS
from ..kube.retry import is_retryable
from ..settings import Settings
from . import steps
from .ending import FINAL_POLL_TIMEOUT, ExecutionEnding
from .log_stream import RESUME_GRACE
from .steps import Effect, Input, Poll

REJECTED_DELAY, MAX_REJECTED_DELAY = 2.0, 30.0
"""The pause before another Job is created because a node has rejected the last one's pod; doubled each time."""
ATTACH_TIMEOUT = 10.0
"""How long connecting to a container that runs may take, if `startup_timeout` does not allow more."""


class ExecutionState(ExecutionEnding):
    """The state of one execution. `apply` is called with each input; times are seconds of any one clock."""

    __slots__ = ()

    # -- the interface --------------------------------------------------------------------------------------

    def apply(self, input_: Input, now: float) -> list[Effect]:
        """Return what follows from an input. After `Done`, `Fail` or `Abandoned` nothing follows any more."""
        if self.phase == "finished":
            return []
        self._now = now
        self._effects = []
        self._handle(input_)
        self._advance(is_tick=isinstance(input_, steps.Tick))
        # The next input may be far away.
        effects, self._effects = self._effects, []
        return effects

    @property
    def next_deadline(self) -> float:
        """Return the time at which `Tick` is due, if no other input comes first."""
        if self.phase in ("creating", "waiting", "finished"):
            return math.inf
        if self.phase == "starting" and self._poll is None:
            return min(self._start_limit, self._next_poll_at)
        if self.phase == "reading":
            return min(self._log.read_deadline, self._log.reconnect_at)
        if self.phase == "attaching":
            return min(self._deadline, self._log.reconnect_at)
        return self._deadline

    # -- inputs ---------------------------------------------------------------------------------------------

    def _handle(self, input_: Input) -> None:
        if isinstance(input_, steps.CreationInput):
            if self.phase == "creating" and self.attempts:
                self._on_creation(input_)
        elif isinstance(input_, steps.LogInput):
            if input_.number in (self._log.number, self._log.replacement):
                if self.phase == "reading":
                    self._on_log(input_)
                elif self.phase in ("attaching", "waiting"):
                    self._on_attach(input_)
        elif isinstance(input_, steps.PollResponse):
            if self._poll is not None and input_.number == self._poll.number:
                self._on_poll(self._poll, input_)
        elif isinstance(input_, steps.PodSeen):
            if self.attempts and input_.job == self._job:
                self._observe(input_.pod, deleted=input_.deleted, missing=input_.missing)
        else:
            match input_:
                case steps.Started() if not self.attempts:
                    self._create_job(self._new_name())
                case steps.Assigned(settings) if not self._has_program:
                    self._assign(settings)
                case steps.WatchFailed(error):
                    self._watch_failed, self._watch_error = True, error
                case steps.Tick(pending, watch_error):
                    self._pending = pending
                    if not self._watch_failed:
                        self._watch_error = watch_error
                case steps.Resumed(seconds):
                    # A start needs nothing: before it has timed out, the pods are listed once more.
                    self._log.resumed(self._now, seconds)
                    self._deadline = max(self._deadline, self._now + RESUME_GRACE)
                case steps.Abandoned():
                    sent = self._config_map_may_exist or self._request_sent
                    self.may_have_run = self.may_have_run or sent
                    self._finish()

    def _advance(self, *, is_tick: bool = False) -> None:
        """Do what the state and the time require."""
        if self.phase == "creating":
            if self._pod_decides:
                self._effects.append(steps.StopCreating())
                self._decide_start()
        elif self.phase == "confirming":
            if self._pod_decides or self._poll is None or self._now >= self._deadline:
                self._stop_polling()
                if not self._decide_start() and self._create_error is not None:
                    self._fail(messages.unanswered(self._create_error, self._job, self._pod_name), True)
        elif self.phase == "pausing":
            if self._watch_failed:
                self._decide_start()
            elif self._now >= self._deadline:
                self.phase = "creating"
                self._create_job(self._new_name())
        elif self.phase == "starting":
            self._advance_start(is_tick)
        elif self._unsafe_changes and self.phase != "finished":
            # Another pod of the same Job.
            self._fail_unsafe(True)
        elif self.phase in ("attaching", "waiting"):
            self._advance_attach()
        elif self.phase == "reading":
            if self._now >= self._log.read_deadline:
                self._end_reading()
            elif self._now >= self._log.reconnect_at:
                self._open_log()
        elif self.phase == "overtime":
            if self._poll is None or self._now >= self._deadline:
                self._stop_polling()
                self._after_overtime()
        elif self.phase == "status":
            if self._termination is not None or self._watch_failed or self._now >= self._deadline:
                self._poll_status()
        elif self.phase == "status poll" and self._now >= self._deadline:
            self._stop_polling()
            self._conclude(self._termination)

    # -- creation -------------------------------------------------------------------------------------------

    def _on_creation(self, input_: steps.CreationInput) -> None:
        match input_:
            case steps.JobPrepared(job):
                self._sent_job = compared_fields(job)
            case steps.JobCreated(job) if self._uid is None:
                self._uid = str(job["metadata"]["uid"])
                self._set_wait_reason(suspension(job))
                self.attempts[-1] = replace(self.attempts[-1], response_pending=False)
                self._unsafe_changes = self._not_accepted(job_changes(self._sent_job, job, CONTAINER))
                self._compare_limits(pod_spec_of(job))
                if self._attaches:
                    self._decide_start(created=True)
                elif not self._unsafe_changes:
                    self._create_config_map()
            case steps.ConfigMapCreated() if self._uid is not None:
                self._decide_start(created=True)
            case steps.CreateRejected(wait_reason):
                self._may_have_arrived(False)
                self._set_wait_reason(wait_reason)
            case steps.RetryCreate() if self._uid is None:
                self._create_job(self._job)
            case steps.RetryCreate(same_job=True):
                self._create_config_map()
            case steps.RetryCreate():
                # The pod is already waiting for its ConfigMap: a late one can cost more than a new Job does.
                self._create_job(self._new_name())
            case steps.CreateFailed(error, may_have_arrived):
                self._may_have_arrived(may_have_arrived)
                if self._uid is None or not may_have_arrived:
                    self._fail(error, False)
                    return
                # A container that runs has its ConfigMap, with or without a response.
                self.phase, self._create_error = "confirming", error
                self._deadline = self._now + FINAL_POLL_TIMEOUT
                self._start_polls("pods")

    # -- the start ------------------------------------------------------------------------------------------

    def _decide_start(self, *, created: bool = False) -> bool:
        """Go on if the container has started or `created` is True, fail if it cannot start, else return False."""
        termination, wait_reason = self._termination, self._wait_reason
        if self._unsafe_changes:
            self._fail_unsafe(self._config_map_may_exist)
        elif self._watch_failed and self._watch_error is not None:
            # Other executions raise the same error.
            self._fail(copy(self._watch_error), self._config_map_may_exist)
        elif termination is not None and termination.kind == "not_started":
            self._pause_or_fail(termination)
        elif self._has_started:
            self._mark_phase("created")
            self._allow_full_time()
            self._log.restart_timer(self._now)
            if self._attaches and termination is None:
                self.phase, self._deadline = "attaching", max(self._start_limit, self._now + ATTACH_TIMEOUT)
                self._open_log(attach=True)
            else:
                self._start_reading()
        elif self._missing:
            self._fail(messages.vanished(self._job, self._pod_name), True)
        elif wait_reason is not None and wait_reason.is_permanent:
            self._fail(messages.not_started(wait_reason, self._job, self._pod_name), False)
        elif created:
            self._mark_phase("created")
            self.phase = "starting"
            self._probe = self._new_probe()
        else:
            return False
        return True

    def _pause_or_fail(self, termination: Termination) -> None:
        """Create another Job after a pause if the reason may pass, or fail.

        A kubelet that was restarted can reject a pod that it had accepted, and that has run unseen.
        """
        pause = min(REJECTED_DELAY * 2 ** (len(self.attempts) - 1), MAX_REJECTED_DELAY)
        waited = ""
        if termination.may_pass and termination.cause is not None and not self._was_accepted:
            if self._now + pause < self._start_limit:
                self.phase, self._deadline = "pausing", self._now + pause
                self._config_map_may_exist = False
                self._set_wait_reason(WaitReason(termination.cause, termination.reason, termination.message))
                return
            waited = f" within {self._settings.startup_timeout:g} s (startup_timeout)"
        self._fail(messages.not_started(termination, self._job, self._pod_name, waited), False)

    def _fail_unsafe(self, may_have_run: bool) -> None:
        error = messages.unsafe_admission_change(self._unsafe_changes, self._job, self._pod_name)
        self._fail(error, may_have_run)

    def _advance_start(self, is_tick: bool) -> None:
        if self._watch_failed or self._pod_decides:
            self._stop_polling()
            self._decide_start()
            return
        if self._poll is not None and self._now >= self._deadline:
            self._stop_polling()
        if self._poll is not None or not is_tick:
            return
        has_pod = self._pod is not None
        if self._now < self._start_limit:
            if self._now >= self._next_poll_at:
                self._deadline = self._start_limit
                lists = self._probe.should_list_pods(self._now, has_pod=has_pod)
                self._probe.record_poll(self._now)
                self._start_polls(*(("events", "pods") if lists else ("events",)))
        elif not self._is_last_poll:
            # Whether it runs matters more than why it does not.
            self._is_last_poll = True
            self._deadline = self._now + FINAL_POLL_TIMEOUT
            self._start_polls("pods", "events")
        else:
            self._fail_after_timeout()

    def _fail_after_timeout(self) -> None:
        probe = self._probe
        error = messages.start_timed_out(
            self._settings.startup_timeout,
            self._job,
            self._pod,
            self._wait_reason,
            (self._watch_error or probe.pods_error) if probe.pods_error is not None else None,
            probe.events_error,
        )
        # It can still start before the Job is deleted.
        self._fail(error, True)

    # -- attach ---------------------------------------------------------------------------------------------

    def _on_attach(self, input_: steps.LogInput) -> None:
        match input_:
            case steps.LogOpened(number) if self.phase == "attaching":
                self._log.opened(number, self._now)
                self.phase = "waiting"
                if self._has_program:
                    self._send_request()
                else:
                    self._effects.append(steps.Ready())
            case steps.LogEnded(number, error):
                self._log.ended(number, error, self._now)
                gone = isinstance(error, NotFound) and error.details.get("kind") == PODS.plural
                if self.phase == "waiting" or gone:
                    # The runner's stdin ends with the connection.
                    self._start_over(f"the connection to its container ended: {error or 'it was closed'}")
                elif error is None or is_retryable(error) or isinstance(error, NotFound):
                    self._log.pause(error, self._now)
                else:
                    self._fail(error, False)

    def _advance_attach(self) -> None:
        if self._watch_failed and self._watch_error is not None:
            self._fail(copy(self._watch_error), False)
        elif self._termination is not None or self._missing:
            # Its log explains why it has ended.
            self._close_log()
            self._start_reading()
        elif self.phase == "attaching" and self._now >= self._deadline:
            self._start_over(f"its container did not accept a connection: {self._log.last_error}")
        elif self.phase == "attaching" and self._now >= self._log.reconnect_at:
            self._open_log(attach=True)

    def _assign(self, settings: Settings) -> None:
        """Give the pod its program. Its run starts now."""
        self._settings, self._has_program, self._began = settings, True, self._now
        self._seen = {}
        if self.phase == "waiting":
            self._warm = True
            self._log.set_limits(settings)
            self._mark_phase("created")
            self._mark_phase("scheduled", self._pod.node if self._pod is not None else "")
            self._mark_phase("started")
            self._send_request()

    def _send_request(self) -> None:
        self.phase, self._request_sent = "reading", True
        self._allow_full_time()
        self._effects.append(steps.SendRequest(self._number))

    # -- polls ----------------------------------------------------------------------------------------------

    def _on_poll(self, poll: Poll, input_: steps.PollResponse) -> None:
        termination = self._termination
        if not isinstance(poll, steps.PollJob):
            self._take_over(poll, input_)
        elif isinstance(input_, steps.PollFailed):
            self._poll = None
            self._conclude(termination)
        elif isinstance(input_, steps.JobRead) and termination is not None:
            self._poll = None
            has_run = self._has_run or termination.ran is True
            self._conclude(job_termination(input_.job, has_run=has_run) or termination)
        if self.phase == "status poll" and self._poll is None:
            self._poll_job()
