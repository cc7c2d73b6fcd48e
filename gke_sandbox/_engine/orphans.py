"""Find and remove Jobs of this library that were not deleted.

Normally nothing is found: a Job whose client was killed stops at its deadline and is removed five minutes later.
They stay if the cluster's controllers do not work, or are slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import anyio

from ..errors import Conflict, NotFound, SandboxError
from ..kube.client import KubeClient
from ..kube.resources import JOBS
from ..kube.retry import Retry
from ..settings import SESSION_LABEL
from .listing import PAGE_SIZE, age, list_ours

__all__ = ["Leftover", "find", "remove"]

_MAX_CONCURRENT = 10
_ATTEMPTS = 4


@dataclass(frozen=True)
class Leftover:
    """A Job in the cluster.

    `age` is the number of seconds since its creation, `deadline` the age at which the cluster stops it.
    `finished`: its pod has ended.
    """

    job: str
    uid: str
    session: str
    age: float
    finished: bool
    deadline: float = math.inf
    object: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def may_be_in_flight(self) -> bool:
        """Whether a client may still be waiting for its result."""
        return not self.finished and self.age < self.deadline


async def find(
    client: KubeClient, namespace: str | None, now: datetime, *, page_size: int = PAGE_SIZE
) -> list[Leftover]:
    """Return the Jobs of this library, including those of running programs, the oldest first: see `list_ours`."""
    found = await list_ours(client, JOBS, namespace, now, _leftover, page_size=page_size)
    return sorted(found, key=lambda each: (-each.age, each.job))


def _leftover(job: Mapping[str, Any], now: datetime) -> Leftover:
    metadata, spec, status = job["metadata"], job.get("spec") or {}, job.get("status") or {}
    return Leftover(
        job=metadata["name"],
        uid=metadata["uid"],
        session=(metadata.get("labels") or {}).get(SESSION_LABEL, ""),
        age=age(job, now),
        finished=any(
            condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True"
            for condition in status.get("conditions") or ()
        ),
        deadline=float(spec.get("activeDeadlineSeconds", math.inf)),
        object=job,
    )


async def remove(
    client: KubeClient,
    namespace: str,
    leftovers: Sequence[Leftover],
    report: Callable[[Leftover, SandboxError | None], None],
) -> None:
    """Delete these Jobs; the garbage collector removes their pods and ConfigMaps.

    `report` is called for each, with None if it was deleted, or else with the error. It is not called for a Job
    that was already gone, or whose name belongs to another Job by now.
    """
    limiter = anyio.CapacityLimiter(_MAX_CONCURRENT)

    async def one(leftover: Leftover) -> None:
        async with limiter:
            try:
                if not await _delete(client, namespace, leftover):
                    return
            except SandboxError as error:
                report(leftover, error)
            else:
                report(leftover, None)

    async with anyio.create_task_group() as tasks:
        for leftover in leftovers:
            tasks.start_soon(one, leftover)


async def _delete(client: KubeClient, namespace: str, leftover: Leftover) -> bool:
    """Delete one Job. Return False if it was already gone, or another Job has its name."""
    retry = Retry(max_attempts=_ATTEMPTS)
    while True:
        try:
            await client.delete(
                JOBS,
                namespace,
                leftover.job,
                propagation_policy="Background",
                preconditions={"uid": leftover.uid},
            )
        except NotFound:
            # After a lost response, this client has deleted it.
            return retry.failures > 0
        except SandboxError as error:
            if isinstance(error, Conflict) and "precondition" in error.message.lower():
                return retry.failures > 0
            await retry.wait_or_raise(error)
        else:
            return True
