"""One execution as a state machine without I/O.

Everything that changes the state of an execution, and every decision that follows from it, is in this file. Inputs
and effects are in `steps`; `execution` feeds the inputs and carries out the effects.

::

    creating -> starting -> reading -> finished
        |                    |  ^
        v                    v  |
    confirming           overtime, status, status poll

``creating``      the Job and the ConfigMap are being created
``pausing``       a node has rejected the pod: wait a while before the next Job is created
``confirming``    the ConfigMap may have arrived, although its creation failed: the pod is listed once
``starting``      wait until the container runs
``reading``       read the log
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
from .._diagnosis.admission import job_changes
from .._wire.frames import PROTOCOL, Frame, Output, Start
from .._wire.manifests import CONTAINER
from ..errors import (
    BadRequest,
    Forbidden,
    NotFound,
    ResultLost,
    SandboxError,
    Unauthorized,
)
from ..kube.resources import PODS
from ..result import OutputChunk, Timings
from . import outcome, steps
from .facts import ExecutionFacts
from .log_stream import RESUME_GRACE, is_temporary
from .outcome import Outcome
from .startup_probe import StartupProbe
from .steps import Effect, Input, Poll

KILL_GRACE = 5.0
"""The Job is deleted this long after the time limit, because the runner did not end the program."""
REJECTED_DELAY, MAX_REJECTED_DELAY = 2.0, 30.0
"""The pause before another Job is created because a node has rejected the last one's pod; doubled each time."""
FINAL_STATUS_TIMEOUT = 3.0
"""How long to wait for the pod's final status when the log ends without an exit frame."""
FINAL_POLL_TIMEOUT = 3.0
"""How long the last requests for the pod's state may take."""
LOG_REREADS = 2
"""How often a log without an exit frame is read again, if its container exited by itself."""


class ExecutionState(ExecutionFacts):
    """The state of one execution. `apply` is called with each input; times are seconds of any one clock."""

    # -- the interface --------------------------------------------------------------------------------------

    def apply(self, input_: Input, now: float) -> list[Effect]:
        """Return what follows from an input. After `Done`, `Fail` or `Abandoned` nothing follows any more."""
        if self.phase == "finished":
            return []
        self._now = now
        self._effects = []
        self._handle(input_)
        self._advance(is_tick=isinstance(input_, steps.Tick))
        return self._effects

    @property
    def next_deadline(self) -> float:
        """Return the time at which `Tick` is due, if no other input comes first."""
        if self.phase in ("creating", "finished"):
            return math.inf
        if self.phase == "starting" and self._poll is None:
            return min(self._start_limit, self._next_poll_at)
        if self.phase == "reading":
            return min(self._log.read_deadline, self._log.reconnect_at)
        return self._deadline

    # -- inputs ---------------------------------------------------------------------------------------------

    def _handle(self, input_: Input) -> None:
        if isinstance(input_, steps.CreationInput):
            if self.phase == "creating" and self.attempts:
                self._on_creation(input_)
        elif isinstance(input_, steps.LogInput):
            if self.phase == "reading" and input_.number in (self._log.number, self._log.replacement):
                self._on_log(input_)
        elif isinstance(input_, steps.PollResponse):
            if self._poll is not None and input_.number == self._poll.number:
                self._on_poll(self._poll, input_)
        elif isinstance(input_, (steps.PodSeen, steps.PodMissing)):
            if self.attempts and input_.job == self._job:
                if isinstance(input_, steps.PodMissing):
                    self._observe(input_.pod, deleted=True, missing=True)
                else:
                    self._observe(input_.pod, deleted=input_.deleted)
        else:
            match input_:
                case steps.Started() if not self.attempts:
                    self._create_job(self._new_name())
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
                    self.may_have_run = self.may_have_run or self._config_map_may_exist
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
                self._sent_job = job
            case steps.JobCreated(job) if self._uid is None:
                self._uid = str(job["metadata"]["uid"])
                self._set_wait_reason(suspension(job))
                self.attempts[-1] = replace(self.attempts[-1], response_pending=False)
                self._unsafe_changes = self._not_accepted(job_changes(self._sent_job, job, CONTAINER))
                if not self._unsafe_changes:
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
            self._start_reading()
        elif self._missing:
            self._fail(messages.vanished(self._job, self._pod_name), True)
        elif wait_reason is not None and wait_reason.is_permanent:
            self._fail(messages.not_started(wait_reason, self._job, self._pod_name), False)
        elif created:
            self._mark_phase("created")
            self.phase = "starting"
            self._probe = StartupProbe(self._now)
        else:
            return False
        return True

    def _pause_or_fail(self, termination: Termination) -> None:
        """Create another Job after a pause if the reason may pass, or fail."""
        pause = min(REJECTED_DELAY * 2 ** (len(self.attempts) - 1), MAX_REJECTED_DELAY)
        waited = ""
        if termination.may_pass and termination.cause is not None:
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

    # -- the log --------------------------------------------------------------------------------------------

    def _start_reading(self) -> None:
        """Read the log: to the exit frame, to its end, or until `LogStream.read_deadline`."""
        self.phase = "reading"
        self._open_log()

    def _on_log(self, input_: steps.LogInput) -> None:
        log = self._log
        match input_:
            case steps.LogOpened(number) if number == log.replacement or not log.open:
                self._close_connection(log.opened(number, self._now))
            case steps.LogChunk(number, data) if log.open and number == log.number:
                self._close_connection(log.take_replacement())
                for frame in log.feed(data, self._now):
                    self._take(frame)
                if log.decoder.exit is not None and self.phase == "reading":
                    self._end_reading()
            case steps.LogEnded(number, error):
                log.ended(number, error, self._now)
                if log.number is None or log.open:
                    self._on_log_ended(error)

    def _on_log_ended(self, error: SandboxError | None) -> None:
        """Go on after the end of a connection. If the log is still open, it was the one that should replace it."""
        log = self._log
        if error is None:
            if not log.open:
                self._end_reading()
        elif isinstance(error, NotFound) and error.details.get("kind") == PODS.plural:
            # Only this means that there is no such pod: see `is_temporary`.
            log.drain(self._now)
            if not log.open:
                self._end_reading()
        elif isinstance(error, BadRequest) and log.container_ended_at is not None and not log.kept:
            # Earlier, the kubelet may be behind the watch, and the container about to start. An evicted pod never
            # has a log.
            if not log.open:
                self._end_reading()
        elif is_temporary(error):
            log.pause(error, self._now)
        elif log.open:
            return
        elif isinstance(error, (Forbidden, Unauthorized)):
            self._lose(f"the program's log could not be read: {error.message}", error, error.hint)
        else:
            self._fail(error, True)

    def _take(self, frame: Frame) -> None:
        if self.phase == "finished":
            return
        if isinstance(frame, Output):
            self._mark_phase("first_output")
            self._emit(OutputChunk(frame.stream, frame.data, self._elapsed))
        elif isinstance(frame, Start):
            if frame.protocol != PROTOCOL:
                self._lose(f"the runner in the pod speaks protocol {frame.protocol}, this client {PROTOCOL}")
            elif frame is self._log.decoder.start:
                self._allow_full_time()

    def _allow_full_time(self) -> None:
        """The program has all of its time from now on."""
        self._log.limit = self._now + self._settings.timeout + KILL_GRACE

    # -- the end --------------------------------------------------------------------------------------------

    def _end_reading(self) -> None:
        self._close_log()
        exit_ = self._log.decoder.exit
        if exit_ is not None and not outcome.needs_pod_status(exit_):
            self._finish_with(outcome.from_exit(exit_))
        elif exit_ is None and self._log.container_ended_at is None and self._now >= self._log.limit:
            self.phase, self._deadline = "overtime", self._now + FINAL_POLL_TIMEOUT
            self._start_polls("pods")
        else:
            self.phase, self._deadline = "status", self._now + FINAL_STATUS_TIMEOUT
            self._advance()

    def _after_overtime(self) -> None:
        """The runner, or this client, missed the end of the program's time; the pod shows which of them."""
        if self._log.container_ended_at is not None:
            self._log.restart_timer(self._now)
            self._start_reading()
            return
        limit = f"its limit of {self._settings.timeout:g} s"
        if self._log.open and not self._log.last_error:
            message = f"the runner in the pod did not end the program at {limit}. Its Job was deleted"
            self._finish_with(Outcome("timed_out", reason="Overtime", message=message))
        else:
            # The program may have ended long ago: while a kubelet is away, its pods are reported as running.
            what = "neither the program's pod nor its log could be read"
            if self._pods_were_listed:
                what = "the pod was reported as running, and its log could not be read"
            self._lose(f"at {limit} {what}: {self._log.last_error or 'it ended too early'}")

    def _poll_status(self) -> None:
        self.phase, self._deadline = "status poll", self._now + FINAL_POLL_TIMEOUT
        if self._termination is None:
            self._start_polls("pods")
        else:
            self._poll_job()

    def _poll_job(self) -> None:
        """Get the Job if its status may explain why its pod was deleted."""
        found = self._termination.cause if self._termination is not None else None
        if found is not None and found.name == "deleted":
            self._number += 1
            self._poll = steps.PollJob(self._number, self._job)
            self._effects.append(self._poll)
        else:
            self._conclude(self._termination)

    def _conclude(self, termination: Termination | None) -> None:
        """Finish with the final status of the pod, or read on if the log only broke off."""
        exit_ = self._log.decoder.exit
        if exit_ is not None:
            self._finish_with(outcome.from_exit(exit_, termination))
        elif termination is None:
            running = self._pod is not None and self._pod.running
            if self._log.pod_missing or self._watch_failed or not running:
                why = self._watch_error if self._watch_failed else None
                reason = why or "its cause is unknown"
                self._lose(f"the log ended without a result, and {reason}", why)
            else:
                self._start_reading()
        elif termination.kind == "exited" and not self._log.pod_missing and self._rereads < LOG_REREADS:
            # The rest of the log must be there: reading it broke off, or it fell silent.
            self._rereads += 1
            self._start_reading()
        elif self._missing and not self._log.complete:
            # It may have ended by itself before it was deleted.
            self._lose("the pod is gone with its log, and its end was not seen")
        else:
            self._finish_with(
                outcome.from_termination(
                    termination,
                    self._log.decoder,
                    log_error=self._log.last_error,
                    ran_to_limit=self._elapsed - self._seen.get("started", 0.0) >= self._settings.timeout,
                    job=self._job,
                    pod=self._pod_name,
                    image=self._settings.image,
                )
            )

    def _finish_with(self, ended: Outcome | SandboxError) -> None:
        if isinstance(ended, SandboxError):
            self._fail(ended, isinstance(ended, ResultLost))
            return
        self._mark_phase("finished")
        timings = Timings(
            **self._seen,
            returned=self._elapsed,
            program=ended.exit.seconds if ended.exit is not None else None,
        )
        result = ended.result(self._log.decoder, timings, self._job, self._pod_name)
        self._finish(steps.Done(result))

    def _lose(self, message: str, cause: SandboxError | None = None, hint: str = "") -> None:
        error = messages.lost(self._job, self._pod_name, self._log.decoder, message, hint)
        error.__cause__ = cause
        self._fail(error, True)

    def _fail(self, error: SandboxError, may_have_run: bool) -> None:
        self.may_have_run = self.may_have_run or may_have_run
        error.may_have_run = self.may_have_run
        self._finish(steps.Fail(error))

    def _finish(self, last: steps.Done | steps.Fail | None = None) -> None:
        self.phase = "finished"
        self._stop_polling()
        self._close_log()
        self._delete_job()
        if last is not None:
            self._effects.append(last)
