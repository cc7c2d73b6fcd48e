"""One watch on the pods of a Sandbox, shared by all of its executions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.abc

from ..errors import SandboxError
from ..kube.client import KubeClient
from ..kube.reflector import Reflector, list_and_watch
from ..kube.resources import PODS

LINGER_SECONDS = 60.0
"""How long the watch stands after the last execution, so that the next one finds it open."""

PodObserver = Callable[[str, Mapping[str, Any]], None]
"""Called with the event's type (``ADDED``, ``MODIFIED``, ``DELETED``, ``MISSING``) and the Pod."""


class PodWatch:
    """Tells each execution what happens to the pods of its Job.

    The watch runs as a task of the Sandbox's task group while somebody observes, and `LINGER_SECONDS` more.
    Observers are called in the watch's task, one event after the other, and must not block. When the watch
    ends for good (the server refuses) every observer's `failed` is called with the error. Where pods may be
    listed but not watched, they are listed every second or two.
    """

    def __init__(
        self, client: KubeClient, namespace: str, label_selector: str, tasks: anyio.abc.TaskGroup
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._selector = label_selector
        self._tasks = tasks
        self._observers: dict[str, tuple[PodObserver, Callable[[SandboxError], None]]] = {}
        self._starting: set[str] = set()
        self._scope: anyio.CancelScope | None = None
        self._follow: Reflector | None = None
        # What was forbidden once is not tried, nor told, again.
        self._polled = False

    @property
    def trouble(self) -> SandboxError | None:
        """Why nothing can be seen at the moment; the watch is trying to see again."""
        return self._follow.last_error if self._follow is not None else None

    @property
    def starting(self) -> int:
        """How many executions wait for their sandbox to start."""
        return len(self._starting)

    @contextmanager
    def awaiting_start(self, job: str) -> Iterator[None]:
        """Count `job` in `starting` while the block runs."""
        self._starting.add(job)
        try:
            yield
        finally:
            self._starting.discard(job)

    @property
    def _polls(self) -> bool:
        self._polled = self._polled or (self._follow is not None and self._follow.polling)
        return self._polled

    @contextmanager
    def observing(self, job: str, observer: PodObserver, failed: Callable[[SandboxError], None]) -> Iterator[None]:
        """Observe the pods of `job` while the block runs. Enter it before the Job is created."""
        self._observers[job] = (observer, failed)
        self._keep_open()
        try:
            yield
        finally:
            del self._observers[job]
            if not self._observers and self._scope is not None:
                self._scope.deadline = anyio.current_time() + (0.0 if self._polls else LINGER_SECONDS)

    def _keep_open(self) -> None:
        scope = self._scope
        if scope is not None and not scope.cancel_called and anyio.current_time() < scope.deadline:
            scope.deadline = math.inf
            return
        self._scope = anyio.CancelScope()
        self._tasks.start_soon(self._run, self._scope, name="gke-sandbox pod watch")

    async def _run(self, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                polls = self._polls
                self._follow = list_and_watch(
                    self._client, PODS, self._namespace, label_selector=self._selector, may_poll=True
                )
                self._follow.polling = polls
                async with self._follow as events:
                    async for event in events:
                        if event.type != "SYNCED":
                            self._tell(event.type, event.object)
        except SandboxError as error:
            for _, failed in list(self._observers.values()):
                failed(error)
        finally:
            if self._scope is scope:
                self._scope = None

    def _tell(self, type_: str, pod: Mapping[str, Any]) -> None:
        labels = (pod.get("metadata") or {}).get("labels") or {}
        # Both labels stand on the pods of every Kubernetes since 1.27; the short one is the older.
        job = labels.get("batch.kubernetes.io/job-name") or labels.get("job-name")
        entry = self._observers.get(str(job))
        if entry is not None:
            entry[0](type_, pod)
