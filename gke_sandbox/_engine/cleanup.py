"""Delete the Jobs of a Sandbox, off the paths of their results, and keep at it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import anyio
import anyio.abc

from ..errors import ApiError, NotFound, ReplayMismatch, SandboxError
from ..kube.client import KubeClient
from ..kube.resources import JOBS
from ..kube.retry import Retry, is_retryable
from .create import Attempt

logger = logging.getLogger("gke_sandbox")

CLOSE_SECONDS = 10.0
"""How long a deletion may take once its Sandbox is being closed."""

MAX_LEFTOVERS = 1000
"""So many of the Jobs that could not be deleted are remembered: the newest."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_LATE_POST_TRIES = 4


class Deletions:
    """The deletions of one Sandbox, each a task of its task group.

    While the Sandbox is open each goes on until the Job is gone: deleted, or ended and collected by itself. Once
    it closes (`hurry`) they have `CLOSE_SECONDS`. `jobs` are those that are not deleted yet, `leftovers` those
    whose deletion could not be confirmed.
    """

    def __init__(self, client: KubeClient, namespace: str, tasks: anyio.abc.TaskGroup) -> None:
        self._client = client
        self._namespace = namespace
        self._tasks = tasks
        self._scopes: set[anyio.CancelScope] = set()
        self._close_by = math.inf
        self._closing = anyio.Event()
        self._done_elsewhere: frozenset[str] = frozenset()
        self._trouble: dict[str, SandboxError] = {}
        self.jobs: set[str] = set()
        self.leftovers: list[str] = []

    def start(self, attempt: Attempt, lifetime: float, done: Callable[[], None]) -> None:
        """Delete a Job that is gone by itself after `lifetime` seconds, and call `done` when that is over."""
        self.jobs.add(attempt.name)
        self._tasks.start_soon(self._delete, attempt, lifetime, done, name=f"delete {attempt.name}")

    def hurry(self) -> None:
        """The Sandbox closes."""
        self._close_by = anyio.current_time() + CLOSE_SECONDS
        self._closing.set()
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, self._close_by)

    def leave_to(self, other: frozenset[str]) -> None:
        """These Jobs are deleted by somebody else: at the interpreter's exit."""
        self._done_elsewhere = other

    def give_up(self) -> None:
        """The Sandbox is closed: what is not deleted yet is left."""
        for job in sorted(self.jobs):
            self._leave(job, "the Sandbox was closed before the server answered")

    async def _delete(self, attempt: Attempt, lifetime: float, done: Callable[[], None]) -> None:
        job = attempt.name
        deadline = min(anyio.current_time() + lifetime, self._close_by)
        scope = anyio.CancelScope(shield=True, deadline=deadline)
        self._scopes.add(scope)
        try:
            with scope:
                await self._until_gone(attempt)
            if scope.cancelled_caught:
                self._leave(job, str(self._trouble.get(job, "the server did not answer in time")))
        except anyio.get_cancelled_exc_class():
            # What passes a shield is asyncio ending its loop and every task on it.
            self._leave(job, "the event loop was ended before the server answered")
            raise
        finally:
            self._scopes.discard(scope)
            self._trouble.pop(job, None)
            self.jobs.discard(job)
            done()

    async def _until_gone(self, attempt: Attempt) -> None:
        retry = Retry(initial_delay=_FIRST_PAUSE, max_delay=_LONGEST_PAUSE)
        while attempt.name not in self._done_elsewhere:
            try:
                await self._client.delete(JOBS, self._namespace, attempt.name, propagation_policy="Background")
            except NotFound:
                # The request that makes it may be behind this one.
                if not attempt.unanswered or retry.failures + 1 >= _LATE_POST_TRIES:
                    return
                pause = retry.record_failure()
            except ReplayMismatch:
                # There is no cluster that could keep the Job, and whoever closes the Sandbox is told.
                return
            except SandboxError as error:
                if not is_retryable(error):
                    self._refused(attempt.name, error)
                    return
                self._trouble[attempt.name] = error
                pause = retry.record_failure(error)
            else:
                return
            await self._pause(pause or 0.0)

    async def _pause(self, seconds: float) -> None:
        """Wait; but whoever closes the Sandbox meanwhile wants one try at once."""
        if self._closing.is_set():
            await anyio.sleep(seconds)
            return
        with anyio.move_on_after(seconds):
            await self._closing.wait()

    def _refused(self, job: str, error: SandboxError) -> None:
        """The server will not delete it, nor any other, as a rule: that is said once."""
        self._remember(job)
        reason = error.reason if isinstance(error, ApiError) else type(error).__name__
        self._client.warn_once(_told(job, self._namespace, str(error), error.hint), f"delete: {reason}")

    def _leave(self, job: str, why: str) -> None:
        self._remember(job)
        logger.warning("%s", _told(job, self._namespace, why))

    def _remember(self, job: str) -> None:
        self.jobs.discard(job)
        self.leftovers.append(job)
        del self.leftovers[:-MAX_LEFTOVERS]


def _told(job: str, namespace: str, why: str, hint: str = "") -> str:
    told = f"Job {job} in namespace {namespace} could not be deleted ({why}); it ends by itself at its deadline"
    return f"{told}. {hint}" if hint else told
