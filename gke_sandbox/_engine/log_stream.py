"""The log of one container over as many connections as it takes: its content and its timers. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from .._wire.frames import Frame, Limits
from .._wire.log_decoder import ReplayableLogDecoder
from ..errors import SandboxError
from ..kube.retry import retry_delay
from ..settings import Settings

DRAIN_TIMEOUT = 2.0
"""How long the log may be silent after its container has ended: about as long as the kubelet needs to end it."""
OPEN_TIMEOUT = 45.0
"""How long a log may take to open once the container has ended, if the limit does not allow more.

The log is on the node's disk, and is kept for as long as its Job is (60 s).
"""
REOPEN_DELAY, MAX_REOPEN_DELAY = 0.25, 5.0
"""The first and the longest delay before a log that broke off, or was not ready, is opened again."""
REQUEST_TIMEOUT = 10.0
"""How long to wait for the response to one request for the log, before it is sent again."""
IDLE_REOPEN_AFTER, MAX_IDLE_REOPEN_AFTER = 55.0, 880.0
"""A log that is silent for this long is opened again, and the next time after twice as long: nothing else
distinguishes a quiet program from a connection that was dropped on the way. The first is shorter than the time for
which a finished Job is kept (60 s)."""
MAX_REREAD_BYTES = 8 << 20
"""A longer log is not opened again because it is silent: that costs much, and the kubelet may have rotated it."""


class LogStream:
    """One container's log. Each byte counts once: a log that is opened again starts at its beginning."""

    def __init__(self, settings: Settings, uniform: Callable[[], float], now: float) -> None:
        self.decoder = ReplayableLogDecoder(
            Limits(
                output_bytes=settings.max_output_bytes,
                file_bytes=settings.max_file_bytes,
                file_count=settings.max_files,
            )
        )
        self._uniform = uniform
        self.number: int | None = None
        """The number of the connection, or None while the log is closed."""
        self.open = False
        """Whether the log is being read, or was when it was closed."""
        self.pod_missing = False
        self.last_error = "it did not open in time"
        """The last error since the log opened."""
        self.limit = math.inf
        """When reading ends at the latest, if the container does not end."""
        self.container_ended_at: float | None = None
        self.kept = False
        """Whether the container has ended and its whole log is on the node."""
        # The log never has to open before this plus `OPEN_TIMEOUT`.
        self._timer_start = now
        # When the request was sent or the last bytes came, and what the drain timeout counts from.
        self._active_at = self._drain_from = now
        self._failures = 0
        self._idle_timeout = IDLE_REOPEN_AFTER
        # The start and the end of the pause before the log is opened again.
        self._pause: tuple[float, float] | None = None

    def restart_timer(self, now: float) -> None:
        """Allow the log its time to open from now on, although its container may have ended long ago."""
        self._timer_start = now

    def container_ended(self, now: float, *, kept: bool) -> None:
        """Expect nothing but the rest of the log.

        `kept`: the kubelet has reported how the container ended, so the whole log is on the node. It is requested
        until the limit: while the node is unreachable (its kubelet restarts, for example), each request fails.
        """
        self.container_ended_at = self._drain_from = now
        self.kept = kept

    def connect(self, number: int, now: float, *, again: bool = False) -> None:
        """Record that the log is requested. `again`: because there was no response, or the log was silent."""
        if again and self.open:
            self.last_error = "it fell silent, and did not open again"
            self._idle_timeout = min(2 * self._idle_timeout, MAX_IDLE_REOPEN_AFTER)
        self.number, self.open, self._pause = number, False, None
        self._active_at = self._drain_from = now

    def opened(self, now: float) -> None:
        self.open, self.last_error = True, ""
        self._active_at = self._drain_from = now
        self.decoder.reopen()

    def feed(self, data: bytes, now: float) -> list[Frame]:
        """Return the frames that the next bytes complete."""
        self._active_at = self._drain_from = now
        size = self.decoder.size
        frames = list(self.decoder.feed(data))
        if self.decoder.size > size:
            self._failures = 0
            self._idle_timeout = IDLE_REOPEN_AFTER if self.decoder.size < MAX_REREAD_BYTES else math.inf
        return frames

    def ended(self, error: SandboxError | None) -> None:
        self.number, self.open = None, False
        if error is not None:
            self.last_error = error.message

    def pause(self, error: SandboxError, now: float) -> None:
        """Wait before the log is opened again: with growing delays, or as the server asks."""
        self._failures += 1
        self._pause = (
            now,
            now
            + retry_delay(
                self._failures, error, initial=REOPEN_DELAY, maximum=MAX_REOPEN_DELAY, uniform=self._uniform
            ),
        )

    @property
    def read_deadline(self) -> float:
        """When reading ends: at the limit; once the container has ended, when the log is silent."""
        if self.container_ended_at is None:
            return self.limit
        if not self.open:
            return max(self._kept_until, self.limit) if self.kept else self._kept_until
        return min(max(self._kept_until, self.limit), self._drain_from + DRAIN_TIMEOUT)

    @property
    def _kept_until(self) -> float:
        """Until when the log of a container that has ended is kept in any case; the limit if it has not ended."""
        if self.container_ended_at is None:
            return self.limit
        return max(self.container_ended_at, self._timer_start) + OPEN_TIMEOUT

    @property
    def reconnect_at(self) -> float:
        """When the log is requested again because it did not open, broke off or is silent."""
        if self._pause is not None:
            since, until = self._pause
            # Even if the server asks to wait for longer, there is one more attempt within the time that is left.
            last = self._kept_until - REQUEST_TIMEOUT
            return last if until >= self._kept_until and last > since else until
        return self._active_at + (self._idle_timeout if self.open else REQUEST_TIMEOUT)
