"""Jobs that this library made and nobody deleted: find them, remove them.

There should be none: a Job whose client was killed ends at its deadline, and goes a minute later. They stay where
the cluster's controllers do not work, or are slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import anyio

from ..errors import Conflict, Expired, NotFound, SandboxError, ServerError
from ..kube.client import KubeClient
from ..kube.resources import JOBS
from ..kube.retry import Retry
from ..kube.status import RequestInfo
from ..settings import MANAGED_BY, MANAGER, SESSION_LABEL

__all__ = ["Leftover", "find", "remove"]

_AT_ONCE = 10
_TRIES = 4


@dataclass(frozen=True)
class Leftover:
    """A Job in the cluster. `age` is seconds since it was made, `deadline` the age at which it ends by itself.

    `finished`: its pod has ended.
    """

    job: str
    uid: str
    session: str
    age: float
    finished: bool
    deadline: float = math.inf

    @property
    def may_be_in_flight(self) -> bool:
        """Whether somebody may still wait for its result."""
        return not self.finished and self.age < self.deadline


async def find(client: KubeClient, namespace: str, now: datetime, *, page_size: int = 500) -> list[Leftover]:
    """The Jobs of this library in a namespace, those of runs in flight included; the oldest first.

    Those that are being deleted already are left out.

    `now` is the time of day; they are listed `page_size` at a time. Raises `ApiError`, `NetworkError`.
    """
    found: dict[str, Leftover] = {}
    page: str | None = None
    while True:
        try:
            answer = await _page(client, namespace, page_size, page)
        except Expired:
            if page is None:
                raise
            # The pages took too long: what was found stands, and the rest is in a new list.
            page = None
            continue
        try:
            found.update((each.uid, each) for each in _leftovers(answer, now))
            page = (answer.get("metadata") or {}).get("continue")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            call = RequestInfo("list", "GET", JOBS, namespace)
            raise ServerError(
                f"{call}: the answer is not a list of Jobs", code=200, reason="", request=str(call)
            ) from error
        if not page:
            return sorted(found.values(), key=lambda each: (-each.age, each.job))


async def _page(client: KubeClient, namespace: str, size: int, page: str | None) -> dict[str, Any]:
    selector, retry = f"{MANAGED_BY}={MANAGER}", Retry(max_attempts=_TRIES)
    while True:
        try:
            return await client.list(JOBS, namespace, label_selector=selector, limit=size, continue_=page)
        except SandboxError as error:
            await retry.wait_or_raise(error)


def _leftovers(answer: Mapping[str, Any], now: datetime) -> list[Leftover]:
    jobs = answer.get("items") or ()
    return [_leftover(job, now) for job in jobs if "deletionTimestamp" not in job["metadata"]]


def _leftover(job: Mapping[str, Any], now: datetime) -> Leftover:
    metadata, spec, status = job["metadata"], job.get("spec") or {}, job.get("status") or {}
    created = datetime.strptime(metadata["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    return Leftover(
        job=metadata["name"],
        uid=metadata["uid"],
        session=(metadata.get("labels") or {}).get(SESSION_LABEL, ""),
        # The server's clock may be ahead of ours.
        age=max((now - created).total_seconds(), 0.0),
        finished=any(
            condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True"
            for condition in status.get("conditions") or ()
        ),
        deadline=float(spec.get("activeDeadlineSeconds", math.inf)),
    )


async def remove(
    client: KubeClient,
    namespace: str,
    leftovers: Sequence[Leftover],
    told: Callable[[Leftover, SandboxError | None], None],
) -> None:
    """Delete these Jobs; the garbage collector takes their pods and ConfigMaps.

    `told` is called for each: with None when it was deleted, or with the error. One that is gone already, or that
    has another Job in its place, is not told of.
    """
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def one(leftover: Leftover) -> None:
        async with limiter:
            try:
                if not await _delete(client, namespace, leftover):
                    return
            except SandboxError as error:
                told(leftover, error)
            else:
                told(leftover, None)

    async with anyio.create_task_group() as tasks:
        for leftover in leftovers:
            tasks.start_soon(one, leftover)


async def _delete(client: KubeClient, namespace: str, leftover: Leftover) -> bool:
    """False: it was gone, or another Job has its name."""
    retry = Retry(max_attempts=_TRIES)
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
            # After a lost answer it is gone because of us.
            return retry.failures > 0
        except SandboxError as error:
            if isinstance(error, Conflict) and "precondition" in error.message.lower():
                return retry.failures > 0
            await retry.wait_or_raise(error)
        else:
            return True
