"""Run one program, from the first request until the Job is deleted, and handle signals and closed pipes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from ..result import ExecutionFinished, OutputChunk, PhaseChanged, PhaseName, PodWaiting
from .console import Console, OutputFailed
from .interrupts import Interrupts

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .._wire.program import Program
    from ..result import ExecutionEvent, ExecutionResult
    from ..sandbox import AsyncSandbox

logger = logging.getLogger(__name__)

REFRESH_INTERVAL = 0.1
"""Seconds between two updates of the progress line."""

_ACTIVITY: dict[PhaseName | None, str] = {
    None: "creating the Job",
    "created": "waiting for a node",
    "scheduled": "starting the container",
    "started": "running",
}
READER_GONE_GRACE = 1.0
"""Seconds that a program may still run after the reader of its output has closed the pipe."""


class Progress:
    """A line on the terminal, from the start of a run until its first output."""

    def __init__(self, console: Console, *, wanted: bool) -> None:
        self._console = console
        self._wanted = self._shown = wanted and console.can_show_status
        self._phase: PhaseName | None = None
        self._waiting: PodWaiting | None = None
        self._finished_phases: list[str] = []

    async def run(self) -> None:
        """Redraw the line until `stop` is called."""
        start = anyio.current_time()
        while self._shown:
            self._console.show_status(self.line(anyio.current_time() - start))
            await anyio.sleep(REFRESH_INTERVAL)

    def line(self, elapsed: float) -> str:
        """Return the line `elapsed` seconds after the start."""
        activity = _ACTIVITY[self._phase]
        if self._waiting is not None:
            activity = ": ".join(part for part in (self._waiting.reason, self._waiting.message) if part)
        phases = f"  ({', '.join(self._finished_phases)})" if self._finished_phases else ""
        return f"{elapsed:.1f} s  {activity}{phases}"

    def handle(self, event: PhaseChanged | PodWaiting | OutputChunk | ExecutionFinished) -> None:
        """Update the line. Output and the end of the program remove it."""
        if isinstance(event, (OutputChunk, ExecutionFinished)):
            self.stop()
        elif isinstance(event, PodWaiting):
            self._waiting = event
        elif event.phase in _ACTIVITY:
            self._phase, self._waiting = event.phase, None
            self._finished_phases.append(f"{event.phase} {event.seconds:.1f} s")

    def stop(self) -> None:
        """Remove the line."""
        self._shown = False
        self._console.clear_status()

    def set_final_text(self, text: str) -> None:
        """Show `text` from now on, also after output."""
        self._shown = False
        if self._wanted:
            self._console.show_status(text)


class RunSession:
    """Run `program` and pass its output through.

    When `run` returns or raises, the Job is deleted or listed in `sandbox.leftovers`. `quiet` disables the
    progress line. `local` means that the programs of the sandbox run on this machine.
    """

    def __init__(
        self, sandbox: AsyncSandbox, program: Program, console: Console, *, quiet: bool, local: bool
    ) -> None:
        self.sandbox = sandbox
        self.result: ExecutionResult | None = None
        """The result, once the program has finished."""
        self._interrupts = Interrupts(sandbox, console, local=local, on_signal=self._on_signal)
        self.before_deletion: Callable[[], None] = lambda: None
        """Called when a signal ends the run."""
        self._program = program
        self._console = console
        self._progress = Progress(console, wanted=not quiet)
        self._output_failed: OutputFailed | None = None

    def run(self) -> int | None:
        """Run the program. Return the exit code if a signal ended the run, and None otherwise.

        Raises `SandboxError`, and `OutputFailed` if stdout or stderr cannot be written.
        """
        return self._interrupts.run(self._work, self._raise_output_failed)

    def _raise_output_failed(self) -> None:
        if self._output_failed is not None and self._interrupts.signal is None:
            raise self._output_failed

    async def _work(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._watch_reader)
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
            self._interrupts.cancel()

    def _on_signal(self) -> None:
        self.before_deletion()
        self._progress.set_final_text("deleting the Job (press Ctrl-C again to exit without waiting)")
