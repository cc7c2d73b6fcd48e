"""``gke-sandbox ps`` lists the Jobs of this library with their pods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import pytest

from gke_sandbox._engine.runs import Run, find
from gke_sandbox._wire.manifests import build, build_waiting
from gke_sandbox._wire.program import Program
from gke_sandbox.cli import main
from gke_sandbox.cli.ps import _as_text
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.resources import CONFIG_MAPS, JOBS
from gke_sandbox.local import FaultPlan, LocalTransport, Script, ScriptedRuntime
from gke_sandbox.local.faults import Fault, Match, NoNode
from gke_sandbox.settings import Settings
from tests.clock import mock_clock
from tests.http_cluster import HttpCluster, http_cluster
from tests.test_rbac import caller

START = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)


def now() -> datetime:
    return START + timedelta(seconds=anyio.current_time())


async def create(client: KubeClient, name: str, namespace: str = "default", **changes: Any) -> None:
    made = build(Settings(), Program(code="pass"), name=name, session="5e55")
    made.job["spec"].update(changes)
    job = await client.create(JOBS, namespace, made.job)
    await client.create(CONFIG_MAPS, namespace, made.config_map(job["metadata"]["uid"]))


def cluster(*faults: Fault, ends_at: float = 100.0) -> LocalTransport:
    runtime = ScriptedRuntime(Script(chunks=[], ends_at=ends_at))
    return LocalTransport(runtime, namespaces=["default", "agents"], faults=FaultPlan(*faults), now=now)


def client_of(transport: LocalTransport) -> KubeClient:
    return KubeClient(ClusterConfig(server="https://embedded.invalid"), transport=transport)


@mock_clock
async def test_runs_are_listed_with_their_pods_the_oldest_first() -> None:
    transport = cluster(Fault(NoNode(seconds=None), Match(resource="pods", name="third*"), times=None))
    async with client_of(transport) as client:
        await create(client, "first")
        await anyio.sleep(20)
        waiting = build_waiting(Settings(), name="second", session="5e55", idle_timeout=600)
        await client.create(JOBS, "default", waiting.job)
        await anyio.sleep(20)
        await create(client, "third")
        await create(client, "fourth", suspend=True)
        await create(client, "other", "agents")
        await anyio.sleep(2)
        found = await find(client, "default", START)
        everywhere = await find(client, None, START)
    assert [(run.job, run.age, run.status, run.node) for run in found] == [
        ("first", 42, "running", "node1"),
        ("second", 22, "warm", "node1"),
        ("fourth", 2, "suspended", ""),
        ("third", 2, "starting", ""),
    ]
    assert found[0].pod.startswith("first-")
    assert {(run.session, run.cpu, run.memory) for run in found} == {("5e55", "200m", "256Mi")}
    assert sorted(run.namespace for run in everywhere) == ["agents", "default", "default", "default", "default"]


@mock_clock
async def test_a_run_that_ended_is_finished_and_past_its_deadline_a_leftover() -> None:
    transport = cluster(ends_at=1.0)
    async with client_of(transport) as client:
        await create(client, "old", ttlSecondsAfterFinished=3600, activeDeadlineSeconds=100)
        await anyio.sleep(10)
        assert [run.status for run in await find(client, "default", START)] == ["finished"]
        await anyio.sleep(100)
        assert [run.status for run in await find(client, "default", START)] == ["leftover"]


@mock_clock
async def test_the_role_of_rbac_yaml_is_sufficient_for_one_namespace() -> None:
    runtime = ScriptedRuntime(Script(chunks=[], ends_at=1.0))
    transport = LocalTransport(runtime, namespaces=["agent-sandbox"], caller=caller())
    async with client_of(transport) as client:
        assert await find(client, "agent-sandbox", START) == []


@pytest.fixture(scope="module")
def served() -> Iterator[HttpCluster]:
    with http_cluster("agents") as found:
        yield found


@pytest.fixture
def ps(
    served: HttpCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    kubeconfig = served.kubeconfig(tmp_path, "agents")

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["ps", "--kubeconfig", kubeconfig, *arguments])
        return status, *capfd.readouterr()

    return run


Ps = Callable[..., tuple[int, str, str]]


def test_an_empty_namespace_is_named(ps: Ps) -> None:
    assert ps() == (0, "no runs in namespace agents\n", "")
    assert ps("-A") == (0, "no runs in any namespace\n", "")
    status, stdout, _ = ps("--json")
    assert (status, json.loads(stdout)) == (0, {"namespace": "agents", "runs": []})


def test_the_columns_are_aligned() -> None:
    run = Run("agents", "gke-sandbox-1", "5e55", 3700.0, "running", "gke-sandbox-1-x", "node1", "200m", "256Mi")
    later = Run("agents", "gke-sandbox-22", "5e55", 4.0, "starting", "", "", "1", "256Mi")
    assert _as_text([run, later], "agents").splitlines() == [
        "JOB             AGE   SESSION  STATUS    NODE   CPU   MEMORY",
        "gke-sandbox-1   1h1m  5e55     running   node1  200m  256Mi",
        "gke-sandbox-22  4s    5e55     starting  -      1     256Mi",
    ]
    assert _as_text([run], None).startswith("NAMESPACE  JOB")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--local"], "--local: there is nothing to list"),
        (["-A", "-n", "agents"], "--all-namespaces cannot be combined with --namespace"),
    ],
    ids=" ".join,
)
def test_invalid_usage_is_reported(ps: Ps, arguments: list[str], message: str) -> None:
    status, stdout, stderr = ps(*arguments)
    assert (status, stdout) == (2, "")
    assert message in stderr
