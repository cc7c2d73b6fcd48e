"""What a run gives back: the result, its timings, and the events on the way to it. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from ._wire.frames import DroppedOutput

Status = Literal["succeeded", "failed", "signaled", "timed_out", "out_of_memory", "killed"]
"""How a run ended, in one word.

``succeeded``      exit code 0
``failed``         an exit code other than 0
``signaled``       the program died of a signal of its own making (a segmentation fault, `os.abort`)
``timed_out``      it reached its time limit and was killed; what it had printed is there
``out_of_memory``  it was killed for its memory
``killed``         something else ended its pod: eviction, preemption, deletion, the program itself stopping
                   its runner; `ExecutionResult.reason` and `message` say what the cluster says
"""

PhaseName = Literal["created", "scheduled", "started", "first_output", "finished"]


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds from the call of `run` until each thing was seen by this client; None: it was not seen.

    `program` is apart: how long the program itself ran, measured in its pod.
    """

    created: float | None = None
    """The Job and the ConfigMap exist."""
    scheduled: float | None = None
    """The pod has a node."""
    started: float | None = None
    """The container runs."""
    first_output: float | None = None
    """The first byte that the program printed."""
    finished: float | None = None
    """The program's end is known."""
    returned: float | None = None
    """The result was handed to the caller."""
    program: float | None = None
    """How long the program ran, by its pod's clock."""


@dataclass(frozen=True, kw_only=True)
class ExecutionResult:
    """How one program ended, and what it left.

    `stdout` and `stderr` are UTF-8, decoded once, at the end, undecodable bytes
    replaced; `stdout_bytes` and `stderr_bytes` are what was really written. Nothing in here is to be
    trusted: the program can forge its own result.
    """

    status: Status
    exit_code: int | None
    """The program's exit code; None if it did not come to one (a signal, a limit)."""
    signal: int | None = None
    """The number of the signal that ended it."""
    stdout_bytes: bytes = b""
    stderr_bytes: bytes = b""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files that the program made or changed in its working directory, by relative path."""
    dropped: DroppedOutput = field(default_factory=DroppedOutput)
    """What was over the caps and is not here: bytes of each stream, count of files."""
    output_truncated: bool = False
    """The log broke off or was rotated: bytes may be missing, and nobody can say how many."""
    reason: str = ""
    """Kubernetes' word for the end where it is not the program's own (``OOMKilled``, ``Evicted``)."""
    cause: str = ""
    """The diagnosis of such an end, by its name in docs/troubleshooting.md (``preempted``, ``node_lost``)."""
    message: str = ""
    """One sentence about such an end."""
    timings: Timings = field(default_factory=Timings)
    job: str = ""
    pod: str = ""

    @cached_property
    def stdout(self) -> str:
        return self.stdout_bytes.decode("utf-8", "replace")

    @cached_property
    def stderr(self) -> str:
        return self.stderr_bytes.decode("utf-8", "replace")

    def describe(self) -> str:
        """How the run ended, as a phrase: ``exit code 3``, ``killed: Evicted: ...``."""
        if self.status in ("succeeded", "failed"):
            return f"exit code {self.exit_code}"
        if self.status == "signaled":
            return f"signal {self.signal}"
        words = self.status.replace("_", " ")
        return ": ".join(part for part in (words, self.reason, self.message) if part)


@dataclass(frozen=True)
class PhaseChanged:
    """A run reached a phase, `seconds` after the call. `detail` is a word on it (the node, the pod's wait)."""

    phase: PhaseName
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class PodWaiting:
    """The pod waits for something worth telling (an image pull, a node).

    `reason` is Kubernetes' word, `cause` its meaning, by its name in docs/troubleshooting.md.
    """

    reason: str
    message: str
    seconds: float
    cause: str = ""


@dataclass(frozen=True)
class OutputChunk:
    """Bytes that the program wrote, as they came; not necessarily whole lines or whole characters."""

    stream: Literal["stdout", "stderr"]
    data: bytes
    seconds: float


@dataclass(frozen=True)
class ExecutionFinished:
    """The last event of a stream."""

    result: ExecutionResult


ExecutionEvent = PhaseChanged | PodWaiting | OutputChunk | ExecutionFinished
