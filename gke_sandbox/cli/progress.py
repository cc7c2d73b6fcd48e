"""The progress line: what the run waits for, and how long each phase took."""

from __future__ import annotations

import anyio

from ..result import ExecutionFinished, OutputChunk, PhaseChanged, PhaseName, PodWaiting
from .console import Console

REFRESH_INTERVAL = 0.1

_ACTIVITY: dict[PhaseName | None, str] = {
    None: "creating the Job",
    "created": "waiting for a node",
    "scheduled": "starting the container",
    "started": "running",
}


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
