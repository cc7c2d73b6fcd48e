"""The inputs and effects of `state.ExecutionState`: immutable values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._diagnosis import WaitReason
from ..errors import SandboxError
from ..result import ExecutionEvent, ExecutionResult
from ..settings import Settings

# -- inputs: what happened ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """`run` was called. The first input."""


@dataclass(frozen=True)
class JobPrepared:
    """The Job has been built under a new name, and is about to be sent."""

    job: Mapping[str, Any]


@dataclass(frozen=True)
class JobCreated:
    """The server created the Job. `job` is what it returned."""

    job: Mapping[str, Any]


@dataclass(frozen=True)
class ConfigMapCreated:
    """The server created the ConfigMap."""


@dataclass(frozen=True)
class CreateRejected:
    """The server did not create the object, and the request may be sent again later."""

    wait_reason: WaitReason | None = None
    """Why admission rejected it, if it did."""


@dataclass(frozen=True)
class RetryCreate:
    """It is time for the next attempt after `CreateRejected`."""

    same_job: bool = False
    """Whether a ConfigMap is created for the same Job again, because the pause was short."""


@dataclass(frozen=True)
class CreateFailed:
    """The object could not be created, and there are no more retries."""

    error: SandboxError
    may_have_arrived: bool


@dataclass(frozen=True)
class PodSeen:
    """The watch delivered a pod. `deleted`: it is the pod's last object.

    `missing`: a list does not contain the pod any more, so its end was not seen. `pod` is its last known object.
    """

    job: str
    pod: Mapping[str, Any]
    deleted: bool = False
    missing: bool = False


@dataclass(frozen=True)
class WatchFailed:
    """The watch has ended, and will not be opened again."""

    error: SandboxError


@dataclass(frozen=True)
class LogOpened:
    """The server responded to the `OpenLog` or `OpenAttach` with this number. A log starts at its beginning."""

    number: int


@dataclass(frozen=True)
class LogChunk:
    """Bytes of the log, or of the container's output: parts of frames, or several of them."""

    number: int
    data: bytes


@dataclass(frozen=True)
class LogEnded:
    """The log or the connection ended. `error`: why it could not be opened or broke off; None if the server
    ended it.
    """

    number: int
    error: SandboxError | None = None


@dataclass(frozen=True)
class PodsListed:
    """The response to `PollPods`. `version` is the resourceVersion of the list, if it has one."""

    number: int
    pods: Sequence[Mapping[str, Any]]
    version: str


@dataclass(frozen=True)
class EventsListed:
    """The response to `PollEvents`."""

    number: int
    events: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class JobRead:
    """The response to `PollJob`."""

    number: int
    job: Mapping[str, Any]


@dataclass(frozen=True)
class PollFailed:
    """`PollPods`, `PollEvents` or `PollJob` failed."""

    number: int
    error: SandboxError


@dataclass(frozen=True)
class Assigned:
    """The pod, which was created without a program, has one now; `settings` are those of its run."""

    settings: Settings


@dataclass(frozen=True)
class Tick:
    """Time has passed: see `ExecutionState.next_deadline`."""

    pending: int = 1
    """The number of executions that wait for their sandbox to start; they share the rate of polls."""
    watch_error: SandboxError | None = None
    """Why the watch delivers nothing at the moment, if so; it will be retried."""


@dataclass(frozen=True)
class Resumed:
    """The client was suspended for `seconds`: its timers are late, and inputs may not have been read yet."""

    seconds: float


@dataclass(frozen=True)
class Abandoned:
    """The run is cancelled, or has failed for a reason outside of the state machine."""


CreationInput = JobPrepared | JobCreated | ConfigMapCreated | CreateRejected | RetryCreate | CreateFailed
LogInput = LogOpened | LogChunk | LogEnded
PollResponse = PodsListed | EventsListed | JobRead | PollFailed

Input = (
    Started
    | CreationInput
    | PodSeen
    | WatchFailed
    | LogInput
    | PollResponse
    | Assigned
    | Tick
    | Resumed
    | Abandoned
)


# -- effects: what to do --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JobAttempt:
    """One Job's name, and whether a Job of that name may be in the cluster."""

    name: str
    job_may_exist: bool = True
    response_pending: bool = True
    """Whether a request that creates it may still arrive: a deletion that finds nothing may be too early."""


@dataclass(frozen=True)
class CreateJob:
    """Create the Job. Observe its pods first if the name is new."""

    name: str


@dataclass(frozen=True)
class CreateConfigMap:
    """Create the ConfigMap, owned by the Job."""

    job: str
    uid: str


@dataclass(frozen=True)
class StopCreating:
    """Cancel `CreateJob` or `CreateConfigMap`."""


@dataclass(frozen=True)
class OpenLog:
    """Open the pod's log. An earlier connection stays open until its `CloseLog`."""

    number: int
    pod: str


@dataclass(frozen=True)
class OpenAttach:
    """Connect to the stdin and the output of the pod's container, instead of its log."""

    number: int
    pod: str


@dataclass(frozen=True)
class Ready:
    """The runner waits for a program: the pod can be assigned."""


@dataclass(frozen=True)
class SendRequest:
    """Send the program to the runner, over the connection with this number."""

    number: int


@dataclass(frozen=True)
class CloseLog:
    """Close one connection of the log, or cancel its request."""

    number: int


@dataclass(frozen=True)
class PollPods:
    """List the Job's pods."""

    number: int
    job: str


@dataclass(frozen=True)
class PollEvents:
    """List the Events of a pod or Job."""

    number: int
    about: str


@dataclass(frozen=True)
class PollJob:
    """Get the Job."""

    number: int
    job: str


@dataclass(frozen=True)
class StopPolling:
    """Cancel the poll."""


@dataclass(frozen=True)
class Emit:
    """Pass an event on to the caller."""

    event: ExecutionEvent


@dataclass(frozen=True)
class Warn:
    """Log a warning, once for each client."""

    text: str


@dataclass(frozen=True)
class DeleteJob:
    """Delete the Job."""

    attempt: JobAttempt


@dataclass(frozen=True)
class Done:
    """Return the result. The last effect."""

    result: ExecutionResult


@dataclass(frozen=True)
class Fail:
    """Raise the error. The last effect."""

    error: SandboxError


Poll = PollPods | PollEvents | PollJob

Effect = (
    CreateJob
    | CreateConfigMap
    | StopCreating
    | OpenLog
    | OpenAttach
    | Ready
    | SendRequest
    | CloseLog
    | Poll
    | StopPolling
    | Emit
    | Warn
    | DeleteJob
    | Done
    | Fail
)
