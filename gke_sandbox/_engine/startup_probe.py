"""What to ask of the cluster when a sandbox does not start, and nobody says why."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from .._diagnosis import WaitReason, job_termination, job_wait_reason, pod_wait_reason
from .._diagnosis.pod_state import PodState, Termination
from ..errors import ApiError, Forbidden, NetworkError, NotFound, SandboxError
from ..kube.client import KubeClient
from ..kube.resources import EVENTS, JOBS, PODS
from ..kube.retry import MAX_RETRY_AFTER
from ..kube.status import RequestInfo

logger = logging.getLogger("gke_sandbox")

NO_POD_SECONDS = 1.0
"""A Job has a pod some ten milliseconds after it was made; after this, without one, its Events are read."""
STILL_SECONDS = 2.0
"""A pod whose state has not changed for so long, and that does not run, is asked about."""
ASK_AGAIN_SECONDS = 2.0
"""The pause between two questions."""
EACH_STARTING_SECONDS = 0.05
"""What each other execution that waits to start adds to these: together they ask at most 20 times a second, which
is also the number of pods that a Job controller makes in a second, unless it is told otherwise."""
ANSWER_SECONDS = 5.0
"""How long one answer may take."""
LOOK_AGAIN_SECONDS = 10.0
"""A pod that is known is looked at again after this: its watch may be blind."""

_MOST_EVENTS = 100


class Inquiry:
    """Questions about one Job that has not started; a sandbox that starts as it should is never asked about.

    What is asked: the Events of the pod, or of the Job that has none, and now and then for the Job's pods
    themselves. `starting` counts the executions that wait to start. `trouble` says why the pods could not be
    listed, if so.
    """

    def __init__(self, client: KubeClient, namespace: str, job: str, starting: Callable[[], int]) -> None:
        self._client = client
        self._namespace = namespace
        self._job = job
        self._starting = starting
        now = anyio.current_time()
        self._asked = now + NO_POD_SECONDS - ASK_AGAIN_SECONDS
        self._looked = -math.inf
        self._not_before = -math.inf
        self._changed = now
        self.trouble: SandboxError | None = None
        self.events_forbidden: Forbidden | None = None

    def moved(self) -> None:
        """The pod's state has changed: there is hope."""
        self._changed = anyio.current_time()

    def due(self, pod: PodState | None) -> float:
        """When to ask next, by the event loop's clock."""
        crowd = max(self._starting() - 1, 0) * EACH_STARTING_SECONDS
        again = max(self._asked + ASK_AGAIN_SECONDS + crowd, self._not_before)
        return again if pod is None else max(again, self._changed + STILL_SECONDS + crowd)

    def looks(self, pod: PodState | None) -> bool:
        """Whether it is time to look at the pods themselves. Counts as a question asked."""
        self._asked = anyio.current_time()
        return pod is None or self.trouble is not None or self._asked >= self._looked + LOOK_AGAIN_SECONDS

    async def pods(self, known: Mapping[str, Any]) -> list[dict[str, object]] | None:
        """The Job's pods as they are now; None if that could not be learnt.

        An answer that is older than the pod that is `known` says nothing of it.
        """
        self._looked = anyio.current_time()
        # Until there is an answer; this may be cancelled.
        call = RequestInfo("list", "GET", PODS, self._namespace)
        self.trouble = NetworkError(f"{call}: no whole answer in time", sent=True, request=str(call))
        selector = f"batch.kubernetes.io/job-name={self._job}"
        with anyio.move_on_after(ANSWER_SECONDS):
            try:
                found = await self._client.list(PODS, self._namespace, label_selector=selector)
            except SandboxError as error:
                self.trouble = error
                self._heed(error)
                return None
            self.trouble = None
            if _newer(found, known):
                return [pod for pod in found.get("items") or () if isinstance(pod, dict)]
        return None

    async def wait(self, pod: PodState | None) -> WaitReason | None:
        """What the Events say, of the pod, or of the Job that has none."""
        if self.events_forbidden is not None:
            return None
        about = f"involvedObject.name={pod.name if pod is not None else self._job}"
        found: dict[str, Any] = {}
        try:
            with anyio.move_on_after(ANSWER_SECONDS):
                found = await self._client.list(EVENTS, self._namespace, field_selector=about, limit=_MOST_EVENTS)
        except Forbidden as error:
            # Without them the diagnosis is poorer, and no run is worse off for it.
            self.events_forbidden = error
            self._client.warn_once(
                f"{error}; what Events say of a sandbox that does not start is not known. {error.hint}"
            )
            return None
        except SandboxError as error:
            logger.info("the Events could not be read: %s", error)
            self._heed(error)
            return None
        events = [event for event in found.get("items") or () if isinstance(event, dict)]
        return pod_wait_reason(events, pod.wait_reason) if pod is not None else job_wait_reason(events)

    def _heed(self, error: SandboxError) -> None:
        """Ask nothing before the server wants to be asked again."""
        if isinstance(error, ApiError) and error.retry_after is not None:
            self._not_before = anyio.current_time() + min(error.retry_after, MAX_RETRY_AFTER)

    async def job_termination(self, *, has_run: bool) -> Termination | None:
        """Why the Job's own controller took its pod away; None if it did not, or does not say."""
        try:
            job = await self._client.get(JOBS, self._namespace, self._job)
        except NotFound:
            return None
        except SandboxError as error:
            logger.info("the Job could not be read: %s", error)
            return None
        return job_termination(job, has_run=has_run)


def _newer(found: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Whether a list is newer than an object. A list without a version is no server's, but a replay's."""
    # Versions are numbers that grow: since Kubernetes 1.35 by contract, before that by habit.
    # https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    listed, seen = (str((each.get("metadata") or {}).get("resourceVersion") or "") for each in (found, known))
    if not (listed.isdigit() and seen.isdigit()):
        return bool(listed) or not seen
    return int(listed) >= int(seen)
