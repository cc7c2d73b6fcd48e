"""One watch on the pods of a Sandbox, shared by all of its executions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.abc

from .._diagnosis import without_unread_fields
from ..errors import SandboxError
from ..kube.client import KubeClient
from ..kube.reflector import Reflector
from ..kube.resources import PODS
from .shared_lists import SharedLists, job_of
from .steps import PodSeen, WatchFailed

LINGER_TIMEOUT = 60.0
"""How long the watch stays open after the last execution, so that the next one finds it open."""

PodObserver = Callable[[PodSeen | WatchFailed], None]


class PodWatch:
    """Reports to each execution what happens to the pods of its Job.

    The watch runs as a task of the Sandbox's task group while there is an observer, and `LINGER_TIMEOUT` longer.
    Observers are called in the watch's task, one event after the other, and must not block. When the watch ends
    for good (the server refuses it) every observer gets `WatchFailed`. If pods may be listed but not watched, they
    are listed every second or two.
    """

    def __init__(
        self, client: KubeClient, namespace: str, label_selector: str, tasks: anyio.abc.TaskGroup
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._selector = label_selector
        self._tasks = tasks
        self._observers: dict[str, PodObserver] = {}
        self._scope: anyio.CancelScope | None = None
        self._reflector: Reflector | None = None
        # A watch that was forbidden once is not tried, and not warned about, again.
        self._must_poll = False
        self.lists = SharedLists(client, namespace, label_selector, tasks)
        self.pending: set[str] = set()
        """The Jobs whose executions wait for their sandbox to start."""

    @property
    def last_error(self) -> SandboxError | None:
        """Why no events arrive at the moment, or None; the watch is being retried."""
        return self._reflector.last_error if self._reflector is not None else None

    def observe(self, job: str, observer: PodObserver) -> None:
        """Observe the pods of `job` until `stop_observing`. Call it before the Job is created."""
        self._observers[job] = observer
        self._keep_open()

    def stop_observing(self, job: str) -> None:
        """Stop observing the pods of `job`, if they are observed."""
        if self._observers.pop(job, None) is None:
            return
        self.pending.discard(job)
        if not self._observers and self._scope is not None:
            must_poll = self._must_poll or (self._reflector is not None and self._reflector.polling)
            self._scope.deadline = anyio.current_time() + (0.0 if must_poll else LINGER_TIMEOUT)

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
                self._must_poll = self._must_poll or (self._reflector is not None and self._reflector.polling)
                self._reflector = Reflector(
                    self._client,
                    PODS,
                    self._namespace,
                    label_selector=self._selector,
                    may_poll=True,
                    keep=without_unread_fields,
                )
                self._reflector.polling = self._must_poll
                async with self._reflector as events:
                    async for event in events:
                        if event.type != "SYNCED":
                            self._emit(event.type, event.object)
        except SandboxError as error:
            for observer in list(self._observers.values()):
                observer(WatchFailed(error))
        finally:
            if self._scope is scope:
                self._scope = None

    def _emit(self, type_: str, pod: Mapping[str, Any]) -> None:
        job = job_of(pod)
        observer = self._observers.get(job)
        if observer is not None:
            observer(PodSeen(job, pod, deleted=type_ == "DELETED", missing=type_ == "MISSING"))
