"""Run a scenario with a Sandbox, and compare the outcome with the expected one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import anyio

from gke_sandbox import (
    AsyncSandbox,
    ExecutionFinished,
    ExecutionResult,
    OutputChunk,
    PodWaiting,
    SandboxError,
    StartError,
)
from gke_sandbox._wire.frames import DroppedOutput
from gke_sandbox.errors import ApiError

from .table import Expected, Run, Scenario

__all__ = ["Order", "Outcome", "carry_out", "check"]

Order = Literal["at once", "backwards", "one by one"]

SETTLE_SECONDS = 0.2
"""Seconds in which the Sandbox's other requests (its list and watch) are sent and recorded."""


@dataclass
class Outcome:
    """The result and the events of one run."""

    result: ExecutionResult | None = None
    error: SandboxError | None = None
    printed: dict[str, bytes] = field(default_factory=lambda: {"stdout": b"", "stderr": b""})
    waits: list[str] = field(default_factory=list)


async def carry_out(
    sandbox: AsyncSandbox, scenario: Scenario, order: Order = "at once", settle: float = SETTLE_SECONDS
) -> list[Outcome]:
    """Run the programs of the scenario, and return the outcomes in the order of its runs."""
    outcomes = [Outcome() for _ in scenario.runs]
    await _warmed_up(sandbox, scenario.warm)
    pairs = list(zip(scenario.runs, outcomes, strict=True))
    if order == "one by one":
        for run, outcome in pairs:
            await _run(sandbox, run, outcome)
    else:
        async with anyio.create_task_group() as tasks:
            for run, outcome in pairs[::-1] if order == "backwards" else pairs:
                tasks.start_soon(_run, sandbox, run, outcome)
                # Start them in this order; the event loop may choose another one.
                await anyio.sleep(0.001)
    await anyio.sleep(settle)
    return outcomes


async def _warmed_up(sandbox: AsyncSandbox, count: int) -> None:
    """Wait until this number of warm pods is ready."""
    pool = sandbox._opened().pool
    while pool is not None and pool.ready < count:
        await anyio.sleep(0.01)


async def _run(sandbox: AsyncSandbox, run: Run, outcome: Outcome) -> None:
    try:
        async with sandbox.stream(run.code, files=dict(run.files)) as events:
            async for event in events:
                if isinstance(event, OutputChunk):
                    outcome.printed[event.stream] += event.data
                elif isinstance(event, PodWaiting):
                    outcome.waits.append(event.reason)
                elif isinstance(event, ExecutionFinished):
                    outcome.result = event.result
                if run.until and run.until.encode() in outcome.printed["stdout"]:
                    break
    except SandboxError as error:
        outcome.error = error


def check(scenario: Scenario, outcomes: Sequence[Outcome]) -> None:
    """Raise AssertionError with all differences if an outcome is not the expected one."""
    for run, outcome in zip(scenario.runs, outcomes, strict=True):
        wrong = [*_differences(run.expected, outcome)]
        assert not wrong, "\n".join([f"{run.code!r:.60}:", *wrong, f"{outcome}"])


def _differences(expected: Expected, outcome: Outcome) -> list[str]:
    found = _fields(outcome)
    wanted: dict[str, object] = {
        "error": expected.error and expected.error.__name__,
        "status": expected.status,
        "exit_code": expected.exit_code,
        "signal": expected.signal,
        "cause": expected.cause,
        "missing": expected.missing,
        "dropped": expected.dropped,
        "files": dict(expected.made),
        "stdout": expected.stdout.encode() if isinstance(expected.stdout, str) else expected.stdout,
    }
    wrong = [
        f"  {name}: {found[name]!r:.200}, not {value!r:.200}"
        for name, value in wanted.items()
        if found[name] != value
    ]
    for name, pattern in (("reason", expected.reason), ("stderr", expected.stderr)):
        if not re.fullmatch(pattern, str(found[name]), re.DOTALL):
            wrong.append(f"  {name}: {found[name]!r:.500} does not match {pattern!r}")
    words = f"{found['words']}"
    wrong += [f"  {word!r} is not in {words!r}" for word in expected.words if word not in words]
    wrong += [
        f"  no wait for {reason} was reported: {outcome.waits}"
        for reason in expected.waits
        if reason not in outcome.waits
    ]
    return wrong


def _fields(outcome: Outcome) -> dict[str, object]:
    result, error = outcome.result, outcome.error
    reason = error.reason if isinstance(error, (ApiError, StartError)) else ""
    return {
        "error": error and type(error).__name__,
        "status": result.status if result else "",
        "exit_code": result.exit_code if result else None,
        "signal": result.signal if result else None,
        "cause": result.cause if result else getattr(error, "cause", ""),
        "reason": result.reason if result else reason,
        "missing": bool(result and result.output_truncated),
        "dropped": result.dropped if result else DroppedOutput(),
        "files": dict(result.files) if result else {},
        "stdout": result.stdout_bytes if result else outcome.printed["stdout"],
        "stderr": outcome.printed["stderr"].decode("utf-8", "replace"),
        "words": result.message if result else f"{error} {getattr(error, 'hint', '')}",
    }
