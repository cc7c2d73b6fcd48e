"""AsyncSandbox: run programs, each in a pod of its own. `blocking.Sandbox` is the same for threads."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread

from ._engine.cleanup import CLOSE_SECONDS, Deletions
from ._engine.create import Attempt
from ._engine.execution import Execution
from ._engine.pod_watch import PodWatch
from ._stream import ExecutionStream
from ._wire.manifests import SESSION_LABEL, lifetime
from ._wire.program import Program
from .cluster import Cluster, Connection
from .errors import SandboxClosed, SpecError
from .result import ExecutionEvent, ExecutionFinished, ExecutionResult
from .settings import Settings


class AsyncSandbox:
    """Runs untrusted Python, each program in a fresh gVisor pod of a Kubernetes cluster.

    ::

        async with AsyncSandbox(namespace="agent-sandbox") as sandbox:
            result = await sandbox.run("print(6 * 7)", timeout=30)

    `cluster` says where (`Cluster.auto()` by default); every other keyword is a field of
    `settings.Settings`. `namespace` is by default the context's or the pod's own, else ``default``. Settings
    are checked here, before any request: `SpecError`. The cluster is looked up when the block is entered:
    `ConfigError`.

    Runs on asyncio and on trio. Any number of runs may be in flight; they share connections and one watch.
    Leaving the block ends the runs that are in flight, which raise `SandboxClosed`, and waits up to 10 s for
    the deletion of every Job. Until then a deletion that fails is tried again for as long as the Job may exist;
    `leftovers` names those whose deletion could not be confirmed, the last thousand.
    """

    def __init__(self, cluster: Cluster | None = None, **settings: Any) -> None:
        self._cluster = cluster or Cluster.auto()
        self._namespace_given = settings.get("namespace") is not None
        if not self._namespace_given:
            settings.pop("namespace", None)
        self.settings = Settings().override(**settings)
        self.session = secrets.token_hex(4)
        self._connection: Connection | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._pods: PodWatch | None = None
        self._closed = False
        self._in_flight: dict[Execution, anyio.CancelScope] = {}
        self._deletions: Deletions | None = None
        self._exit_exception: BaseException | None = None
        """The error that leaves the block, for transports that have something to say at their end."""

    @property
    def namespace(self) -> str:
        """Where the Jobs are made; settled once the Sandbox is open."""
        return self.settings.namespace

    @property
    def jobs(self) -> list[str]:
        """Names of the Jobs that may be in the cluster now: of the runs in flight, and not deleted yet."""
        running = [attempt for execution in list(self._in_flight) for attempt in execution.attempts]
        return sorted(self._to_delete.union(attempt.name for attempt in running if attempt.may_exist))

    @property
    def leftovers(self) -> list[str]:
        """Names of the Jobs whose deletion could not be confirmed, the last thousand."""
        return self._deletions.leftovers if self._deletions is not None else []

    @property
    def _to_delete(self) -> set[str]:
        return self._deletions.jobs if self._deletions is not None else set()

    # -- open and close -----------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncSandbox:
        if self._tasks is not None or self._closed:
            raise SandboxClosed("a Sandbox is opened once; make a new one", may_have_run=False)
        given = self.settings.namespace if self._namespace_given else None
        if self._cluster.kind == "transport":
            connection = self._cluster.connect(given)
        else:
            # It reads files, and tries out runsc for the embedded cluster: up to a second.
            connection = await anyio.to_thread.run_sync(self._cluster.connect, given, abandon_on_cancel=True)
        if given is None and connection.namespace:
            self.settings = self.settings.override(namespace=connection.namespace)
        await connection.client.__aenter__()
        self._connection = connection
        self._idle = anyio.Event()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._deletions = Deletions(connection.client, self.namespace, self._tasks)
        self._pods = PodWatch(connection.client, self.namespace, f"{SESSION_LABEL}={self.session}", self._tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._exit_exception = error
        await self.aclose()

    async def aclose(self) -> None:
        """End all runs, delete their Jobs, close the connections. Must be called by the task that opened it."""
        tasks, connection, deletions = self._tasks, self._connection, self._deletions
        if self._closed or tasks is None or connection is None or deletions is None:
            self._closed = True
            return
        self._closed = True
        deletions.hurry()
        try:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                for scope in list(self._in_flight.values()):
                    scope.cancel()
                await self._until_idle()
        finally:
            # A shield does not hold off an asyncio task's own cancel(), so what was entered is left here.
            try:
                await self._leave_tasks(tasks, deletions)
            finally:
                # Not within a scope of ours: a transport may have a task group of its own, entered before.
                error = self._exit_exception
                trace = None if error is None else error.__traceback__
                await connection.client.__aexit__(None if error is None else type(error), error, trace)

    async def _leave_tasks(self, tasks: anyio.abc.TaskGroup, deletions: Deletions) -> None:
        """Runs and deletions are over or were given up; only the watch is left. End it.

        The group's own scope is shielded so that an outer cancellation does not tear it down halfway.
        """
        tasks.cancel_scope.cancel()
        tasks.cancel_scope.shield = True
        try:
            await tasks.__aexit__(None, None, None)
        except BaseException as error:  # noqa: BLE001 - raised, out of its group
            raise unwrap_exception_group(error) from None
        finally:
            deletions.give_up()

    async def _until_idle(self) -> None:
        while self._in_flight or self._to_delete:
            await self._idle.wait()

    def _settle(self, execution: Execution) -> None:
        """Say so if nothing of this execution is left to do, and if nothing of any is."""
        names = {attempt.name for attempt in execution.attempts}
        if execution not in self._in_flight and not names & self._to_delete:
            execution.settled.set()
        if not self._in_flight and not self._to_delete:
            self._idle.set()
            self._idle = anyio.Event()

    # -- run ----------------------------------------------------------------------------------------------

    async def run(
        self,
        code: str | bytes,
        *,
        files: Mapping[str, str | bytes] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        **overrides: Any,
    ) -> ExecutionResult:
        """Run `code` as ``main.py`` and return how it ended.

        `files` stand in its working directory, `args` are ``sys.argv[1:]``, `stdin` is its standard input
        (empty by default). `overrides` change settings for this run: ``timeout`` (seconds for the program),
        ``startup_timeout`` (seconds until it starts), ``image``, ``env``, ...

        A program that fails, is killed, or runs out of time or memory is a result, not an error. Raises
        `SpecError` for what cannot be asked for, `StartError` if the program did not start, `ResultLost` if
        its end is not known, `ApiError` and `NetworkError` for what the server and the network refuse,
        `SandboxClosed`. Cancelling it deletes the Job.
        """
        return await self.execute(self.prepare(code, files=files, args=args, stdin=stdin, **overrides))

    def stream(
        self,
        code: str | bytes,
        *,
        files: Mapping[str, str | bytes] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        **overrides: Any,
    ) -> ExecutionStream:
        """Like `run`, with the events as they happen: see `ExecutionStream`."""

        def start(stream: ExecutionStream) -> Callable[[], None]:
            execution = self.prepare(code, files=files, args=args, stdin=stdin, emit=stream.put, **overrides)
            scope = anyio.CancelScope()
            self._open_tasks().start_soon(self._run_streaming, execution, stream, scope)
            return scope.cancel

        return ExecutionStream(start)

    async def map(self, codes: Iterable[str | bytes], *, limit: int = 10, **same: Any) -> list[ExecutionResult]:
        """Run every program, at most `limit` at a time; the results are in the order of `codes`.

        `same` is what `run` takes, for all of them. The first error ends the others and is raised.
        """
        return await self.execute_all([self.prepare(code, **same) for code in codes], limit)

    def prepare(
        self,
        code: str | bytes,
        *,
        files: Mapping[str, str | bytes] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        emit: Callable[[ExecutionEvent], None] | None = None,
        **overrides: Any,
    ) -> Execution:
        """Check what is asked for and return the execution, not yet begun. Raises `SpecError`."""
        self._open_tasks()
        assert self._connection is not None
        assert self._pods is not None
        settings = self.settings.override(**overrides) if overrides else self.settings
        if settings.namespace != self.namespace:
            raise SpecError(
                "namespace",
                f"a Sandbox works in one namespace, {self.namespace!r}, not {settings.namespace!r}",
                hint="make another Sandbox for another namespace",
            )
        return Execution(
            client=self._connection.client,
            pods=self._pods,
            settings=settings,
            program=Program(code=code, files=files or {}, args=args, stdin=stdin),
            session=self.session,
            new_name=_new_name,
            delete=self._delete,
            emit=emit or _ignore,
        )

    async def execute(self, execution: Execution) -> ExecutionResult:
        """Run what `prepare` returned."""
        with self._flight(execution):
            return await execution.run()
        raise _closed_during_the_run()

    async def execute_all(self, executions: Sequence[Execution], limit: int) -> list[ExecutionResult]:
        """Run what `prepare` returned, at most `limit` at a time: see `map`."""
        if limit < 1:
            raise ValueError(f"limit: must be 1 or more, not {limit}")
        results: dict[int, ExecutionResult] = {}
        errors: list[Exception] = []
        waiting = iter(list(enumerate(executions)))

        async def work(group: anyio.abc.TaskGroup) -> None:
            for index, execution in waiting:
                try:
                    results[index] = await self.execute(execution)
                except Exception as error:  # noqa: BLE001 - raised below, so that no group reaches the caller
                    errors.append(error)
                    group.cancel_scope.cancel()
                    return

        async with anyio.create_task_group() as group:
            for _ in range(min(limit, len(executions))):
                group.start_soon(work, group)
        if errors:
            raise errors[0]
        return [results[index] for index in range(len(executions))]

    async def _run_streaming(
        self, execution: Execution, stream: ExecutionStream, scope: anyio.CancelScope
    ) -> None:
        # Should the Sandbox's tasks be cancelled around it, whoever waits for the stream has to be told.
        ending: Exception | None = _closed_during_the_run()
        try:
            with scope:
                stream.put(ExecutionFinished(await self.execute(execution)))
                ending = None
            if scope.cancelled_caught:
                ending = None
        except Exception as error:  # noqa: BLE001 - raised by the stream, to the caller that waits there
            ending = error
        finally:
            stream.end(ending)

    @contextmanager
    def _flight(self, execution: Execution) -> Iterator[anyio.CancelScope]:
        self._open_tasks()
        with anyio.CancelScope() as scope:
            self._in_flight[execution] = scope
            try:
                yield scope
            finally:
                del self._in_flight[execution]
                self._settle(execution)

    def _open_tasks(self) -> anyio.abc.TaskGroup:
        if self._closed:
            raise SandboxClosed("the Sandbox is closed", may_have_run=False)
        if self._tasks is None:
            raise SandboxClosed(
                "the Sandbox is not open yet",
                may_have_run=False,
                hint="use it in `async with AsyncSandbox(...) as sandbox:`",
            )
        return self._tasks

    # -- delete -------------------------------------------------------------------------------------------

    def _delete(self, attempt: Attempt, execution: Execution) -> None:
        """Delete a Job, off the path of its result; `execution.settled` is set when that is done."""
        assert self._deletions is not None
        self._deletions.start(attempt, lifetime(execution.settings), partial(self._settle, execution))

    @property
    def running(self) -> bool:
        """Whether somebody waits for a run."""
        return bool(self._in_flight)

    def delete_now(self) -> None:
        """Delete every Job that may be in the cluster, blocking, without the event loop.

        For interpreter exit, from another thread than the loop's.
        """
        jobs = self.jobs
        if not jobs or self._connection is None:
            return
        if self._deletions is not None:
            self._deletions.leave_to(frozenset(jobs))
        self._connection.delete_now(self.namespace, jobs)


def _new_name() -> str:
    return f"gke-sandbox-{secrets.token_hex(5)}"


def _closed_during_the_run() -> SandboxClosed:
    return SandboxClosed(
        "the Sandbox was closed while the program ran; its Job is deleted",
        hint="keep the Sandbox open until its runs have ended",
    )


def unwrap_exception_group(error: BaseException) -> BaseException:
    """The first error in a group, if it is one: a background task failed, and the others were cancelled for it."""
    while inner := getattr(error, "exceptions", None):  # Python 3.10 has no name for a group.
        error = inner[0]
    return error


def _ignore(event: ExecutionEvent) -> None:
    """Take no notice of an event."""
