"""One execution on an embedded cluster where one thing goes wrong, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import anyio

from gke_sandbox import AsyncSandbox, Cluster, ExecutionResult, SandboxError
from gke_sandbox.local.faults import (
    Action,
    Answer,
    CutBody,
    Drop,
    EndWatch,
    ExpireWatch,
    Fault,
    Forbid,
    GarbleBody,
    Match,
    Misbehaviour,
    NoNode,
    OmitEvents,
    Refuse,
    RepeatEvents,
    StallBody,
    SwapEvents,
)
from gke_sandbox.local.pace import Pace
from gke_sandbox.local.scripted import ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport
from tests.clock import run_on_mock_clock
from tests.pods import out, program

TIMEOUT, STARTUP_TIMEOUT = 20.0, 40.0
DEADLINE = STARTUP_TIMEOUT + TIMEOUT + 30.0 + 60.0 + 30.0
"""By then a Job is gone that nobody deleted: activeDeadlineSeconds, ttlSecondsAfterFinished, and some slack."""

REQUESTS = {
    "list pods": Match("list", "pods"),
    "watch pods": Match("watch", "pods"),
    "create job": Match("create", "jobs"),
    "create configmap": Match("create", "configmaps"),
    "read log": Match("get", "pods/log"),
    "delete job": Match("delete", "jobs"),
    "list events": Match("list", "events"),
}

# Events are read of a pod that does not start, so that one gets its node late.
LATE = Fault(NoNode.scaling_up(6), Match(resource="pods"))

ANSWERS: dict[str, Action] = {
    "connection refused": Refuse(),
    "reset before the answer, carried out": Drop(carried_out=True),
    "reset before the answer, not carried out": Drop(carried_out=False),
    "reset in the middle": CutBody(after=40),
    "401": Answer.unauthorized(),
    "403": Forbid(),
    "404": Answer(404, "NotFound", "the server could not find the requested resource"),
    "409": Answer(409, "AlreadyExists", "it already exists"),
    "409 of another kind": Answer(409, "Conflict", "the object has been modified"),
    "410": Answer(410, "Expired", "The resourceVersion is too old."),
    "429 with Retry-After": Answer.too_many_requests(2),
    "429 without Retry-After": Answer.too_many_requests(None),
    "500": Answer.internal_error(),
    "500, carried out": Answer.internal_error(carried_out=True),
    "502": Answer.bad_gateway(),
    "503": Answer.unavailable(),
    "503 with Retry-After": Answer.unavailable(3),
    "504, carried out": Answer.timed_out(carried_out=True),
    "504": Answer.timed_out(carried_out=False),
    "truncated": CutBody(after=40, clean=True),
    "garbage": GarbleBody(after=40),
    "garbage from the start": GarbleBody(after=0),
    "stall before the first byte": StallBody(after=0),
    "stall in the middle": StallBody(after=40),
}

EVENTS: dict[str, Action] = {
    "410 as the answer": ExpireWatch(status=True),
    **{f"410 after {count} events": ExpireWatch(after=count) for count in range(6)},
    **{f"the watch ends after {count} events": EndWatch(after=count) for count in range(6)},
    **{f"event {number} is missing": OmitEvents(number) for number in range(6)},
    **{f"event {number} comes twice": RepeatEvents(number) for number in range(6)},
    **{f"event {number} comes after the next": SwapEvents(number) for number in range(6)},
}


@dataclass(frozen=True)
class Cell:
    """One fault, once or each time."""

    request: str
    fault: str
    always: bool = False

    @property
    def action(self) -> Action:
        return {**ANSWERS, **EVENTS}[self.fault]

    def __str__(self) -> str:
        return f"{self.request}: {self.fault}{', each time' if self.always else ''}"


def all_cells() -> Iterator[Cell]:
    for always in (False, True):
        for request in REQUESTS:
            for fault in ANSWERS:
                yield Cell(request, fault, always)
        for fault in EVENTS:
            yield Cell("watch pods", fault, always)


@dataclass(frozen=True)
class Outcome:
    """What came of it. `ended_after` is seconds; `left` is what nobody had collected at the very end."""

    result: ExecutionResult | None
    error: SandboxError | None
    happened: int
    ended_after: float
    left_at_close: list[str]
    left: list[str]
    jobs_made: int
    requests: int

    def __str__(self) -> str:
        if self.error is not None:
            return type(self.error).__name__
        assert self.result is not None
        missing = ", output may be missing" if self.result.output_may_be_missing else ""
        return f"{self.result.status}{missing}"


def run(cell: Cell) -> Outcome:
    """Run one program that prints one line, in the cell's bad luck."""

    async def main() -> Outcome:
        fault = Fault(cell.action, REQUESTS[cell.request], times=None if cell.always else 1)
        cluster = LocalTransport(
            ScriptedRuntime(program(out("the output"), at=0.5)),
            misbehaviour=Misbehaviour(fault, *([LATE] if cell.request == "list events" else [])),
            pace=Pace.recorded(),
        )
        result, error = None, None
        async with cluster:
            began = anyio.current_time()
            sandbox = AsyncSandbox(Cluster.transport(cluster), timeout=TIMEOUT, startup_timeout=STARTUP_TIMEOUT)
            async with sandbox:
                try:
                    result = await sandbox.run("print('the output')")
                except SandboxError as caught:
                    error = caught
                ended = anyio.current_time() - began
            at_close = cluster.leftovers()
            happened = cluster.misbehaviour.happened(fault)
            made = sum(request.verb == "create" and request.resource == "jobs" for request in cluster.requests)
            requests = len(cluster.requests)
            await anyio.sleep(DEADLINE)
            return Outcome(result, error, happened, ended, at_close, cluster.leftovers(), made, requests)

    return run_on_mock_clock(main)
