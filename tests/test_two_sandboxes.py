"""Several Sandboxes can use one cluster at the same time."""

from __future__ import annotations

import anyio
import pytest

from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox.errors import Forbidden
from gke_sandbox.local.faults import Fault, FaultPlan, Forbid, Match
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.base import ContainerSpec
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport

from .clock import mock_clock
from .pods import Shared, out, program


def echo(spec: ContainerSpec) -> Script:
    """Return a script that prints the source of its program."""
    return program(out(spec.env["GKE_SANDBOX_CODE_0"]), at=0.5)


def cluster_of(*faults: Fault) -> LocalTransport:
    return LocalTransport(ScriptedRuntime(echo), faults=FaultPlan(*faults), pace=Pace.recorded())


@mock_clock
async def test_each_sandbox_watches_only_its_own_pods() -> None:
    async with cluster_of() as cluster:
        one, other = (AsyncSandbox(Cluster.transport(Shared(cluster))) for _ in range(2))
        async with one, other, anyio.create_task_group() as tasks:

            async def runs(sandbox: AsyncSandbox, codes: list[str]) -> None:
                assert [result.stdout for result in await sandbox.map(codes)] == codes

            tasks.start_soon(runs, one, [f"one {number}" for number in range(10)])
            tasks.start_soon(runs, other, [f"other {number}" for number in range(10)])
        watched = {each.query["labelSelector"] for each in cluster.requests if each.verb == "watch"}
        assert watched == {f"gke-sandbox/session={sandbox.session}" for sandbox in (one, other)}
        await anyio.sleep(10)
        assert cluster.leftovers() == []


@mock_clock
async def test_closing_one_sandbox_keeps_the_jobs_of_the_other() -> None:
    async with cluster_of() as cluster, AsyncSandbox(Cluster.transport(Shared(cluster))) as stays:
        printed: list[str] = []

        async def run() -> None:
            printed.append((await stays.run("stays")).stdout)

        async with anyio.create_task_group() as tasks:
            async with AsyncSandbox(Cluster.transport(Shared(cluster))) as goes:
                await goes.run("pass")
                tasks.start_soon(run)
                await anyio.sleep(0.3)
            assert printed == []
        assert printed == ["stays"]


@mock_clock
async def test_a_forbidden_watch_of_one_sandbox_does_not_end_the_runs_of_the_other() -> None:
    """The first watch fails permanently; the other Sandbox has a separate watch."""
    async with (
        cluster_of(Fault(Forbid(), Match("list", "pods"))) as cluster,
        AsyncSandbox(Cluster.transport(Shared(cluster))) as refused,
        AsyncSandbox(Cluster.transport(Shared(cluster))) as other,
    ):
        with pytest.raises(Forbidden):
            await refused.run("pass")
        assert (await other.run("fine")).stdout == "fine"
        # The next run of the first Sandbox opens a new watch.
        assert (await refused.run("again")).stdout == "again"
