"""AsyncSandbox: run programs, each in a new pod. `sync.Sandbox` is the same for threads."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

import anyio
import anyio.abc
import anyio.to_thread

from ._checks import check_integer, check_warm, describe
from ._engine.execution import closed_during_the_run
from ._engine.preflight import check
from ._open_sandbox import OpenSandbox, new_job_name
from ._run import Run
from ._stream import ExecutionStream
from ._wire.program import Program, to_program
from .cluster import Cluster, _check_cluster
from .errors import SandboxClosed, SandboxError, SpecError
from .result import ExecutionEvent, ExecutionResult
from .settings import Settings, SettingsDict

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AsyncSandbox", "ExecutionStream"]

_MAX_CONCURRENCY = 10_000
_CONCURRENCY_NAMES = frozenset(["limit", "concurrency", "max_workers", "workers", "parallelism"])
"""Names of `max_concurrency` in other libraries."""


class MapArguments(SettingsDict, total=False):
    """The keyword arguments of `map`, for its overloads."""

    max_concurrency: int
    files: Mapping[str, str | bytes | Path] | None
    args: Sequence[str]
    stdin: str | bytes | None
    on_event: Callable[[int, ExecutionEvent], None] | None


class AsyncSandbox:
    """Runs untrusted Python programs, each in a new gVisor pod of a Kubernetes cluster.

    ::

        async with AsyncSandbox(namespace="agent-sandbox") as sandbox:
            result = await sandbox.run("print(6 * 7)", timeout=30)

    `cluster` is by default `Cluster.auto()`. The other keyword arguments are the fields of `settings.Settings`;
    `namespace` is by default that of the kubeconfig's context or of the pod, else ``default``. Invalid settings
    raise `SpecError` here, before any request, and a missing package for `warm` or ``delivery="attach"`` raises
    `ConfigError`. The cluster is looked up when the block is entered: `ConfigError`.

    Works with asyncio and trio, in any task of the event loop that opened it; use in another event loop raises
    `SandboxError`. You can start any number of runs at the same time; they share connections and one watch.
    Leaving the block cancels running programs (`SandboxClosed`) and waits up to 10 seconds until every Job is
    deleted. `asyncio.run` and `trio.run` do the same at their end. While the Sandbox is open, a failed deletion
    is retried as long as the Job may exist.

    `warm` is a number of pods that are kept waiting for programs, so that a run takes some 25 ms (default: 0,
    maximum: 1,000); each runs one program. A run starts in a new pod if none is ready, or if its settings differ
    in more than `timeout` (at most that of the Sandbox), the limits of output and files, and added `env`.
    `warm_idle_timeout` is how long a pod waits before it is replaced, in seconds (default: 600). See docs/warm.md.
    """

    def __init__(
        self,
        cluster: Cluster | None = None,
        *,
        warm: int = 0,
        warm_idle_timeout: float = 600.0,
        **settings: Unpack[SettingsDict],
    ) -> None:
        self._cluster = Cluster.auto() if cluster is None else _check_cluster(cluster)
        self._namespace_given = settings.get("namespace") is not None
        if not self._namespace_given:
            settings.pop("namespace", None)
        self.settings = Settings().override(**settings)
        """The settings of this Sandbox. The namespace is final when the Sandbox is open."""
        self.warm, self.warm_idle_timeout = check_warm(warm, warm_idle_timeout, delivery=self.settings.delivery)
        """The number of pods that are kept waiting for programs, and how long one waits, in seconds."""
        self.session = secrets.token_hex(4)
        """Value of the label ``gke-sandbox/session`` of all its Jobs and pods."""
        self._open: OpenSandbox | None = None
        self._is_opening = False
        self._closed = False
        self._exit_exception: BaseException | None = None
        """The exception that leaves the block. Transports that check something at their end need it."""

    @property
    def namespace(self) -> str:
        """Namespace of the Jobs. It is final when the Sandbox is open."""
        return self.settings.namespace

    @property
    def jobs(self) -> list[str]:
        """Names of the Jobs that may exist now: those of running programs, and those not deleted yet."""
        return self._open.jobs if self._open is not None else []

    @property
    def leftovers(self) -> list[str]:
        """Names of the Jobs whose deletion could not be confirmed; the last 1,000 of them."""
        return self._open.leftovers if self._open is not None else []

    # -- open and close -----------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncSandbox:
        return await self.aopen()

    async def aopen(self) -> AsyncSandbox:
        """Open the connections. Call this, and later `aclose`, where ``async with`` does not fit.

        You can open, use and close an AsyncSandbox in different tasks of one event loop: in a fixture of
        pytest-asyncio, in the lifespan of an ASGI application, or in the cells of a notebook.
        """
        if self._open is not None or self._is_opening or self._closed:
            raise SandboxClosed("a Sandbox can be opened once", may_have_run=False, hint="Create another Sandbox.")
        self._is_opening = True
        try:
            opened = await self._connect()
        finally:
            self._is_opening = False
        self._open = opened
        if self._closed:
            await opened.close()
            raise SandboxClosed("the Sandbox was closed while it was opened", may_have_run=False)
        return self

    async def _connect(self) -> OpenSandbox:
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
        opened = OpenSandbox(connection, self.namespace, self.session)
        await opened.open()
        if self.warm:
            opened.keep_warm(self.warm, self.warm_idle_timeout, self.settings)
        return opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._exit_exception = error
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel all runs, delete their Jobs and close the connections.

        Waits up to 10 seconds for the deletions. You can call it more than once, and in another task than the one
        that opened the Sandbox.
        """
        if self._open is not None:
            await self._open.close(self._exit_exception)
        self._closed = True

    async def check(self, **overrides: Unpack[SettingsDict]) -> None:
        """Check that programs can run. Raises `ConfigError`, which lists everything that prevents it.

        Call it at start-up. Checks the connection, each permission, the namespace, and with a server-side dry run
        whether the server accepts the Job and the ConfigMap as they are sent. Creates nothing, and takes about ten
        requests. What only costs details is logged as a warning. Whether a node can run the pod is not checked.
        `overrides` are those of later runs.
        """
        opened, settings = self._opened(), self._settings_with(overrides)
        opened.check_event_loop()
        await check(opened.client, settings, session=self.session, name=new_job_name(), warm=self.warm > 0)

    # -- run ----------------------------------------------------------------------------------------------

    async def run(
        self,
        code: str | bytes | Path | Program,
        *,
        files: Mapping[str, str | bytes | Path] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        on_event: Callable[[ExecutionEvent], None] | None = None,
        **overrides: Unpack[SettingsDict],
    ) -> ExecutionResult:
        """Run one program and return its result.

        `code` is Python source, the `pathlib.Path` of a script, or a `Program`, which already contains the next
        three. `files` are put into its working directory (contents, or a `pathlib.Path` to read, by relative path;
        default: none), `args` are ``sys.argv[1:]`` (default: none),
        `stdin` is its standard input (default: empty). `on_event` is called with each event as it happens; it must
        not block, and an exception that it raises ends the run (default: None). `overrides` are settings for this
        run only, such as ``timeout`` in seconds, ``memory_limit`` or ``env``; by default those of the Sandbox.

        A program that fails, is killed, or exceeds its time or memory returns a result: see
        `ExecutionResult.check`. Raises `SpecError` for invalid arguments, `StartError` if the program did not
        start, `ResultLost` if its result is unknown, `ApiError` or `NetworkError` if the cluster cannot be used,
        and `SandboxClosed`. Cancelling the call deletes the Job.
        """
        run = self._prepare(to_program(code, files, args, stdin), overrides, on_event)
        return await run.execute()

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
            program = to_program(code, files, args, stdin)
            run = self._prepare(program, overrides, stream._put)
            scope = anyio.CancelScope()
            self._opened().start_soon(self._run_streaming, run, stream, scope)
            return scope.cancel

        return ExecutionStream(start)

    @overload
    async def map(
        self,
        programs: Iterable[str | bytes | Path | Program],
        *,
        return_exceptions: Literal[False] = False,
        **arguments: Unpack[MapArguments],
    ) -> list[ExecutionResult]: ...

    @overload
    async def map(
        self,
        programs: Iterable[str | bytes | Path | Program],
        *,
        return_exceptions: Literal[True],
        **arguments: Unpack[MapArguments],
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
        on_event: Callable[[int, ExecutionEvent], None] | None = None,
        **overrides: Unpack[SettingsDict],
    ) -> list[ExecutionResult] | list[ExecutionResult | SandboxError]:
        """Run several programs and return their results in the order of `programs`.

        `programs` are Python sources, paths of scripts (`pathlib.Path`) or `Program` objects. At most
        `max_concurrency` of them run at the same time (default: 10). `files`, `args` and `stdin` are for all
        sources; `overrides` are settings for all programs. `on_event` is called with the index of a program and
        each of its events; it must not block (default: None).

        All programs are checked before the first one starts: `SpecError`. Otherwise the errors are those of `run`.
        By default the first error cancels the other programs and is raised; its attribute `results` contains the
        results so far, with None for each program that has not finished. With ``return_exceptions=True`` every
        program runs, and an error takes the place of its result.
        """
        runs = self._prepare_all(programs, max_concurrency, files, args, stdin, on_event, overrides)
        return await self._execute_all(runs, max_concurrency, return_exceptions)

    def _prepare_all(
        self,
        programs: Iterable[str | bytes | Path | Program],
        max_concurrency: int,
        files: Mapping[str, str | bytes | Path] | None,
        args: Sequence[str],
        stdin: str | bytes | None,
        on_event: Callable[[int, ExecutionEvent], None] | None,
        overrides: SettingsDict,
    ) -> list[Run]:
        """Check the arguments of `map` and return its runs. Raises `SpecError`."""
        if isinstance(programs, (str, bytes, Path, Mapping)) or not isinstance(programs, Iterable):
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
                program = to_program(code, files, args, stdin)
            except SpecError as error:
                raise error.renamed({}, f"programs[{number}].{error.field}") from None
            observer = partial(on_event, number) if callable(on_event) else on_event
            prepared.append(self._prepare(program, overrides, observer))
        return prepared

    def _settings_with(self, overrides: SettingsDict) -> Settings:
        """Return the settings of one run. Raises `SpecError`."""
        settings = self.settings.override(**overrides) if overrides else self.settings
        if settings.namespace != self.namespace:
            raise SpecError(
                "namespace",
                f"must be {self.namespace!r}, because a Sandbox uses one namespace; got {settings.namespace!r}",
                hint="Create another Sandbox for another namespace.",
            )
        return settings

    def _prepare(
        self, program: Program, overrides: SettingsDict, on_event: Callable[[ExecutionEvent], None] | None = None
    ) -> Run:
        """Check the settings and return the run, not started. Raises `SpecError`."""
        if on_event is not None and not callable(on_event):
            raise SpecError("on_event", f"must be a function, got {describe(on_event)}")
        return Run(self._opened(), self._settings_with(overrides), program, self.session, on_event)

    async def _execute_all(self, runs: Sequence[Run], max_concurrency: int, return_exceptions: bool) -> list[Any]:
        """Execute prepared runs: see `map`."""
        results: list[ExecutionResult | SandboxError | None] = [None] * len(runs)
        errors: list[Exception] = []
        waiting = iter(list(enumerate(runs)))

        async def work(group: anyio.abc.TaskGroup) -> None:
            for index, run in waiting:
                try:
                    results[index] = await run.execute()
                except Exception as error:  # noqa: BLE001 - raised below, not in an exception group
                    if return_exceptions and isinstance(error, SandboxError):
                        results[index] = error
                        continue
                    errors.append(error)
                    group.cancel_scope.cancel()
                    return

        async with anyio.create_task_group() as group:
            for _ in range(min(max_concurrency, len(runs))):
                group.start_soon(work, group)
        if errors:
            if isinstance(errors[0], SandboxError):
                errors[0].results = results
            raise errors[0]
        return results

    async def _run_streaming(self, run: Run, stream: ExecutionStream, scope: anyio.CancelScope) -> None:
        # If the tasks of the Sandbox are cancelled, the reader of the stream must get an error.
        error: Exception | None = None
        ended = False
        try:
            with scope:
                await run.execute()
            ended = True
        except Exception as raised:  # noqa: BLE001 - raised by the stream
            error, ended = raised, True
        finally:
            stream._end(error if ended else closed_during_the_run(run.execution))

    def _opened(self) -> OpenSandbox:
        """Return the open state. Raises `SandboxClosed`."""
        if self._closed:
            raise SandboxClosed("the Sandbox is closed", may_have_run=False)
        if self._open is None:
            raise SandboxClosed(
                "the Sandbox is not open yet",
                may_have_run=False,
                hint="Use it in `async with AsyncSandbox(...) as sandbox:`.",
            )
        self._open.check_open()
        return self._open

    def _delete_jobs_sync(self) -> None:
        """Delete every Job that may exist, without the event loop: see `OpenSandbox.delete_jobs_sync`."""
        if self._open is not None:
            self._open.delete_jobs_sync()
