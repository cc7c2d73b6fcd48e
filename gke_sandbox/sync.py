"""Sandbox: the asynchronous one, for programs without an event loop and for any number of threads."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotYet
from types import TracebackType
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from ._engine.cleanup import CLOSE_SECONDS
from ._engine.execution import Execution
from ._stream import ExecutionStream
from .cluster import Cluster
from .errors import SandboxClosed, SandboxError
from .result import ExecutionEvent, ExecutionResult
from .sandbox import AsyncSandbox, unwrap_exception_group

logger = logging.getLogger("gke_sandbox")

T = TypeVar("T")

_EXIT_SECONDS = 2.0
# A signal that comes in the very moment before Python begins to wait for a lock, or that the kernel has given to
# another thread, does not end that wait: so nobody waits for longer than this at a time.
_LOOK_UP_SECONDS = 0.5


class Sandbox:
    """Runs untrusted Python, each program in a fresh gVisor pod of a Kubernetes cluster.

    ::

        with Sandbox(namespace="agent-sandbox") as sandbox:
            result = sandbox.run("print(6 * 7)", timeout=30)

    Takes what `AsyncSandbox` takes, and does the same: it is one, in a background thread that starts with
    the first use and is joined by `close`. Any number of threads may call it at once; they share its
    connections and its one watch.

    Ctrl-C during a run deletes the Job, waits for that up to 10 s, and is raised; a second Ctrl-C gives up
    and names what is left. A Sandbox that is never closed deletes its Jobs at interpreter exit. In a forked
    child it begins anew, with a session of its own, and never touches its parent's Jobs.
    """

    def __init__(self, cluster: Cluster | None = None, **settings: Any) -> None:
        self._cluster = cluster
        self._arguments = settings
        # Checks the settings now, before any thread or connection: SpecError is raised here.
        AsyncSandbox(cluster, **settings)
        # A signal handler may close what the code that it interrupted is about to open.
        self._lock = threading.RLock()
        self._open: _Open | None = None
        self._closed = False
        _remember(self)

    def __enter__(self) -> Sandbox:
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.sandbox._exit_exception = error
        self.close()

    def close(self) -> None:
        """End the runs in flight (they raise `SandboxClosed`), delete their Jobs, stop the thread. Idempotent."""
        with self._lock:
            self._closed = True
            opened = self._open
        if opened is not None:
            opened.close()

    @property
    def namespace(self) -> str:
        """Where the Jobs are made. Opens the Sandbox."""
        return self._opened().sandbox.namespace

    @property
    def leftovers(self) -> list[str]:
        """Jobs whose deletion could not be confirmed."""
        opened = self._open
        return [] if opened is None else list(opened.sandbox.leftovers)

    def run(
        self,
        code: str | bytes,
        *,
        files: Mapping[str, str | bytes] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        **overrides: Any,
    ) -> ExecutionResult:
        """Run `code` as ``main.py`` and return how it ended: see `AsyncSandbox.run`."""
        opened = self._opened()
        execution = opened.sandbox.prepare(code, files=files, args=args, stdin=stdin, **overrides)
        return opened.wait(opened.sandbox.execute, execution, settles=[execution])

    def map(self, codes: Iterable[str | bytes], *, limit: int = 10, **same: Any) -> list[ExecutionResult]:
        """Run every program, at most `limit` at a time: see `AsyncSandbox.map`."""
        opened = self._opened()
        executions = [opened.sandbox.prepare(code, **same) for code in codes]
        return opened.wait(opened.sandbox.execute_all, executions, limit, settles=executions)

    def stream(
        self,
        code: str | bytes,
        *,
        files: Mapping[str, str | bytes] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        **overrides: Any,
    ) -> SyncExecutionStream:
        """Like `run`, with the events as they happen, for a ``with`` and a ``for``: see `ExecutionStream`."""
        opened = self._opened()
        stream = opened.sandbox.stream(code, files=files, args=args, stdin=stdin, **overrides)
        return SyncExecutionStream(opened, stream)

    def _opened(self) -> _Open:
        with self._lock:
            if self._closed:
                raise SandboxClosed("the Sandbox is closed", may_have_run=False)
            if self._open is None:
                opened = _Open(self._cluster, self._arguments)
                if self._closed:
                    opened.close()
                    raise SandboxClosed("the Sandbox was closed while it was opened", may_have_run=False)
                self._open = opened
                _remember_in_multiprocessing()
            return self._open

    # -- what the process does ----------------------------------------------------------------------------

    def _forget_parent(self) -> None:
        """In a forked child: neither the parent's thread nor its lock exists here."""
        self._lock = threading.RLock()
        if self._open is not None:
            self._open.detach()
            self._open = None


class SyncExecutionStream:
    """The events of one run, for threads. Leaving its ``with`` block ends the run and deletes its Job."""

    def __init__(self, opened: _Open, stream: ExecutionStream) -> None:
        self._opened = opened
        self._stream = stream
        self._closed = False

    def __enter__(self) -> SyncExecutionStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the run, if it still goes on."""
        self._closed = True
        try:
            _result(self._opened.begin(self._stream.close))
        except SandboxClosed:
            # Every run has ended with it; or this is a forked child, and the run its parent's.
            logger.debug("the Sandbox was closed before its stream")

    def __iter__(self) -> Iterator[ExecutionEvent]:
        return self

    def __next__(self) -> ExecutionEvent:
        if self._closed:
            raise StopIteration
        try:
            return self._opened.wait(self._next, on_interrupt=self._stream.close)
        except StopAsyncIteration:
            raise StopIteration from None

    async def _next(self) -> ExecutionEvent:
        return await self._stream.__aiter__().__anext__()


class _Open:
    """An AsyncSandbox that is open, and the thread whose event loop it lives on.

    The thread holds no reference to this object, so that a Sandbox that is dropped without `close` is
    collected, and its thread with it.
    """

    def __init__(self, cluster: Cluster | None, arguments: dict[str, Any]) -> None:
        self.sandbox = AsyncSandbox(cluster, **arguments)
        ready: Future[BlockingPortal] = Future()
        self._ended: Future[None] = Future()
        # A daemon, or the interpreter would wait for it before it runs the exit handler that ends it.
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
            self.portal = _result(ready)
            self._finalizer = weakref.finalize(self, _stop_elsewhere, self.portal)
            self._finalizer.atexit = False
            _loops[self.sandbox] = (self.portal, self._thread)
        except BaseException:
            # Interrupted: the loop is not wanted any more when it is there.
            ready.add_done_callback(_stop_unused)
            raise

    def begin(self, call: Callable[..., Any], *args: Any) -> Future[Any]:
        """Start a function or coroutine function on the loop. Raises `SandboxClosed`.

        The gate keeps the loop from ending in the middle: what is started then may never be answered.
        """
        if not self._ending:
            with self._gate:
                if not self._ending and self._thread.is_alive():
                    try:
                        return self.portal.start_task_soon(call, *args)
                    except RuntimeError as error:
                        raise SandboxClosed("the Sandbox's event loop has ended") from error
        raise SandboxClosed("the Sandbox is closed")

    def wait(
        self,
        call: Callable[..., Awaitable[T]],
        *args: Any,
        settles: Sequence[Execution] = (),
        on_interrupt: Callable[[], None] | None = None,
    ) -> T:
        """Call a coroutine function on the loop and wait for it. Ctrl-C ends it first, cleanly.

        An interrupt leaves the task running, and may come before there is a future to cancel it by: it is
        cancelled here by a handle of our own, and the deletion of its Job waited for.
        """
        task = _Task(call, args)
        try:
            future: Future[T] = self.begin(task.run)
            return _result(future)
        except CancelledError as error:
            raise SandboxClosed("the Sandbox's event loop ended before there was a result") from error
        except BaseException:
            if not task.ended:
                # Another interrupt may come anywhere here.
                try:
                    with contextlib.suppress(SandboxClosed):
                        _result(self.begin(task.cancel))
                        if on_interrupt is not None:
                            self.begin(on_interrupt)
                    _wait_for_deletion(settles)
                finally:
                    self._name_left(settles)
            raise

    def _name_left(self, executions: Sequence[Execution]) -> None:
        """Warn of the Jobs whose deletion is not confirmed."""
        left = [
            attempt.name
            for execution in _begun(executions)
            if not execution.settled.is_set()
            for attempt in execution.attempts
            if attempt.may_exist
        ]
        if left:
            logger.warning(
                "interrupted before the deletion of %s in namespace %s was confirmed",
                ", ".join(f"Job {name}" for name in left),
                self.sandbox.namespace,
            )

    def close(self) -> None:
        self._finalizer.detach()
        with self._gate:
            self._ending = True
        _stop(self.portal, False)
        while self._thread.is_alive():
            self._thread.join(_LOOK_UP_SECONDS)
        ended, self._ended = self._ended, Future()
        if ended.done():
            # What went wrong while it closed, told once.
            ended.result()

    def detach(self) -> None:
        """In a forked child: let go of everything without closing it; it is the parent's."""
        self._finalizer.detach()
        self._ending = True
        # Kept, not collected: destructors would close what the parent still uses.
        _of_parents.append(self)


def _result(future: Future[T]) -> T:
    """What a future brings, waited for so that a signal is heeded."""
    while not future.done():
        with contextlib.suppress(NotYet, CancelledError):
            future.exception(_LOOK_UP_SECONDS)
    return future.result()


def _wait_for_deletion(executions: Sequence[Execution]) -> None:
    """Wait until every Job of these is deleted, for `CLOSE_SECONDS` in all; a signal is heeded."""
    deadline = time.monotonic() + CLOSE_SECONDS
    for execution in _begun(executions):
        while not execution.settled.wait(_LOOK_UP_SECONDS):
            if time.monotonic() >= deadline:
                return


def _begun(executions: Sequence[Execution]) -> list[Execution]:
    """Those that have made a Job. Of a `map`, some may not have begun: nothing will ever settle those."""
    return [each for each in executions if any(attempt.may_exist for attempt in each.attempts)]


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
    """Ask the loop's thread to end, without waiting for it."""
    try:
        portal.start_task_soon(portal.stop, cancel)
    except RuntimeError:
        logger.debug("the loop had ended before")


def _abandon(sandbox: AsyncSandbox, portal: BlockingPortal, thread: threading.Thread) -> None:
    """At interpreter exit: delete what is left, then let the thread end.

    The loop can no longer resolve a host name, since the threads that do it are gone: the client that deletes
    here is a synchronous one. Threads that wait for a run are daemons, or the interpreter would not exit: they
    are left waiting, rather than woken by an error that nobody could answer any more.
    """
    waited_for = sandbox.running
    sandbox.delete_now()
    if not waited_for:
        _stop(portal, True)
        thread.join(_EXIT_SECONDS)


class _Task:
    """One call of a coroutine function on the loop, which may be cancelled before it has begun, too."""

    def __init__(self, call: Callable[..., Awaitable[Any]], args: Sequence[Any]) -> None:
        self._call = call
        self._args = args
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self.ended = False

    async def run(self) -> Any:
        """What the call returns; None if it was cancelled, when nobody waits for it any more."""
        try:
            with anyio.CancelScope() as self._scope:
                if self._cancelled:
                    self._scope.cancel()
                return await self._call(*self._args)
        finally:
            self.ended = True

    def cancel(self) -> None:
        """End the call, now or as soon as it begins."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()


def _stop_elsewhere(portal: BlockingPortal) -> None:
    """End the loop's thread from any thread, that one too: a collection may happen there, or a callback."""
    threading.Thread(target=_stop, args=(portal, True), name="gke-sandbox end", daemon=True).start()


def _stop_unused(ready: Future[BlockingPortal]) -> None:
    if ready.exception() is None:
        _stop_elsewhere(ready.result())


# -- one handler for the whole process, set up with the first Sandbox: nothing happens at import ----------

# The loops that run, those included whose Sandbox was dropped and that are only deleting its last Jobs.
_loops: dict[AsyncSandbox, tuple[BlockingPortal, threading.Thread]] = {}
_of_parents: list[object] = []
_alive: weakref.WeakSet[Sandbox] = weakref.WeakSet()
_handlers_lock = threading.Lock()
_owner: int | None = None


def _remember(sandbox: Sandbox) -> None:
    global _owner
    with _handlers_lock:
        if _owner is None:
            atexit.register(_at_exit)
            os.register_at_fork(after_in_child=_after_fork)
        _owner = os.getpid()
        _alive.add(sandbox)


def _remember_in_multiprocessing() -> None:
    """A child of multiprocessing leaves by `os._exit`, without exit handlers, but calls its own finalizers."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _at_exit, exitpriority=0)


def _at_exit() -> None:
    # A child made by os.fork runs its parent's handlers too; it has nothing of its own unless it said so.
    if _owner == os.getpid():
        # Each once: a child of multiprocessing may get here by both of its ways out.
        while _loops:
            sandbox, (portal, thread) = _loops.popitem()
            _abandon(sandbox, portal, thread)


def _after_fork() -> None:
    global _owner, _handlers_lock
    _handlers_lock = threading.Lock()
    _owner = os.getpid()
    _of_parents.extend(_loops.items())
    _loops.clear()
    for sandbox in list(_alive):
        sandbox._forget_parent()
