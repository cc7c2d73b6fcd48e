"""Recordings of the embedded cluster with scripted pods, and their replay, on a mock clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox.cassette import Cassette, Player, Recorder, RecordingTransport, ReplayTransport, load
from gke_sandbox.local.faults import Fault, FaultPlan
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.base import ContainerSpec
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport
from tests.clock import run_on_mock_clock
from tests.pods import out, program

BEGAN = datetime(2026, 11, 23, 12, 0, 0, 250_000, tzinfo=timezone.utc)

T = TypeVar("T")
Main = Callable[[AsyncSandbox], Awaitable[T]]


def echoing(spec: ContainerSpec) -> Script:
    """A pod that prints its program, and takes the longer the longer that is."""
    code = spec.env["GKE_SANDBOX_CODE_0"]
    return program(out(f"ran {code}"), at=0.1 + len(code) / 1000)


def record(
    path: Path,
    main: Main[T],
    *faults: Fault,
    script: Script | Callable[[ContainerSpec], Script] = echoing,
    namespace: str = "default",
    scenario: str | None = None,
    notes: str = "",
    **settings: Any,
) -> T:
    """Run `main` with a Sandbox on the embedded cluster, recording into `path`."""

    async def run() -> T:
        cluster = LocalTransport(
            ScriptedRuntime(script),
            namespaces=[namespace],
            faults=FaultPlan(*faults),
            pace=Pace.recorded(),
            now=lambda: BEGAN,
        )
        recorder = Recorder(path, scenario=scenario, notes=notes, now=lambda: BEGAN)
        recording = RecordingTransport(cluster, recorder)
        async with AsyncSandbox(Cluster.transport(recording), namespace=namespace, **settings) as sandbox:
            return await main(sandbox)

    return run_on_mock_clock(run)


def replay(
    cassette: Cassette | Path, main: Main[T], *, strict: bool = False, timing: bool = False, **settings: Any
) -> T:
    """Run `main` with a Sandbox on a cassette; the end is checked."""
    found = load(cassette) if isinstance(cassette, Path) else cassette

    async def run() -> T:
        transport = ReplayTransport(Player(found, strict=strict, timing=timing))
        async with AsyncSandbox(Cluster.transport(transport), **settings) as sandbox:
            return await main(sandbox)

    return run_on_mock_clock(run)
