"""The second half of an execution: read the log, and decide how the program ended. Pure; see `state`."""

from __future__ import annotations

from .._diagnosis import Termination, cause, messages
from .._diagnosis.limits import memory_limit
from .._wire.frames import PROTOCOL, Exit, Frame, Output, Start
from ..errors import BadRequest, Forbidden, NotFound, ResultLost, SandboxError, Unauthorized
from ..kube.resources import PODS
from ..result import ExecutionResult, OutputChunk, Status, Timings
from . import steps
from .facts import ExecutionFacts
from .log_stream import is_temporary

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
_SIGKILL = 9
_MAX_SIGNAL = 64
_TIMED_OUT_CODE, _RUNNER_FAILED_CODE = 124, 125
_KILLED: dict[str, Status] = {"killed": "killed", "out_of_memory": "out_of_memory"}


class ExecutionEnding(ExecutionFacts):
    """The transitions from `reading` to the end, and to a new attempt."""

    __slots__ = ()

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
                        self._finish_with(
                            "killed",
                            reason="LogTooLarge",
                            message="Its Job was deleted",
                            found="log_too_large",
                        )
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
        if exit_ is not None and not _needs_pod_status(exit_):
            self._finish_from_exit(exit_)
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
            self._finish_with("timed_out", reason="Overtime", message=message)
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
            self._finish_from_exit(exit_, termination)
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
            self._finish_from_termination(termination)

    def _finish_from_exit(self, exit_: Exit, termination: Termination | None = None) -> None:
        """Finish as the exit frame reports. `termination`: what the pod reports, if `_needs_pod_status`.

        Exit code 137 of the container adds nothing: the runner itself exits that way after a SIGKILLed program.
        """
        if (
            _needs_pod_status(exit_)
            and termination is not None
            and termination.kind in _KILLED
            and termination.cause is not cause("killed_by_signal")
        ):
            self._finish_explained(_KILLED[termination.kind], termination)
        elif exit_.timed_out:
            self._finish_with("timed_out")
        elif exit_.signal is not None:
            self._finish_with("signaled", message=messages.SIGNAL_NINE if exit_.signal == _SIGKILL else "")
        else:
            self._finish_with("succeeded" if exit_.code == 0 else "failed")

    def _finish_from_termination(self, termination: Termination) -> None:
        """Finish as the pod reports, because the log has no exit frame."""
        code = termination.exit_code or 0
        error = self._termination_error(termination, code)
        if error is not None:
            self._fail(error, isinstance(error, ResultLost))
        elif termination.kind in _KILLED:
            self._finish_explained(_KILLED[termination.kind], termination)
        # The runner exits with the program's code, 128+N for its signal and 124 for its limit; only the end of its
        # log is missing.
        elif code == _TIMED_OUT_CODE and self._elapsed - self._seen.get("started", 0.0) >= self._settings.timeout:
            self._finish_explained("timed_out", termination)
        elif 128 < code <= 128 + _MAX_SIGNAL:
            self._finish_with("signaled", signal=code - 128)
        elif code == _RUNNER_FAILED_CODE:
            message = "the log has no exit frame: the program exited with code 125, or the runner failed"
            self._finish_with("failed", code, message=message)
        else:
            self._finish_with("failed", code)

    def _termination_error(self, termination: Termination, code: int) -> SandboxError | None:
        """Return the error of a log without an exit frame. None if the pod shows how the program ended."""
        job, pod, image, log = self._job, self._pod_name, self._settings.image, self._log.decoder
        if termination.kind == "not_started":
            return messages.not_started(termination, job, pod)
        if termination.ran is None and log.start is None:
            return messages.disrupted(termination, job, pod, log)
        if termination.kind in _KILLED:
            return None
        if code == _RUNNER_FAILED_CODE and log.not_started:
            return messages.runner_failed(termination, job, pod, log, image)
        if code == _RUNNER_FAILED_CODE and log.runner_error:
            return messages.runner_crashed(job, pod, log)
        if self._log.last_error:
            how_far = "" if log.start is None else " to its end"
            message = f"its log could not be read{how_far}: {self._log.last_error}"
            return messages.lost(job, pod, log, f"the container ended with code {code}, and {message}")
        if code == 0 or (self._request_sent and log.start is None and not log.unframed):
            # Without the runner's exit frame, part of the output is missing. A log without a start frame can be
            # the rest of one that was rotated.
            message = f"the container ended with code {code}, and its log does not contain the result"
            return messages.lost(job, pod, log, message)
        return messages.runner_failed(termination, job, pod, log, image) if log.start is None else None

    def _finish_explained(self, status: Status, termination: Termination) -> None:
        found, message = termination.cause, termination.message
        if status == "out_of_memory" and "memory" in self._changed_limits:
            message += f"; the limit was {memory_limit(self._changed_limits, self._settings.memory_limit)}"
        self._finish_with(
            status,
            signal=_SIGKILL,
            reason=termination.reason,
            message=message,
            found=found.name if found is not None else "",
        )

    def _finish_with(
        self,
        status: Status,
        code: int | None = None,
        signal: int | None = None,
        *,
        reason: str = "",
        message: str = "",
        found: str = "",
    ) -> None:
        """Return the result with what the log contains. An exit frame has the code and the signal."""
        self._mark_phase("finished")
        log, exit_ = self._log.decoder, self._log.decoder.exit
        result = ExecutionResult(
            status=status,
            exit_code=code if exit_ is None else exit_.code,
            signal=signal if exit_ is None else exit_.signal,
            stdout_bytes=bytes(log.stdout),
            stderr_bytes=bytes(log.stderr),
            files=log.files,
            dropped=log.dropped,
            output_truncated=log.rotated or exit_ is None,
            reason=reason,
            message=message,
            cause=found,
            changed_limits=self._changed_limits,
            timings=Timings(
                **self._seen, returned=self._elapsed, program=None if exit_ is None else exit_.seconds
            ),
            start="warm" if self._warm else "cold",
            job=self._job,
            pod=self._pod_name,
        )
        self._finish(steps.Done(result))

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
        return termination.exit_code in (0, _RUNNER_FAILED_CODE)


def _needs_pod_status(exit_: Exit) -> bool:
    """Whether the pod may know more: a signal 9 that is not from the time limit can be for the memory limit."""
    return exit_.signal == _SIGKILL and not exit_.timed_out
