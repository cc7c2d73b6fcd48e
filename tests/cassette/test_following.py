"""The lists and watches of a Sandbox in a replay, whose number depends on time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import httpx
import pytest
import trio

from gke_sandbox import AsyncSandbox, Cluster, ExecutionResult, Sandbox, SandboxError
from gke_sandbox.cassette import Player, Recorder, RecordingTransport, ReplayTransport, load
from gke_sandbox.local.faults import CutBody, EndWatch, ExpireWatch, Fault, FaultPlan, Forbid, Match, Respond
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport
from tests.clock import run_on_mock_clock
from tests.pods import START, Shared, exit_frame, out

from .conftest import RecordedOnce
from .kit import BEGAN, echoing, record, replay

WATCH = Match("watch", "pods")
THREE = ("print(1)", "print(2)", "print(3)")


def apart(gap: float, programs: tuple[str, ...] = ("print(1)", "print(2)")) -> Callable[..., Awaitable[list[str]]]:
    """Return a run of programs one after the other, with pauses. After a minute a Sandbox closes its watch."""

    async def main(sandbox: AsyncSandbox) -> list[str]:
        outputs = []
        for code in programs:
            outputs.append((await sandbox.run(code)).stdout)
            await anyio.sleep(gap)
        return outputs

    return main


def names(path: Path, kind: str) -> list[str]:
    return [step.name for step in load(path).steps if step.name.startswith(kind)]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("recorded", [0, 70])
@pytest.mark.parametrize("replayed", [0, 70, 200])
def test_a_replay_may_have_other_pauses(
    recorded_once: RecordedOnce, recorded: float, replayed: float, strict: bool
) -> None:
    path, told = recorded_once(three_apart, recorded)
    assert len(names(path, "watch")) == (1 if recorded == 0 else 3)
    assert replay(path, apart(replayed, THREE), strict=strict) == told


def three_apart(path: Path, gap: float) -> list[str]:
    return record(path, apart(gap, THREE))


def test_programs_that_ran_apart_may_run_concurrently(tmp_path: Path) -> None:
    told = record(tmp_path / "c.yaml", apart(70))

    async def at_once(sandbox: AsyncSandbox) -> list[str]:
        return [result.stdout for result in await sandbox.map(["print(2)", "print(1)"])]

    assert replay(tmp_path / "c.yaml", at_once) == told[::-1]


@pytest.mark.parametrize("options", [{}, {"strict": True}, {"timing": True}], ids=str)
def test_a_watch_that_was_renewed_during_a_long_run_is_replayed(
    recorded_once: RecordedOnce, options: dict[str, bool]
) -> None:
    path, first = recorded_once(slow, 900)
    assert len(names(path, "watch")) > 2
    assert first.stdout == replay(path, long, **options).stdout == "ab"


async def long(sandbox: AsyncSandbox) -> ExecutionResult:
    return await sandbox.run("print(1)", timeout=2000)


def slow(path: Path, seconds: float) -> ExecutionResult:
    """Record a program that prints the second half of its output after this time."""
    frames = [(0.0, START), (0.1, out("a")), (seconds, out("b")), (seconds + 0.1, exit_frame())]
    return record(path, long, script=Script(frames, seconds + 0.1))


@pytest.mark.parametrize("replayed", [0, 70])
@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(ExpireWatch(after=count), WATCH) for count in (0, 2, 4)),
        *(Fault(EndWatch(after=count), WATCH) for count in (0, 2, 4)),
        *(Fault(CutBody(after=count), WATCH) for count in (40, 3000)),
        Fault(ExpireWatch(status=True), WATCH),
        Fault(Respond.unavailable(1), WATCH),
        Fault(Respond.unavailable(1), Match("list", "pods")),
        Fault(Forbid(), WATCH, times=None),
    ],
    ids=lambda fault: str(fault.action) if isinstance(fault, Fault) else str(fault),
)
def test_a_failing_watch_is_replayed_with_all_changes(tmp_path: Path, fault: Fault, replayed: float) -> None:
    told = record(tmp_path / "c.yaml", apart(70 - replayed), fault)
    assert replay(tmp_path / "c.yaml", apart(replayed)) == told


async def refused(sandbox: AsyncSandbox) -> list[str]:
    told = []
    for code in ("print(1)", "print(2)"):
        try:
            told.append((await sandbox.run(code)).stdout)
        except SandboxError as error:
            told.append(type(error).__name__)
    return told


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Respond(403, "Forbidden", "no"), Match("create", "jobs"), times=None),
        Fault(Respond(422, "Invalid", "no"), Match("create", "configmaps"), times=None),
        Fault(Respond.unauthorized(), times=None),
        Fault(Respond(403, "Forbidden", "no"), Match("create", "jobs")),
    ],
    ids=["jobs", "configmaps", "all", "the first job"],
)
def test_a_refusal_may_be_faster_than_the_list_of_pods(tmp_path: Path, fault: Fault) -> None:
    told = record(tmp_path / "c.yaml", refused, fault)
    for _ in range(5):
        assert replay(tmp_path / "c.yaml", refused) == told


def test_a_refusal_is_replayed_in_a_synchronous_sandbox(tmp_path: Path) -> None:
    record(
        tmp_path / "c.yaml", refused, Fault(Respond(403, "Forbidden", "no"), Match("create", "jobs"), times=None)
    )
    for _ in range(5):
        with Sandbox(Cluster.replay(tmp_path / "c.yaml")) as sandbox:
            for code in ("print(1)", "print(2)"):
                with pytest.raises(SandboxError, match="no"):
                    sandbox.run(code)


@pytest.fixture
def random_order() -> Iterator[Callable[[int], None]]:
    """Run trio's tasks in a random order that depends on a seed."""
    state = trio._core._run._r.getstate()
    yield trio._core._run._r.seed
    trio._core._run._r.setstate(state)


async def in_two_sandboxes(transport: Callable[[], httpx.AsyncBaseTransport], codes: list[str]) -> list[str]:
    """Run each program twice, in two Sandboxes at the same time."""
    told: dict[str, str] = {}

    async def run(sandbox: AsyncSandbox, code: str) -> None:
        told[code] = (await sandbox.run(code)).stdout
        told[f"{code} again"] = (await sandbox.run(f"{code} again")).stdout

    async with (
        AsyncSandbox(Cluster.transport(transport())) as one,
        AsyncSandbox(Cluster.transport(transport())) as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(run, one, codes[0])
        tasks.start_soon(run, other, codes[1])
    return [told[code] for code in sorted(told)]


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [Fault(Forbid(), WATCH, times=None)],
        [Fault(ExpireWatch(after=3), WATCH, times=None)],
        [Fault(CutBody(after=3000), WATCH, times=3)],
    ],
    ids=["no trouble", "polling", "expired", "cut off"],
)
def test_two_sandboxes_on_one_recording_may_swap_programs(
    tmp_path: Path, faults: list[Fault], random_order: Callable[[int], None]
) -> None:
    codes = ["print(1)", "print(2)" + " " * 300]

    async def recorded() -> list[str]:
        tape = Recorder(tmp_path / "c.yaml", now=lambda: BEGAN)
        async with LocalTransport(ScriptedRuntime(echoing), faults=FaultPlan(*faults)) as cluster:
            return await in_two_sandboxes(lambda: RecordingTransport(Shared(cluster), tape), codes)

    async def replayed(order: list[str]) -> list[str]:
        player = Player(load(tmp_path / "c.yaml"))
        told = await in_two_sandboxes(lambda: ReplayTransport(player, check=False), order)
        player.finish()
        return told

    random_order(1)
    told = run_on_mock_clock(recorded)
    for seed in range(2):
        for order in (codes, codes[::-1]):
            random_order(seed)
            assert run_on_mock_clock(lambda order=order: replayed(order)) == told


@pytest.mark.parametrize("options", [{}, {"strict": True}, {"timing": True}], ids=str)
def test_a_log_that_was_opened_again_after_a_silence_is_replayed(
    recorded_once: RecordedOnce, options: dict[str, bool]
) -> None:
    path, first = recorded_once(slow, 400)
    assert len(names(path, "get-pods-log")) > 2
    again = replay(path, long, **options)
    assert first.stdout == again.stdout == "ab"
    recorded, replayed = first.timings.returned, again.timings.returned
    assert replayed == pytest.approx(recorded, abs=1) if options.get("timing") else replayed < 3


@pytest.mark.parametrize("timing", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        None,
        Fault(Respond.unavailable(1), WATCH, skip=1),
        Fault(Respond.unavailable(1), Match("list", "pods"), skip=1),
        Fault(EndWatch(after=3), WATCH, times=None),
        Fault(Forbid(), WATCH, times=None),
    ],
    ids=["no trouble", "a later watch", "a later list", "each watch", "polling"],
)
def test_a_replay_may_have_another_order_and_other_pauses_with_every_failure(
    recorded_once: RecordedOnce, fault: Fault | None, timing: bool
) -> None:
    path, told = recorded_once(two_apart, *([] if fault is None else [fault]))
    backwards = ("print(2)", "print(1)")
    assert replay(path, apart(0), timing=timing) == told
    assert replay(path, apart(0, backwards), timing=timing) == told[::-1]
    if not timing:
        assert replay(path, apart(70, backwards)) == told[::-1]


def two_apart(path: Path, *faults: Fault) -> list[str]:
    return record(path, apart(70), *faults)
