"""One execution on an embedded cluster with one or two faults, and its outcome."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import anyio

from gke_sandbox import AsyncSandbox, Cluster, ExecutionResult, SandboxError
from gke_sandbox.local.faults import (
    Action,
    CutBody,
    Drop,
    EndWatch,
    ExpireWatch,
    Fault,
    FaultPlan,
    Forbid,
    GarbleBody,
    Match,
    NoNode,
    OmitEvents,
    Refuse,
    RepeatEvents,
    Respond,
    StallBody,
    SwapEvents,
)
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport
from tests.clock import run_on_mock_clock
from tests.pods import START, exit_frame, out

TIMEOUT, STARTUP_TIMEOUT = 20.0, 40.0
SHORT_STARTUP_TIMEOUT = 12.0
"""A startup_timeout that is shorter than the timeouts of the HTTP client."""

DEADLINE = STARTUP_TIMEOUT + TIMEOUT + 30.0 + 300.0 + 30.0
"""By then the cluster has removed a Job by itself: activeDeadlineSeconds, ttlSecondsAfterFinished, and slack."""

OUTPUT = ("the ", "out", "put")
FRAMES = [START, *(out(text) for text in OUTPUT), exit_frame()]
PROGRAM = Script([(0.2 * number, frame) for number, frame in enumerate(FRAMES)], ends_at=0.8)

REQUESTS = {
    "list pods": Match("list", "pods"),
    "watch pods": Match("watch", "pods"),
    "create job": Match("create", "jobs"),
    "get job": Match("get", "jobs"),
    "create configmap": Match("create", "configmaps"),
    "read log": Match("get", "pods/log"),
    "delete job": Match("delete", "jobs"),
    "list events": Match("list", "events"),
}

# Faults that make the client send the request at all: it lists Events if a pod does not start, and reads a Job if
# the response to its POST was lost.
BEFORE = {
    "list events": Fault(NoNode.scaling_up(6), Match(resource="pods")),
    "get job": Fault(Drop(carried_out=True), Match("create", "jobs")),
}

RESPONSES: dict[str, Action] = {
    "connection refused": Refuse(),
    "reset before the response, carried out": Drop(carried_out=True),
    "reset before the response, not carried out": Drop(carried_out=False),
    "reset in the middle": CutBody(after=40),
    "401": Respond.unauthorized(),
    "403": Forbid(),
    "404": Respond(404, "NotFound", "the server could not find the requested resource"),
    "409": Respond(409, "AlreadyExists", "it already exists"),
    "409, Conflict": Respond.quota_conflict(),
    "410": Respond(410, "Expired", "The resourceVersion is too old."),
    "429 with Retry-After": Respond.too_many_requests(2),
    "429 without Retry-After": Respond.too_many_requests(None),
    "500": Respond.internal_error(),
    "500, carried out": Respond.internal_error(carried_out=True),
    "502": Respond.bad_gateway(),
    "503": Respond.unavailable(),
    "503 with Retry-After": Respond.unavailable(3),
    "504, carried out": Respond.timed_out(carried_out=True),
    "504": Respond.timed_out(carried_out=False),
    "truncated": CutBody(after=40, clean=True),
    "garbage": GarbleBody(after=40),
    "garbage from the start": GarbleBody(after=0),
    "stall before the first byte": StallBody(after=0),
    "stall in the middle": StallBody(after=40),
}

EVENTS: dict[str, Action] = {
    "410 as the response": ExpireWatch(status=True),
    **{f"410 after {count} events": ExpireWatch(after=count) for count in range(6)},
    **{f"the watch ends after {count} events": EndWatch(after=count) for count in range(6)},
    **{f"event {number} is missing": OmitEvents(number) for number in range(6)},
    **{f"event {number} comes twice": RepeatEvents(number) for number in range(6)},
    **{f"event {number} comes after the next": SwapEvents(number) for number in range(6)},
}


def _cuts() -> Iterator[tuple[str, Action]]:
    """Yield faults that end the log after each of its frames, and in the middle of each."""
    offset = 0
    for number, frame in enumerate(FRAMES):
        for where, after in (("in", offset + len(frame) // 2), ("after", offset + len(frame))):
            if number or where == "after":
                yield f"reset {where} frame {number}", CutBody(after)
                yield f"cut short {where} frame {number}", CutBody(after, clean=True)
                yield f"stall {where} frame {number}", StallBody(after)
        offset += len(frame)


LOG: dict[str, Action] = dict(_cuts())


@dataclass(frozen=True)
class Cell:
    """One fault that happens once or on each request, and optionally a second one that happens once."""

    request: str
    fault: str
    always: bool = False
    and_then: tuple[str, str] | None = None
    startup_timeout: float = STARTUP_TIMEOUT

    @property
    def faults(self) -> list[Fault]:
        """The faults of this cell; the one under test is first."""
        actions = {**RESPONSES, **EVENTS, **LOG}
        faults = [Fault(actions[self.fault], REQUESTS[self.request], times=None if self.always else 1)]
        if self.and_then is not None:
            request, fault = self.and_then
            faults.append(Fault(actions[fault], REQUESTS[request]))
        return faults

    def __str__(self) -> str:
        text = f"{self.request}: {self.fault}{', each time' if self.always else ''}"
        if self.and_then is not None:
            text += f" and {': '.join(self.and_then)}"
        return text if self.startup_timeout == STARTUP_TIMEOUT else f"{text}, short startup_timeout"


WATCHES = [
    ("stall before the first byte", True),
    ("410 as the response", True),
    ("403", True),
    ("event 3 is missing", False),
]
OTHERS = [
    ("create job", "reset before the response, carried out"),
    ("create job", "429 with Retry-After"),
    ("create configmap", "reset before the response, carried out"),
    ("create configmap", "reset before the response, not carried out"),
    ("create configmap", "connection refused"),
    ("create configmap", "stall in the middle"),
    ("list pods", "503"),
    ("read log", "reset after frame 2"),
    ("read log", "stall in frame 2"),
    ("read log", "429 with Retry-After"),
    ("delete job", "500"),
]
SHORT_STARTUP_FAULTS = [
    "reset before the response, carried out",
    "reset before the response, not carried out",
    "429 with Retry-After",
    "stall before the first byte",
    "stall in the middle",
]


def all_cells() -> Iterator[Cell]:
    """Yield every cell of the matrix once."""
    for always in (False, True):
        for request in REQUESTS:
            for fault in RESPONSES:
                yield Cell(request, fault, always)
        for fault in EVENTS:
            yield Cell("watch pods", fault, always)
        for fault in LOG:
            yield Cell("read log", fault, always)
        for request in ("list pods", "create job", "create configmap"):
            for fault in SHORT_STARTUP_FAULTS:
                yield Cell(request, fault, always, startup_timeout=SHORT_STARTUP_TIMEOUT)
    for fault, always in WATCHES:
        for other in OTHERS:
            yield Cell("watch pods", fault, always, and_then=other)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one cell.

    `ended_after` is in seconds, `left` are the objects that still exist after `DEADLINE`, and `started` is the
    number of containers that were started.
    """

    result: ExecutionResult | None
    error: SandboxError | None
    happened: int
    ended_after: float
    left_at_close: list[str]
    left: list[str]
    started: int
    requests: int

    def __str__(self) -> str:
        if self.error is not None:
            return type(self.error).__name__
        assert self.result is not None
        missing = ", output may be missing" if self.result.output_truncated else ""
        return f"{self.result.status}{missing}"


def run(cell: Cell) -> Outcome:
    """Run a program that prints three chunks, with the faults of the cell."""

    async def main() -> Outcome:
        faults = cell.faults
        before = BEFORE.get(cell.request)
        runtime = ScriptedRuntime(PROGRAM)
        plan = FaultPlan(*([before] if before is not None else []), *faults)
        cluster = LocalTransport(runtime, faults=plan, pace=Pace.recorded())
        result, error = None, None
        async with cluster:
            started_at = anyio.current_time()
            limits = {"timeout": TIMEOUT, "startup_timeout": cell.startup_timeout}
            async with AsyncSandbox(Cluster.transport(cluster), **limits) as sandbox:
                try:
                    result = await sandbox.run("print('the output')")
                except SandboxError as caught:
                    error = caught
                ended = anyio.current_time() - started_at
            at_close = cluster.leftovers()
            happened = plan.count(faults[0])
            requests = len(cluster.requests)
            await anyio.sleep(DEADLINE)
            started = len(runtime.specs)
            return Outcome(result, error, happened, ended, at_close, cluster.leftovers(), started, requests)

    return run_on_mock_clock(main)
