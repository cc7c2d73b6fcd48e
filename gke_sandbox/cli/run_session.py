"""One run, from its first request to its deleted Job, with the signals that may end it before."""

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

logger = logging.getLogger("gke_sandbox")

READER_GONE_SECONDS = 1.0
"""How long a program may still take to end after the reader of its output has gone."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Session:
    """Runs `program`, passing its output through as it comes.

    After `run()` the run has ended by a `signal`, or with an `error`, or with a `result`, to be looked at in this
    order. Whatever happens, the Job is deleted when it returns or raises, or `sandbox.leftovers` names it.
    `quiet`: no progress line. `local`: the sandbox runs its programs on this machine.
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
        """Raises `OutputFailed` when stdout or stderr take no more."""
        anyio.run(self._main)
        self._console.clear_status()
        if self._output_failed is not None and self.signal is None:
            raise self._output_failed

    async def _main(self) -> None:
        # A signal that was ignored when we were started stays so: nohup, and a shell's `&`.
        heard = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*heard) as signals:
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
                # Not before: opening may have something to say on stderr, and not through our console.
                tasks.start_soon(self._progress.show)
                program = self._program
                stream = sandbox.stream(program.code, files=program.files, args=program.args, stdin=program.stdin)
                async with stream as events:
                    async for event in events:
                        await self._take(event)
                        if self._output_failed is not None:
                            break
        except SandboxError as error:
            self.error = error

    async def _take(self, event: ExecutionEvent) -> None:
        self._progress.saw(event)
        if isinstance(event, PhaseChanged):
            logger.info(
                "%s after %.3f s%s", event.phase, event.seconds, f" ({event.detail})" if event.detail else ""
            )
        elif isinstance(event, PodWaiting):
            logger.info("waiting after %.3f s: %s: %s", event.seconds, event.reason, event.message)
        elif isinstance(event, ExecutionFinished):
            self.result = event.result
            logger.info("job %s, pod %s: %s", event.result.job, event.result.pod, event.result.describe())
        elif isinstance(event, OutputChunk) and not self._console.json:
            try:
                await self._console.pass_through(event.stream, event.data)
            except OutputFailed as failed:
                self._output_failed = failed

    async def _watch_reader(self) -> None:
        """End the run when nobody reads our stdout any more: it might print nothing for a long time."""
        failed = await self._console.stdout_reader_gone()
        # A program that is about to end may do so: its exit status is not a matter of who is faster.
        await anyio.sleep(READER_GONE_SECONDS)
        if self.result is None:
            self._output_failed = failed
            self._scope.cancel()

    async def _watch_signals(self, signals: AsyncIterator[signal.Signals]) -> None:
        """The first signal ends the run; Ctrl-C after it ends the waiting for the Job's deletion.

        Only Ctrl-C does: timeout(1) sends its SIGTERM twice, and a closing terminal its SIGHUP.
        """
        async for number in signals:
            if self.signal is None:
                self.signal = number
                self.on_signal()
                self._scope.cancel()
                self._progress.last_word("deleting the Job (Ctrl-C again does not wait for it)")
            elif number == signal.SIGINT:
                self._give_up()

    def _give_up(self) -> None:
        """Leave at once, and name what may be left in the cluster.

        At once means without the event loop, whose deletions are shielded from every cancellation.
        """
        jobs = self.sandbox.jobs
        if self._local:
            # The programs are processes of this machine: they are killed, and nothing is waited for.
            self.sandbox.delete_now()
            jobs = []
        number = self.signal or signal.SIGINT
        self._console.interrupted(number, jobs, self.sandbox.namespace)
        os._exit(128 + number)
