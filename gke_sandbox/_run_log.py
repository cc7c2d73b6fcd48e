"""The log records of a run: one at the level INFO when it ends, and one at the level DEBUG for each phase."""

from __future__ import annotations

import logging

from .errors import SandboxError
from .result import ExecutionResult, PhaseChanged

__all__ = ["log_phase", "log_run"]

logger = logging.getLogger(__name__)


def log_phase(job: str, event: PhaseChanged) -> None:
    """Log that a run reached a phase."""
    detail = f" ({event.detail})" if event.detail else ""
    logger.debug("Job %s: %s after %.3f s%s", job, event.phase, event.seconds, detail)


def log_run(job: str, seconds: float, outcome: ExecutionResult | SandboxError) -> None:
    """Log how a run ended. `job` is empty if it had no Job."""
    if isinstance(outcome, ExecutionResult):
        status: str = outcome.status
        size = len(outcome.stdout_bytes) + len(outcome.stderr_bytes)
    else:
        status = type(outcome).__name__
        size = 0
    cause = getattr(outcome, "cause", "")
    logger.info(
        "Job %s: %s%s after %.3f s, %d bytes of output",
        job or "(none)",
        status,
        f" (cause {cause})" if cause else "",
        seconds,
        size,
    )
