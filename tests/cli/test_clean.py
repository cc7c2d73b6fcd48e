"""``gke-sandbox clean`` deletes old Jobs, and leaves recent Jobs and those of other clients."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from gke_sandbox._engine import orphans
from gke_sandbox._engine.orphans import Leftover
from gke_sandbox._wire.manifests import build
from gke_sandbox._wire.program import Program
from gke_sandbox.cli import main
from gke_sandbox.cli.clean import Cleaning
from gke_sandbox.cli.console import age_text
from gke_sandbox.errors import Expired, SandboxError, ServerError
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.resources import CONFIG_MAPS, JOBS
from gke_sandbox.local.faults import Drop, Fault, FaultPlan, Forbid, Match, Respond
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport
from gke_sandbox.settings import Settings
from tests.clock import mock_clock, run_on_mock_clock
from tests.http_cluster import HttpCluster, http_cluster

START = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)


@dataclass
class ServerClock:
    """The clock of the cluster. It is `ahead` of `Kit.now`, the clock of the client."""

    ahead: timedelta = timedelta(0)

    def now(self) -> datetime:
        return START + timedelta(seconds=anyio.current_time()) + self.ahead


class WithoutDate(httpx.AsyncBaseTransport):
    """Replace the Date header of every response."""

    def __init__(self, inner: httpx.AsyncBaseTransport, date: str | None) -> None:
        self._inner = inner
        self._date = date

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        del response.headers["date"]
        if self._date is not None:
            response.headers["date"] = self._date
        return response

    async def __aenter__(self) -> WithoutDate:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._inner.__aexit__(*raised)


@dataclass
class Kit:
    transport: LocalTransport
    client: KubeClient
    server_clock: ServerClock

    def now(self) -> datetime:
        return START + timedelta(seconds=anyio.current_time())

    async def make(self, *names: str, **labels: str) -> None:
        for name in names:
            made = build(Settings(), Program(code="pass"), name=name, session="5e55")
            made.job["metadata"]["labels"].update(labels)
            job = await self.client.create(JOBS, "default", made.job)
            await self.client.create(CONFIG_MAPS, "default", made.config_map(job["metadata"]["uid"]))

    async def clean(
        self, older_than: float = 3600.0, *, dry_run: bool = False, skip_active: bool = False
    ) -> Cleaning:
        cleaning = Cleaning("default", dry_run, older_than, skip_active=skip_active)
        await cleaning.run(self.client, self.now())
        return cleaning

    def jobs(self) -> list[str]:
        return sorted(each["metadata"]["name"] for each in self.transport.objects("jobs"))


@asynccontextmanager
async def cluster(
    *faults: Fault,
    script: Script | None = None,
    wrapper: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport] | None = None,
) -> AsyncIterator[Kit]:
    clock = ServerClock()
    transport = LocalTransport(
        ScriptedRuntime(script or Script()),
        faults=FaultPlan(*faults),
        pace=Pace.recorded(),
        now=clock.now,
    )
    async with KubeClient(
        ClusterConfig(server="https://embedded.invalid", source="a test"),
        transport=transport,
        transport_wrapper=wrapper,
    ) as client:
        yield Kit(transport, client, clock)


def names(found: list[Leftover]) -> list[str]:
    return [each.job for each in found]


@mock_clock
async def test_old_jobs_are_deleted_and_recent_jobs_stay() -> None:
    async with cluster() as kit:
        await kit.make("old-1")
        await anyio.sleep(400)
        await kit.make("old-2")
        await anyio.sleep(200)
        await kit.make("young")
        cleaning = await kit.clean(older_than=200)
        assert sorted(names(cleaning.deleted)) == ["old-1", "old-2"]
        assert (cleaning.skipped, cleaning.failed) == (1, [])
        assert {each.session for each in cleaning.deleted} == {"5e55"}
        await anyio.sleep(30)
        assert kit.jobs() == ["young"]


@mock_clock
async def test_the_oldest_jobs_are_first_and_have_their_state() -> None:
    async with cluster(script=Script(ends_at=1.0)) as kit:
        await kit.make("finished")
        await anyio.sleep(20)
        await kit.make("running")
        found = await orphans.find(kit.client, "default", kit.now())
        assert [(each.job, each.finished) for each in found] == [("finished", True), ("running", False)]
        assert found[0].age == pytest.approx(20, abs=1)


@mock_clock
async def test_the_job_of_a_run_that_may_be_active_is_skipped_until_its_deadline() -> None:
    async with cluster() as kit:
        await kit.make("long")
        await anyio.sleep(500)
        cleaning = await kit.clean(older_than=60, skip_active=True)
        assert (cleaning.deleted, cleaning.skipped) == ([], 1)
        # The controllers of the cluster do not work: the Job is not finished after its deadline of 630 s.
        kit.server_clock.ahead = timedelta(seconds=200)
        (left,) = await orphans.find(kit.client, "default", kit.now())
        assert not left.may_be_in_flight
        assert names((await kit.clean(older_than=60)).deleted) == ["long"]


@mock_clock
async def test_ages_are_computed_with_the_clock_of_the_server() -> None:
    """A client whose clock is an hour ahead must not delete the running Jobs of others."""
    async with cluster() as kit:
        kit.server_clock.ahead = timedelta(hours=-1)
        await kit.make("running")
        await anyio.sleep(60)
        cleaning = await kit.clean(older_than=3600)
        assert (cleaning.deleted, cleaning.skipped) == ([], 1)
        (left,) = await orphans.find(kit.client, "default", kit.now())
        assert left.age == pytest.approx(60, abs=1)


@pytest.mark.parametrize("date", [None, "yesterday", "Mon, 99 Nov 2026 12:00:00 GMT"])
def test_without_a_date_of_the_server_ages_are_computed_with_the_local_clock_and_a_warning_says_so(
    date: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with cluster(wrapper=lambda inner: WithoutDate(inner, date)) as kit:
            await kit.make("a", "b")
            await anyio.sleep(60)
            found = await orphans.find(kit.client, "default", kit.now(), page_size=1)
            assert [each.age for each in found] == [pytest.approx(60, abs=1)] * 2

    run_on_mock_clock(run)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "the server sends no Date header: the ages of Jobs are computed with the clock of this machine"
    ]


@mock_clock
async def test_a_job_that_is_being_deleted_is_not_listed() -> None:
    async with cluster() as kit:
        await kit.make("going")
        await kit.client.delete(JOBS, "default", "going", propagation_policy="Foreground")
        assert await orphans.find(kit.client, "default", kit.now()) == []


@mock_clock
async def test_an_expired_list_is_restarted() -> None:
    expired = Respond(410, "Expired", "The provided continue parameter is too old.")
    async with cluster(Fault(expired, Match("list", "jobs"), skip=1)) as kit:
        await kit.make(*(f"job-{n}" for n in range(5)))
        assert len(await orphans.find(kit.client, "default", kit.now(), page_size=3)) == 5


@mock_clock
async def test_a_list_whose_second_page_always_expires_is_an_error() -> None:
    expired = Respond(410, "Expired", "The provided continue parameter is too old.")
    faults = [Fault(expired, Match("list", "jobs"), skip=skip) for skip in range(1, 100, 2)]
    async with cluster(*faults) as kit:
        await kit.make(*(f"job-{n}" for n in range(5)))
        with pytest.raises(Expired):
            await orphans.find(kit.client, "default", kit.now(), page_size=3)


@pytest.mark.parametrize(
    "text",
    [
        '{"items": [{}]}',
        '{"items": [{"metadata": null}]}',
        '{"items": [{"metadata": {"name": "a", "uid": "u", "creationTimestamp": "yesterday"}}]}',
        '{"items": [{"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}}]}',
        '{"items": [null]}',
        '{"items": 5}',
        '{"metadata": "x"}',
    ],
)
def test_an_invalid_list_of_jobs_is_a_server_error(text: str) -> None:
    async def run() -> None:
        async with cluster(Fault(Respond(200, "", "", text=text), Match("list", "jobs"), None)) as kit:
            with pytest.raises(ServerError, match="not a list of Jobs"):
                await orphans.find(kit.client, "default", kit.now())

    run_on_mock_clock(run)


@mock_clock
async def test_a_deletion_whose_response_is_lost_is_counted() -> None:
    async with cluster(Fault(Drop(carried_out=True), Match("delete", "jobs"))) as kit:
        await kit.make("a")
        cleaning = await kit.clean(older_than=0)
        assert (names(cleaning.deleted), cleaning.failed) == (["a"], [])


@mock_clock
async def test_a_dry_run_deletes_nothing() -> None:
    async with cluster() as kit:
        await kit.make("a", "b")
        cleaning = await kit.clean(older_than=0, dry_run=True)
        assert (names(cleaning.to_delete), cleaning.deleted) == (["a", "b"], [])
        assert kit.jobs() == ["a", "b"]
        assert {request.method for request in kit.transport.requests} == {"POST", "GET"}


@mock_clock
async def test_jobs_of_other_clients_are_not_listed() -> None:
    async with cluster() as kit:
        await kit.make("theirs", **{"app.kubernetes.io/managed-by": "helm"})
        cleaning = await kit.clean(older_than=0)
        assert (cleaning.deleted, cleaning.skipped) == ([], 0)
        assert kit.jobs() == ["theirs"]


@mock_clock
async def test_every_page_of_a_list_is_read() -> None:
    async with cluster() as kit:
        await kit.make(*(f"job-{n}" for n in range(8)))
        found = await orphans.find(kit.client, "default", kit.now(), page_size=3)
        assert len(found) == 8
        lists = [request for request in kit.transport.requests if request.verb == "list"]
        assert len(lists) == 3


@mock_clock
async def test_one_failed_deletion_does_not_prevent_the_others() -> None:
    async with cluster(Fault(Forbid(), Match("delete", name="a"), times=None)) as kit:
        await kit.make("a", "b", "c")
        cleaning = await kit.clean(older_than=0)
        assert sorted(names(cleaning.deleted)) == ["b", "c"]
        ((left, error),) = cleaning.failed
        assert left.job == "a"
        assert 'cannot delete resource "jobs"' in str(error)
        assert 'verbs: ["delete"]' in error.hint


@mock_clock
async def test_temporary_errors_are_retried() -> None:
    busy = Fault(Respond.unavailable(), Match("list", "jobs"), times=2)
    reset = Fault(Respond.internal_error(), Match("delete", "jobs"), times=2)
    async with cluster(busy, reset) as kit:
        await kit.make("a")
        assert names((await kit.clean(older_than=0)).deleted) == ["a"]


@mock_clock
async def test_a_conflict_that_is_not_about_the_uid_is_retried() -> None:
    modified = Respond(409, "Conflict", 'Operation cannot be fulfilled on jobs.batch "a": it has been modified')
    async with cluster(Fault(modified, Match("delete", "jobs"), times=2)) as kit:
        await kit.make("a")
        assert names((await kit.clean(older_than=0)).deleted) == ["a"]


@mock_clock
async def test_a_job_that_is_gone_or_was_replaced_is_not_deleted() -> None:
    async with cluster() as kit:
        await kit.make("gone", "replaced")
        found = await orphans.find(kit.client, "default", kit.now())
        for name in ("gone", "replaced"):
            await kit.client.delete(JOBS, "default", name, propagation_policy="Background")
        await anyio.sleep(10)
        await kit.make("replaced")
        recorded: list[tuple[Leftover, SandboxError | None]] = []
        await orphans.remove(kit.client, "default", found, lambda *each: recorded.append(each))
        assert recorded == []
        assert kit.jobs() == ["replaced"]


# -- the command ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served() -> Iterator[HttpCluster]:
    with http_cluster("agents") as found:
        yield found


@pytest.fixture
def clean(
    served: HttpCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    kubeconfig = served.kubeconfig(tmp_path, "agents")

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["clean", "--kubeconfig", kubeconfig, *arguments])
        return status, *capfd.readouterr()

    return run


def make(kubeconfig: Path, *names: str) -> None:
    from gke_sandbox import Cluster

    async def main() -> None:
        connection = Cluster.kubeconfig(str(kubeconfig))._connect(None)
        settings = Settings(namespace="agents")
        async with connection.client as client:
            for name in names:
                body = build(settings, Program(code="pass"), name=name, session="5e55").job
                await client.create(JOBS, "agents", body)

    anyio.run(main)


Clean = Callable[..., tuple[int, str, str]]


def test_the_command_shows_jobs_deletes_them_and_reports_when_none_are_left(clean: Clean, tmp_path: Path) -> None:
    make(tmp_path / "kubeconfig", "left-1", "left-2")
    status, stdout, stderr = clean()
    assert (status, stderr) == (0, "")
    assert (
        stdout == "deleted no Jobs in namespace agents; skipped 2 Jobs younger than 1h or not past the deadline\n"
    )
    status, stdout, _ = clean("--older-than", "0s", "--dry-run")
    assert status == 0
    lines = stdout.splitlines()
    assert lines[-1] == "would delete 2 Jobs in namespace agents"
    assert lines[0].startswith("would delete left-1 (")
    assert lines[0].endswith("s old, not finished, session 5e55)")
    status, stdout, _ = clean("--all", "--json")
    found = json.loads(stdout)
    assert (status, [each["job"] for each in found["deleted"]]) == (0, ["left-1", "left-2"])
    assert (found["namespace"], found["failed"], found["spared"]) == ("agents", [], 0)
    assert clean("--all") == (0, "deleted no Jobs in namespace agents\n", "")


def test_a_cluster_that_cannot_be_reached_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    status = main(["clean", "--server", "http://127.0.0.1:9", "--all"])
    stdout, stderr = capfd.readouterr()
    assert (status, stdout) == (125, "")
    assert stderr.startswith("gke-sandbox: error: GET /apis/batch/v1/namespaces/default/jobs")


def test_without_a_cluster_the_hint_does_not_suggest_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["clean"]) == 125
    stderr = capfd.readouterr().err
    assert "no cluster was found" in stderr
    assert "--local" not in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--all", "--older-than", "1h"], "--all cannot be combined with --older-than"),
        (["--older-than", "soon"], "--older-than: must be a time such as 90"),
        (["--older-than", "-1h"], "--older-than: requires a value"),
        (["--local"], "--local: there is nothing to clean"),
        (["--namespace", "Not A Name"], "--namespace"),
        (["--", "x"], "arguments after --"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_usage_is_reported_and_nothing_is_sent(clean: Clean, arguments: list[str], message: str) -> None:
    status, stdout, stderr = clean(*arguments)
    assert (status, stdout) == (2, "")
    assert message in stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59, "59s"), (60, "1m"), (61, "1m1s"), (3600, "1h"), (11520, "3h12m"), (183600, "2d3h")],
)
def test_ages_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


def test_a_failed_deletion_is_reported_with_its_hint(capfd: pytest.CaptureFixture[str]) -> None:
    from gke_sandbox.cli import clean as module
    from gke_sandbox.cli.console import Console

    left = Leftover("a", "u", "5e55", 7200.0, finished=True)
    cleaning = Cleaning("agents", False, 3600.0, failed=[(left, SandboxError("refused", hint="ask"))])
    module._print_summary(cleaning, Console())
    stdout, stderr = capfd.readouterr()
    assert stdout == "deleted no Jobs in namespace agents\n"
    assert stderr == "gke-sandbox: error: cannot delete the Job a: refused\nhint: ask\n"
