"""Recordings of attached runs on the embedded cluster with scripted runners, and their replay, on a mock clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio

from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox.cassette import Cassette, Player, Recorder, RecordingTransport, ReplayTransport, load
from gke_sandbox.local.faults import Fault, FaultPlan
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport
from tests.clock import run_on_mock_clock
from tests.warm_runner import WaitingRunner

from .kit import BEGAN

T = TypeVar("T")
Main = Callable[[AsyncSandbox], Awaitable[T]]


def record(
    path: Path,
    main: Main[T],
    *faults: Fault,
    script: Script | None = None,
    around: Callable[[RecordingTransport], Any] = lambda transport: transport,
    **options: Any,
) -> T:
    """Run `main` with a Sandbox with delivery attach on the embedded cluster, recording into `path`."""

    async def run() -> T:
        cluster = LocalTransport(
            ScriptedRuntime(script or WaitingRunner().script),
            faults=FaultPlan(*faults),
            pace=Pace.recorded(),
            now=lambda: BEGAN,
        )
        recording = around(RecordingTransport(cluster, Recorder(path, now=lambda: BEGAN)))
        async with AsyncSandbox(Cluster.transport(recording), **{"delivery": "attach", **options}) as sandbox:
            return await main(sandbox)

    return run_on_mock_clock(run)


def replay(
    cassette: Cassette | Path, main: Main[T], *, strict: bool = False, timing: bool = False, **options: Any
) -> T:
    """Run `main` with a Sandbox on a cassette; the end is checked."""
    found = load(cassette) if isinstance(cassette, Path) else cassette

    async def run() -> T:
        transport = ReplayTransport(Player(found, strict=strict, timing=timing))
        async with AsyncSandbox(Cluster.transport(transport), **{"delivery": "attach", **options}) as sandbox:
            return await main(sandbox)

    return run_on_mock_clock(run)


async def ready(sandbox: AsyncSandbox, count: int) -> None:
    """Wait until this many warm pods are ready."""
    pool = sandbox._opened().pool
    assert pool is not None
    with anyio.fail_after(100):
        while pool.ready < count:
            await anyio.sleep(0.01)
