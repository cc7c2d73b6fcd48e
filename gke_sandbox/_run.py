"""Run: one program on its way from a call to its result, with everything that observes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio

from ._open_sandbox import OpenSandbox
from ._run_log import log_phase, log_run
from ._telemetry import RunTelemetry, record_taken
from ._wire.program import Program
from .errors import SandboxError
from .kube.attach import require_websockets
from .result import ExecutionEvent, ExecutionFinished, ExecutionResult, PhaseChanged
from .settings import Settings

__all__ = ["Run"]


class Run:
    """One program. `on_event` is called with each event, in the event loop of the Sandbox, and must not block.

    An exception that `on_event` raises ends the run. Raises `ConfigError` if the settings need a package that is
    missing.
    """

    def __init__(
        self,
        opened: OpenSandbox,
        settings: Settings,
        program: Program,
        session: str,
        on_event: Callable[[ExecutionEvent], None] | None = None,
    ) -> None:
        if settings.delivery == "attach":
            require_websockets()
        self._opened = opened
        self._on_event = on_event
        self._telemetry = RunTelemetry(settings, session)
        self.execution = opened.new_execution(settings, program=program, emit=self._observe)

    @property
    def job(self) -> str:
        """The name of the last Job; empty before there is one."""
        attempts = self.execution.attempts
        return attempts[-1].name if attempts else ""

    def _observe(self, event: ExecutionEvent) -> None:
        if isinstance(event, PhaseChanged):
            log_phase(self.job, event)
        self._telemetry.on_event(event)
        if self._on_event is not None:
            self._on_event(event)

    async def execute(self) -> ExecutionResult:
        """Run the program, in a warm pod if one is ready, and return its result. Raises `SandboxError`."""
        began = anyio.current_time()
        with self._telemetry.span():
            try:
                result = await self._execute()
            except SandboxError as error:
                self._ended(error, began)
                raise
            self._ended(result, began)
        if self._on_event is not None:
            self._on_event(ExecutionFinished(result))
        return result

    async def _execute(self) -> ExecutionResult:
        pool = self._opened.pool
        with self._opened.in_flight(self.execution):
            pod = await self._opened.take_warm(self.execution)
            if pod is None:
                result = await self.execution.run()
            else:
                record_taken()
                result = await pod.result()
            if pool is not None and pool.problem and result.start == "cold":
                warning = f"the program started in a new pod: {pool.problem}"
                result = replace(result, warnings=(*result.warnings, warning))
            return result

    def _ended(self, outcome: ExecutionResult | SandboxError, began: float) -> None:
        seconds = anyio.current_time() - began
        log_run(self.job, seconds, outcome)
        self._telemetry.ended(outcome, self.job, seconds)
