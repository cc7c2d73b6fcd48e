"""The background thread of a Sandbox, with the event loop of its AsyncSandbox, and the end of the process."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Protocol, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from ._engine.cleanup import CLOSE_TIMEOUT
from ._engine.execution import Execution, unwrap_exception_group
from .errors import SandboxClosed, SandboxError
from .sandbox import AsyncSandbox

__all__ = ["LoopThread", "register", "register_in_multiprocessing", "wait_for"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_EXIT_TIMEOUT = 2.0
_SIGNAL_POLL_INTERVAL = 0.5
"""The longest uninterrupted wait for a lock, in seconds.

Python runs signal handlers between waits. A signal that arrives just before a wait, or that the kernel delivers to
another thread, does not interrupt that wait.
"""
_CLEANUP_POLL_INTERVAL = 0.02
"""Seconds between two looks at the cleanup of an interrupted run. An event for each run needs more memory."""


class Inheritable(Protocol):
    """An object that a forked child resets before it uses it."""

    def _reset_after_fork(self) -> None: ...


class LoopThread:
    """An open AsyncSandbox and the thread that runs its event loop.

    The thread has no reference to this object. A Sandbox that is dropped without `close` is therefore
    garbage-collected, which ends its thread.
    """

    def __init__(self, new_sandbox: Callable[[], AsyncSandbox]) -> None:
        self.sandbox = new_sandbox()
        ready: Future[BlockingPortal] = Future()
        self._ended: Future[None] = Future()
        # A daemon: otherwise the interpreter waits for it before it runs the exit handler that ends it.
        self._thread = threading.Thread(
            target=_run_loop,
            args=(self.sandbox, ready, self._ended),
            name=f"gke-sandbox {self.sandbox.session}",
            daemon=True,
        )
        self._gate = threading.RLock()
        self._ending = False
        try:
            self._thread.start()
            self.portal = wait_for(ready)
            self._finalizer = weakref.finalize(self, _stop_from_new_thread, self.portal)
            self._finalizer.atexit = False
            _loops[self.sandbox] = (self.portal, self._thread)
        except BaseException:
            # Interrupted: stop the loop when it is ready.
            ready.add_done_callback(_stop_unused)
            raise

    def submit(self, call: Callable[..., Any], *args: Any) -> Future[Any]:
        """Start a function or coroutine function on the loop and return its future. Raises `SandboxClosed`.

        The gate prevents that the loop ends at the same time, which could leave the future without a result.
        """
        self.check_thread()
        if not self._ending:
            with self._gate:
                if not self._ending and self._thread.is_alive():
                    try:
                        return self.portal.start_task_soon(call, *args)
                    except RuntimeError as error:
                        _wait_if_exiting()
                        raise SandboxClosed("the event loop of the Sandbox has ended") from error
        _wait_if_exiting()
        raise SandboxClosed("the Sandbox is closed")

    def call(
        self,
        call: Callable[..., Awaitable[T]],
        *args: Any,
        executions: Sequence[Execution] = (),
        on_interrupt: Callable[[], None] | None = None,
    ) -> T:
        """Call a coroutine function on the loop and return its result.

        An exception of a signal handler (Ctrl-C) does not stop the task on the loop, and may be raised before
        there is a future to cancel. This method therefore cancels the task itself, calls `on_interrupt` on the
        loop, and waits for the cleanup of `executions`.
        """
        self.check_thread()
        task = _Task(call, args)
        try:
            future: Future[T] = self.submit(task.run)
            return wait_for(future)
        except CancelledError as error:
            _wait_if_exiting()
            raise SandboxClosed("the event loop of the Sandbox ended before the result") from error
        except BaseException:
            if not task.ended:
                # Another interrupt can be raised anywhere here.
                try:
                    with contextlib.suppress(SandboxClosed):
                        wait_for(self.submit(task.cancel))
                        if on_interrupt is not None:
                            self.submit(on_interrupt)
                    _wait_for_cleanup(executions)
                finally:
                    self._warn_of_remaining_jobs(executions)
            raise

    def _warn_of_remaining_jobs(self, executions: Sequence[Execution]) -> None:
        """Log the names of the Jobs whose deletion is not confirmed."""
        left = [
            attempt.name
            for execution in _with_jobs(executions)
            if not execution.is_cleaned_up
            for attempt in execution.attempts
            if attempt.job_may_exist
        ]
        if left:
            logger.warning(
                "interrupted before the deletion of %s in namespace %s was confirmed",
                ", ".join(f"Job {name}" for name in left),
                self.sandbox.namespace,
            )

    def check_thread(self) -> None:
        """Raise `SandboxError` in the thread of the loop, which would wait for itself."""
        if threading.current_thread() is self._thread:
            raise SandboxError(
                "the Sandbox is used in the thread of its event loop, which calls on_event and must not wait",
                hint="Use the Sandbox in another thread.",
            )

    def close(self) -> None:
        """Close the AsyncSandbox and join the thread. Raise the error of closing, if any, in the first call."""
        self._finalizer.detach()
        with self._gate:
            self._ending = True
        _stop(self.portal, False)
        while self._thread.is_alive():
            self._thread.join(_SIGNAL_POLL_INTERVAL)
        ended, self._ended = self._ended, Future()
        if ended.done():
            ended.result()

    def detach(self) -> None:
        """In a forked child: abandon everything without closing it, because the parent uses it."""
        self._finalizer.detach()
        self._ending = True
        # Never garbage-collected: destructors would close connections of the parent.
        _inherited.append(self)


def wait_for(future: Future[T]) -> T:
    """Wait for a future in short steps, so that Python can run signal handlers, and return its result."""
    while not future.done():
        with contextlib.suppress(FutureTimeout, CancelledError):
            future.exception(_SIGNAL_POLL_INTERVAL)
    return future.result()


def _wait_for_cleanup(executions: Sequence[Execution]) -> None:
    """Wait until every Job of the executions is deleted, at most `CLOSE_TIMEOUT` in total.

    Waits in short steps, so that Python can run signal handlers.
    """
    deadline = time.monotonic() + CLOSE_TIMEOUT
    for execution in _with_jobs(executions):
        while not execution.is_cleaned_up:
            if time.monotonic() >= deadline:
                return
            time.sleep(_CLEANUP_POLL_INTERVAL)


def _with_jobs(executions: Sequence[Execution]) -> list[Execution]:
    """Return the executions that have created a Job. Only these have a cleanup to wait for."""
    return [each for each in executions if any(attempt.job_may_exist for attempt in each.attempts)]


def _run_loop(sandbox: AsyncSandbox, ready: Future[BlockingPortal], ended: Future[None]) -> None:
    async def main() -> None:
        async with BlockingPortal() as portal, sandbox:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(main)
    except BaseException as error:
        error = unwrap_exception_group(error)
        if not ready.done():
            ready.set_exception(error)
        elif isinstance(error, SandboxError):
            ended.set_exception(error)
        else:
            logger.exception("the thread of Sandbox %s ended with an error", sandbox.session)
    finally:
        _loops.pop(sandbox, None)


def _stop(portal: BlockingPortal, cancel: bool) -> None:
    """Request that the thread of the loop ends. Does not wait for it."""
    try:
        portal.start_task_soon(portal.stop, cancel)
    except RuntimeError:
        logger.debug("the event loop has already ended")


def _shutdown_at_exit(sandbox: AsyncSandbox, portal: BlockingPortal, thread: threading.Thread) -> None:
    """At interpreter exit: delete the remaining Jobs, then end the thread.

    Uses a synchronous client, because the loop can no longer resolve host names: the threads for that have ended.
    Only daemon threads can still wait for a run at this point. They are left waiting: see `_wait_if_exiting`.
    """
    has_callers = sandbox._open is not None and sandbox._open.has_callers
    sandbox._delete_jobs_sync()
    if not has_callers:
        _stop(portal, True)
        thread.join(_EXIT_TIMEOUT)


class _Task:
    """A call of a coroutine function on the loop. It can be cancelled before it starts, too."""

    def __init__(self, call: Callable[..., Awaitable[Any]], args: Sequence[Any]) -> None:
        self._call = call
        self._args = args
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self.ended = False

    async def run(self) -> Any:
        """Return the result of the call. Return None if it was cancelled: the caller does not wait for it then."""
        try:
            with anyio.CancelScope() as self._scope:
                if self._cancelled:
                    self._scope.cancel()
                return await self._call(*self._args)
        finally:
            self.ended = True

    def cancel(self) -> None:
        """Cancel the call, now or when it starts."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()


def _stop_from_new_thread(portal: BlockingPortal) -> None:
    """End the thread of the loop from any thread, also from itself: garbage collection may happen there."""
    threading.Thread(target=_stop, args=(portal, True), name="gke-sandbox end", daemon=True).start()


def _stop_unused(ready: Future[BlockingPortal]) -> None:
    if ready.exception() is None:
        _stop_from_new_thread(ready.result())


# -- handlers of the process, registered with the first Sandbox: importing has no effects -------------------

_loops: dict[AsyncSandbox, tuple[BlockingPortal, threading.Thread]] = {}
"""The running loops. Some belong to dropped Sandboxes and are only deleting the last Jobs."""
_inherited: list[object] = []
_alive: weakref.WeakSet[Inheritable] = weakref.WeakSet()
_handlers_lock = threading.Lock()
_owner: int | None = None
_exiting = False


def register(sandbox: Inheritable) -> None:
    global _owner
    with _handlers_lock:
        if _owner is None:
            atexit.register(_at_exit)
            os.register_at_fork(after_in_child=_after_fork)
        _owner = os.getpid()
        _alive.add(sandbox)


def register_in_multiprocessing() -> None:
    """In a child of multiprocessing: register a finalizer. It exits by `os._exit`, without exit handlers."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _at_exit, exitpriority=0)


def _wait_if_exiting() -> None:
    """In a daemon thread at interpreter exit, do not return: the thread could no longer handle an error."""
    if _exiting and threading.current_thread().daemon:
        threading.Event().wait()


def _at_exit() -> None:
    global _exiting
    # A forked child also runs the handlers of its parent. It owns Sandboxes only if `_after_fork` has run.
    if _owner == os.getpid():
        _exiting = True
        # A child of multiprocessing may call this twice, so handle each loop once.
        while _loops:
            sandbox, (portal, thread) = _loops.popitem()
            _shutdown_at_exit(sandbox, portal, thread)


def _after_fork() -> None:
    global _owner, _handlers_lock, _exiting
    _exiting = False
    _handlers_lock = threading.Lock()
    _owner = os.getpid()
    _inherited.extend(_loops.items())
    _loops.clear()
    for sandbox in list(_alive):
        sandbox._reset_after_fork()
