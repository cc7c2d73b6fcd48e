"""One execution over an attached connection with one fault, in a new pod or in a warm one, and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import anyio

from gke_sandbox import AsyncSandbox, Cluster, Program, SandboxError
from gke_sandbox._wire.payload import Payload
from gke_sandbox.local import Script, ScriptedProcess
from gke_sandbox.local.faults import (
    Action,
    CloseAttach,
    CutAttach,
    CutBody,
    Delay,
    Drop,
    Evict,
    Fault,
    FaultPlan,
    Forbid,
    GarbleAttach,
    Match,
    Preempt,
    Respond,
    ShutDownNode,
    StallAttach,
    StallBody,
    StopKubelet,
)
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.base import ContainerExit, ContainerSpec
from gke_sandbox.local.runtimes.scripted import ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport
from gke_sandbox.settings import Settings
from tests.clock import run_on_mock_clock
from tests.pods import START, exit_frame
from tests.warm_runner import WaitingRunner

from .cells import DEADLINE, FRAMES, RESPONSES, STARTUP_TIMEOUT, TIMEOUT, Outcome

ATTACH, LOG, POD = Match("get", "pods/attach"), Match("get", "pods/log"), Match(resource="pods")
PAUSE = 0.2
"""The pause before each frame that follows the start frame."""
Kind = Literal["attach", "warm"]

NOT_OPENED: dict[str, Action] = {
    **{
        name: action
        for name, action in RESPONSES.items()
        if not isinstance(action, (CutBody, StallBody)) and not name.startswith("garbage")
    },
    "403 without a reason": Respond(403, "Forbidden", 'pods "x" is forbidden: '),
    "404, no such pod": Respond(404, "NotFound", 'pods "x" not found', kind="pods"),
    "404 of a kubelet that starts": Respond(404, "", "", text="404 page not found\n"),
    "500, not running": Respond(500, "", "", text="container code-runner not found in pod x_default"),
    "500, no kubelet": Respond(500, "", "error dialing backend: dial tcp: connect: connection refused"),
    "400, upgrade required": Respond(400, "BadRequest", "Upgrade request required"),
    "200": Respond(200, "", "", text="<html></html>"),
    "no response": Delay(1000.0, at="request"),
    "a response that is too late": Delay(1000.0, at="response"),
}
BROKEN = {
    "cut": CutAttach,
    "cut inside a WebSocket frame,": lambda after: CutAttach(after, inside_frame=True),
    "ended without a close frame": lambda after: CutAttach(after, clean=True),
    "closed with 1000": lambda after: CloseAttach(after, 1000),
    "closed with 1001": lambda after: CloseAttach(after, 1001, "going away"),
    "closed with 1011": lambda after: CloseAttach(after, 1011),
    "garbage": GarbleAttach,
    "silent": StallAttach,
}


POSITIONS = {
    "before the start frame": 0,
    "in the start frame": len(START) // 2,
    "after the start frame": len(START),
    "in frame 1": len(START) + len(FRAMES[1]) // 2,
    "after frame 2": len(b"".join(FRAMES[:3])),
    "in the exit frame": len(b"".join(FRAMES)) - 10,
}
OUTPUT_FAULTS: dict[str, Action] = {
    f"{how} {where}": broken(after) for how, broken in BROKEN.items() for where, after in POSITIONS.items()
}
CODE = "print('the output')"
POD_ENV: dict[Kind, dict[str, str] | None] = {"attach": None, "warm": {}}
INPUT_FAULTS: dict[str, Callable[[int], int]] = {
    "cut before the request": lambda _: 0,
    "cut in the first line of the request": lambda _: 2,
    "cut in the settings of the request": lambda _: 100,
    "cut in the code of the request": lambda size: size - 3,
    "cut after the request": lambda size: size,
}
"""The number of bytes that arrive, from the size of the request."""
UNREADABLE: dict[str, Action] = {
    "403": Forbid(),
    "404, no such pod": Respond(404, "NotFound", 'pods "x" not found', kind="pods"),
    "404": Respond(404, "NotFound", "the server could not find the requested resource", kind="pods/log"),
    "503": Respond.unavailable(),
    "reset": Drop(),
    "silent": StallBody(),
    "empty": CutBody(clean=True),
}
CUT = ("in the code of the request", "after the request", "in the start frame", "after frame 2")
LOG_FAULTS: dict[str, tuple[str, Action]] = {
    f"cut {where}, and the log: {log}": (f"cut {where}", fault)
    for where in CUT
    for log, fault in UNREADABLE.items()
}
"""The first fault, and that of the log."""
POD_FAULTS: dict[str, Action] = {
    f"{name} after {after:g} s": make(after)
    for name, make in {
        "evicted": Evict,
        "preempted": Preempt,
        "node shut down": ShutDownNode,
        "kubelet restarted": lambda after: StopKubelet(after, 3.0),
        "kubelet away": lambda after: StopKubelet(after, 200.0),
    }.items()
    for after in (0.0, 0.3)
}


class FaultyRunner(WaitingRunner):
    """A runner that fails in one of the ways of `RUNNER_FAULTS`, once or each time."""

    def __init__(self, fault: str, always: bool, code: int) -> None:
        super().__init__(frames=[*FRAMES[1:-1], exit_frame(code)], pause=PAUSE)
        self._code = code
        self.happened = 0
        self._fault = fault
        self._always = always

    def choose(self, spec: ContainerSpec) -> Script:
        if "GKE_SANDBOX_WAIT" not in spec.env or self._fault not in RUNNER_FAULTS:
            return self._script
        if self.happened and not self._always:
            return self._script
        self.happened += 1
        return Script(program=self._fail)

    @property
    def _script(self) -> Script:
        return Script(program=self.run, exit=ContainerExit(self._code, "Error" if self._code else "Completed"))

    async def _fail(self, process: ScriptedProcess) -> ContainerExit | None:
        reads, exit_ = RUNNER_FAULTS[self._fault]
        if reads == "the request":
            await process.readline()
            await process.read(1)
        elif reads == "nothing, for a second":
            await anyio.sleep(1)
        if exit_ is None:
            await anyio.sleep_forever()
        return exit_


_ENDS = {
    "exits with 0": ContainerExit(0, "Completed"),
    "exits with 1": ContainerExit(1, "Error"),
    "exits with 125": ContainerExit(125, "Error"),
    "is killed": ContainerExit(137, "Error"),
    "is out of memory": ContainerExit(137, "OOMKilled"),
}
RUNNER_FAULTS: Mapping[str, tuple[str, ContainerExit | None]] = {
    "never reads": ("nothing", None),
    "never starts the program": ("the request", None),
    **{
        f"{how} {when}": (reads, exit_)
        for how, exit_ in _ENDS.items()
        for when, reads in {
            "at once": "nothing",
            "while it waits": "nothing, for a second",
            "with the request": "the request",
        }.items()
    },
}

HANDSHAKE_FAULTS = {f"handshake: {name}": action for name, action in NOT_OPENED.items()}
FAULTS = (*HANDSHAKE_FAULTS, *OUTPUT_FAULTS, *INPUT_FAULTS, *LOG_FAULTS, *POD_FAULTS, *RUNNER_FAULTS)


@dataclass(frozen=True)
class AttachCell:
    """One fault that happens to the first pod, or to each one that is attached."""

    kind: Kind
    fault: str
    always: bool
    code: int = 0
    """The exit status of the program."""

    @property
    def faults(self) -> list[Fault]:
        """The faults of this cell; the one under test is first. A fault of the runner is not among them."""
        times = None if self.always else 1
        if self.fault in POD_FAULTS:
            return [Fault(POD_FAULTS[self.fault], POD, times)]
        if self.fault in LOG_FAULTS:
            first, log = LOG_FAULTS[self.fault]
            return [*replace(self, fault=first).faults, Fault(log, LOG, times=None)]
        if self.fault in INPUT_FAULTS:
            program = Payload(Program(code=CODE), Settings(timeout=TIMEOUT))
            size = len(program.attach_request(POD_ENV[self.kind]))
            return [Fault(CutAttach(INPUT_FAULTS[self.fault](size), direction="input"), ATTACH, times)]
        if self.fault in RUNNER_FAULTS:
            return []
        return [Fault({**HANDSHAKE_FAULTS, **OUTPUT_FAULTS}[self.fault], ATTACH, times)]

    def __str__(self) -> str:
        text = f"{self.kind}: {self.fault}{', each time' if self.always else ''}"
        return f"{text}, exit {self.code}" if self.code else text


def all_cells() -> Iterator[AttachCell]:
    """Yield every cell once."""
    kinds: tuple[Kind, ...] = ("attach", "warm")
    for kind in kinds:
        for always in (False, True):
            for fault in FAULTS:
                yield AttachCell(kind, fault, always)
            for fault in LOG_FAULTS:
                yield AttachCell(kind, fault, always, code=1)


@dataclass(frozen=True)
class AttachOutcome(Outcome):
    """The outcome of one cell. `requests` counts those of the whole Sandbox."""

    programs: int
    """How many programs were started."""


def run(cell: AttachCell) -> AttachOutcome:
    """Run a program that prints three chunks, with the faults of the cell."""

    async def main() -> AttachOutcome:
        faults, plan = cell.faults, FaultPlan()
        for fault in faults:
            plan.add(fault)
        runner = FaultyRunner(cell.fault, cell.always, cell.code)
        runtime = ScriptedRuntime(runner.choose)
        cluster = LocalTransport(runtime, faults=plan, pace=Pace.recorded())
        result, error = None, None
        settings = {"timeout": TIMEOUT, "startup_timeout": STARTUP_TIMEOUT}
        warm = 1 if cell.kind == "warm" else 0
        if not warm:
            settings["delivery"] = "attach"  # type: ignore[assignment]
        async with cluster:
            async with AsyncSandbox(Cluster.transport(cluster), warm=warm, **settings) as sandbox:  # type: ignore[arg-type]
                pool = sandbox._opened().pool
                with anyio.move_on_after(5):
                    while pool is not None and not pool.ready:
                        await anyio.sleep(0.01)
                started_at = anyio.current_time()
                try:
                    result = await sandbox.run(CODE)
                except SandboxError as caught:
                    error = caught
                ended = anyio.current_time() - started_at
            at_close = cluster.leftovers()
            happened = plan.count(faults[0]) if faults else runner.happened
            requests = len(cluster.requests)
            await anyio.sleep(DEADLINE)
            left = cluster.leftovers()
            specs = len(runtime.specs)
        return AttachOutcome(result, error, happened, ended, at_close, left, specs, requests, runner.started)

    return run_on_mock_clock(main)
