"""List Jobs and pods of this library, with their ages by the server's clock. Remove Jobs that were not deleted.

Normally nothing is found: a Job whose client was killed stops at its deadline and is removed five minutes later.
They stay if the cluster's controllers do not work, or are slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar

import anyio

from ..errors import Conflict, Expired, NotFound, SandboxError, ServerError
from ..kube.client import KubeClient
from ..kube.resources import JOBS, Resource
from ..kube.retry import Retry, retried
from ..kube.status import RequestInfo
from ..settings import MANAGED_BY, MANAGER, SESSION_LABEL

PAGE_SIZE = 500
_OURS = f"{MANAGED_BY}={MANAGER}"
_MAX_RESTARTS = 3
_MAX_CONCURRENT = 10
_ATTEMPTS = 4

T = TypeVar("T")


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


async def list_ours(
    client: KubeClient,
    resource: Resource,
    namespace: str | None,
    now: datetime,
    read: Callable[[Mapping[str, Any], datetime], T],
    *,
    page_size: int = PAGE_SIZE,
) -> list[T]:
    """Return what `read` makes of each object of this library, in a namespace or in all.

    Objects that are already being deleted are omitted. `read` is called with the time in the ``Date`` header of
    the response. Without that header it is `now`, the time of day of this machine, and a warning is logged. Raises
    `ApiError`, `NetworkError`.
    """
    found: dict[str, T] = {}
    page: str | None = None
    restarts = 0
    while True:
        try:
            send = partial(client.list, resource, namespace, label_selector=_OURS, limit=page_size, continue_=page)
            response = await retried(send)
        except Expired:
            restarts += 1
            if page is None or restarts > _MAX_RESTARTS:
                raise
            # The pages took too long: keep what was found, and start a new list.
            page = None
            continue
        time = client.server_time
        if time is None:
            client.warn_once(
                f"the server sends no Date header: the ages of {resource.kind}s are computed with the clock of "
                "this machine"
            )
        try:
            for each in response.get("items") or ():
                if "deletionTimestamp" not in each["metadata"]:
                    found[each["metadata"]["uid"]] = read(each, time or now)
            page = (response.get("metadata") or {}).get("continue")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            call = RequestInfo("list", "GET", resource, namespace)
            raise ServerError(
                f"{call}: the response is not a list of {resource.kind}s", code=200, reason="", request=str(call)
            ) from error
        if not page:
            return list(found.values())


def age(obj: Mapping[str, Any], now: datetime) -> float:
    """Return the seconds since an object was created."""
    text = obj["metadata"]["creationTimestamp"]
    created = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    # Without the server's clock, this one may be behind.
    return max((now - created).total_seconds(), 0.0)
