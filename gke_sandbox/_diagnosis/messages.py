"""The errors of an execution that has no result, in words. Pure."""

from __future__ import annotations

from .._wire.log_decoder import ReplayableLogDecoder
from ..errors import Forbidden, ResultLost, SandboxError, StartError
from . import Ending, PodView, Wait, cause

# So much of what an image printed, at its end, says what is wrong with it.
_SAID_CHARACTERS = 500

_MAY_HAVE_RUN = "the program may have run, wholly or in part: run it again only if that does no harm"


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
        ran="maybe" if waited else "no",
        hint=found.hint,
    )


def start_timed_out(
    limit: float,
    job: str,
    pod: PodView | None,
    wait: Wait | None,
    unseen: SandboxError | None,
    unread: Forbidden | None,
) -> SandboxError:
    """Nothing has begun within `limit` seconds: the state that was seen last.

    `unseen` says why the pods could not be looked at, `unread` why their Events could not, if so.
    """
    waited = f" within {limit:g} s (startup_timeout)"
    name = pod.name if pod is not None else ""
    if unseen is not None:
        # Nobody can say what became of the pod.
        seen = cause("pods_not_seen")
        message = f"{seen.summary}{waited}: {unseen}"
        return ResultLost(
            f"the result is lost: {message}", cause=seen.name, job=job, pod=name, hint=_hint(seen.hint)
        )
    if wait is not None:
        return not_started(wait, job, name, waited)
    if pod is None:
        found, where = cause("no_pod"), f"Job {job}"
    else:
        found = cause("slow_start")
        where = f"pod {name} on node {pod.node}" if pod.node else f"pod {name}, which has no node yet"
    return StartError(
        f"the sandbox did not start{waited}: {found.summary} ({where})"
        + (f"; its Events may say why, and could not be read: {unread}" if unread is not None else ""),
        cause=found.name,
        job=job,
        pod=name,
        ran="maybe",
        hint=unread.hint if unread is not None else found.hint,
    )


def runner_failed(ending: Ending, job: str, pod: str, log: ReplayableLogDecoder, image: str) -> StartError:
    """No exit frame, and the container ended by itself: the runner could not begin, and may have said why."""
    said = (log.unframed + bytes(log.stderr)).decode("utf-8", "replace").strip()
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


def unanswered(error: SandboxError, job: str, pod: str) -> ResultLost:
    """The last thing that a pod needs may be in the cluster, and nothing more is known."""
    return ResultLost(
        f"the result is lost: the ConfigMap with the program may have arrived, but no answer did: {error}",
        job=job,
        pod=pod,
        hint=_hint(error.hint),
    )


def vanished(job: str, pod: str) -> ResultLost:
    """The pod was there, waiting to start, and is not any more; what it did in between, nobody saw."""
    return ResultLost(
        f"the result is lost: pod {pod} is gone, and nobody saw how (deleted, evicted, preempted?)",
        cause="deleted",
        job=job,
        pod=pod,
        hint=_MAY_HAVE_RUN,
    )


def taken_away(ending: Ending, job: str, pod: str, log: ReplayableLogDecoder) -> ResultLost:
    """Something outside ended the pod, and nobody knows whether the program had begun by then."""
    found = ending.cause
    said = f"{ending.reason}: {ending.message.rstrip('.')}; whether the program had begun is not known"
    error = lost(job, pod, log, said if found is None else f"{found.summary} ({said})")
    error.cause = "" if found is None else found.name
    return error


def lost(job: str, pod: str, log: ReplayableLogDecoder, message: str, hint: str = "") -> ResultLost:
    """The program may have run, and how it ended cannot be known. `hint`: what else there is to do about it."""
    return ResultLost(
        f"the result is lost: {message}",
        job=job,
        pod=pod,
        stdout=log.stdout.decode("utf-8", "replace"),
        stderr=log.stderr.decode("utf-8", "replace"),
        hint=_hint(hint),
    )


def _hint(more: str) -> str:
    return f"{more.rstrip('.')}. T{_MAY_HAVE_RUN[1:]}" if more else _MAY_HAVE_RUN
