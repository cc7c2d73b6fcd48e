"""Recordings of runs in warm pods, and their replay in any order."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from gke_sandbox import AsyncSandbox, SandboxError
from gke_sandbox.cassette import Cassette, load
from gke_sandbox.cassette.jobs import is_warm_job, with_equal_suffixes
from gke_sandbox.cassette.model import metadata_of
from gke_sandbox.errors import CassetteError, ReplayMismatch
from gke_sandbox.local import ScriptedProcess
from gke_sandbox.local.faults import BadImage, CutAttach, Fault, Match, Respond
from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.scripted import Script
from tests.pods import START, exit_frame, out
from tests.warm_runner import WaitingRunner

from .attaching import ready, record, replay

pytestmark = pytest.mark.slow

Results = dict[str, tuple[str, str]]
Way = Callable[..., Awaitable[Results]]


def codes(count: int) -> list[str]:
    return [f"print({number})" for number in range(count)]


async def at_once(sandbox: AsyncSandbox, programs: Sequence[str], pods: int = 0) -> Results:
    """Run all programs at the same time, after this number of pods is ready."""
    await ready(sandbox, pods)
    results = await sandbox.map(programs, max_concurrency=len(programs))
    return {code: (result.stdout, result.start) for code, result in zip(programs, results, strict=True)}


async def one_by_one(sandbox: AsyncSandbox, programs: Sequence[str], pods: int = 0) -> Results:
    found = {}
    for code in programs:
        await ready(sandbox, pods)
        result = await sandbox.run(code)
        found[code] = (result.stdout, result.start)
    return found


async def staggered(sandbox: AsyncSandbox, programs: Sequence[str], pods: int = 0) -> Results:
    found = {}

    async def run(code: str, after: float) -> None:
        await anyio.sleep(after)
        result = await sandbox.run(code)
        found[code] = (result.stdout, result.start)

    await ready(sandbox, pods)
    async with anyio.create_task_group() as tasks:
        for number, code in enumerate(programs):
            tasks.start_soon(run, code, number * 0.4)
    return found


WAYS = (at_once, one_by_one, staggered)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 2), (4, 4), (7, 3)])
def test_programs_get_their_own_results_in_every_order(tmp_path: Path, how: Way, count: int, size: int) -> None:
    programs = codes(count)
    found = record(tmp_path / "c.yaml", lambda sandbox: how(sandbox, programs, size), warm=size)
    assert {code: stdout for code, (stdout, _) in found.items()} == {code: code for code in programs}
    assert "warm" in {start for _, start in found.values()}
    cassette = load(tmp_path / "c.yaml")
    chance = random.Random(count)
    orders = {tuple(order) for order in (programs, programs[::-1], chance.sample(programs, count))}
    for order in sorted(orders):
        for way in WAYS:
            assert replay(cassette, lambda sandbox, o=order, w=way: w(sandbox, o), warm=size) == found
    assert replay(cassette, lambda sandbox: at_once(sandbox, programs), warm=size, strict=True) == found


def test_a_warm_job_is_recorded_without_a_program_and_idles_as_long_as_it_did(tmp_path: Path) -> None:
    async def main(sandbox: AsyncSandbox) -> tuple[str, str]:
        await ready(sandbox, 1)
        # Pings are sent in this time, and are not recorded.
        await anyio.sleep(100)
        result = await sandbox.run("print(1)")
        return result.stdout, result.start

    assert record(tmp_path / "c.yaml", main, warm=1) == ("print(1)", "warm")
    steps = {step.name: step for step in load(tmp_path / "c.yaml").steps}
    assert is_warm_job(steps["create-jobs-1"].body)
    assert "annotations" not in metadata_of(steps["create-jobs-1"].body)
    attach, sent = steps["get-pods-attach-1"], steps["send-pods-attach-1"]
    assert sent.at - attach.at > 99_000
    # The first message arrived before the program was sent.
    first, *others = attach.response.chunks or ()
    assert (first.data, first.after) == (b"", ())
    assert all(chunk.after == ("send-pods-attach-1",) for chunk in others)
    assert replay(tmp_path / "c.yaml", main, warm=1) == ("print(1)", "warm")
    assert replay(tmp_path / "c.yaml", main, warm=1, timing=True) == ("print(1)", "warm")


def test_equal_programs_may_have_started_warm_and_cold(tmp_path: Path) -> None:
    async def main(sandbox: AsyncSandbox) -> list[str]:
        results = await sandbox.map(["same"] * 3)
        return sorted(result.start for result in results)

    async def recorded(sandbox: AsyncSandbox) -> list[str]:
        await ready(sandbox, 1)
        return await main(sandbox)

    assert record(tmp_path / "c.yaml", recorded, warm=1) == ["cold", "cold", "warm"]
    assert replay(tmp_path / "c.yaml", main, warm=1) == ["cold", "cold", "warm"]


def test_programs_that_differ_only_in_their_environment_are_different(tmp_path: Path) -> None:
    runner = WaitingRunner(lambda request: out(request["env"].get("A", "none")) + exit_frame(0))

    async def main(sandbox: AsyncSandbox, values: Sequence[str] = "12") -> list[str]:
        await ready(sandbox, 2)
        return [(await sandbox.run("same", env={"A": value})).stdout for value in values]

    assert record(tmp_path / "c.yaml", main, script=runner.script, warm=2) == ["1", "2"]
    assert replay(tmp_path / "c.yaml", lambda sandbox: main(sandbox, "21"), warm=2) == ["2", "1"]


def test_a_program_gets_the_end_of_the_pod_that_ran_it(tmp_path: Path) -> None:
    async def program(process: ScriptedProcess) -> ContainerExit | None:
        line = await process.readline()
        if not line:
            return None
        size, contents = map(int, line.split())
        code = (await process.read(size + contents))[size:]
        await process.write(START + out("before"))
        if code == b"kill":
            return ContainerExit(137, "OOMKilled")
        await process.write(exit_frame(0))
        await process.read(1)
        return None

    async def main(sandbox: AsyncSandbox, order: Sequence[str] = ("kill", "fine")) -> dict[str, str]:
        await ready(sandbox, 2)
        return {code: (await sandbox.run(code)).status for code in order}

    found = record(tmp_path / "c.yaml", main, script=Script(program=program), warm=2)
    assert found == {"kill": "out_of_memory", "fine": "succeeded"}
    assert replay(tmp_path / "c.yaml", main, warm=2) == found
    assert replay(tmp_path / "c.yaml", lambda sandbox: main(sandbox, ("fine", "kill")), warm=2) == found


def test_a_program_that_was_not_recorded_is_a_mismatch_with_the_nearest_one(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", lambda sandbox: one_by_one(sandbox, codes(3), 2), warm=2)
    with pytest.raises(ReplayMismatch) as caught:
        replay(tmp_path / "c.yaml", lambda sandbox: one_by_one(sandbox, ["print(7)"], 1), warm=2)
    text = str(caught.value)
    assert "SEND /api/v1/namespaces/default/pods/" in text
    assert "code: recorded 'print(" in text
    assert "got 'print(7)'" in text


def test_a_program_that_did_not_arrive_is_a_mismatch_at_the_end(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", lambda sandbox: one_by_one(sandbox, codes(3), 2), warm=2)
    with pytest.raises(ReplayMismatch, match=r"(?s)recorded requests were not sent:.*step send-pods-attach-"):
        replay(tmp_path / "c.yaml", lambda sandbox: one_by_one(sandbox, codes(2)), warm=2)


def test_a_replay_may_have_fewer_and_more_warm_pods_without_a_program(tmp_path: Path) -> None:
    async def later(sandbox: AsyncSandbox) -> Results:
        found = await one_by_one(sandbox, codes(2), 2)
        await ready(sandbox, 2)
        return found

    record(tmp_path / "late.yaml", later, warm=2)
    record(tmp_path / "soon.yaml", lambda sandbox: at_once(sandbox, codes(2), 2), warm=2)
    expected = {code: (code, "warm") for code in codes(2)}
    for path in (tmp_path / "late.yaml", tmp_path / "soon.yaml"):
        assert replay(path, lambda sandbox: one_by_one(sandbox, codes(2)), warm=2) == expected
    # Three pods, where two were recorded: the third never starts.
    assert replay(tmp_path / "soon.yaml", lambda sandbox: at_once(sandbox, codes(2)), warm=3) == expected


def test_a_replay_may_attach_to_a_pod_to_which_the_recorded_client_had_no_time_to_attach(tmp_path: Path) -> None:
    async def later(sandbox: AsyncSandbox) -> Results:
        found = await one_by_one(sandbox, codes(2), 2)
        await ready(sandbox, 2)
        return found

    found = record(tmp_path / "c.yaml", later, warm=2)
    cassette = load(tmp_path / "c.yaml")
    used = {step.job for step in cassette.steps if step.sends_request}
    steps = tuple(step for step in cassette.steps if step.job in used or step.response.status != 101)
    assert len(steps) == len(cassette.steps) - 2
    # The order of the programs makes another pod than the recorded one the first.
    for order in (codes(2), codes(2)[::-1]):
        closed_early = replace(cassette, steps=steps)
        assert replay(closed_early, lambda sandbox, o=order: one_by_one(sandbox, o, 2), warm=2) == found


def test_the_failures_of_a_pool_are_replayed(tmp_path: Path) -> None:
    async def main(sandbox: AsyncSandbox) -> tuple[str, str, bool]:
        await anyio.sleep(3)
        result = await sandbox.run("1")
        return result.stdout, result.start, any("image" in warning for warning in result.warnings)

    async def failed(sandbox: AsyncSandbox) -> tuple[str, str]:
        await anyio.sleep(3)
        with pytest.raises(SandboxError) as caught:
            await sandbox.run("1")
        return type(caught.value).__name__, str(caught.value.hint)

    bad = Fault(BadImage(), times=None)
    assert record(tmp_path / "bad.yaml", failed, bad, warm=1) == replay(tmp_path / "bad.yaml", failed, warm=1)
    refused = Fault(Respond(403, "Forbidden", "the image is not allowed"), Match("create", "jobs"))
    first = record(tmp_path / "refused.yaml", main, refused, warm=1)
    assert replay(tmp_path / "refused.yaml", main, warm=1) == first


@pytest.mark.parametrize(
    "fault", [CutAttach(after=70), CutAttach(after=50, direction="input"), CutAttach(after=0)]
)
def test_a_connection_that_is_lost_is_replayed(tmp_path: Path, fault: CutAttach) -> None:
    async def main(sandbox: AsyncSandbox) -> tuple[str, str]:
        await ready(sandbox, 1)
        result = await sandbox.run("x" * 1000)
        return result.stdout, result.start

    first = record(tmp_path / "c.yaml", main, Fault(fault), warm=1)
    assert first[0] == "x" * 1000
    assert replay(tmp_path / "c.yaml", main, warm=1) == first


def test_a_pod_that_ends_while_it_waits_is_replayed(tmp_path: Path) -> None:
    async def impatient(process: ScriptedProcess) -> ContainerExit | None:
        with anyio.move_on_after(5):
            await process.readline()
            await process.write(START + out("1") + exit_frame(0))
            await process.read(1)
        return None

    async def main(sandbox: AsyncSandbox) -> tuple[str, str]:
        await ready(sandbox, 1)
        await anyio.sleep(10)
        await ready(sandbox, 1)
        result = await sandbox.run("1")
        return result.stdout, result.start

    first = record(tmp_path / "c.yaml", main, script=Script(program=impatient), warm=1)
    assert first == ("1", "warm")
    assert replay(tmp_path / "c.yaml", main, warm=1) == first


def test_the_pods_of_recorded_warm_jobs_get_names_with_the_same_suffix(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", lambda sandbox: at_once(sandbox, codes(2), 2), warm=2)
    before = load(tmp_path / "c.yaml")
    after = with_equal_suffixes(before)
    assert len(suffixes(before)) > 1
    assert len(suffixes(after)) == 1


def suffixes(cassette: Cassette) -> set[str]:
    paths = (step.path.split("/") for step in cassette.steps if step.path.endswith("/attach"))
    return {path[6].rpartition("-")[2] for path in paths}


def test_jobs_that_this_library_did_not_make_are_not_warm() -> None:
    for body in (None, "text", {"kind": "Pod"}, {"kind": "Job"}, {"kind": "Job", "spec": {"template": None}}):
        assert not is_warm_job(body)


def test_a_cassette_of_warm_pods_is_refused_if_it_is_incomplete(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", lambda sandbox: at_once(sandbox, codes(1), 1), warm=1)
    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text.replace("step: send-pods-attach-1", "step: sent"))
    with pytest.raises(CassetteError, match="unknown step 'send-pods-attach-1'"):
        load(tmp_path / "c.yaml")
