"""How a program ended: from an exit frame, a pod's termination and the log to a status or an error. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .._diagnosis import Termination, cause, messages
from .._wire.frames import Exit
from .._wire.log_decoder import ReplayableLogDecoder
from ..errors import SandboxError
from ..result import ExecutionResult, Status, Timings

_SIGKILL = 9
_MAX_SIGNAL = 64
_TIMED_OUT_CODE = 124
RUNNER_FAILED_CODE = 125


@dataclass(frozen=True)
class Outcome:
    """How the program ended: these fields of an `ExecutionResult`."""

    status: Status
    code: int | None = None
    signal: int | None = None
    exit: Exit | None = None
    reason: str = ""
    message: str = ""
    cause: str = ""

    def result(
        self, log: ReplayableLogDecoder, timings: Timings, job: str, pod: str, start: Literal["warm", "cold"]
    ) -> ExecutionResult:
        """Return the result with what the log contains."""
        return ExecutionResult(
            status=self.status,
            exit_code=self.code,
            signal=self.signal,
            stdout_bytes=bytes(log.stdout),
            stderr_bytes=bytes(log.stderr),
            files=log.files,
            dropped=log.dropped,
            output_truncated=log.rotated or self.exit is None,
            reason=self.reason,
            message=self.message,
            cause=self.cause,
            timings=timings,
            start=start,
            job=job,
            pod=pod,
        )


def needs_pod_status(exit_: Exit) -> bool:
    """Whether the pod may know more than the exit frame.

    Signal 9 that is not from the time limit can be from the kernel, for memory.
    """
    return exit_.signal == _SIGKILL and not exit_.timed_out


def from_exit(exit_: Exit, termination: Termination | None = None) -> Outcome:
    """Return the outcome for an exit frame. `termination`: what the pod reports, if `needs_pod_status`.

    Exit code 137 of the container adds nothing: the runner itself exits that way after a SIGKILLed program.
    """
    if exit_.timed_out:
        return Outcome("timed_out", exit_.code, exit_.signal, exit_)
    if needs_pod_status(exit_) and termination is not None:
        by_signal = termination.cause is cause("killed_by_signal")
        if termination.kind in ("killed", "out_of_memory") and not by_signal:
            return _from_outside(termination, exit_)
    if exit_.signal is not None:
        message = messages.SIGNAL_NINE if exit_.signal == _SIGKILL else ""
        return Outcome("signaled", exit_.code, exit_.signal, exit_, message=message)
    return Outcome("succeeded" if exit_.code == 0 else "failed", exit_.code, None, exit_)


def from_termination(
    termination: Termination,
    log: ReplayableLogDecoder,
    *,
    log_error: str,
    ran_to_limit: bool,
    sent: bool,
    job: str,
    pod: str,
    image: str,
) -> Outcome | SandboxError:
    """Return the outcome for a container that was terminated and whose log has no exit frame.

    `log_error`: why the log could not be read to its end, if so. `ran_to_limit`: the container ran for as long as
    the program's time limit. `sent`: whether the program was sent to a runner that waited for it.
    """
    if termination.kind == "not_started":
        return messages.not_started(termination, job, pod)
    if termination.ran is None and log.start is None:
        return messages.disrupted(termination, job, pod, log)
    if termination.kind in ("out_of_memory", "killed"):
        return _from_outside(termination)
    code = termination.exit_code or 0
    if code == RUNNER_FAILED_CODE and log.not_started:
        return messages.runner_failed(termination, job, pod, log, image)
    if code == RUNNER_FAILED_CODE and log.runner_error:
        return messages.runner_crashed(job, pod, log)
    if log_error:
        how_far = "" if log.start is None else " to its end"
        message = f"the container ended with code {code}, and its log could not be read{how_far}: {log_error}"
        return messages.lost(job, pod, log, message)
    if code == 0 or (sent and log.start is None and not log.unframed):
        # Without the runner's exit frame, part of the output is missing. A log without a start frame can be the
        # rest of one that was rotated.
        message = f"the container ended with code {code}, and its log does not contain the result"
        return messages.lost(job, pod, log, message)
    if log.start is None:
        return messages.runner_failed(termination, job, pod, log, image)
    # The runner exits with the program's code, 128+N for its signal and 124 for its limit; only the end of its
    # log is missing.
    if code == _TIMED_OUT_CODE and ran_to_limit:
        return _explained("timed_out", termination)
    if 128 < code <= 128 + _MAX_SIGNAL:
        return Outcome("signaled", None, code - 128)
    if code == RUNNER_FAILED_CODE:
        message = "the log has no exit frame: the program exited with code 125, or the runner failed"
        return Outcome("failed", code, message=message)
    return Outcome("failed", code)


def from_large_log() -> Outcome:
    """Return the outcome of a program that wrote to its pod's log directly. The client deletes its Job."""
    return Outcome("killed", reason="LogTooLarge", message="Its Job was deleted", cause="log_too_large")


def _from_outside(termination: Termination, exit_: Exit | None = None) -> Outcome:
    return _explained("out_of_memory" if termination.kind == "out_of_memory" else "killed", termination, exit_)


def _explained(status: Status, termination: Termination, exit_: Exit | None = None) -> Outcome:
    code, signal = (exit_.code, exit_.signal) if exit_ is not None else (None, _SIGKILL)
    found = termination.cause.name if termination.cause is not None else ""
    return Outcome(status, code, signal, exit_, termination.reason, termination.message, found)
