"""Recordings of attached runs on the embedded cluster with scripted runners, and their replay, on a mock clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from gke_sandbox import AsyncSandbox
from gke_sandbox.cassette import Cassette
from gke_sandbox.local.faults import Fault
from gke_sandbox.local.runtimes.scripted import Script
from tests.warm_runner import WaitingRunner

from . import kit
from .kit import Main, T


def record(path: Path, main: Main[T], *faults: Fault, script: Script | None = None, **settings: Any) -> T:
    """Run `main` with a Sandbox with delivery attach on the embedded cluster, recording into `path`."""
    script = script or WaitingRunner().script
    return kit.record(path, main, *faults, script=script, **{"delivery": "attach", **settings})


def replay(cassette: Cassette | Path, main: Main[T], **options: Any) -> T:
    """Run `main` with a Sandbox with delivery attach on a cassette; the end is checked."""
    return kit.replay(cassette, main, **{"delivery": "attach", **options})


async def ready(sandbox: AsyncSandbox, count: int) -> None:
    """Wait until this many warm pods are ready."""
    pool = sandbox._opened().pool
    assert pool is not None
    with anyio.fail_after(100):
        while pool.ready < count:
            await anyio.sleep(0.01)
