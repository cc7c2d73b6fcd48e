"""Lists of pods and Events that serve the polls of all executions of a Sandbox that wait to start."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from copy import copy
from typing import Any

import anyio
import anyio.abc

from ..errors import SandboxClosed, SandboxError
from ..kube.client import KubeClient
from ..kube.resources import EVENTS, PODS, Resource

LIST_INTERVAL = 1.0
"""The time between two lists of the same kind, in seconds, while several executions wait to start."""

MAX_EVENTS = 100
"""The maximum number of Events of one object that are read."""
PAGE_EVENTS, MAX_PAGES = 1000, 5
"""The size of a page, and the number of pages, of a list of all Events of the namespace."""

Listed = tuple[list[dict[str, Any]], str]
"""The items of a list, and its resourceVersion."""


class SharedLists:
    """Lists the pods or the Events for all executions that poll, at most once per `LIST_INTERVAL`.

    An execution gets the items of its objects. Each list is sent after the polls that it serves. If only one
    execution waits to start, its polls are sent at once and contain nothing else, as in a recording.
    """

    def __init__(
        self, client: KubeClient, namespace: str, label_selector: str, tasks: anyio.abc.TaskGroup
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._selector = label_selector
        self._tasks = tasks
        self._next: dict[Resource, _Batch] = {}
        self._last: dict[Resource, float] = {}

    async def get(self, resource: Resource, name: str, job: str, pending: Collection[str]) -> Listed:
        """Return the pods of the Job `name`, or the Events of the Job or pod `name`, for the execution of `job`.

        `pending` are the Jobs that wait to start.
        """
        if job not in pending or len(pending) == 1 or self._client.is_recorded:
            return await self._list(resource, {name})
        batch = self._next.get(resource)
        if batch is None:
            batch = self._next[resource] = _Batch()
            self._tasks.start_soon(self._respond, resource, batch, name="gke-sandbox shared list")
        batch.names.add(name)
        await batch.done.wait()
        if batch.error is not None:
            # Several executions raise it.
            raise copy(batch.error)
        items, version = batch.listed
        return [item for item in items if _name(resource, item) == name], version

    async def _respond(self, resource: Resource, batch: _Batch) -> None:
        try:
            due = self._last.get(resource, -math.inf) + LIST_INTERVAL
            await anyio.sleep(max(due - anyio.current_time(), 0))
            del self._next[resource]
            self._last[resource] = anyio.current_time()
            batch.listed = await self._list(resource, batch.names)
            batch.error = None
        except SandboxError as error:
            batch.error = error
        finally:
            batch.done.set()

    async def _list(self, resource: Resource, names: set[str]) -> Listed:
        """List the objects of these names; the response may contain others."""
        if resource is PODS:
            one = f"batch.kubernetes.io/job-name={next(iter(names))}"
            selector = one if len(names) == 1 else self._selector
            return _listed(await self._client.list(PODS, self._namespace, label_selector=selector))
        if len(names) == 1:
            about = f"involvedObject.name={next(iter(names))}"
            return _listed(
                await self._client.list(EVENTS, self._namespace, field_selector=about, limit=MAX_EVENTS)
            )
        # A field selector cannot select several names.
        items: list[dict[str, Any]] = []
        after: str | None = None
        for _ in range(MAX_PAGES):
            found = await self._client.list(EVENTS, self._namespace, limit=PAGE_EVENTS, continue_=after)
            items += _listed(found)[0]
            after = (found.get("metadata") or {}).get("continue")
            if not after:
                break
        return items, ""


class _Batch:
    """The polls that one list serves."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.done = anyio.Event()
        self.listed: Listed = ([], "")
        self.error: SandboxError | None = SandboxClosed("the Sandbox is closed", may_have_run=True)


def _listed(found: dict[str, Any]) -> Listed:
    items = [item for item in found.get("items") or () if isinstance(item, dict)]
    return items, str((found.get("metadata") or {}).get("resourceVersion") or "")


def _name(resource: Resource, item: dict[str, Any]) -> object:
    """Return the name of the Job of a pod, or of the object of an Event."""
    if resource is EVENTS:
        return (item.get("involvedObject") or {}).get("name")
    return job_of(item)


def job_of(pod: Mapping[str, Any]) -> str:
    """Return the name of the Job that a pod belongs to; empty if there is none."""
    labels = (pod.get("metadata") or {}).get("labels") or {}
    # Since Kubernetes 1.27 pods have both labels; the short one is the older.
    return str(labels.get("batch.kubernetes.io/job-name") or labels.get("job-name") or "")
