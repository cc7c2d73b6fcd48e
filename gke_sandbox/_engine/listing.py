"""List the Jobs and the pods of this library, page by page, with their ages by the server's clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar

from ..errors import Expired, ServerError
from ..kube.client import KubeClient
from ..kube.resources import Resource
from ..kube.retry import retried
from ..kube.status import RequestInfo
from ..settings import MANAGED_BY, MANAGER

__all__ = ["PAGE_SIZE", "age", "list_ours"]

PAGE_SIZE = 500
_OURS = f"{MANAGED_BY}={MANAGER}"

T = TypeVar("T")


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
    while True:
        try:
            send = partial(client.list, resource, namespace, label_selector=_OURS, limit=page_size, continue_=page)
            response = await retried(send)
        except Expired:
            if page is None:
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
