"""When to poll the cluster for a sandbox that does not start. Pure: time is an argument."""

from __future__ import annotations

import math

from ..errors import ApiError, Forbidden, SandboxError
from ..kube.retry import MAX_RETRY_AFTER

POD_CREATION_GRACE = 1.0
"""A Job has a pod some ten milliseconds after its creation; without one after this time, its Events are read."""
UNCHANGED_GRACE = 2.0
"""A pod that does not run is polled when its state has not changed for this long."""
POLL_INTERVAL = 2.0
"""The pause between two polls."""
WARM_POLL_INTERVAL = 10.0
"""The same for a warm pod, for which no run waits."""
POLL_INTERVAL_PER_PENDING = 0.05
"""The addition to both for each other execution that waits to start.

Together they poll at most 20 times a second, the default rate at which a Job controller creates pods.
`SharedLists` then sends at most one list of each kind per second; only recordings and replays send each poll.
"""
POD_RELIST_INTERVAL = 10.0
"""A known pod is listed again after this, because its watch may miss events."""


class StartupProbe:
    """The timers of the polls for one Job that has not started. A sandbox that starts normally is never polled.

    A poll reads the Events of the pod, or of a Job that has none, and from time to time lists the Job's pods.
    `interval` is the pause between two polls.
    """

    def __init__(self, now: float, interval: float = POLL_INTERVAL) -> None:
        self._interval = interval
        self._polled_at = now + POD_CREATION_GRACE - interval
        self._listed_at = -math.inf
        self._not_before = -math.inf
        self._changed_at = now
        self.pods_error: SandboxError | None = None
        """Why the pods could not be listed."""
        self.events_error: Forbidden | None = None
        """Why the Events may not be read."""

    def reset_timer(self, now: float) -> None:
        """Wait for another `UNCHANGED_GRACE`, because the pod's state has changed."""
        self._changed_at = now

    def next_poll_at(self, pending: int, *, has_pod: bool) -> float:
        """Return the time of the next poll, if `pending` executions wait to start."""
        crowd = max(pending - 1, 0) * POLL_INTERVAL_PER_PENDING
        again = max(self._polled_at + self._interval + crowd, self._not_before)
        return max(again, self._changed_at + UNCHANGED_GRACE + crowd) if has_pod else again

    def should_list_pods(self, now: float, *, has_pod: bool) -> bool:
        """Whether the next poll includes the pods themselves."""
        return not has_pod or self.pods_error is not None or now >= self._listed_at + POD_RELIST_INTERVAL

    def record_poll(self, now: float) -> None:
        """Record the start of a poll."""
        self._polled_at = now

    def record_list(self, now: float, no_response: SandboxError) -> None:
        """Record that the pods are being listed; `no_response` is the error until there is a response."""
        self._listed_at = now
        self.pods_error = no_response

    def record_failure(self, now: float, error: SandboxError) -> None:
        """Delay the next poll as Retry-After requires, if the response had it."""
        if isinstance(error, ApiError) and error.retry_after is not None:
            self._not_before = now + min(error.retry_after, MAX_RETRY_AFTER)
