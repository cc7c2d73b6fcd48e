"""Find and remove Jobs of this library that were not deleted.

Normally nothing is found: a Job whose client was killed stops at its deadline and is removed five minutes later.
They stay if the cluster's controllers do not work, or are slow.
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

    @property
    def may_be_in_flight(self) -> bool:
        """Whether a client may still be waiting for its result."""
        return not self.finished and self.age < self.deadline


async def find(client: KubeClient, namespace: str, now: datetime, *, page_size: int = 500) -> list[Leftover]:
    """Return the Jobs of this library in a namespace, including those of running programs, the oldest first.

    Jobs that are already being deleted are omitted. Ages are computed with the clock of the server, from the
    ``Date`` header of each response. Without that header they are computed with `now`, the time of day of this
    machine, and a warning is logged. The list is requested in pages of `page_size`. Raises `ApiError`,
    `NetworkError`.
    """
    found: dict[str, Leftover] = {}
    page: str | None = None
    while True:
        try:
            answer = await _page(client, namespace, page_size, page)
        except Expired:
            if page is None:
                raise
            # The pages took too long: keep what was found, and start a new list.
            page = None
            continue
        server_time = client.server_time
        if server_time is None:
            client.warn_once(
                "the server sends no Date header: the ages of Jobs are computed with the clock of this machine"
            )
        try:
            found.update((each.uid, each) for each in _leftovers(answer, server_time or now))
            page = (answer.get("metadata") or {}).get("continue")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            call = RequestInfo("list", "GET", JOBS, namespace)
            raise ServerError(
                f"{call}: the response is not a list of Jobs", code=200, reason="", request=str(call)
            ) from error
        if not page:
            return sorted(found.values(), key=lambda each: (-each.age, each.job))


async def _page(client: KubeClient, namespace: str, size: int, page: str | None) -> dict[str, Any]:
    selector, retry = f"{MANAGED_BY}={MANAGER}", Retry(max_attempts=_ATTEMPTS)
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
        # Without the server's clock, this one may be behind.
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
