"""Follow the log of one container to its exit frame, over as many connections as that takes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import anyio

from .._wire.frames import Frame, Limits
from .._wire.log_decoder import ReplayableLogDecoder
from .._wire.manifests import CONTAINER
from ..errors import ApiError, BadRequest, Forbidden, NetworkError, NotFound, Unauthorized
from ..kube.client import KubeClient
from ..kube.resources import PODS
from ..kube.retry import Retry

logger = logging.getLogger("gke_sandbox")

QUIET_SECONDS = 2.0
"""How long the log may be silent after its container has ended: about what the kubelet needs to end it."""

OPEN_SECONDS = 45.0
"""How long a log may take to open once the container has ended, if the run's limit does not allow more: it is on
the node's disk, and is kept for as long as its Job is (60 s)."""

REOPEN_SECONDS, MAX_REOPEN_SECONDS = 0.25, 5.0
"""The first and the longest pause before a log that broke, or that was not ready yet, is asked for again."""

ANSWER_SECONDS = 10.0
"""How long one request for the log may go without an answer, before it is sent again."""

SILENCE_SECONDS, MAX_SILENCE_SECONDS = 55.0, 880.0
"""A log that is silent for so long is opened again, and the next time after twice as long: nothing else tells a
quiet program from a connection that somebody on the way has forgotten. The first is shorter than a finished Job
is kept (60 s)."""

READ_AGAIN_BYTES = 8 << 20
"""What is longer is not opened again for its silence: it costs much, and the kubelet may have rotated it."""


class LogReader:
    """What one container's log says. `take` is called with each frame as it comes, and each counts once.

    `limit` is when reading ends at the latest, by the event loop's clock; the container's end (`container_ended`)
    moves it to where the log falls silent. `gone`: the pod is gone, and its log with it. `open` is whether the log
    is being read, or was when `read` stopped for its limit; `trouble` says what last went wrong since it opened.
    """

    def __init__(self, client: KubeClient, namespace: str, limits: Limits, take: Callable[[Frame], None]) -> None:
        self._client = client
        self._namespace = namespace
        self._take = take
        self.said = ReplayableLogDecoder(limits)
        self.limit = math.inf
        self.gone = False
        self.trouble = "it did not open in time"
        self._ended_at: float | None = None
        self._kept = False
        self._since = 0.0
        self.open = False
        self._scope: anyio.CancelScope | None = None
        self._resting: anyio.CancelScope | None = None
        self._resting_since = self._resting_until = 0.0
        self._retry = Retry(initial_delay=REOPEN_SECONDS, max_delay=MAX_REOPEN_SECONDS)
        self._silence = SILENCE_SECONDS

    def begin(self) -> None:
        """Allow the log its time to open from now on, though its container may have ended long ago."""
        self._since = anyio.current_time()

    def container_ended(self, *, kept: bool) -> None:
        """There is nothing to wait for but what is in the log already.

        `kept`: the kubelet has reported how it ended, so the whole log is on the node. It is asked for until the
        limit: while the node is unreachable (its kubelet restarts, say), each request fails.
        """
        self._ended_at, self._kept = anyio.current_time(), kept
        self.move_deadline()

    def move_deadline(self) -> None:
        """`limit` has changed."""
        if self._scope is not None:
            self._scope.deadline = self._deadline()
        if self._resting is not None:
            self._resting.deadline = self._resume_at()

    def _deadline(self) -> float:
        """The log is read until the limit; once the container has ended, limit or not, until it is silent."""
        if self._ended_at is None:
            return self.limit
        to_open = self._to_open()
        if not self.open:
            return max(to_open, self.limit) if self._kept else to_open
        return min(max(to_open, self.limit), anyio.current_time() + QUIET_SECONDS)

    def _to_open(self) -> float:
        """Until when the log of a container that has ended is kept in any case; the limit if it has not ended."""
        if self._ended_at is None:
            return self.limit
        return max(self._ended_at, self._since) + OPEN_SECONDS

    async def read(self, pod: str) -> None:
        """Read the log to the exit frame, to where the server ends it, or until it is time to stop.

        A log that is opened a second time starts again at its beginning: what was decoded before is skipped.
        Raises `Forbidden` and `Unauthorized`; waits out everything else.
        """
        self.open = False
        with anyio.CancelScope(deadline=self._deadline()) as self._scope:
            while not await self._read_to_an_end(pod):
                self.move_deadline()
        self._scope = None

    async def _read_to_an_end(self, pod: str) -> bool:
        """Open the log and read it; False: it has to be opened again."""
        error: ApiError | NetworkError
        try:
            return await self._read_while_it_speaks(pod)
        except BadRequest as refused:
            # The kubelet that answers may be behind the watch: the container is about to start. An evicted pod
            # answers the same for ever, and its watch has said so.
            if self._ended_at is not None:
                self.trouble = str(refused)
                return True
            error = refused
        except NotFound as refused:
            # Only this says that there is no such pod. A kubelet that has just started answers 404 of "pods/log",
            # and what else a 404 may mean is not known.
            if refused.details.get("kind") == PODS.plural:
                self.gone, self.trouble = True, str(refused)
                return True
            error = refused
        except (Forbidden, Unauthorized):
            raise
        except (ApiError, NetworkError) as broken:
            error = broken
        self.open, self.trouble = False, str(error)
        logger.debug("the log of pod %s is opened again: %s", pod, error)
        self.move_deadline()
        await self._rest(self._retry.record_failure(error) or 0.0)
        return False

    async def _rest(self, seconds: float) -> None:
        self._resting_since = anyio.current_time()
        self._resting_until = self._resting_since + seconds
        with anyio.CancelScope(deadline=self._resume_at()) as self._resting:
            await anyio.sleep_forever()
        self._resting = None

    def _resume_at(self) -> float:
        """However long the server asks for: there is one more try within the time that there is."""
        last = self._to_open() - ANSWER_SECONDS
        too_long = self._resting_until >= self._to_open() and last > self._resting_since
        return last if too_long else self._resting_until

    async def _read_while_it_speaks(self, pod: str) -> bool:
        with anyio.CancelScope(deadline=anyio.current_time() + ANSWER_SECONDS) as speaks:
            async with self._client.log(self._namespace, pod, container=CONTAINER, follow=True) as chunks:
                speaks.deadline = anyio.current_time() + self._silence
                self.open, self.trouble = True, ""
                self.said.reopen()
                self.move_deadline()
                async for chunk in chunks:
                    known = self.said.size
                    for frame in self.said.feed(chunk):
                        self._take(frame)
                    if self.said.exit is not None:
                        return True
                    if self.said.size > known:
                        self._retry.reset()
                        self._silence = SILENCE_SECONDS if self.said.size < READ_AGAIN_BYTES else math.inf
                    speaks.deadline = anyio.current_time() + self._silence
                    self.move_deadline()
            self.open = False
            return True
        if not self.open:
            logger.debug("the log of pod %s did not open within %g s and is asked for again", pod, ANSWER_SECONDS)
            return False
        logger.debug("the log of pod %s is silent for %g s and is opened again", pod, self._silence)
        self.open, self.trouble = False, "it fell silent, and did not open again"
        self._silence = min(2 * self._silence, MAX_SILENCE_SECONDS)
        return False
