"""The second half of an execution: read the log, and decide how the program ended. Pure; see `state`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from .._diagnosis import Termination, messages
from .._diagnosis.limits import memory_limit
from .._wire.frames import PROTOCOL, Frame, Output, Start
from ..errors import BadRequest, Forbidden, NotFound, ResultLost, SandboxError, Unauthorized
from ..kube.resources import PODS
from ..result import OutputChunk, Timings
from . import outcome, steps
from .facts import ExecutionFacts
from .log_stream import is_temporary
from .outcome import Outcome

KILL_GRACE = 5.0
"""The Job is deleted this long after the time limit, because the runner did not end the program. If the output
came over a connection to the container, the log is read before that, for as long again."""
FINAL_STATUS_TIMEOUT = 3.0
"""How long to wait for the pod's final status when the log ends without an exit frame."""
FINAL_POLL_TIMEOUT = 3.0
"""How long the last requests for the pod's state may take."""
MAX_ATTACH_FAILURES = 3
"""How many pods are lost before they have the program, until that is an error."""
LOG_REREADS = 2
"""How often a log without an exit frame is read again, if its container exited by itself."""


class ExecutionEnding(ExecutionFacts):
    """The transitions from `reading` to the end, and to a new attempt."""

    def _advance(self, *, is_tick: bool = False) -> None:
        """Do what the state and the time require."""
        raise NotImplementedError

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
                if self.phase == "reading":
                    if log.decoder.exit is not None:
                        self._end_reading()
                    elif log.is_too_large:
                        # It fills the node's disk, so the Job is deleted at once.
                        self._finish_with(outcome.from_large_log())
            case steps.LogEnded(number, error) if log.attached:
                log.ended(number, error, self._now)
                # It can still be open, if the request could not be sent.
                self._close_connection(number)
                if error is None or is_temporary(error):
                    # The log contains the same frames.
                    self._open_log()
                else:
                    self._fail(error, True)
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
            if self._attaches and self._log.decoder.start is None and self._log.decoder.not_started:
                # It runs in another pod, or this is the text of an error.
                return
            self._mark_phase("first_output")
            self._emit(OutputChunk(frame.stream, frame.data, self._elapsed))
        elif isinstance(frame, Start):
            if frame.protocol != PROTOCOL:
                self._lose(f"the runner in the pod speaks protocol {frame.protocol}, this client {PROTOCOL}")
            elif frame is self._log.decoder.start:
                self.may_have_run = self.may_have_run or self._request_sent or not self._attaches
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
            if self._log.attached:
                # The connection may be dead. The log contains the same frames.
                self._log.limit, self._log.last_error = self._now + KILL_GRACE, "it did not open in time"
                self._start_reading()
                return
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
        if self._attaches and self._log.decoder.start is None:
            self._lose(f"the runner in the pod did not start the program within {limit}")
        elif self._log.open and not self._log.last_error:
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
        elif not self._request_sent and self._has_not_run(termination):
            why_ended = "" if termination is None else f": {termination.reason}"
            found = termination.cause if termination is not None else None
            hint = found.hint if found is not None else ""
            self._start_over(f"its container ended before it had the program{why_ended}", hint)
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
        elif self._has_not_run(termination):
            self._start_over("its container ended before it had the whole program")
        else:
            self._finish_with(
                outcome.from_termination(
                    termination,
                    self._log.decoder,
                    log_error=self._log.last_error,
                    ran_to_limit=self._elapsed - self._seen.get("started", 0.0) >= self._settings.timeout,
                    sent=self._request_sent,
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
        start: Literal["warm", "cold"] = "warm" if self._warm else "cold"
        changed = self._changed_limits
        if ended.status == "out_of_memory" and "memory" in changed:
            limit = memory_limit(changed, self._settings.memory_limit)
            ended = replace(ended, message=f"{ended.message}; the limit was {limit}")
        result = ended.result(self._log.decoder, timings, self._job, self._pod_name, start)
        self._finish(steps.Done(replace(result, changed_limits=changed)))

    def _lose(self, message: str, cause: SandboxError | None = None, hint: str = "") -> None:
        error = messages.lost(self._job, self._pod_name, self._log.decoder, message, hint)
        error.__cause__ = cause
        self._fail(error, True)

    def _fail(self, error: SandboxError, may_have_run: bool) -> None:
        if self._request_sent and not self._log.decoder.not_started:
            may_have_run = True
        elif self._attaches:
            may_have_run = False
            if isinstance(error, ResultLost):
                lost = error.message.removeprefix("the result is lost: ")
                error = messages.not_sent(lost, self._job, self._pod_name)
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

    # -- another attempt ------------------------------------------------------------------------------------

    def _start_over(self, why: str, hint: str = "") -> None:
        """Run the program in another pod: in this one it has certainly not started."""
        self._attach_failures += 1
        again = self._has_program and self._now < self._start_limit
        if again and self._attach_failures < MAX_ATTACH_FAILURES:
            self._stop_polling()
            self._close_log()
            self.phase, self._warm = "creating", False
            self._create_job(self._new_name())
        else:
            self._fail(messages.not_sent(why, self._job, self._pod_name, hint), False)

    def _has_not_run(self, termination: Termination | None) -> bool:
        """Whether it is certain that the runner did not start the program, for which there is a new attempt."""
        if not self._attaches or self._log.decoder.start is not None:
            return False
        if self._request_sent:
            # A log that is empty proves nothing: it may have been rotated.
            return self._log.decoder.not_started
        if termination is None or termination.kind != "exited":
            return True
        return termination.exit_code in (0, outcome.RUNNER_FAILED_CODE)
