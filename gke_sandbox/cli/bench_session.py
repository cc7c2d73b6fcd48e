"""Measure runs that start cold, by attach and warm, in turn on one Sandbox."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import anyio

from ..errors import SandboxError
from .output import rounded

if TYPE_CHECKING:
    from ..result import Timings
    from ..sandbox import AsyncSandbox

__all__ = ["KINDS", "PHASES", "PROGRAM", "Bench", "Samples", "percentile"]

PROGRAM = "print('hola')"
KINDS = ("cold", "attach", "warm")
PHASES = ("created", "scheduled", "started", "first_output", "returned")
ANNOTATION = "gke-sandbox-bench"
"""The annotation of the Jobs that must not use a warm pod, whose settings differ because of it."""

_POLL_INTERVAL = 0.02
"""Seconds between two looks at the pool."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that is not below `percent` of all values: the nearest rank."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


@dataclass
class Samples:
    """The runs of one kind: the seconds of each call, and when it reached each phase."""

    seconds: list[float] = field(default_factory=list)
    timings: list[Timings] = field(default_factory=list)

    def statistics(self) -> dict[str, float]:
        """Return minimum, median, percentiles and maximum, in seconds. There must be a sample."""
        values = self.seconds
        ranks = {f"p{percent}": percentile(values, percent) for percent in (90, 99)}
        return {"min": min(values), "p50": median(values), **ranks, "max": max(values)}

    def phases(self) -> dict[str, float | None]:
        """Return the median of each phase in seconds, or None if no run observed it."""
        found: dict[str, float | None] = {}
        for phase in PHASES:
            values = [value for each in self.timings if (value := getattr(each, phase)) is not None]
            found[phase] = median(values) if values else None
        return found

    def to_json(self) -> dict[str, Any]:
        """Return all of it as a JSON object."""
        if not self.seconds:
            return {"runs": 0, "seconds": None, "phases": None, "samples": []}
        return {
            "runs": len(self.seconds),
            "seconds": rounded(self.statistics()),
            "phases": rounded(self.phases()),
            "samples": [
                {"seconds": round(seconds, 4), "timings": rounded(dataclasses.asdict(timings))}
                for seconds, timings in zip(self.seconds, self.timings, strict=True)
            ],
        }


class Bench:
    """`runs` runs of each kind. `sandbox` has warm pods. `samples` are the results so far."""

    def __init__(self, sandbox: AsyncSandbox, runs: int, show: Callable[[str], None]) -> None:
        self.samples = {kind: Samples() for kind in KINDS}
        self.cold_starts = 0
        """How many runs were meant to be warm and started in a new pod."""
        self._sandbox = sandbox
        self._runs = runs
        self._show = show

    async def run(self, _: object) -> None:
        """Open the Sandbox, run everything and close it. Raises `SandboxError`.

        Before each run the pool is full and the earlier Jobs are deleted, so that no run is slowed by the start of
        another pod. A first run of each kind is not counted: it pulls the image and opens connections.
        """
        async with self._sandbox as sandbox:
            self._show("checking the cluster")
            await sandbox.check()
            self._show("waiting for the warm pods")
            for number in range(self._runs + 1):
                for kind in KINDS:
                    await self._settle()
                    self._show(f"{kind}: run {number} of {self._runs}" if number else f"{kind}: first run")
                    await self._measure(kind, counted=number > 0)

    async def _settle(self) -> None:
        """Wait until nothing starts and no Job is being deleted."""
        pool = self._sandbox._opened().pool
        assert pool is not None
        while pool.ready < pool.size or len(self._sandbox.jobs) > pool.size:
            if pool.problem:
                raise SandboxError(f"no warm pod: {pool.problem}")
            await anyio.sleep(_POLL_INTERVAL)

    async def _measure(self, kind: str, *, counted: bool) -> None:
        overrides: dict[str, Any] = {}
        if kind != "warm":
            overrides["annotations"] = {**self._sandbox.settings.annotations, ANNOTATION: kind}
        if kind == "attach":
            overrides["delivery"] = "attach"
        started = anyio.current_time()
        result = await self._sandbox.run(PROGRAM, **overrides)
        seconds = anyio.current_time() - started
        result.check()
        if not counted:
            return
        if kind == "warm" and result.start != "warm":
            self.cold_starts += 1
            return
        self.samples[kind].seconds.append(seconds)
        self.samples[kind].timings.append(result.timings)
