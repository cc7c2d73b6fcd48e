"""Delete the Jobs of a Sandbox in the background, with retries."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

import anyio
import anyio.abc

from ..errors import ApiError, NotFound, ReplayMismatch, SandboxError
from ..kube.client import KubeClient
from ..kube.resources import JOBS
from ..kube.retry import Retry, is_retryable
from .steps import JobAttempt

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 10.0
"""How long a deletion may take once its Sandbox is being closed."""

MAX_LEFTOVERS = 1000
"""The maximum number of undeleted Jobs that are remembered: the latest."""

_DELAY, _MAX_DELAY = 0.5, 10.0
_LATE_POST_ATTEMPTS = 4


class CleanupQueue:
    """The deletions of one Sandbox, each a task of its task group.

    While the Sandbox is open, each is retried until the Job is gone: deleted, or ended and removed by the cluster.
    Once the Sandbox closes (`start_closing`) they have `CLOSE_TIMEOUT`. `jobs` are those that are not deleted yet,
    `leftovers` those whose deletion could not be confirmed.
    """

    def __init__(self, client: KubeClient, namespace: str, tasks: anyio.abc.TaskGroup) -> None:
        self._client = client
        self._namespace = namespace
        self._tasks = tasks
        self._scopes: set[anyio.CancelScope] = set()
        self._close_by = math.inf
        self._closing = anyio.Event()
        self._close_expected = False
        self._gave_up = False
        self._handed_over: frozenset[str] = frozenset()
        self._errors: dict[str, SandboxError] = {}
        self.jobs: set[str] = set()
        self.leftovers: list[str] = []

    def start(self, attempt: JobAttempt, lifetime: float, done: Callable[[], None]) -> None:
        """Delete a Job that the cluster removes after `lifetime` seconds, and call `done` at the end."""
        if self._gave_up:
            self._abandon_job(attempt.name, "the Sandbox was closed before the program ended")
            done()
            return
        self.jobs.add(attempt.name)
        self._start(attempt, lifetime, done)

    def start_closing(self) -> None:
        """Give the deletions `CLOSE_TIMEOUT` from now on: the Sandbox is being closed."""
        self._close_by = anyio.current_time() + CLOSE_TIMEOUT
        self._closing.set()
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, self._close_by)

    def hand_over(self, jobs: frozenset[str]) -> None:
        """Stop deleting these Jobs: they are deleted synchronously, at the interpreter's exit."""
        self._handed_over = jobs

    def expect_close(self) -> None:
        """A caller waits for the end: do not start deletions again that asyncio has cancelled."""
        self._close_expected = True

    def give_up(self) -> None:
        """Stop all deletions, and start no other."""
        self._gave_up = True
        for scope in list(self._scopes):
            scope.cancel()

    def abandon(self) -> None:
        """Add every Job that is not deleted yet to `leftovers`: the Sandbox is closed."""
        self._gave_up = True
        for job in sorted(self.jobs):
            self._abandon_job(job, "the Sandbox was closed before the server responded")

    def _start(
        self, attempt: JobAttempt, lifetime: float, done: Callable[[], None], *, restarted: bool = False
    ) -> None:
        call = partial(self._delete, attempt, lifetime, done, restarted=restarted)
        self._tasks.start_soon(call, name=f"delete {attempt.name}")

    async def _delete(
        self, attempt: JobAttempt, lifetime: float, done: Callable[[], None], *, restarted: bool
    ) -> None:
        job = attempt.name
        deadline = min(anyio.current_time() + lifetime, self._close_by)
        scope = anyio.CancelScope(shield=True, deadline=deadline)
        self._scopes.add(scope)
        restart = False
        try:
            with scope:
                await self._delete_until_gone(attempt)
            if scope.cancelled_caught:
                self._abandon_job(job, str(self._errors.get(job, "the server did not respond in time")))
        except anyio.get_cancelled_exc_class():
            # Only asyncio, ending its loop with every task on it, cancels through a shield. It does not cancel the
            # tasks that are started after that, and it waits for the owner task of the Sandbox.
            restart = not (self._close_expected or self._gave_up or restarted)
            if restart:
                self._start(attempt, lifetime, done, restarted=True)
            else:
                self._abandon_job(job, "the event loop was ended before the server responded")
            raise
        finally:
            self._scopes.discard(scope)
            self._errors.pop(job, None)
            if not restart:
                self.jobs.discard(job)
                done()

    async def _delete_until_gone(self, attempt: JobAttempt) -> None:
        retry = Retry(initial_delay=_DELAY, max_delay=_MAX_DELAY)
        while attempt.name not in self._handed_over:
            try:
                await self._client.delete(
                    JOBS, self._namespace, attempt.name, propagation_policy="Background", low_priority=True
                )
            except NotFound:
                # The request that creates it may arrive after this one.
                if not attempt.response_pending or retry.failures + 1 >= _LATE_POST_ATTEMPTS:
                    return
                delay = retry.record_failure()
            except ReplayMismatch:
                # A replay has no cluster, and closing the Sandbox raises this error.
                return
            except SandboxError as error:
                if not is_retryable(error):
                    self._warn_refused(attempt.name, error)
                    return
                self._errors[attempt.name] = error
                delay = retry.record_failure(error)
            else:
                return
            await self._wait(delay or 0.0)

    async def _wait(self, seconds: float) -> None:
        """Wait before the next attempt, which is made at once when the Sandbox starts to close."""
        if self._closing.is_set():
            await anyio.sleep(seconds)
            return
        with anyio.move_on_after(seconds):
            await self._closing.wait()

    def _warn_refused(self, job: str, error: SandboxError) -> None:
        """The server refused. It will usually refuse every deletion, so warn once."""
        self._remember(job)
        reason = error.reason if isinstance(error, ApiError) else type(error).__name__
        self._client.warn_once(_warning_text(job, self._namespace, error.message, error.hint), f"delete: {reason}")

    def _abandon_job(self, job: str, why: str) -> None:
        self._remember(job)
        logger.warning("%s", _warning_text(job, self._namespace, why))

    def _remember(self, job: str) -> None:
        self.jobs.discard(job)
        self.leftovers.append(job)
        del self.leftovers[:-MAX_LEFTOVERS]


def _warning_text(job: str, namespace: str, why: str, hint: str = "") -> str:
    text = f"Job {job} in namespace {namespace} could not be deleted ({why}); it ends by itself at its deadline"
    return f"{text}. {hint}" if hint else text
