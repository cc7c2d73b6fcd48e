"""AsyncSandbox: run programs, each in a new pod. `sync.Sandbox` is the same for threads."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

import anyio
import anyio.abc
import anyio.to_thread

from ._checks import check_integer, describe
from ._engine.cleanup import CLOSE_TIMEOUT, CleanupQueue
from ._engine.execution import Execution, unwrap_exception_group
from ._engine.pod_watch import PodWatch
from ._engine.steps import JobAttempt
from ._event_loop import check_event_loop, current_event_loop
from ._run_log import log_phase, log_run
from ._stream import ExecutionStream
from ._wire.manifests import SESSION_LABEL, lifetime
from ._wire.program import Program
from .cluster import Cluster, _check_cluster, _Connection
from .errors import SandboxClosed, SandboxError, SpecError
from .result import ExecutionEvent, ExecutionFinished, ExecutionResult, PhaseChanged
from .settings import Settings, SettingsDict

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AsyncSandbox", "ExecutionStream"]

_MAX_CONCURRENCY = 10_000
_CONCURRENCY_NAMES = frozenset(["limit", "concurrency", "max_workers", "workers", "parallelism"])
"""Names of `max_concurrency` in other libraries."""


class AsyncSandbox:
    """Runs untrusted Python programs, each in a new gVisor pod of a Kubernetes cluster.

    ::

        async with AsyncSandbox(namespace="agent-sandbox") as sandbox:
            result = await sandbox.run("print(6 * 7)", timeout=30)

    `cluster` is by default `Cluster.auto()`. The other keyword arguments are the fields of `settings.Settings`;
    `namespace` is by default that of the kubeconfig's context or of the pod, else ``default``. Invalid settings
    raise `SpecError` here, before any request. The cluster is looked up when the block is entered: `ConfigError`.

    Works with asyncio and trio, in the event loop that opened it; use in another one raises `SandboxError`. You
    can start any number of runs at the same time; they share connections and one watch. Leaving the block cancels
    running programs (`SandboxClosed`) and waits up to 10 seconds until every Job is deleted. While the Sandbox is
    open, a failed deletion is retried as long as the Job may exist.
    """

    def __init__(self, cluster: Cluster | None = None, **settings: Unpack[SettingsDict]) -> None:
        self._cluster = Cluster.auto() if cluster is None else _check_cluster(cluster)
        self._namespace_given = settings.get("namespace") is not None
        if not self._namespace_given:
            settings.pop("namespace", None)
        self.settings = Settings().override(**settings)
        """The settings of this Sandbox. The namespace is final when the Sandbox is open."""
        self.session = secrets.token_hex(4)
        """Value of the label ``gke-sandbox/session`` of all its Jobs and pods."""
        self._connection: _Connection | None = None
        self._event_loop: object = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._pods: PodWatch | None = None
        self._closed = False
        self._in_flight: dict[Execution, anyio.CancelScope] = {}
        self._deletions: CleanupQueue | None = None
        self._exit_exception: BaseException | None = None
        """The exception that leaves the block. Transports that check something at their end need it."""

    @property
    def namespace(self) -> str:
        """Namespace of the Jobs. It is final when the Sandbox is open."""
        return self.settings.namespace

    @property
    def jobs(self) -> list[str]:
        """Names of the Jobs that may exist now: those of running programs, and those not deleted yet."""
        running = [attempt for execution in list(self._in_flight) for attempt in execution.attempts]
        return sorted(self._to_delete.union(attempt.name for attempt in running if attempt.job_may_exist))

    @property
    def leftovers(self) -> list[str]:
        """Names of the Jobs whose deletion could not be confirmed; the last 1,000 of them."""
        return self._deletions.leftovers if self._deletions is not None else []

    @property
    def _to_delete(self) -> set[str]:
        return self._deletions.jobs if self._deletions is not None else set()

    # -- open and close -----------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncSandbox:
        if self._tasks is not None or self._closed:
            raise SandboxClosed("a Sandbox can be opened once", may_have_run=False, hint="Create another Sandbox.")
        given = self.settings.namespace if self._namespace_given else None
        try:
            if self._cluster._connects_at_once:
                connection = self._cluster._connect(given)
            else:
                # Reads files and, for the embedded cluster, tries runsc: up to a second.
                connection = await anyio.to_thread.run_sync(self._cluster._connect, given, abandon_on_cancel=True)
        except SandboxError as error:
            error.may_have_run = False
            raise
        if given is None and connection.namespace:
            self.settings = self.settings.override(namespace=connection.namespace)
        await connection.client.__aenter__()
        self._connection = connection
        self._event_loop = current_event_loop()
        self._idle = anyio.Event()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._deletions = CleanupQueue(connection.client, self.namespace, self._tasks)
        self._pods = PodWatch(connection.client, self.namespace, f"{SESSION_LABEL}={self.session}", self._tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._exit_exception = error
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel all runs, delete their Jobs and close the connections.

        Call it in the task that opened the Sandbox. Waits up to 10 seconds for the deletions.
        """
        tasks, connection, deletions = self._tasks, self._connection, self._deletions
        if self._closed or tasks is None or connection is None or deletions is None:
            self._closed = True
            return
        self._check_event_loop()
        self._closed = True
        deletions.start_closing()
        try:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                for scope in list(self._in_flight.values()):
                    scope.cancel()
                await self._until_idle()
        finally:
            # A shield does not stop asyncio's task.cancel(), so exit the contexts here in any case.
            try:
                await self._leave_tasks(tasks, deletions)
            finally:
                # Outside of any cancel scope: a transport may have entered a task group before.
                error = self._exit_exception
                trace = None if error is None else error.__traceback__
                await connection.client.__aexit__(None if error is None else type(error), error, trace)

    async def _leave_tasks(self, tasks: anyio.abc.TaskGroup, deletions: CleanupQueue) -> None:
        """End the watch, the last task: runs and deletions have finished or were abandoned.

        The scope of the group is shielded so that an outer cancellation does not interrupt this.
        """
        tasks.cancel_scope.cancel()
        tasks.cancel_scope.shield = True
        try:
            await tasks.__aexit__(None, None, None)
        except BaseException as error:  # noqa: BLE001 - raised without its group
            raise unwrap_exception_group(error) from None
        finally:
            deletions.abandon()

    async def _until_idle(self) -> None:
        while self._in_flight or self._to_delete:
            await self._idle.wait()

    def _settle(self, execution: Execution) -> None:
        """Set the events that wait for the cleanup of this execution, and of all executions."""
        names = {attempt.name for attempt in execution.attempts}
        if execution not in self._in_flight and not names & self._to_delete:
            execution.cleanup_done.set()
        if not self._in_flight and not self._to_delete:
            self._idle.set()
            self._idle = anyio.Event()

    # -- run ----------------------------------------------------------------------------------------------

    async def run(
        self,
        code: str | bytes | Path | Program,
        *,
        files: Mapping[str, str | bytes | Path] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        **overrides: Unpack[SettingsDict],
    ) -> ExecutionResult:
        """Run one program and return its result.

        `code` is Python source, the `pathlib.Path` of a script, or a `Program`, which already contains the next
        three. `files` are put into its working directory (contents, or a `pathlib.Path` to read, by relative path;
        default: none), `args` are ``sys.argv[1:]`` (default: none),
        `stdin` is its standard input (default: empty). `overrides` are settings for this run only, such as
        ``timeout`` in seconds, ``memory_limit`` or ``env``; by default those of the Sandbox.

        A program that fails, is killed, or exceeds its time or memory returns a result: see
        `ExecutionResult.check`. Raises `SpecError` for invalid arguments, `StartError` if the program did not
        start, `ResultLost` if its result is unknown, `ApiError` or `NetworkError` if the cluster cannot be used,
        and `SandboxClosed`. Cancelling the call deletes the Job.
        """
        program = _program(code, files, args, stdin)
        return await self._execute(self._prepare(program, overrides))

    def stream(
        self,
        code: str | bytes | Path | Program,
        *,
        files: Mapping[str, str | bytes | Path] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        **overrides: Unpack[SettingsDict],
    ) -> ExecutionStream:
        """Run one program and return its events as they happen: an asynchronous context manager and iterator.

        The arguments are those of `run`, and so are the errors; the iteration raises them. The program starts when
        the block is entered or the first event is requested.
        """

        def start(stream: ExecutionStream) -> Callable[[], None]:
            program = _program(code, files, args, stdin)
            execution = self._prepare(program, overrides, emit=stream._put)
            self._check_event_loop()
            scope = anyio.CancelScope()
            self._open_tasks().start_soon(self._run_streaming, execution, stream, scope)
            return scope.cancel

        return ExecutionStream(start)

    @overload
    async def map(
        self,
        programs: Iterable[str | bytes | Path | Program],
        *,
        max_concurrency: int = 10,
        return_exceptions: Literal[False] = False,
        files: Mapping[str, str | bytes | Path] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        **overrides: Unpack[SettingsDict],
    ) -> list[ExecutionResult]: ...

    @overload
    async def map(
        self,
        programs: Iterable[str | bytes | Path | Program],
        *,
        max_concurrency: int = 10,
        return_exceptions: Literal[True],
        files: Mapping[str, str | bytes | Path] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        **overrides: Unpack[SettingsDict],
    ) -> list[ExecutionResult | SandboxError]: ...

    async def map(
        self,
        programs: Iterable[str | bytes | Path | Program],
        *,
        max_concurrency: int = 10,
        return_exceptions: bool = False,
        files: Mapping[str, str | bytes | Path] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        **overrides: Unpack[SettingsDict],
    ) -> list[ExecutionResult] | list[ExecutionResult | SandboxError]:
        """Run several programs and return their results in the order of `programs`.

        `programs` are Python sources, paths of scripts (`pathlib.Path`) or `Program` objects. At most
        `max_concurrency` of them run at the same time (default: 10). `files`, `args` and `stdin` are for all
        sources; `overrides` are settings for all programs.

        All programs are checked before the first one starts: `SpecError`. Otherwise the errors are those of `run`.
        By default the first error cancels the other programs and is raised; its attribute `results` contains the
        results so far, with None for each program that has not finished. With ``return_exceptions=True`` every
        program runs, and an error takes the place of its result.
        """
        executions = self._prepare_all(programs, max_concurrency, files, args, stdin, overrides)
        return await self._execute_all(executions, max_concurrency, return_exceptions)

    def _prepare_all(
        self,
        programs: Iterable[str | bytes | Path | Program],
        max_concurrency: int,
        files: Mapping[str, str | bytes | Path] | None,
        args: Sequence[str],
        stdin: str | bytes | None,
        overrides: SettingsDict,
    ) -> list[Execution]:
        """Check the arguments of `map` and return its executions. Raises `SpecError`."""
        if isinstance(programs, (str, bytes, Path)) or not isinstance(programs, Iterable):
            raise SpecError(
                "programs",
                f"must be a list of programs, got {describe(programs)}",
                hint="Use run() for a single program.",
            )
        for name in _CONCURRENCY_NAMES.intersection(overrides):
            raise SpecError(name, "unknown argument", hint="Did you mean max_concurrency?")
        check_integer("max_concurrency", max_concurrency, 1, _MAX_CONCURRENCY)
        prepared = []
        for number, code in enumerate(programs):
            try:
                program = _program(code, files, args, stdin)
            except SpecError as error:
                raise error.renamed({}, f"programs[{number}].{error.field}") from None
            prepared.append(self._prepare(program, overrides))
        return prepared

    def _prepare(
        self,
        program: Program,
        overrides: SettingsDict,
        emit: Callable[[ExecutionEvent], None] = lambda _: None,
    ) -> Execution:
        """Check the settings and return the execution, not started. Raises `SpecError`."""
        self._open_tasks()
        assert self._connection is not None
        assert self._pods is not None
        settings = self.settings.override(**overrides) if overrides else self.settings
        if settings.namespace != self.namespace:
            raise SpecError(
                "namespace",
                f"must be {self.namespace!r}, because a Sandbox uses one namespace; got {settings.namespace!r}",
                hint="Create another Sandbox for another namespace.",
            )

        def observe(event: ExecutionEvent) -> None:
            if isinstance(event, PhaseChanged):
                log_phase(_latest_job(execution), event)
            emit(event)

        execution = Execution(
            client=self._connection.client,
            pods=self._pods,
            settings=settings,
            program=program,
            session=self.session,
            new_name=_new_name,
            delete=self._delete,
            emit=observe,
        )
        return execution

    async def _execute(self, execution: Execution) -> ExecutionResult:
        """Run a prepared execution."""
        started = anyio.current_time()
        try:
            with self._flight(execution):
                result = await execution.run()
                log_run(_latest_job(execution), anyio.current_time() - started, result)
                return result
            raise _closed_during_the_run(execution)
        except SandboxError as error:
            log_run(_latest_job(execution), anyio.current_time() - started, error)
            raise

    async def _execute_all(
        self, executions: Sequence[Execution], max_concurrency: int, return_exceptions: bool
    ) -> list[Any]:
        """Run prepared executions: see `map`."""
        results: list[ExecutionResult | SandboxError | None] = [None] * len(executions)
        errors: list[Exception] = []
        waiting = iter(list(enumerate(executions)))

        async def work(group: anyio.abc.TaskGroup) -> None:
            for index, execution in waiting:
                try:
                    results[index] = await self._execute(execution)
                except Exception as error:  # noqa: BLE001 - raised below, not in an exception group
                    if return_exceptions and isinstance(error, SandboxError):
                        results[index] = error
                        continue
                    errors.append(error)
                    group.cancel_scope.cancel()
                    return

        async with anyio.create_task_group() as group:
            for _ in range(min(max_concurrency, len(executions))):
                group.start_soon(work, group)
        if errors:
            if isinstance(errors[0], SandboxError):
                errors[0].results = results
            raise errors[0]
        return results

    async def _run_streaming(
        self, execution: Execution, stream: ExecutionStream, scope: anyio.CancelScope
    ) -> None:
        # If the tasks of the Sandbox are cancelled, the reader of the stream must get an error.
        error: Exception | None = None
        ended = False
        try:
            with scope:
                stream._put(ExecutionFinished(await self._execute(execution)))
            ended = True
        except Exception as raised:  # noqa: BLE001 - raised by the stream
            error, ended = raised, True
        finally:
            stream._end(error if ended else _closed_during_the_run(execution))

    @contextmanager
    def _flight(self, execution: Execution) -> Iterator[anyio.CancelScope]:
        self._open_tasks()
        self._check_event_loop()
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
                hint="Use it in `async with AsyncSandbox(...) as sandbox:`.",
            )
        return self._tasks

    def _check_event_loop(self) -> None:
        check_event_loop(self._event_loop, "this AsyncSandbox", may_have_run=False)

    # -- delete -------------------------------------------------------------------------------------------

    def _delete(self, attempt: JobAttempt, execution: Execution) -> None:
        """Delete a Job in the background and then set `execution.cleanup_done`."""
        assert self._deletions is not None
        self._deletions.start(attempt, lifetime(execution.settings), partial(self._settle, execution))

    @property
    def _running(self) -> bool:
        """Whether a caller waits for a run."""
        return bool(self._in_flight)

    def _delete_jobs_sync(self) -> None:
        """Delete every Job that may exist, without the event loop. Blocks.

        For interpreter exit, from a thread other than that of the loop.
        """
        jobs = self.jobs
        if not jobs or self._connection is None:
            return
        if self._deletions is not None:
            self._deletions.hand_over(frozenset(jobs))
        self._connection.delete_jobs_sync(self.namespace, jobs)


def _program(
    code: str | bytes | Path | Program,
    files: Mapping[str, str | bytes | Path] | None,
    args: Sequence[str],
    stdin: str | bytes | None,
) -> Program:
    if not isinstance(code, Program):
        return Program(code=code, files={} if files is None else files, args=args, stdin=stdin)
    for name, given in (("files", files is not None), ("args", args != ()), ("stdin", stdin is not None)):
        if given:
            raise SpecError(name, "cannot be combined with a Program", hint="Set it in the Program.")
    return code


def _new_name() -> str:
    return f"gke-sandbox-{secrets.token_hex(5)}"


def _closed_during_the_run(execution: Execution) -> SandboxClosed:
    return SandboxClosed(
        "the Sandbox was closed while the program ran; its Job is deleted",
        may_have_run=execution.may_have_run,
        hint="Keep the Sandbox open until its runs have finished.",
    )


def _latest_job(execution: Execution) -> str:
    return execution.attempts[-1].name if execution.attempts else ""
