"""The progress line: what a run waits for, with the seconds that each phase took."""

from __future__ import annotations

import anyio

from ..result import ExecutionFinished, OutputChunk, PhaseChanged, PhaseName, PodWaiting
from .console import Console

TICK_SECONDS = 0.1

_NOW: dict[PhaseName | None, str] = {
    None: "creating the Job",
    "created": "waiting for a node",
    "scheduled": "starting the container",
    "started": "running",
}


class Progress:
    """A line on the terminal from the start of a run to its first output; then it is gone for good."""

    def __init__(self, console: Console, *, wanted: bool) -> None:
        self._console = console
        self._wanted = self._shown = wanted and console.has_status_line
        self._began = 0.0
        self._phase: PhaseName | None = None
        self._waiting: PodWaiting | None = None
        self._past: list[str] = []

    async def show(self) -> None:
        """Draw the line until it is over."""
        self._began = anyio.current_time()
        while self._shown:
            self._console.status(self.line(anyio.current_time() - self._began))
            await anyio.sleep(TICK_SECONDS)

    def line(self, elapsed: float) -> str:
        """The line as it is `elapsed` seconds after the start."""
        now = _NOW[self._phase]
        if self._waiting is not None:
            now = ": ".join(part for part in (self._waiting.reason, self._waiting.message) if part)
        past = f"  ({', '.join(self._past)})" if self._past else ""
        return f"{elapsed:.1f} s  {now}{past}"

    def saw(self, event: PhaseChanged | PodWaiting | OutputChunk | ExecutionFinished) -> None:
        """Take note of an event. Output and the end take the line away."""
        if isinstance(event, (OutputChunk, ExecutionFinished)):
            self.over()
        elif isinstance(event, PodWaiting):
            self._waiting = event
        elif event.phase in _NOW:
            self._phase, self._waiting = event.phase, None
            self._past.append(f"{event.phase} {event.seconds:.1f} s")

    def over(self) -> None:
        self._shown = False
        self._console.clear_status()

    def last_word(self, text: str) -> None:
        """Show `text` from now on, also after output."""
        self._shown = False
        if self._wanted:
            self._console.status(text)
