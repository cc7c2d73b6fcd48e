"""The result of an execution, its timings, and the events before it. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from ._wire.dropped import DroppedFile, DroppedOutput, DropReason
from .errors import SandboxError

__all__ = [
    "DropReason",
    "DroppedFile",
    "DroppedOutput",
    "ExecutionEvent",
    "ExecutionFailed",
    "ExecutionFinished",
    "ExecutionResult",
    "OutputChunk",
    "PhaseChanged",
    "PhaseName",
    "PodWaiting",
    "Status",
    "Timings",
]

Status = Literal["succeeded", "failed", "signaled", "timed_out", "out_of_memory", "killed"]
"""How an execution ended.

``succeeded``      exit code 0
``failed``         another exit code
``signaled``       a signal that the program caused itself (a segmentation fault, `os.abort`)
``timed_out``      killed after `timeout` seconds; the output until then is kept
``out_of_memory``  killed because it reached its memory limit
``killed``         its pod was terminated: eviction, preemption, deletion, or the program stopped its runner;
                   `ExecutionResult.reason` and `message` are the explanation of the cluster
"""

PhaseName = Literal["created", "scheduled", "started", "first_output", "finished"]
"""The phases of an execution, in order. `Timings` describes them."""


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds from the call until this client observed each phase. None if a phase was not observed.

    Only `program` is measured in the pod.
    """

    created: float | None = None
    """Seconds until Job and ConfigMap exist. Default: None."""
    scheduled: float | None = None
    """Seconds until the pod has a node. Default: None."""
    started: float | None = None
    """Seconds until the container runs. Default: None."""
    first_output: float | None = None
    """Seconds until the first byte of output. Default: None."""
    finished: float | None = None
    """Seconds until the end of the program is known. Default: None."""
    returned: float | None = None
    """Seconds until the result is returned. Default: None."""
    program: float | None = None
    """Seconds that the program ran, by the clock of the pod. Default: None, if the runner did not report them."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ExecutionResult:
    """How a program ended, and its output.

    The result is not trusted: a program can forge all of it. `str()` of it is `summary`.
    """

    status: Status
    """How the program ended, as one word."""
    exit_code: int | None
    """Exit code of the program. None if it has none (killed by a signal or a limit)."""
    signal: int | None = None
    """Number of the signal that ended the program. Default: None."""
    stdout_bytes: bytes = b""
    """Bytes written to stdout, up to `max_output_bytes`. Default: empty."""
    stderr_bytes: bytes = b""
    """Bytes written to stderr, up to `max_output_bytes`. Default: empty."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Contents of the files that the program created or changed in its working directory, by relative path.

    Default: none.
    """
    dropped: DroppedOutput = field(default_factory=DroppedOutput)
    """Output that is not kept: bytes of each stream; number, names and reasons of files. Default: none."""
    output_truncated: bool = False
    """Whether an unknown amount of output may be missing, because the log ended early or was rotated.

    Default: False.
    """
    reason: str = ""
    """Reason in Kubernetes if the pod was terminated (``OOMKilled``, ``Evicted``). Default: empty."""
    cause: str = ""
    """Cause of such an end, by its name in docs/troubleshooting.md (``preempted``). Default: empty."""
    message: str = ""
    """Explanation of such an end, of signal 9, or of exit code 125 if it may be the runner's; one sentence.

    Default: empty.
    """
    changed_limits: Mapping[str, str] = field(default_factory=dict)
    """Limits of the container that the cluster changed, as it applied them: ``{"memory": "256Mi"}``.

    ``none`` is a limit that it removed. Default: none changed.
    """
    timings: Timings = field(default_factory=Timings)
    """When each phase was reached, in seconds. Default: no phase observed."""
    warnings: Sequence[str] = ()
    """Problems that did not prevent the result, such as warm pods that could not be used. Default: none."""
    start: Literal["warm", "cold"] = "cold"
    """Whether the program ran in a pod that was waiting for it (``warm``). Default: ``cold``."""
    job: str = ""
    """Name of the Job. Default: empty."""
    pod: str = ""
    """Name of the pod. Default: empty."""

    @cached_property
    def stdout(self) -> str:
        """Stdout as text: UTF-8, with undecodable bytes replaced."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @cached_property
    def stderr(self) -> str:
        """Stderr as text: UTF-8, with undecodable bytes replaced."""
        return self.stderr_bytes.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether the program ended with exit code 0."""
        return self.status == "succeeded"

    def check(self) -> ExecutionResult:
        """Return this result if `ok`. Raise `ExecutionFailed` otherwise."""
        if not self.ok:
            raise ExecutionFailed(self)
        return self

    @property
    def summary(self) -> str:
        """How the program ended, as a phrase: ``exit code 3``, ``killed: Evicted: ...``."""
        if self.status in ("succeeded", "failed"):
            parts = [f"exit code {self.exit_code}", self.message]
        elif self.status == "signaled":
            parts = [f"signal {self.signal}", self.message]
        else:
            parts = [self.status.replace("_", " "), self.reason, self.message]
        return ": ".join(filter(None, parts))

    def __str__(self) -> str:
        return self.summary

    def __repr__(self) -> str:
        """Return a short description: sizes, and the first and the last line of the output."""
        parts = [self.summary, _shortened("stdout", self.stdout_bytes), _shortened("stderr", self.stderr_bytes)]
        if self.files:
            parts.append(f"{len(self.files)} files, {sum(map(len, self.files.values()))} bytes")
        if self.dropped != DroppedOutput():
            parts.append("output dropped")
        if self.output_truncated:
            parts.append("output truncated")
        parts.append(self.job)
        return f"<ExecutionResult: {'; '.join(part for part in parts if part)}>"


def _shortened(name: str, data: bytes) -> str:
    """Return the size of output and its first and last line; "" if it is empty."""
    if not data:
        return ""
    # Decode only a part of long output.
    first = data[: 4 * _MAX_REPR_LINE].decode("utf-8", "replace").partition("\n")[0]
    last = data[-4 * _MAX_REPR_LINE :].rstrip(b"\n").decode("utf-8", "replace").rpartition("\n")[2]
    one_line = b"\n" not in data.rstrip(b"\n")
    if one_line and len(first) <= _MAX_REPR_LINE:
        shown = repr(first)
    else:
        shown = f"{first[:_MAX_REPR_LINE]!r} ... {last[-_MAX_REPR_LINE:]!r}"
    return f"{name} {len(data)} bytes {shown}"


_MAX_REPR_LINE = 60


class ExecutionFailed(SandboxError):
    """A program ran and did not succeed. Raised by `ExecutionResult.check` only.

    `result` is its result. The message contains the summary and the last line of stderr.
    """

    def __init__(self, result: ExecutionResult) -> None:
        lines = result.stderr.strip().splitlines()
        last = f" ({lines[-1].strip()[:_MAX_STDERR_LINE]})" if lines else ""
        super().__init__(f"the program did not succeed: {result.summary}{last}")
        self.result = result


_MAX_STDERR_LINE = 200


@dataclass(frozen=True)
class PhaseChanged:
    """The execution reached a phase."""

    phase: PhaseName
    """The phase."""
    seconds: float
    """Seconds since the call."""
    detail: str = ""
    """More about it, such as the name of the node. Default: empty."""


@dataclass(frozen=True)
class PodWaiting:
    """The pod waits for a condition that delays its start, such as an image pull or a node."""

    reason: str
    """Reason that Kubernetes reported (``Unschedulable``, ``ErrImagePull``)."""
    message: str
    """Message that Kubernetes reported."""
    seconds: float
    """Seconds since the call."""
    cause: str = ""
    """Diagnosed cause, by its name in docs/troubleshooting.md. Default: empty."""


@dataclass(frozen=True)
class OutputChunk:
    """Output of the program as it arrived: not necessarily whole lines.

    `data` may start or end within a character. `text` does not.
    """

    stream: Literal["stdout", "stderr"]
    """The stream that the program wrote to."""
    data: bytes
    """The bytes."""
    seconds: float
    """Seconds since the call."""
    text: str = field(default="", kw_only=True)
    """The bytes as text: UTF-8, with undecodable bytes replaced. Default: empty.

    A character that is split between two chunks is part of the later one. If the output ends within a character,
    the last chunk has a replacement character and no data.
    """


@dataclass(frozen=True)
class ExecutionFinished:
    """The last event of a stream."""

    result: ExecutionResult
    """The result of the execution."""


ExecutionEvent = PhaseChanged | PodWaiting | OutputChunk | ExecutionFinished
"""An event of a stream."""
