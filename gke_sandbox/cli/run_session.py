"""Run one program, from the first request until the Job is deleted, and handle signals and closed pipes."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import anyio

from ..errors import SandboxError
from ..result import ExecutionFinished, OutputChunk, PhaseChanged, PodWaiting
from .console import Console, OutputFailed
from .progress import Progress

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .._wire.program import Program
    from ..result import ExecutionEvent, ExecutionResult
    from ..sandbox import AsyncSandbox

logger = logging.getLogger(__name__)

READER_GONE_GRACE = 1.0
"""Seconds that a program may still run after the reader of its output has closed the pipe."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunSession:
    """Run `program` and pass its output through.

    After `run()`, exactly one of `signal`, `error` and `result` describes the outcome; check them in this order.
    When `run()` returns or raises, the Job is deleted or listed in `sandbox.leftovers`. `quiet` disables the
    progress line. `local` means that the programs of the sandbox run on this machine.
    """

    def __init__(
        self, sandbox: AsyncSandbox, program: Program, console: Console, *, quiet: bool, local: bool
    ) -> None:
        self.sandbox = sandbox
        self.result: ExecutionResult | None = None
        self.error: SandboxError | None = None
        self.signal: int | None = None
        self._program = program
        self._local = local
        self._console = console
        self._progress = Progress(console, wanted=not quiet)
        self._output_failed: OutputFailed | None = None
        self.on_signal: Callable[[], None] = lambda: None
        """Called when a signal ends the run."""

    def run(self) -> None:
        """Run the program. Raises `OutputFailed` if stdout or stderr cannot be written."""
        anyio.run(self._main)
        self._console.clear_status()
        if self._output_failed is not None and self.signal is None:
            raise self._output_failed

    async def _main(self) -> None:
        # Signals that were ignored at the start stay ignored: nohup and `&` in a shell rely on it.
        handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*handled) as signals:
            async with anyio.create_task_group() as tasks:
                self._scope = anyio.CancelScope()
                tasks.start_soon(self._watch_reader)
                tasks.start_soon(self._watch_signals, signals)
                with self._scope:
                    await self._stream(tasks)
                tasks.cancel_scope.cancel()

    async def _stream(self, tasks: TaskGroup) -> None:
        try:
            async with self.sandbox as sandbox:
                # Start the progress line after opening: a credential plugin may write to stderr meanwhile.
                tasks.start_soon(self._progress.run)
                program = self._program
                stream = sandbox.stream(program.code, files=program.files, args=program.args, stdin=program.stdin)
                async with stream as events:
                    async for event in events:
                        await self._handle(event)
                        if self._output_failed is not None:
                            break
        except SandboxError as error:
            self.error = error

    async def _handle(self, event: ExecutionEvent) -> None:
        self._progress.handle(event)
        if isinstance(event, PhaseChanged):
            # At the level DEBUG, the library logs the phases.
            if not logger.isEnabledFor(logging.DEBUG):
                detail = f" ({event.detail})" if event.detail else ""
                logger.info("%s after %.3f s%s", event.phase, event.seconds, detail)
        elif isinstance(event, PodWaiting):
            logger.info("waiting after %.3f s: %s: %s", event.seconds, event.reason, event.message)
        elif isinstance(event, ExecutionFinished):
            self.result = event.result
        elif isinstance(event, OutputChunk) and not self._console.json:
            try:
                await self._console.pass_through(event.stream, event.data)
            except OutputFailed as failed:
                self._output_failed = failed

    async def _watch_reader(self) -> None:
        """End the run when the reader of stdout has closed the pipe, even if the program prints nothing more."""
        failed = await self._console.stdout_reader_gone()
        # Let a program that is about to end finish, so that its exit code does not depend on a race.
        await anyio.sleep(READER_GONE_GRACE)
        if self.result is None:
            self._output_failed = failed
            self._scope.cancel()

    async def _watch_signals(self, signals: AsyncIterator[signal.Signals]) -> None:
        """End the run at the first signal. Stop waiting for the deletion of the Job at a later Ctrl-C.

        Other signals do not stop the wait: timeout(1) sends SIGTERM twice, a closing terminal SIGHUP.
        """
        async for number in signals:
            if self.signal is None:
                self.signal = number
                self.on_signal()
                self._scope.cancel()
                self._progress.set_final_text("deleting the Job (press Ctrl-C again to exit without waiting)")
            elif number == signal.SIGINT:
                self._exit_now()

    def _exit_now(self) -> None:
        """Exit the process, and print which Jobs may still be in the cluster.

        The event loop is not stopped first, because it shields deletions from cancellation.
        """
        jobs = self.sandbox.jobs
        if self._local:
            # The programs are processes on this machine: kill them.
            self.sandbox._delete_jobs_sync()
            jobs = []
        number = self.signal or signal.SIGINT
        self._console.print_interrupted(number, jobs, self.sandbox.namespace)
        os._exit(128 + number)
