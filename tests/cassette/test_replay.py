"""Replays of recordings of the embedded cluster."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from gke_sandbox import AsyncSandbox, Cluster, ExecutionResult, NetworkError, Sandbox, StartError
from gke_sandbox.cassette import Cassette, Player, Recorder, RecordingTransport, ReplayTransport, load
from gke_sandbox.cassette.model import Step
from gke_sandbox.errors import ApiError, CassetteError, ReplayMismatch
from gke_sandbox.local.faults import CutBody, Drop, EndWatch, Fault, Match, NoNode, Refuse, RejectPod, Respond
from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.scripted import Script
from tests.clock import run_on_mock_clock
from tests.pods import START, out, program

from .conftest import RecordedOnce
from .kit import record, replay


async def one(sandbox: AsyncSandbox) -> ExecutionResult:
    return await sandbox.run("print(1)", files={"a.txt": b"\xff", "b.txt": "text"}, args=["x"], stdin="in")


@pytest.fixture
def path(recorded_once: RecordedOnce) -> Path:
    """The recording of `one`."""
    return recorded_once(record, one)[0]


@pytest.mark.parametrize("strict", [False, True])
def test_a_replayed_run_has_the_recorded_result(recorded_once: RecordedOnce, strict: bool) -> None:
    path, first = recorded_once(record, one)
    second = replay(path, one, strict=strict)
    assert (second.status, second.stdout, second.exit_code) == (first.status, first.stdout, first.exit_code)
    assert second.job != first.job
    assert second.pod.startswith(second.job), "replayed responses contain the names of this run"


def test_a_replay_takes_no_time_and_with_timing_the_recorded_time(recorded_once: RecordedOnce) -> None:
    path, first = recorded_once(record, one)
    assert first.timings.finished is not None
    assert first.timings.finished > 0.7
    fast, slow = replay(path, one), replay(path, one, timing=True)
    assert fast.timings.finished == 0
    assert slow.timings.finished == pytest.approx(first.timings.finished, abs=0.01)
    assert slow.timings.started == pytest.approx(first.timings.started, abs=0.01)


def test_events_are_cut_and_coalesced_as_recorded(path: Path, tmp_path: Path) -> None:
    cassette = load(path)
    watch = next(step for step in cassette.steps if step.name == "watch-pods")
    assert watch.response.chunks is not None
    first, second, *others = watch.response.chunks
    first = replace(first, split_at=((first.at, 10), (first.at, 20)))
    response = replace(watch.response, chunks=(first, replace(second, coalesced=True), *others))
    steps = tuple(replace(step, response=response) if step is watch else step for step in cassette.steps)

    async def main() -> None:
        replaying = ReplayTransport(Player(replace(cassette, steps=steps)))
        recording = RecordingTransport(replaying, Recorder(tmp_path / "again.yaml"))
        async with AsyncSandbox(Cluster.transport(recording)) as sandbox:
            await one(sandbox)

    run_on_mock_clock(main)
    again = next(step for step in load(tmp_path / "again.yaml").steps if step.name == "watch-pods")
    assert again.response.chunks is not None
    # In proportion: the names of this run are longer than their placeholders.
    assert [place for _, place in again.response.chunks[0].split_at] == pytest.approx([10, 20], abs=3)
    assert [chunk.coalesced for chunk in again.response.chunks[:3]] == [False, True, False]


# -- several at once ------------------------------------------------------------------------------------------


def codes(count: int) -> list[str]:
    return [f"print({number})" + " " * number * 7 for number in range(count)]


async def all_at_once(sandbox: AsyncSandbox, programs: list[str]) -> dict[str, str]:
    results = await sandbox.map(programs, max_concurrency=len(programs))
    return {code: result.stdout for code, result in zip(programs, results, strict=True)}


async def one_by_one(sandbox: AsyncSandbox, programs: list[str]) -> dict[str, str]:
    return {code: (await sandbox.run(code)).stdout for code in programs}


async def staggered(sandbox: AsyncSandbox, programs: list[str]) -> dict[str, str]:
    results: dict[str, str] = {}

    async def run(code: str, after: float) -> None:
        await anyio.sleep(after)
        results[code] = (await sandbox.run(code)).stdout

    async with anyio.create_task_group() as tasks:
        for number, code in enumerate(programs):
            tasks.start_soon(run, code, number * 0.25)
    return results


def own_output(programs: list[str]) -> dict[str, str]:
    return {code: f"ran {code}" for code in programs}


@pytest.mark.parametrize("how", [all_at_once, one_by_one, staggered])
def test_two_executions_on_one_watch_get_their_own_results_in_every_order(
    recorded_once: RecordedOnce, how: Callable[..., Awaitable[dict[str, str]]]
) -> None:
    path, _ = recorded_once(all_recorded, 2)
    cassette = load(path)
    assert sum(step.name.startswith("watch") for step in cassette.steps) == 1
    for order in itertools.permutations(codes(2)):
        assert replay(cassette, lambda box, o=list(order): how(box, o), strict=True) == own_output(codes(2))


def all_recorded(path: Path, count: int) -> None:
    record(path, lambda sandbox: all_at_once(sandbox, codes(count)))


def test_ten_executions_on_one_watch_get_their_own_results_in_every_order(tmp_path: Path) -> None:
    all_recorded(tmp_path / "ten.yaml", 10)
    cassette = load(tmp_path / "ten.yaml")
    assert sum(step.name.startswith("watch") for step in cassette.steps) == 1
    chance = random.Random(4)
    orders = [codes(10), codes(10)[::-1]]
    # Each of the ten first, and each last, and some others.
    orders += [codes(10)[number:] + codes(10)[:number] for number in range(1, 10)]
    orders += [chance.sample(codes(10), 10) for _ in range(3)]
    ways = itertools.cycle([all_at_once, one_by_one, staggered])
    for order, how in zip(orders, ways, strict=False):
        assert replay(cassette, lambda sandbox, o=order, h=how: h(sandbox, o)) == own_output(order)


def test_ten_that_ran_one_after_the_other_may_run_at_once(tmp_path: Path) -> None:
    record(tmp_path / "ten.yaml", lambda sandbox: one_by_one(sandbox, codes(10)))
    order = codes(10)[::-1]
    for how in (all_at_once, one_by_one, staggered):
        assert replay(tmp_path / "ten.yaml", lambda sandbox, h=how: h(sandbox, order)) == own_output(order)


def test_executions_with_equal_code_are_interchangeable(tmp_path: Path) -> None:
    outputs = iter(["first", "second", "third"])

    def script(_: object) -> Script:
        return program(out(next(outputs)))

    async def three(sandbox: AsyncSandbox) -> list[str]:
        return sorted(result.stdout for result in await sandbox.map(["same"] * 3, max_concurrency=3))

    record(tmp_path / "c.yaml", three, script=script)
    assert replay(tmp_path / "c.yaml", three, strict=True) == ["first", "second", "third"]


def test_a_refused_config_map_is_refused_to_the_same_program_in_every_order(tmp_path: Path) -> None:
    """Only one of the programs is refused, in both orders."""

    async def two(sandbox: AsyncSandbox, programs: list[str]) -> dict[str, str]:
        told = {}
        for code in programs:
            try:
                told[code] = (await sandbox.run(code)).stdout
            except ApiError as error:
                told[code] = error.reason
        return told

    refused = Fault(Respond(403, "Forbidden", "a policy refuses it"), Match("create", "configmaps"))
    record(tmp_path / "c.yaml", lambda sandbox: two(sandbox, codes(2)), refused)
    for order in (codes(2), codes(2)[::-1]):
        told = replay(tmp_path / "c.yaml", lambda sandbox, o=order: two(sandbox, o))
        assert told == {codes(2)[0]: "Forbidden", codes(2)[1]: f"ran {codes(2)[1]}"}


def test_a_watch_that_was_opened_again_is_a_step_with_a_later_version(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", one, Fault(EndWatch(after=2), Match("watch", "pods")))
    watches = [step for step in load(tmp_path / "c.yaml").steps if step.name.startswith("watch")]
    assert [step.name for step in watches] == ["watch-pods", "watch-pods-again-2"]
    assert watches[0].query["resourceVersion"] != watches[1].query["resourceVersion"]
    assert replay(tmp_path / "c.yaml", one, strict=True).stdout == "ran print(1)"


# -- failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Refuse(), Match("create", "jobs")),
        Fault(Drop(carried_out=True), Match("create", "jobs")),
        Fault(Drop(carried_out=False), Match("list", "pods")),
        Fault(Respond(503, "ServiceUnavailable", "busy", retry_after=2), Match("delete", "jobs")),
        Fault(Respond(500, "", "", text="<html>oops"), Match("list", "pods")),
        Fault(CutBody(after=60), Match("get", "pods/log")),
        Fault(CutBody(after=60), Match("create", "configmaps")),
    ],
    ids=lambda fault: f"{type(fault.action).__name__}-{fault.match.verb}",
)
def test_a_failure_that_a_run_survived_is_survived_in_the_replay(tmp_path: Path, fault: Fault) -> None:
    first = record(tmp_path / "c.yaml", one, fault)
    assert first.stdout == "ran print(1)"
    second = replay(tmp_path / "c.yaml", one, strict=True)
    assert (second.status, second.stdout) == (first.status, first.stdout)


# -- polls of a slow start ------------------------------------------------------------------------------------

POD = Match(resource="pods")
SLOW_NODE = Fault(NoNode.scaling_up(25), POD)


def test_a_slow_start_is_replayed_immediately_without_its_polls(tmp_path: Path) -> None:
    first = record(tmp_path / "c.yaml", one, SLOW_NODE)
    looks = [step for step in load(tmp_path / "c.yaml").steps if step.is_status_poll]
    assert len(looks) > 10
    second = replay(tmp_path / "c.yaml", one)
    assert (second.status, second.stdout) == (first.status, first.stdout)
    assert second.timings.returned == 0
    slow = replay(tmp_path / "c.yaml", one, timing=True)
    assert slow.timings.started == pytest.approx(first.timings.started, abs=0.01)


def test_a_poll_that_was_not_recorded_returns_an_empty_list(tmp_path: Path) -> None:
    """On a slow machine a client may poll where the recorded one did not."""
    record(tmp_path / "c.yaml", one, SLOW_NODE)
    cassette = load(tmp_path / "c.yaml")
    without = replace(cassette, steps=tuple(step for step in cassette.steps if not step.is_status_poll))
    assert replay(without, one, timing=True).status == "succeeded"


def test_a_poll_is_repeated_and_fails_the_start_as_recorded(tmp_path: Path) -> None:
    async def refused(sandbox: AsyncSandbox) -> StartError:
        with pytest.raises(StartError) as caught:
            await sandbox.run("print(1)", startup_timeout=30)
        return caught.value

    for action, cause in ((NoNode.cannot_scale_up(), "cannot_scale_up"), (NoNode(), "no_gvisor_node")):
        record(tmp_path / "c.yaml", refused, Fault(action, POD))
        cassette = load(tmp_path / "c.yaml")
        last = max(number for number, step in enumerate(cassette.steps) if step.is_status_poll)
        looks = [number for number, step in enumerate(cassette.steps) if step.is_status_poll and number != last]
        fewer = replace(cassette, steps=tuple(s for n, s in enumerate(cassette.steps) if n not in looks))
        for replayed in (cassette, fewer):
            assert replay(replayed, refused).cause == cause


def test_a_pod_that_its_node_rejected_is_replaced_in_the_replay(tmp_path: Path) -> None:
    first = record(tmp_path / "c.yaml", one, Fault(RejectPod.pressure(), POD))
    second = replay(tmp_path / "c.yaml", one, strict=True)
    assert (first.status, first.stdout) == (second.status, second.stdout)
    assert first.status == "succeeded"


def test_a_failure_that_ended_a_run_ends_the_replay(tmp_path: Path) -> None:
    async def fails(sandbox: AsyncSandbox) -> str:
        with pytest.raises(NetworkError) as caught:
            await one(sandbox)
        return str(caught.value)

    said = record(tmp_path / "c.yaml", fails, Fault(Refuse(), Match("create", "jobs"), times=None))
    assert "refused" in said or "connect" in said.lower()
    assert replay(tmp_path / "c.yaml", fails, strict=True)


def test_a_program_out_of_memory_is_out_of_memory_in_the_replay(tmp_path: Path) -> None:
    killed = Script([(0.0, START), (0.1, out("much"))], 0.5, ContainerExit(128, "OOMKilled"))
    first = record(tmp_path / "c.yaml", one, script=killed)
    second = replay(tmp_path / "c.yaml", one, strict=True)
    assert (first.status, first.stdout) == (second.status, second.stdout) == ("out_of_memory", "much")


# -- mismatches -----------------------------------------------------------------------------------------------


def test_an_unexpected_request_names_the_nearest_step_and_each_difference(path: Path) -> None:
    async def another(sandbox: AsyncSandbox) -> None:
        await sandbox.run("print(2)", files={"a.txt": b"\xff"}, args=["x"], stdin="in", timeout=3)

    with pytest.raises(ReplayMismatch) as caught:
        replay(path, another)
    said = str(caught.value)
    assert "POST /api/v1/namespaces/default/configmaps" in said
    assert re.search(r"c\.yaml, line \d+, step create-configmaps-1", said)
    assert "code: recorded 'print(1)', got 'print(2)'" in said
    assert "files.b.txt: recorded 'text', got nothing" in said
    assert "timeout: recorded 300.0, got 3" in said


def test_a_caught_mismatch_still_fails_at_the_end(path: Path) -> None:
    seen = []

    async def swallowing(sandbox: AsyncSandbox) -> None:
        try:
            await sandbox.run("other")
        except ReplayMismatch as error:
            seen.append(error)

    with pytest.raises(ReplayMismatch) as caught:
        replay(path, swallowing)
    assert caught.value is seen[0]


def test_steps_that_were_not_replayed_fail_at_the_end(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", lambda sandbox: one_by_one(sandbox, ["a", "b"]))
    with pytest.raises(ReplayMismatch, match=r"of 10 recorded requests were not\s+sent") as caught:
        replay(tmp_path / "c.yaml", lambda sandbox: sandbox.run("a"))
    assert re.search(r"line \d+, step create-jobs-2: POST", str(caught.value))


def test_one_execution_too_many_is_unexpected(path: Path) -> None:
    async def twice(sandbox: AsyncSandbox) -> None:
        await one(sandbox)
        await one(sandbox)

    with pytest.raises(
        ReplayMismatch, match=r"recorded fewer times\): POST /apis/batch/v1/namespaces/default/jobs"
    ):
        replay(path, twice)


def test_fields_that_the_caller_did_not_choose_may_change_unless_it_is_strict(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", one)
    text = (tmp_path / "c.yaml").read_text()
    older = text.replace("terminationGracePeriodSeconds: 1\n", "terminationGracePeriodSeconds: 7\n")
    assert older != text
    (tmp_path / "c.yaml").write_text(older)
    assert replay(tmp_path / "c.yaml", one).stdout == "ran print(1)"
    with pytest.raises(ReplayMismatch, match="terminationGracePeriodSeconds: recorded 7, got 1"):
        replay(tmp_path / "c.yaml", one, strict=True)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"image": "python:3.12-slim"}, "image: recorded 'python:3.11-slim', got 'python:3.12-slim'"),
        ({"memory_limit": "1Gi"}, "memory[1]: recorded '512Mi', got '1Gi'"),
        ({"env": {"A": "1"}}, "env.A: recorded nothing, got '1'"),
        ({"labels": {"team": "a"}}, "labels.team"),
        ({"runtime_class_name": None}, "runtime_class_name: recorded 'gvisor', got None"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_the_caller_chose_must_match(path: Path, changed: dict, word: str) -> None:
    async def other(sandbox: AsyncSandbox) -> None:
        await sandbox.run("print(1)", files={"a.txt": b"\xff", "b.txt": "text"}, args=["x"], stdin="in", **changed)

    with pytest.raises(ReplayMismatch) as caught:
        replay(path, other)
    assert word in str(caught.value)


def test_another_delivery_is_the_same_program(path: Path) -> None:
    async def mounted(sandbox: AsyncSandbox) -> str:
        result = await sandbox.run(
            "print(1)", files={"a.txt": b"\xff", "b.txt": "text"}, args=["x"], stdin="in", delivery="mount"
        )
        return result.stdout

    assert replay(path, mounted) == "ran print(1)"
    with pytest.raises(ReplayMismatch):
        replay(path, mounted, strict=True)


def test_cancelling_a_replayed_run_ends_it(tmp_path: Path) -> None:
    endless = Script([(0.0, START), (0.1, out("tick"))])

    async def cancelled(sandbox: AsyncSandbox) -> None:
        with anyio.move_on_after(3) as scope:
            await sandbox.run("loop", timeout=50)
        assert scope.cancelled_caught

    record(tmp_path / "c.yaml", cancelled, script=endless)
    replay(tmp_path / "c.yaml", cancelled, strict=True)


# -- names in programs ----------------------------------------------------------------------------------------


def test_a_program_may_contain_the_name_of_an_earlier_job(tmp_path: Path) -> None:
    async def main(sandbox: AsyncSandbox) -> list[str]:
        first = await sandbox.run("print(1)")
        second = await sandbox.run(f"x = '{first.job}'")
        third = await sandbox.run("print(3)", env={"A": first.job}, labels={"after": second.job})
        # Output is not replaced: it contains the recorded names.
        return [re.sub("gke-sandbox-[0-9a-f]+", "a job", result.stdout) for result in (first, second, third)]

    told = record(tmp_path / "c.yaml", main)
    assert told == ["ran print(1)", "ran x = 'a job'", "ran print(3)"]
    assert replay(tmp_path / "c.yaml", main) == told
    assert replay(tmp_path / "c.yaml", main, strict=True) == told


# -- errors that leave a Sandbox ------------------------------------------------------------------------------


def test_an_error_that_leaves_the_block_is_not_hidden_by_missing_requests(path: Path) -> None:
    async def fails(sandbox: AsyncSandbox) -> None:
        raise AssertionError("the user's own")

    with pytest.raises(AssertionError, match="the user's own"):
        replay(path, fails)
    with pytest.raises(AssertionError, match="the user's own"), Sandbox(Cluster.replay(path)):
        raise AssertionError("the user's own")


def test_a_mismatch_is_raised_instead_of_the_error_that_it_caused(path: Path) -> None:
    async def fails(sandbox: AsyncSandbox) -> None:
        with contextlib.suppress(ReplayMismatch):
            await sandbox.run("other")
        raise AssertionError("nothing was printed")

    with pytest.raises(ReplayMismatch, match="not recorded"):
        replay(path, fails)


# -- edited by hand -------------------------------------------------------------------------------------------


def edited(path: Path, **changes: Callable[[Step], Step]) -> Cassette:
    """The cassette with some steps changed, by their names."""
    cassette = load(path)
    steps = (changes.get(step.name.replace("-", "_"), lambda same: same)(step) for step in cassette.steps)
    return replace(cassette, steps=tuple(steps))


def test_an_event_without_after_follows_the_creation_of_its_job(path: Path) -> None:
    def forget(step: Step) -> Step:
        assert step.response.chunks is not None
        chunks = tuple(replace(chunk, after=()) for chunk in step.response.chunks)
        return replace(step, response=replace(step.response, chunks=chunks))

    assert replay(edited(path, watch_pods=forget), one).stdout == "ran print(1)"


def test_a_response_with_a_name_from_a_later_request_is_an_error_with_its_place(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", lambda sandbox: one_by_one(sandbox, ["a", "b"]))

    def mention(step: Step) -> Step:
        return replace(step, response=replace(step.response, json={**step.response.json, "next": "<job-2>"}))

    with pytest.raises(
        CassetteError, match=r"c\.yaml, line \d+, step create-jobs-1: <job-2> is in a response that is sent before"
    ):
        replay(edited(tmp_path / "c.yaml", create_jobs_1=mention), lambda sandbox: one_by_one(sandbox, ["a", "b"]))


def test_a_response_that_depends_on_a_request_that_is_never_sent_is_an_error(path: Path) -> None:
    def never(step: Step) -> Step:
        return replace(step, response=replace(step.response, after=("delete-jobs-1",)))

    with pytest.raises(
        CassetteError,
        match=r"step create-jobs-1: its response depends on delete-jobs-1, which was never requested",
    ):
        replay(edited(path, create_jobs_1=never), one)
