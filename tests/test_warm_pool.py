"""A pool of warm pods in trouble: pods that end, quotas, programs that do not fit, cancellation at any point."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from gke_sandbox import AsyncSandbox, Cluster, ExecutionEvent, ExecutionFinished, OutputChunk
from gke_sandbox._engine.warm_pool import MAX_DELAY, STABLE_AFTER
from gke_sandbox._wire.payload import MAX_UNPACKED_BYTES
from gke_sandbox.errors import PayloadTooLarge, SandboxClosed
from gke_sandbox.local import Fault, Match, Quota, Script, ScriptedProcess
from gke_sandbox.local.faults import CutAttach, Delay, Evict, Forbid, OmitEvents, Respond, StallAttach, StallBody
from gke_sandbox.local.runtimes.base import ContainerExit

from .clock import mock_clock
from .engine.test_cancellation import CancelAtStep
from .pods import INSTANT, Pods, Shared, pods
from .test_warm import ready
from .warm_runner import WaitingRunner

pytestmark = pytest.mark.anyio

ATTACH = Match("get", "pods/attach")


# -- pods that end ------------------------------------------------------------------------------------


def ends_after(seconds: float, code: int) -> Script:
    async def run(_: ScriptedProcess) -> ContainerExit:
        await anyio.sleep(seconds)
        return ContainerExit(code, "Error" if code else "Completed")

    return Script(program=run)


@pytest.mark.parametrize(("seconds", "code"), [(0.0, 137), (0.5, 0), (5.0, 1)])
def test_pods_that_end_again_and_again_are_replaced_with_growing_delays(
    seconds: float, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    @mock_clock
    async def main() -> None:
        caplog.set_level(logging.WARNING, "gke_sandbox")
        async with pods(ends_after(seconds, code), warm=4) as cluster:
            await anyio.sleep(600)
            # Four each time, with delays of up to a minute.
            assert cluster.requests.count("POST jobs") < 4 * (6 + 2 * 600 / MAX_DELAY)
        assert len(caplog.records) == 1
        assert cluster.transport.objects("jobs") == []

    main()


@mock_clock
async def test_a_pod_that_waited_for_long_is_replaced_soon() -> None:
    fault = Fault(Evict(STABLE_AFTER + 10), Match(resource="pods"), times=None)
    async with pods(WaitingRunner().script, fault, warm=1) as cluster:
        await anyio.sleep(1000)
        assert cluster.requests.count("POST jobs") > 1000 / (STABLE_AFTER + 10 + 3)


@mock_clock
async def test_a_run_that_takes_a_pod_whose_connection_has_just_ended_gets_another_pod() -> None:
    for steps in range(12):
        runner = WaitingRunner()
        async with pods(runner.script, warm=1) as cluster:
            await ready(cluster, 1)
            for session in tuple(cluster.transport._sessions):
                session.cut()
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            assert (await cluster.sandbox.run("one")).ok, steps
        assert runner.started == 1
        assert cluster.transport.objects("jobs") == []


@mock_clock
async def test_a_run_that_takes_a_pod_that_has_just_ended_gets_another_pod() -> None:
    for steps in range(12):
        runner = WaitingRunner()
        async with pods(runner.script, warm=1) as cluster:
            await ready(cluster, 1)
            await cluster.delete_job()
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            assert (await cluster.sandbox.run("one")).ok, steps
        assert runner.started == 1


@pytest.mark.parametrize("resource", ["jobs", "pods"])
def test_a_quota_that_fits_only_some_of_the_pods_costs_few_requests(
    resource: str, caplog: pytest.LogCaptureFixture
) -> None:
    @mock_clock
    async def main() -> None:
        caplog.set_level(logging.WARNING, "gke_sandbox")
        quota = Quota("few", **{resource: 2})  # type: ignore[arg-type]
        async with pods(WaitingRunner().script, quota=quota, warm=4, startup_timeout=100) as cluster:
            await ready(cluster, 2)
            await anyio.sleep(500)
            pool = cluster.sandbox._opened().pool
            assert pool is not None
            assert (pool.ready, "exceeded quota: few" in pool.problem) == (2, True)
            assert cluster.requests.count("POST jobs") < 30
            assert len(cluster.requests) < 300
            assert (await cluster.sandbox.run("one")).start == "warm"
        (record,) = caplog.records
        assert "exceeded quota: few" in record.message
        assert cluster.transport.objects("jobs") == []

    main()


@mock_clock
async def test_the_warning_of_cold_runs_ends_when_a_pod_is_ready_again() -> None:
    refused = Fault(Forbid(), ATTACH, times=3)
    async with pods(WaitingRunner().script, refused, warm=1) as cluster:
        await anyio.sleep(3)
        assert len((await cluster.sandbox.run("one")).warnings) == 1
        await ready(cluster, 1)
        results = await cluster.sandbox.map(["one", "two"])
        assert sorted(result.start for result in results) == ["cold", "warm"]
        assert [result.warnings for result in results] == [(), ()]


# -- runs ---------------------------------------------------------------------------------------------


@mock_clock
async def test_a_program_that_is_too_large_leaves_the_pod_to_the_next_one() -> None:
    async with pods(WaitingRunner().script, warm=1) as cluster:
        await ready(cluster, 1)
        (job,) = cluster.sandbox.jobs
        with pytest.raises(PayloadTooLarge) as caught:
            await cluster.sandbox.run(b"#" * (MAX_UNPACKED_BYTES + 1))
        assert caught.value.may_have_run is False
        assert cluster.sandbox.jobs == [job]
        result = await cluster.sandbox.run("one")
        assert (result.start, result.job) == ("warm", job)


@mock_clock
async def test_a_program_with_other_settings_starts_cold_and_leaves_the_pod() -> None:
    async with pods(WaitingRunner().script, warm=1) as cluster:
        await ready(cluster, 1)
        result = await cluster.sandbox.run("one", memory_limit="1Gi")
        assert (result.start, result.stdout, result.warnings) == ("cold", "from the environment", ())
        assert (await cluster.sandbox.run("one")).start == "warm"


@mock_clock
async def test_a_stream_takes_a_pod_that_waits() -> None:
    async with pods(WaitingRunner().script, warm=2) as cluster:
        await ready(cluster, 2)
        async with cluster.sandbox.stream("one") as stream:
            events = [event async for event in stream]
        assert isinstance(events[-1], ExecutionFinished)
        assert events[-1].result.start == "warm"
        assert [event.text for event in events if isinstance(event, OutputChunk)] == ["one"]
        # A stream that is left at its first event.
        async with cluster.sandbox.stream("one") as stream:
            await stream.__anext__()
        await ready(cluster, 2)
        await anyio.sleep(2)
        assert len(cluster.sandbox.jobs) == 2
    assert cluster.transport.objects("jobs") == []


async def test_two_sandboxes_use_their_own_pods() -> None:
    runner = WaitingRunner()
    async with pods(runner.script, pace=INSTANT, around=Shared, warm=2) as cluster:
        async with AsyncSandbox(Cluster.transport(Shared(cluster.transport)), warm=2) as other:
            another = Pods(cluster.transport, cluster.runtime, other)
            for each in (cluster, another):
                await ready(each, 2)
            results = [
                (await each.sandbox.run(f"{number}"), each) for number in range(4) for each in (cluster, another)
            ]
            for result, each in results:
                assert result.job not in {jobs.job for jobs, which in results if which is not each}
            assert {result.stdout for result, _ in results if result.start == "warm"} <= {"0", "1", "2", "3"}
        assert len(cluster.sandbox.jobs) >= 1
    assert cluster.transport.objects("jobs") == []


@pytest.mark.parametrize("stall", [OmitEvents(4, 1000), StallBody(after=4000)])
def test_a_warm_run_does_not_wait_for_the_watch_nor_the_log(stall: Any) -> None:
    @mock_clock
    async def main() -> None:
        log = Fault(Delay(1000), Match("get", "pods/log"), times=None)
        async with pods(WaitingRunner().script, log, warm=1) as cluster:
            await ready(cluster, 1)
            cluster.transport.faults.add(Fault(stall, Match("watch", "pods"), times=None))
            cluster.transport.faults.add(Fault(Respond.unavailable(), Match("list", "pods"), times=None))
            cluster.transport.faults.add(Fault(Respond.unavailable(), Match("watch", "pods"), times=None))
            before = anyio.current_time()
            assert (await cluster.sandbox.run("one")).start == "warm"
            assert anyio.current_time() == before

    main()


# -- cancellation -------------------------------------------------------------------------------------

TROUBLE: dict[str, tuple[Fault, ...]] = {
    "none": (),
    "it is cut in the request": (Fault(CutAttach(100, direction="input"), ATTACH),),
    "it is cut in the start frame": (Fault(CutAttach(20), ATTACH),),
    "it falls silent": (Fault(StallAttach(60), ATTACH),),
    "it is refused": (Fault(Respond.unavailable(), ATTACH),),
}


def cancelled_at(step: int, faults: tuple[Fault, ...], warm: int) -> bool:
    """Cancel a run at its await point number `step`, and check what is left. Return False if it has fewer."""
    instrument = CancelAtStep(step)

    async def main() -> None:
        runner = WaitingRunner(pause=0.1)
        delivery: dict[str, Any] = {"warm": 1} if warm else {"delivery": "attach"}
        async with pods(runner.script, *faults, timeout=15, **delivery) as cluster:
            with anyio.move_on_after(5):
                if warm:
                    await ready(cluster, 1)
            with instrument.scope:
                instrument.task = trio.lowlevel.current_task()
                await cluster.sandbox.run("one")
            instrument.task = None
            await anyio.sleep(15)
            assert len(cluster.sandbox.jobs) == warm, step
            assert runner.started <= 1, step
        assert cluster.transport.objects("jobs") == [], step
        assert cluster.sandbox.leftovers == [], step

    trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[instrument])
    return instrument.cancelled


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("warm", [0, 1])
def test_a_run_that_is_cancelled_at_any_await_point_leaves_nothing(trouble: str, warm: int) -> None:
    step = 1
    while cancelled_at(step, TROUBLE[trouble], warm):
        step += 1
    assert step > 1


class CancelAnyTask(CancelAtStep):
    """Cancels `scope` when any task has been running for the `step`-th time since `task` was set."""

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.task is not None:
            super().after_task_step(self.task)


def interrupted_at(step: int, warm: bool, use: Callable[[Pods], Any]) -> bool:
    """Cancel the Sandbox and its user at the `step`-th step of any task. Return False if there are fewer."""
    instrument = CancelAnyTask(step)

    async def main() -> None:
        runner = WaitingRunner(pause=0.1)
        settings: dict[str, Any] = {"warm": 1} if warm else {"delivery": "attach"}
        transport = None
        with instrument.scope:
            instrument.task = trio.lowlevel.current_task()
            async with pods(runner.script, around=Shared, **settings) as cluster:
                transport = cluster.transport
                await use(cluster)
        instrument.task = None
        if transport is not None:
            assert transport.objects("jobs") == [], step
            assert runner.started <= 1

    trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[instrument])
    return instrument.cancelled


@pytest.mark.parametrize("warm", [False, True])
def test_a_sandbox_that_is_cancelled_at_any_step_of_any_task_leaves_nothing(warm: bool) -> None:
    async def use(cluster: Pods) -> None:
        if warm:
            await ready(cluster, 1)
        await cluster.sandbox.run("one")

    step = 1
    while interrupted_at(step, warm, use):
        step += 4
    assert step > 100


@mock_clock
async def test_an_exception_of_on_event_ends_a_warm_run_and_no_other() -> None:
    def fail(_: ExecutionEvent) -> None:
        raise RuntimeError("stop")

    async with pods(WaitingRunner().script, warm=1) as cluster:
        await ready(cluster, 1)
        with pytest.raises(RuntimeError, match="stop"):
            await cluster.sandbox.run("one", on_event=fail)
        await ready(cluster, 1)
        assert (await cluster.sandbox.run("two")).start == "warm"
    assert cluster.transport.objects("jobs") == []


@mock_clock
async def test_closing_while_a_warm_run_is_in_progress_raises_and_deletes_its_job() -> None:
    runner = WaitingRunner(pause=5)
    async with pods(runner.script, warm=2) as cluster:
        await ready(cluster, 2)
        caught: list[SandboxClosed] = []

        async def run() -> None:
            with pytest.raises(SandboxClosed) as raised:
                await cluster.sandbox.run("one")
            caught.append(raised.value)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.sleep(1)
            await cluster.sandbox.aclose()
        assert [error.may_have_run for error in caught] == [True]
        assert cluster.transport.objects("jobs") == []


@mock_clock
async def test_opening_and_closing_in_quick_succession_leaves_nothing() -> None:
    runner = WaitingRunner()
    async with pods(runner.script, around=Shared) as cluster:
        for number in range(40):
            async with AsyncSandbox(Cluster.transport(Shared(cluster.transport)), warm=3) as sandbox:
                await anyio.sleep(0.05 * number)
                if number % 2:
                    await sandbox.run("one")
            assert cluster.transport.objects("jobs") == []
            assert sandbox.leftovers == []
    assert runner.started == 20
