"""A Job that admission suspends, as Kueue does: the run waits, with a reason, until it is resumed."""

from __future__ import annotations

import anyio
import pytest

from gke_sandbox import ExecutionFinished, PodWaiting, StartError
from gke_sandbox.local.faults import Fault, Forbid, Match, Mutate
from gke_sandbox.local.runtimes.scripted import Script

from ..clock import mock_clock
from ..pods import START, out, pods, program

SUSPENDED = Fault(Mutate(lambda job: job["spec"].update(suspend=True)), Match(resource="jobs"), times=None)
NO_EVENTS = Fault(Forbid(), Match("list", "events"), times=None)


@pytest.mark.parametrize("more", [(), (NO_EVENTS,)], ids=["with Events", "without Events"])
@mock_clock
async def test_a_suspended_job_runs_when_it_is_resumed(more: tuple[Fault, ...]) -> None:
    waits = []
    async with pods(program(out("x")), SUSPENDED, *more, startup_timeout=300) as cluster:
        async with anyio.create_task_group() as queue:

            async def admit() -> None:
                await anyio.sleep(100)
                cluster.transport.resume_jobs()

            queue.start_soon(admit)
            async with cluster.sandbox.stream("pass") as stream:
                async for event in stream:
                    if isinstance(event, PodWaiting):
                        waits.append((event.cause, event.reason, event.seconds < 1))
                    if isinstance(event, ExecutionFinished):
                        assert event.result.stdout == "x"
                        assert 100 < event.result.timings.returned < 103
        await anyio.sleep(10)
        assert cluster.left() == []
    assert waits == [("job_suspended", "Suspended", True)]


@mock_clock
async def test_a_job_that_is_suspended_again_while_its_program_runs_is_killed_with_that_cause() -> None:
    script = Script(chunks=[(0.0, START), (0.5, out("so far"))], ends_at=60.0)
    async with pods(script) as cluster, anyio.create_task_group() as queue:

        async def take_back() -> None:
            await anyio.sleep(5)
            cluster.transport.suspend_jobs()

        queue.start_soon(take_back)
        result = await cluster.sandbox.run("pass")
        assert 5 < anyio.current_time() < 15
        await anyio.sleep(10)
        assert cluster.left() == []
    assert (result.status, result.cause, result.reason) == ("killed", "suspended", "JobSuspended")
    assert result.stdout == "so far"


@pytest.mark.parametrize("more", [(), (NO_EVENTS,)], ids=["with Events", "without Events"])
@mock_clock
async def test_a_job_that_is_never_resumed_is_reported_with_its_label(
    more: tuple[Fault, ...],
) -> None:
    async with pods(program(), SUSPENDED, *more, startup_timeout=30) as cluster:
        with pytest.raises(StartError, match=r"within 30 s .* suspended") as caught:
            await cluster.sandbox.run("pass")
        await anyio.sleep(10)
        assert cluster.left() == []
        assert cluster.runtime.specs == []
    assert caught.value.cause == "job_suspended"
    assert "kueue.x-k8s.io/queue-name" in caught.value.hint
