"""Sandbox: the synchronous interface, for programs without an event loop and for any number of threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, overload

from ._loop_thread import LoopThread, register, register_in_multiprocessing, wait_for
from ._stream import ExecutionStream
from ._wire.program import Program, to_program
from .cluster import Cluster
from .errors import SandboxClosed, SandboxError
from .result import ExecutionEvent, ExecutionResult
from .sandbox import AsyncSandbox, MapArguments
from .settings import Settings, SettingsDict

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Sandbox", "SyncExecutionStream"]

logger = logging.getLogger(__name__)


class Sandbox:
    """Runs untrusted Python programs, each in a new gVisor pod of a Kubernetes cluster.

    ::

        with Sandbox(namespace="agent-sandbox") as sandbox:
            result = sandbox.run("print(6 * 7)", timeout=30)

    `cluster` is by default `Cluster.auto()`. The other keyword arguments are the fields of `settings.Settings`;
    `namespace` is by default that of the kubeconfig's context or of the pod, else ``default``. Invalid settings
    raise `SpecError` here, before any request. The cluster is looked up at first use: `ConfigError`.

    An `AsyncSandbox` does the work in a background thread, which starts at first use and ends with `close`. You
    can use a Sandbox from any number of threads at the same time; they share its connections and its one watch.

    Ctrl-C during a run deletes the Job, waits for the deletion up to 10 seconds, and raises KeyboardInterrupt. A
    second Ctrl-C stops waiting and logs the names of the Jobs that may remain. A Sandbox that is never closed
    deletes its Jobs at interpreter exit. In a forked child a Sandbox starts again with a new session; it never
    uses the Jobs of its parent.

    `warm` is a number of pods that are kept waiting for programs, and `warm_idle_timeout` is how long each waits,
    in seconds: see `AsyncSandbox`. The pods are created when the Sandbox is opened: by its block, by `open`, or at
    first use.
    """

    def __init__(
        self,
        cluster: Cluster | None = None,
        *,
        warm: int = 0,
        warm_idle_timeout: float = 600.0,
        **settings: Unpack[SettingsDict],
    ) -> None:
        self._new_sandbox = partial(
            AsyncSandbox, cluster, warm=warm, warm_idle_timeout=warm_idle_timeout, **settings
        )
        # Checks the settings now, before any thread or connection: SpecError is raised here.
        checked = self._new_sandbox()
        self._settings = checked.settings
        self.warm = checked.warm
        """The number of pods that are kept waiting for programs."""
        self.warm_idle_timeout = checked.warm_idle_timeout
        """How long a pod waits for a program before it is replaced, in seconds."""
        # Reentrant: a signal handler may call `close` while the interrupted code opens the Sandbox.
        self._lock = threading.RLock()
        self._loop_thread: LoopThread | None = None
        self._closed = False
        register(self)

    def __enter__(self) -> Sandbox:
        return self.open()

    def open(self) -> Sandbox:
        """Look up the cluster and start the thread now, instead of at first use. Raises `ConfigError`."""
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop_thread is not None:
            self._loop_thread.sandbox._exit_exception = error
        self.close()

    def close(self) -> None:
        """Cancel running programs (they raise `SandboxClosed`), delete their Jobs and stop the thread.

        Waits up to 10 seconds for the deletions. You can call it more than once.
        """
        with self._lock:
            opened = self._loop_thread
            if opened is not None:
                opened.check_thread()
            self._closed = True
        if opened is not None:
            opened.close()

    @property
    def settings(self) -> Settings:
        """The settings of this Sandbox. The namespace is final when the Sandbox is open."""
        opened = self._loop_thread
        return self._settings if opened is None else opened.sandbox.settings

    @property
    def session(self) -> str:
        """Value of the label ``gke-sandbox/session`` of all its Jobs and pods. Opens the Sandbox."""
        return self._open().sandbox.session

    @property
    def namespace(self) -> str:
        """Namespace of the Jobs. Opens the Sandbox."""
        return self._open().sandbox.namespace

    @property
    def jobs(self) -> list[str]:
        """Names of the Jobs that may exist now: those of running programs, and those not deleted yet."""
        opened = self._loop_thread
        return [] if opened is None else opened.sandbox.jobs

    @property
    def leftovers(self) -> list[str]:
        """Names of the Jobs whose deletion could not be confirmed; the last 1,000 of them."""
        opened = self._loop_thread
        return [] if opened is None else list(opened.sandbox.leftovers)

    def check(self, **overrides: Unpack[SettingsDict]) -> None:
        """Check that programs can run. Raises `ConfigError`, which lists everything that prevents it.

        Call it at start-up. Checks the connection, each permission, the namespace, and with a server-side dry run
        whether the server accepts the Job and the ConfigMap as they are sent. Creates nothing, and takes about ten
        requests. What only costs details is logged as a warning. Whether a node can run the pod is not checked.
        `overrides` are those of later runs.
        """
        opened = self._open()
        opened.call(partial(opened.sandbox.check, **overrides))

    def run(
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
        `stdin` is its standard input (default: empty). `on_event` is called with each event as it happens, in the
        background thread; it must not block, and an exception that it raises ends the run (default: None).
        `overrides` are settings for this run only, such as ``timeout`` in seconds, ``memory_limit`` or ``env``; by
        default those of the Sandbox.

        A program that fails, is killed, or exceeds its time or memory returns a result: see
        `ExecutionResult.check`. Raises `SpecError` for invalid arguments, `StartError` if the program did not
        start, `ResultLost` if its result is unknown, `ConfigError`, `ApiError` or `NetworkError` if the cluster
        cannot be used, and `SandboxClosed`.
        """
        opened = self._open()
        run = opened.sandbox._prepare(to_program(code, files, args, stdin), overrides, on_event)
        return opened.call(run.execute, executions=[run.execution])

    @overload
    def map(
        self,
        programs: Iterable[str | bytes | Path | Program],
        *,
        return_exceptions: Literal[False] = False,
        **arguments: Unpack[MapArguments],
    ) -> list[ExecutionResult]: ...

    @overload
    def map(
        self,
        programs: Iterable[str | bytes | Path | Program],
        *,
        return_exceptions: Literal[True],
        **arguments: Unpack[MapArguments],
    ) -> list[ExecutionResult | SandboxError]: ...

    def map(
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
        each of its events, in the background thread; it must not block (default: None).

        All programs are checked before the first one starts: `SpecError`. Otherwise the errors are those of `run`.
        By default the first error cancels the other programs and is raised; its attribute `results` contains the
        results so far, with None for each program that has not finished. With ``return_exceptions=True`` every
        program runs, and an error takes the place of its result.
        """
        opened = self._open()
        runs = opened.sandbox._prepare_all(programs, max_concurrency, files, args, stdin, on_event, overrides)
        executions = [run.execution for run in runs]
        return opened.call(
            opened.sandbox._execute_all, runs, max_concurrency, return_exceptions, executions=executions
        )

    def stream(
        self,
        code: str | bytes | Path | Program,
        *,
        files: Mapping[str, str | bytes | Path] | None = None,
        args: Sequence[str] = (),
        stdin: str | bytes | None = None,
        **overrides: Unpack[SettingsDict],
    ) -> SyncExecutionStream:
        """Run one program and return its events as they happen: a context manager and iterator.

        The arguments are those of `run`, and so are the errors; the iteration raises them. The program starts when
        the first event is requested.
        """
        opened = self._open()
        stream = opened.sandbox.stream(code, files=files, args=args, stdin=stdin, **overrides)
        return SyncExecutionStream(opened, stream)

    def _open(self) -> LoopThread:
        with self._lock:
            if self._closed:
                raise SandboxClosed("the Sandbox is closed", may_have_run=False)
            if self._loop_thread is None:
                opened = LoopThread(self._new_sandbox)
                if self._closed:
                    opened.close()
                    raise SandboxClosed("the Sandbox was closed while it was opened", may_have_run=False)
                self._loop_thread = opened
                register_in_multiprocessing()
            return self._loop_thread

    def _reset_after_fork(self) -> None:
        """In a forked child: forget the thread and the lock of the parent, which do not exist here."""
        self._lock = threading.RLock()
        if self._loop_thread is not None:
            self._loop_thread.detach()
            self._loop_thread = None


class SyncExecutionStream:
    """The events of one execution as they happen. The last one is `ExecutionFinished`, with the result.

    ::

        with sandbox.stream(code) as events:
            for event in events: ...

    Leaving the block cancels the execution, if it has not finished, and deletes its Job. Without the block the
    execution continues until it finishes or the Sandbox closes, even if you stop iterating. An error of the
    execution (`SandboxError`) is raised by the iteration after the events that preceded it.
    """

    def __init__(self, opened: LoopThread, stream: ExecutionStream) -> None:
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
        """Cancel the execution, if it has not finished, and delete its Job. Buffered events are dropped."""
        self._closed = True
        try:
            wait_for(self._opened.submit(self._stream.close))
        except SandboxClosed:
            # The execution ended with the Sandbox. In a forked child, it belongs to the parent.
            logger.debug("the Sandbox was closed before its stream")

    def __iter__(self) -> Iterator[ExecutionEvent]:
        return self

    def __next__(self) -> ExecutionEvent:
        if self._closed:
            raise StopIteration
        try:
            return self._opened.call(self._next, on_interrupt=self._stream.close)
        except StopAsyncIteration:
            raise StopIteration from None

    async def _next(self) -> ExecutionEvent:
        return await self._stream.__aiter__().__anext__()
