"""OpenSandbox: the connections and the background tasks of an open AsyncSandbox."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio

from ._engine.cleanup import CLOSE_TIMEOUT, CleanupQueue
from ._engine.execution import Execution, closed_during_the_run, unwrap_exception_group
from ._engine.pod_watch import PodWatch
from ._engine.steps import JobAttempt
from ._engine.warm_pool import WarmPod, WarmPool
from ._event_loop import check_event_loop, current_event_loop, start_task
from ._telemetry import record_ready
from ._wire.manifests import lifetime
from ._wire.program import Program
from .cluster import _Connection
from .errors import SandboxClosed
from .result import ExecutionEvent
from .settings import SESSION_LABEL, Settings

__all__ = ["OpenSandbox", "new_job_name"]

logger = logging.getLogger(__name__)


def new_job_name() -> str:
    """Return a new, random name for a Job."""
    return f"gke-sandbox-{secrets.token_hex(5)}"


class OpenSandbox:
    """The client of a cluster, and the tasks that belong to no single run: the watch, deletions, streams.

    A task group, and some transports, must be entered and left by the same task. That is the owner task, which
    belongs to the event loop. Any other task of that event loop may therefore open, use and close an AsyncSandbox.

    The owner task closes everything when `close` requests it, when a background task fails, or when the event loop
    ends.
    """

    def __init__(self, connection: _Connection, namespace: str, session: str) -> None:
        self.client = connection.client
        self._connection = connection
        self._namespace = namespace
        self._session = session
        self._event_loop = current_event_loop()
        self._tasks = anyio.create_task_group()
        self._deletions = CleanupQueue(self.client, namespace, self._tasks)
        self.pods = PodWatch(self.client, namespace, f"{SESSION_LABEL}={session}", self._tasks)
        self._scope = anyio.CancelScope()
        self._cleanup_scope = anyio.CancelScope(shield=True)
        self._opened = anyio.Event()
        self._close_requested = anyio.Event()
        self._ended = anyio.Event()
        self._closing = False
        self._error: BaseException | None = None
        self._caller_error: BaseException | None = None
        self._in_flight: dict[Execution, anyio.CancelScope] = {}
        self._callers = 0
        self.pool: WarmPool | None = None
        """The warm pods, if there are any."""
        self._idle = anyio.Event()

    @property
    def jobs(self) -> list[str]:
        """Names of the Jobs that may exist now: those of running programs, and those not deleted yet."""
        running = [attempt for execution in list(self._in_flight) for attempt in execution.attempts]
        return sorted(self._deletions.jobs.union(attempt.name for attempt in running if attempt.job_may_exist))

    @property
    def leftovers(self) -> list[str]:
        """Names of the Jobs whose deletion could not be confirmed; the last 1,000 of them."""
        return self._deletions.leftovers

    @property
    def has_callers(self) -> bool:
        """Whether a caller waits for a run."""
        return self._callers > 0

    # -- open and close -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start the owner task, and wait until it has opened the connections. Raises its error."""
        start_task(self._own, f"gke-sandbox {self._session}")
        try:
            await self._opened.wait()
        except BaseException:
            self._scope.cancel()
            await self.close()
            raise
        if self._ended.is_set():
            await self.close()
            raise SandboxClosed("the event loop ended while the Sandbox was opened", may_have_run=False)

    async def close(self, caller_error: BaseException | None = None) -> None:
        """Request that the owner task closes everything, and wait for it. Raise its error, in the first call.

        `caller_error` is the exception that leaves the block of the caller. Some transports need it.
        """
        if not self._ended.is_set():
            self.check_event_loop()
        self._closing = True
        if self.pool is not None:
            self.pool.close()
        if not self._close_requested.is_set():
            self._caller_error = caller_error
            self._deletions.expect_close()
            self._close_requested.set()
        with anyio.CancelScope(shield=True):
            try:
                await self._ended.wait()
            except anyio.get_cancelled_exc_class():
                # A shield does not stop asyncio's task.cancel(). Stop waiting for the server, but leave no task.
                self._cleanup_scope.cancel()
                self._deletions.give_up()
                await self._ended.wait()
                raise
        error, self._error = self._error, None
        if error is not None:
            raise error

    async def _own(self) -> None:
        """Open the connections, wait, and close them: the owner task."""
        try:
            with self._scope:
                await self._open_and_close()
        except anyio.get_cancelled_exc_class():
            logger.warning(
                "Sandbox %s was not closed before its event loop ended; use `async with` or call aclose()",
                self._session,
            )
            raise
        except BaseException as error:
            self._error = unwrap_exception_group(error)
            if not self._close_requested.is_set() and self._opened.is_set():
                logger.exception("a background task of Sandbox %s failed", self._session)
            if isinstance(self._error, (KeyboardInterrupt, SystemExit)):
                raise
        finally:
            self._closing = True
            self._opened.set()
            self._ended.set()

    async def _open_and_close(self) -> None:
        await self.client.__aenter__()
        try:
            await self._run_tasks()
        except BaseException as error:
            await self.client.__aexit__(type(error), error, error.__traceback__)
            raise
        caller_error = self._caller_error
        if caller_error is None:
            await self.client.__aexit__(None, None, None)
        else:
            await self.client.__aexit__(type(caller_error), caller_error, caller_error.__traceback__)

    async def _run_tasks(self) -> None:
        try:
            async with self._tasks:
                try:
                    self._opened.set()
                    await self._close_requested.wait()
                finally:
                    try:
                        await self._clean_up()
                    finally:
                        # End the watch, the last task: runs and deletions have finished or were given up.
                        self._tasks.cancel_scope.cancel()
        finally:
            self._deletions.abandon()

    async def _clean_up(self) -> None:
        """Cancel all runs, and wait until their Jobs are deleted."""
        self._closing = True
        if self.pool is not None:
            self.pool.close()
        self._deletions.start_closing()
        self._cleanup_scope.deadline = anyio.current_time() + CLOSE_TIMEOUT
        with self._cleanup_scope:
            for scope in list(self._in_flight.values()):
                scope.cancel()
            while self._in_flight or self._deletions.jobs:
                await self._idle.wait()

    # -- use ----------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise `SandboxClosed` if the Sandbox is closed or is being closed."""
        if self._closing:
            raise SandboxClosed("the Sandbox is closed", may_have_run=False) from self._error

    def check_event_loop(self) -> None:
        """Raise `SandboxError` if the running event loop is not the one that opened the Sandbox."""
        check_event_loop(self._event_loop, "this AsyncSandbox", may_have_run=False)

    def start_soon(self, call: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Start a background task, which ends at the latest when the Sandbox closes."""
        self.check_open()
        self.check_event_loop()
        self._tasks.start_soon(call, *args)

    def new_execution(
        self,
        settings: Settings,
        idle_timeout: float = 0.0,
        on_ready: Callable[[], None] = lambda: None,
        *,
        program: Program | None = None,
        emit: Callable[[ExecutionEvent], None] = lambda _: None,
    ) -> Execution:
        """Return an execution in this Sandbox. Without a program it is that of a warm pod: see `Execution`."""
        return Execution(
            client=self.client,
            pods=self.pods,
            settings=settings,
            program=program,
            session=self._session,
            new_name=new_job_name,
            delete=self.delete,
            emit=emit,
            on_ready=on_ready,
            idle_timeout=idle_timeout,
        )

    def keep_warm(self, size: int, idle_timeout: float, settings: Settings) -> None:
        """Keep `size` pods that wait for a program: see `WarmPool`."""
        in_flight = partial(self.in_flight, has_caller=False)
        self.pool = WarmPool(
            size, idle_timeout, settings, self.new_execution, in_flight, self.start_soon, record_ready
        )
        self.pool.fill()

    async def take_warm(self, run: Execution) -> WarmPod | None:
        """Let a warm pod take over a run: see `WarmPool.take`. A replay starts it as it was recorded."""
        if self.pool is None:
            return None
        starts_warm = self._connection.starts_warm
        recorded = starts_warm(run.program_digest) if starts_warm is not None else None
        if recorded is False:
            return None
        if recorded:
            await self.pool.wait_until_ready()
        return self.pool.take(run)

    @contextmanager
    def in_flight(self, execution: Execution, *, has_caller: bool = True) -> Iterator[None]:
        """Cancel the block if the Sandbox closes, and raise `SandboxClosed` then.

        `has_caller`: whether a caller waits for the execution.
        """
        self.check_open()
        self.check_event_loop()
        with anyio.CancelScope() as scope:
            self._in_flight[execution] = scope
            self._callers += has_caller
            try:
                yield
            finally:
                self._callers -= has_caller
                del self._in_flight[execution]
                self._settle(execution)
        if scope.cancelled_caught:
            raise closed_during_the_run(execution)

    def delete(self, attempt: JobAttempt, execution: Execution) -> None:
        """Delete a Job in the background and then record it in `execution`."""
        seconds = lifetime(execution.settings, execution.idle_timeout)
        self._deletions.start(attempt, seconds, partial(self._settle, execution))

    def delete_jobs_sync(self) -> None:
        """Delete every Job that may exist, without the event loop. Blocks.

        For interpreter exit, from a thread other than that of the loop.
        """
        jobs = self.jobs
        if jobs:
            self._deletions.hand_over(frozenset(jobs))
            self._connection.delete_jobs_sync(self._namespace, jobs)

    def _settle(self, execution: Execution) -> None:
        """Record the cleanup of this execution, and set the event if all are cleaned up."""
        left = self._deletions.jobs
        if execution not in self._in_flight and left.isdisjoint(attempt.name for attempt in execution.attempts):
            execution.record_cleanup()
        if not self._in_flight and not left:
            self._idle.set()
            self._idle = anyio.Event()
