"""The exit codes of the command. Those of programs are also the ADK executor's. Pure."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .result import ExecutionResult

USAGE = 2
"""Invalid usage: no request was sent to the cluster."""
TIMED_OUT = 124
"""The program was killed at its time limit, as in timeout(1)."""
FAILED = 125
"""The sandbox failed, the result was lost, or the output could not be written, as in docker(1)."""
KILLED = 137
"""The program was killed for its memory, or its pod was terminated: 128 + SIGKILL."""
BROKEN_PIPE = 141
"""The reader of stdout closed the pipe: 128 + SIGPIPE."""


def exit_code_of(result: ExecutionResult) -> int:
    """Return the exit code for a result: the program's own if it has one, as in a shell."""
    if result.status == "timed_out":
        return TIMED_OUT
    if result.status in ("out_of_memory", "killed"):
        return KILLED
    if result.signal is not None:
        return 128 + result.signal
    return result.exit_code if result.exit_code is not None else FAILED


def describe_signal(number: int) -> str:
    """Return the number of a signal, and its name if it has one: ``signal 11 (SIGSEGV)``."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
