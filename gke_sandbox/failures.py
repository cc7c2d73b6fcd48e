"""The errors of an execution that has no result, in words. Pure."""

from __future__ import annotations

from .diagnosis import Ending, PodView, Wait, cause
from .errors import ResultLost, SandboxError, StartError
from .inquiry import Inquiry
from .transcript import Transcript

# So much of what an image printed, at its end, says what is wrong with it.
_SAID_CHARACTERS = 500


def not_started(why: Ending | Wait, job: str, pod: str, waited: str = "") -> StartError:
    """The cluster's own reason. `waited` says how long that was, if it was waited for."""
    found = why.cause or cause("container_waiting")
    said = f"{why.reason}: {why.message}" if why.message else why.reason
    return StartError(
        f"the sandbox did not start{waited}: {found.summary} ({said})",
        cause=found.name,
        reason=why.reason,
        job=job,
        pod=pod,
        hint=found.hint,
    )


def start_timed_out(
    limit: float, job: str, pod: PodView | None, wait: Wait | None, inquiry: Inquiry, trouble: SandboxError | None
) -> SandboxError:
    """Nothing has begun within `limit` seconds: the state that was seen last."""
    waited = f" within {limit:g} s (startup_timeout)"
    name = pod.name if pod is not None else ""
    if inquiry.trouble is not None:
        # Nobody can say what became of the pod.
        seen = cause("pods_not_seen")
        message = f"{seen.summary}{waited}: {trouble or inquiry.trouble}"
        return ResultLost(f"the result is lost: {message}", cause=seen.name, job=job, pod=name, hint=seen.hint)
    if wait is not None:
        return not_started(wait, job, name, waited)
    if pod is None:
        found, where = cause("no_pod"), f"Job {job}"
    else:
        found = cause("slow_start")
        where = f"pod {name} on node {pod.node}" if pod.node else f"pod {name}, which has no node yet"
    unread = inquiry.events_forbidden
    return StartError(
        f"the sandbox did not start{waited}: {found.summary} ({where})"
        + (f"; its Events may say why, and could not be read: {unread}" if unread is not None else ""),
        cause=found.name,
        job=job,
        pod=name,
        hint=unread.hint if unread is not None else found.hint,
    )


def runner_failed(ending: Ending, job: str, pod: str, log: Transcript, image: str) -> StartError:
    """No exit frame, and the container ended by itself: the runner could not begin, and may have said why."""
    said = (log.outside + bytes(log.stderr)).decode("utf-8", "replace").strip()
    found = cause("runner_failed")
    return StartError(
        f"the container ended with code {ending.exit_code} before the program could run"
        + (f"; its log says: {said[-_SAID_CHARACTERS:]}" if said else "; its log is empty"),
        cause=found.name,
        reason="RunnerError",
        job=job,
        pod=pod,
        hint=f"{found.hint} (image: {image})",
    )


def lost(job: str, pod: str, log: Transcript, message: str) -> ResultLost:
    """The program may have run, and how it ended cannot be known."""
    return ResultLost(
        f"the result is lost: {message}",
        job=job,
        pod=pod,
        stdout=log.stdout.decode("utf-8", "replace"),
        stderr=log.stderr.decode("utf-8", "replace"),
        hint="the program may have run, wholly or in part: run it again only if that does no harm",
    )
