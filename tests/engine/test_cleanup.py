"""The deletion of Jobs: retries while the Sandbox is open, ten seconds when it closes, and warnings."""

from __future__ import annotations

import anyio
import pytest

from gke_sandbox import ConfigError
from gke_sandbox._engine.cleanup import CleanupQueue
from gke_sandbox._engine.steps import JobAttempt
from gke_sandbox.local.faults import Fault, Forbid, Match, Refuse, Respond
from gke_sandbox.local.runtimes.scripted import Script

from ..clock import mock_clock
from ..pods import START, pods, program

DELETE_JOB = Match("delete", "jobs")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@mock_clock
async def test_close_stops_after_ten_seconds_and_names_the_remaining_jobs() -> None:
    async with pods(program(), Fault(Refuse(), DELETE_JOB, times=None)) as cluster:
        result = await cluster.sandbox.run("pass")
        began = anyio.current_time()
    assert anyio.current_time() - began <= 11
    assert cluster.sandbox.leftovers == [result.job]


@mock_clock
async def test_a_failed_deletion_is_retried() -> None:
    async with pods(program(), Fault(Respond.unavailable(), DELETE_JOB, times=2)) as cluster:
        await cluster.sandbox.run("pass")
        await anyio.sleep(20)
        assert cluster.left() == []
    assert cluster.sandbox.leftovers == []


@mock_clock
async def test_a_deletion_with_a_conflict_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    conflict = Respond(409, "Conflict", 'Operation cannot be fulfilled on jobs.batch "x": it has been modified')
    async with pods(program(), Fault(conflict, DELETE_JOB, times=2)) as cluster:
        await cluster.sandbox.run("pass")
        await anyio.sleep(20)
        assert cluster.left() == []
    assert cluster.sandbox.leftovers == []
    assert warnings(caplog) == []


@mock_clock
async def test_a_job_is_deleted_after_an_outage_that_its_cancelled_run_met() -> None:
    async with pods(Script(chunks=[(0.0, START)])) as cluster, anyio.create_task_group() as beside:

        async def heal() -> None:
            await anyio.sleep(60)
            cluster.transport.faults.clear()

        with anyio.move_on_after(3):
            await cluster.sandbox.run("pass")
        cluster.transport.faults.add(Fault(Refuse(), times=None))
        beside.start_soon(heal)
        await anyio.sleep(60 + 12)
        assert cluster.left() == []
        assert cluster.sandbox.jobs == []
        assert cluster.sandbox.leftovers == []


@mock_clock
async def test_a_deletion_is_retried_until_the_cluster_has_removed_the_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pods(program(), Fault(Refuse(), DELETE_JOB, None), timeout=20, startup_timeout=40) as cluster:
        result = await cluster.sandbox.run("pass")
        await anyio.sleep(20 + 40 + 30 + 300 + 10)
        assert cluster.sandbox.jobs == []
        assert cluster.sandbox.leftovers == [result.job]
    (told,) = warnings(caplog)
    assert "cannot reach" in told


@mock_clock
async def test_closing_retries_waiting_deletions_at_once() -> None:
    async with pods(program(), Fault(Respond.unavailable(60), DELETE_JOB)) as cluster:
        await cluster.sandbox.run("pass")
        await anyio.sleep(5)
        assert cluster.sandbox.jobs
        began = anyio.current_time()
    assert anyio.current_time() - began < 1
    assert cluster.sandbox.leftovers == []


@mock_clock
async def test_the_warning_contains_the_last_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async with pods(program(), Fault(Respond.too_many_requests(30), DELETE_JOB, None)) as cluster:
        await cluster.sandbox.run("pass")
        began = anyio.current_time()
    assert anyio.current_time() - began <= 11
    (told,) = warnings(caplog)
    assert "429 TooManyRequests" in told


@mock_clock
async def test_a_forbidden_deletion_gives_one_warning_with_the_rule_to_add(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pods(program(), Fault(Forbid(), DELETE_JOB, None)) as cluster:
        for _ in range(3):
            await cluster.sandbox.run("pass")
            await anyio.sleep(1)
        assert len(cluster.sandbox.leftovers) == 3
        assert cluster.sandbox.jobs == []
    (told,) = warnings(caplog)
    assert 'resources: ["jobs"], verbs: ["delete"]' in told


class Refusing:
    """A client that may not delete anything."""

    async def delete(self, *asked: object, **options: object) -> None:
        raise ConfigError("no")

    def warn_once(self, text: str, key: str = "") -> None:
        """Drop the warning."""


@mock_clock
async def test_only_the_newest_thousand_leftovers_are_remembered() -> None:
    ended: list[None] = []
    async with anyio.create_task_group() as tasks:
        deletions = CleanupQueue(Refusing(), "default", tasks)  # type: ignore[arg-type]
        for number in range(1001):
            deletions.start(JobAttempt(f"job-{number}"), 100, lambda: ended.append(None))
    assert (len(ended), len(set(deletions.leftovers)), deletions.jobs) == (1001, 1000, set())
