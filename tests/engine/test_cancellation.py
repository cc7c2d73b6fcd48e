"""A run that is cancelled at any of its await points leaves nothing behind."""

from __future__ import annotations

import anyio
import pytest
import trio
from trio.testing import MockClock

from gke_sandbox.local.faults import CutBody, Delay, Drop, Fault, Match, NoNode, Refuse, Respond, StallBody

from ..pods import out, pods, program

POST_JOB, POST_CONFIG_MAP = Match("create", "jobs"), Match("create", "configmaps")
LOG, WATCH = Match("get", "pods/log"), Match("watch", "pods")


class CancelAtStep(trio.abc.Instrument):
    """Cancels `scope` when its task has been running for the `step`-th time: at its await point of that number."""

    def __init__(self, step: int) -> None:
        self._left = step
        self.task: trio.lowlevel.Task | None = None
        self.scope = trio.CancelScope()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task and self._left:
            self._left -= 1
            if not self._left:
                self.scope.cancel()

    @property
    def cancelled(self) -> bool:
        return not self._left


def cancelled_at(step: int, faults: tuple[Fault, ...]) -> bool:
    """Cancel a run at its await point number `step`, and check what is left. Return False if it has fewer."""
    instrument = CancelAtStep(step)

    async def main() -> None:
        async with pods(program(out("x"), at=0.4), *faults) as cluster:
            with instrument.scope:
                instrument.task = trio.lowlevel.current_task()
                await cluster.sandbox.run("pass")
            instrument.task = None
            await anyio.sleep(15)
            assert cluster.left() == [], step
            assert cluster.sandbox.leftovers == [], step
            assert cluster.sandbox.jobs == [], step

    trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[instrument])
    return instrument.cancelled


TROUBLE: dict[str, tuple[Fault, ...]] = {
    "none": (),
    "the Job's answer is lost": (Fault(Drop(), POST_JOB),),
    "the Job's POST is lost": (Fault(Drop(carried_out=False), POST_JOB),),
    "the Job's answer is late": (Fault(Delay(0.5, "response"), POST_JOB),),
    "the ConfigMap's answer is lost": (Fault(Drop(), POST_CONFIG_MAP),),
    "the ConfigMap is refused": (Fault(Refuse(), POST_CONFIG_MAP),),
    "the ConfigMap's answer stalls": (Fault(StallBody(after=40), POST_CONFIG_MAP),),
    "both are in trouble": (Fault(Respond.timed_out(), POST_JOB), Fault(Respond.unavailable(1), POST_CONFIG_MAP)),
    "the log breaks off": (Fault(CutBody(after=60), LOG, times=3),),
    "the watch is blind": (Fault(StallBody(), WATCH, None), Fault(NoNode(2), Match(resource="pods"))),
    "the deletion is refused": (Fault(Refuse(), Match("delete", "jobs"), times=2),),
}


# Each has 40 to 50 await points.
SLOW = ("both are in trouble", "the watch is blind")


@pytest.mark.parametrize(
    "trouble", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TROUBLE]
)
def test_a_run_that_is_cancelled_at_any_await_point_leaves_nothing(trouble: str) -> None:
    step = 1
    while cancelled_at(step, TROUBLE[trouble]):
        step += 1
    assert step > 6, "there were fewer await points than requests"
