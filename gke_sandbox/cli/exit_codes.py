"""The exit statuses, and which one a result has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..result import ExecutionResult

USAGE = 2
"""Bad usage: nothing was sent to the cluster."""
TIMED_OUT = 124
"""The program reached its time limit (as timeout(1) has it)."""
FAILED = 125
"""The sandbox failed, the result was lost, or it could not be handed on (as docker(1) has it)."""
KILLED = 137
"""The program was killed for its memory, or its pod was taken away: 128 + SIGKILL."""
BROKEN_PIPE = 141
"""Whoever read stdout went away: 128 + SIGPIPE."""


def of_result(result: ExecutionResult) -> int:
    """The program's own exit status where it has one, as a shell would give it."""
    if result.status == "timed_out":
        return TIMED_OUT
    if result.status in ("out_of_memory", "killed"):
        return KILLED
    if result.signal is not None:
        return 128 + result.signal
    return result.exit_code if result.exit_code is not None else FAILED
