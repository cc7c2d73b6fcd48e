"""Build the errors of an execution that has no result. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .._wire.log_decoder import ReplayableLogDecoder
from ..errors import Forbidden, ResultLost, SandboxError, StartError
from . import FailureCause, PodState, Termination, WaitReason, cause, rejection
from .admission import Change

# The maximum of an image's output that is quoted, from its end.
_MAX_QUOTED_OUTPUT = 500

# gVisor has room for 4095 threads of one process, and ends a process that has more. The status of its pod does not
# show it. https://github.com/google/gvisor/blob/master/pkg/sentry/platform/systrap/subprocess.go
SIGNAL_NINE = (
    "neither the time limit nor the pod's status explains this signal: the program sent it, or gVisor did, which "
    "kills a process that has more than 4095 threads"
)
"""The message for a program that was killed with signal 9 while its pod goes on."""

_MAY_HAVE_RUN = "The program may have run, in whole or in part: run it again only if that does no harm."


def not_started(why: Termination | WaitReason, job: str, pod: str, waited: str = "") -> StartError:
    """Return the error for the reason that the cluster reports. `waited`: for how long, if it timed out."""
    found = why.cause or cause("container_waiting")
    detail = f"{why.reason}: {why.message}" if why.message else why.reason
    message = f"the sandbox did not start{waited}: {found.summary} ({detail})"
    return _start_error(found, message, job, pod, reason=why.reason)


def _start_error(
    found: FailureCause, message: str, job: str, pod: str, *, reason: str = "", hint: str = ""
) -> StartError:
    return StartError(message, cause=found.name, reason=reason, job=job, pod=pod, hint=hint or found.hint)


def rejected(error: SandboxError, job: str, waited: str = "") -> SandboxError:
    """Return the error for a Job or ConfigMap that admission rejected; other errors are returned as they are."""
    why = rejection(error)
    return error if why is None else not_started(why, job, "", "" if why.is_permanent else waited)


def start_timed_out(
    limit: float,
    job: str,
    pod: PodState | None,
    wait_reason: WaitReason | None,
    pods_error: SandboxError | None,
    events_error: Forbidden | None,
) -> SandboxError:
    """Return the error for a program that did not start within `limit` seconds, from the last known state.

    `pods_error` and `events_error`: why the pods and their Events could not be read, if so.
    """
    waited = f" within {limit:g} s (startup_timeout)"
    name = pod.name if pod is not None else ""
    if pods_error is not None:
        # The state of the pod is unknown.
        unseen = cause("pods_not_seen")
        message = f"{unseen.summary}{waited}: {pods_error}"
        return ResultLost(
            f"the result is lost: {message}", cause=unseen.name, job=job, pod=name, hint=_hint(unseen.hint)
        )
    if wait_reason is not None:
        return not_started(wait_reason, job, name, waited)
    if pod is None:
        found, where = cause("no_pod"), f"Job {job}"
    else:
        found = cause("slow_start")
        where = f"pod {name} on node {pod.node}" if pod.node else f"pod {name}, which has no node yet"
        if pod.init_container:
            where += f'; it waits for the container "{pod.init_container}", which the cluster has added'
    message = f"the sandbox did not start{waited}: {found.summary} ({where})"
    if events_error is None:
        return _start_error(found, message, job, name)
    message += f"; its Events, which may contain the reason, could not be read: {events_error}"
    return _start_error(found, message, job, name, hint=events_error.hint)


def runner_failed(
    termination: Termination, job: str, pod: str, log: ReplayableLogDecoder, image: str
) -> StartError:
    """Return the error for a container that exited without an exit frame: the runner could not start."""
    output = (log.unframed + bytes(log.stderr)).decode("utf-8", "replace").strip()
    found = cause("runner_failed")
    message = f"the container ended with code {termination.exit_code} before the program could run; its log "
    message += f"contains: {output[-_MAX_QUOTED_OUTPUT:]}" if output else "is empty"
    hint = f"{found.hint} The image is {image}."
    return _start_error(found, message, job, pod, reason="RunnerError", hint=hint)


def runner_crashed(job: str, pod: str, log: ReplayableLogDecoder) -> ResultLost:
    """Return the error for a runner that failed after it started the program."""
    found = cause("runner_crashed")
    message = f"{found.summary}: {log.runner_error[-_MAX_QUOTED_OUTPUT:]}"
    return lost(job, pod, log, message, found.hint, found.name)


def unsafe_admission_change(changes: Sequence[Change], job: str, pod: str) -> StartError:
    """Return the error of a Job, or of its pod if there is one, that is less safe than what was sent."""
    found = cause("unsafe_admission_change")
    where = f"pod {pod}" if pod else f"Job {job}"
    listed = "; ".join(map(str, changes))
    hint, names = found.hint, sorted({each.field for each in changes})
    if all(names):
        hint += f" Or, if you accept the risk, name {', '.join(names)} in accept_admission_changes."
    return _start_error(found, f"{found.summary} ({where}): {listed}", job, pod, hint=hint)


def not_sent(why: str, job: str, pod: str, hint: str = "") -> StartError:
    """Return the error for a program that did not reach the runner, which waits for it on its stdin.

    `hint`: that of the reason, if it is known.
    """
    found = cause("not_sent")
    return _start_error(found, f"{found.summary}: {why}", job, pod, hint=hint)


def unanswered(error: SandboxError, job: str, pod: str) -> ResultLost:
    """Return the error for a ConfigMap that may have been created, while nothing else is known."""
    return ResultLost(
        "the result is lost: the ConfigMap with the program may have arrived, but no response did: "
        f"{error.message}",
        job=job,
        pod=pod,
        hint=_hint(error.hint),
    )


def vanished(job: str, pod: str) -> ResultLost:
    """Return the error for a pod that was waiting to start and no longer exists."""
    return ResultLost(
        f"the result is lost: pod {pod} is gone, and its end was not seen (deleted, evicted, preempted?)",
        cause="deleted",
        job=job,
        pod=pod,
        hint=_MAY_HAVE_RUN,
    )


def disrupted(termination: Termination, job: str, pod: str, log: ReplayableLogDecoder) -> ResultLost:
    """Return the error for a pod that was terminated from outside, if the program may or may not have started."""
    found = termination.cause
    detail = (
        f"{termination.reason}: {termination.message.rstrip('.')}; it is unknown whether the program had started"
    )
    if found is None:
        return lost(job, pod, log, detail)
    return lost(job, pod, log, f"{found.summary} ({detail})", cause=found.name)


def lost(
    job: str, pod: str, log: ReplayableLogDecoder, message: str, hint: str = "", cause: str = ""
) -> ResultLost:
    """Return the error for a program whose end is unknown. `hint`: what else you can do about it."""
    return ResultLost(
        f"the result is lost: {message}",
        cause=cause,
        job=job,
        pod=pod,
        stdout=log.stdout.decode("utf-8", "replace"),
        stderr=log.stderr.decode("utf-8", "replace"),
        hint=_hint(hint),
    )


def _hint(more: str) -> str:
    return f"{more.rstrip('.')}. {_MAY_HAVE_RUN}" if more else _MAY_HAVE_RUN
