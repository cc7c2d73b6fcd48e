"""Jobs that this library made and nobody deleted: find them, remove them.

There should be none: a Job whose client was killed ends at its deadline, and goes a minute later. They stay where
the cluster's controllers do not work, or are slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import anyio

from .errors import Conflict, NotFound, SandboxError
from .kube.client import KubeClient
from .kube.resources import JOBS
from .kube.retry import Retry
from .settings import MANAGED_BY, MANAGER, SESSION_LABEL

__all__ = ["Leftover", "find", "remove"]

_PAGE = 500
_AT_ONCE = 10
_TRIES = 4


@dataclass(frozen=True)
class Leftover:
    """A Job in the cluster. `age` is seconds since it was made; `finished`: its pod has ended."""

    job: str
    uid: str
    session: str
    age: float
    finished: bool


async def find(client: KubeClient, namespace: str, now: datetime) -> list[Leftover]:
    """The Jobs of this library in a namespace, those of runs in flight included; the oldest first.

    `now` is the time of day. Raises `ApiError`, `NetworkError`.
    """
    found: list[Leftover] = []
    page: str | None = None
    while True:
        answer = await _page(client, namespace, page)
        found += [_leftover(each, now) for each in answer.get("items") or ()]
        page = (answer.get("metadata") or {}).get("continue")
        if not page:
            break
    return sorted(found, key=lambda each: (-each.age, each.job))


async def _page(client: KubeClient, namespace: str, page: str | None) -> dict[str, Any]:
    selector, retry = f"{MANAGED_BY}={MANAGER}", Retry(tries=_TRIES)
    while True:
        try:
            return await client.list(JOBS, namespace, label_selector=selector, limit=_PAGE, continue_=page)
        except SandboxError as error:
            await retry.pause_or_raise(error)


def _leftover(job: Mapping[str, Any], now: datetime) -> Leftover:
    metadata, status = job["metadata"], job.get("status") or {}
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
                await _delete(client, namespace, leftover)
            except (NotFound, Conflict):
                return
            except SandboxError as error:
                told(leftover, error)
            else:
                told(leftover, None)

    async with anyio.create_task_group() as tasks:
        for leftover in leftovers:
            tasks.start_soon(one, leftover)


async def _delete(client: KubeClient, namespace: str, leftover: Leftover) -> None:
    retry = Retry(tries=_TRIES)
    while True:
        try:
            await client.delete(
                JOBS,
                namespace,
                leftover.job,
                propagation_policy="Background",
                preconditions={"uid": leftover.uid},
            )
        except SandboxError as error:
            await retry.pause_or_raise(error)
        else:
            return
