"""The log of one container over as many connections as it takes: its content and its timers. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from .._output_limits import log_limit
from .._wire.frames import Frame, Limits
from .._wire.log_decoder import ReplayableLogDecoder
from ..errors import ApiError, Forbidden, NetworkError, SandboxError, Unauthorized
from ..kube.retry import is_retryable, retry_delay
from ..settings import Settings

DRAIN_TIMEOUT = 2.0
"""How long the log may be silent after its container has ended: about as long as the kubelet needs to end it."""
OPEN_TIMEOUT = 45.0
"""How long a log may take to open once the container has ended, if the limit does not allow more.

The log is on the node's disk, and is kept for as long as its Job is: see `Settings.ttl_seconds_after_finished`.
"""
REOPEN_DELAY, MAX_REOPEN_DELAY = 0.25, 5.0
"""The first and the longest delay before a log that broke off, or was not ready, is opened again."""
REQUEST_TIMEOUT = 10.0
"""How long to wait for the response to one request for the log, before it is sent again."""
IDLE_REOPEN_AFTER, MAX_IDLE_REOPEN_AFTER = 55.0, 880.0
"""A log that is silent for this long is opened again, and the next time after twice as long: nothing else
distinguishes a quiet program from a connection that was dropped on the way."""
LINE_OVERHEAD = 46
"""Bytes that the container runtime adds to each line on the node's disk, as the runner counts them."""
FOREIGN_BYTES = 64 << 10
"""A log that exceeds `log_limit` by more than this was not written by the runner alone, which stops there. The
kubelet, the loader and the interpreter can add some lines."""
RESUME_GRACE = 2.0
"""How long a client that was suspended reads what has arrived meanwhile, before any timer takes effect."""
SUSPECT_AFTER = 10.0
"""After a suspension of this length the connection may be dead, so the log is opened again."""


def is_temporary(error: SandboxError) -> bool:
    """Whether the log is requested again after this error.

    Errors of the kubelet are temporary and have the kind "pods/log": 404 if it has just started, 401 and 403 if it
    rejects the API server.
    """
    if isinstance(error, (Forbidden, Unauthorized)):
        return error.details.get("kind") == "pods/log" or is_retryable(error)
    return isinstance(error, (ApiError, NetworkError))


class LogStream:
    """One container's log. Each byte counts once: a log that is opened again starts at its beginning.

    A log that is silent is requested again while the first connection is still read, because bytes may be waiting
    in it. The first connection is closed when the second is open.
    """

    def __init__(self, settings: Settings, uniform: Callable[[], float], now: float) -> None:
        self.set_limits(settings)
        self._uniform = uniform
        self.number: int | None = None
        """The number of the connection that is read, or requested; None while there is none."""
        self.replacement: int | None = None
        """The number of the connection that is requested while another one is open but silent."""
        self.open = False
        """Whether the log is being read, or was when it was closed."""
        self.attached = False
        """Whether the connection is to the container itself, whose output is the same as its log."""
        self._was_attached = False
        self.complete = False
        """Whether the server ended the log."""
        self.pod_missing = False
        self.last_error = "it did not open in time"
        """The last error since the log opened, or since the last bytes."""
        self.limit = math.inf
        """When reading ends at the latest, if the container does not end."""
        self.container_ended_at: float | None = None
        self.kept = False
        """Whether the container has ended and its whole log is on the node."""
        # The size on the node's disk of what this connection has delivered, from the beginning of the log.
        self._stored = 0
        # The log never has to open before this plus `OPEN_TIMEOUT`.
        self._timer_start = now
        # What the drain timeout counts from.
        self._drain_from = now
        # When the log is requested again, unless there is a pause.
        self._reconnect_at = now
        self._failures = 0
        self._idle_timeout = IDLE_REOPEN_AFTER
        # The start and the end of the pause before the log is opened again.
        self._pause: tuple[float, float] | None = None

    def set_limits(self, settings: Settings) -> None:
        """Decode what follows within the limits of these settings, from the start."""
        output, files, count = settings.max_output_bytes, settings.max_file_bytes, settings.max_files
        self.decoder = ReplayableLogDecoder(Limits(output, files, count))
        self._max_stored = FOREIGN_BYTES + log_limit(
            max_output_bytes=output, max_file_bytes=files, max_files=count
        )

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

    def connect(self, number: int, now: float, *, attach: bool = False) -> int | None:
        """Record that the log is requested. Return the number of the earlier request that this one replaces.

        A log that is open stays open until there is a response.
        """
        self.attached = attach
        self._was_attached = self._was_attached or attach
        is_read = self.open and self.number is not None
        replaced = self.replacement if is_read else self.number
        if is_read:
            if self.replacement is None:
                self._idle_timeout = min(2 * self._idle_timeout, MAX_IDLE_REOPEN_AFTER)
                self.last_error = "it fell silent, and did not open again"
            self.replacement = number
        else:
            self.number, self.open, self._drain_from = number, False, now
        self._pause = None
        self._reconnect_at = now + REQUEST_TIMEOUT
        return replaced

    def opened(self, number: int, now: float) -> int | None:
        """Read this connection from now on. Return the number of the one that it replaces."""
        replaced = self.number if number == self.replacement else None
        self.number, self.replacement = number, None
        self.open, self.last_error, self.complete = True, "", False
        self._stored = 0
        self._active(now)
        self.decoder.reopen(after_attach=self._was_attached)
        return replaced

    def feed(self, data: bytes, now: float) -> list[Frame]:
        """Return the frames that the next bytes complete."""
        self._stored += len(data) + LINE_OVERHEAD * data.count(b"\n")
        size = self.decoder.size
        frames = list(self.decoder.feed(data))
        if self.decoder.size > size:
            self._failures, self._idle_timeout = 0, IDLE_REOPEN_AFTER
        self.last_error = ""
        self._active(now)
        return frames

    def _active(self, now: float) -> None:
        self._drain_from, self._reconnect_at, self._pause = now, now + self._idle_timeout, None

    @property
    def is_too_large(self) -> bool:
        """Whether the log is larger than the runner can make it: the program writes to it directly."""
        return self._stored > self._max_stored

    def take_replacement(self) -> int | None:
        """Return the number of the replacement, which is not needed because the open connection delivers."""
        replacement, self.replacement = self.replacement, None
        return replacement

    def ended(self, number: int, error: SandboxError | None, now: float) -> None:
        """Record the end of a connection. The other one remains, if there are two."""
        if number == self.replacement:
            self._reconnect_at = now + self._idle_timeout
        else:
            complete = error is None and not self.attached
            self.number, self.open, self.complete = self.replacement, False, complete
        self.replacement = None
        if error is not None:
            self.last_error = error.message

    def drain(self, now: float) -> None:
        """Expect nothing but what is waiting in the open connection: the pod does not exist any more."""
        self._drain_from, self.pod_missing = now, True

    def resumed(self, now: float, seconds: float) -> None:
        """Restart the timers after the client was suspended: what has arrived meanwhile is read first."""
        self._timer_start = self._drain_from = now
        self.limit = max(self.limit, now + RESUME_GRACE + REQUEST_TIMEOUT)
        soon = now + RESUME_GRACE
        if seconds < SUSPECT_AFTER:
            self._reconnect_at = max(self._reconnect_at, soon)
        else:
            self._reconnect_at = soon

    def pause(self, error: SandboxError | None, now: float) -> None:
        """Wait before the log is opened again: with growing delays, or as Retry-After requires."""
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
        if self.container_ended_at is None and not self.pod_missing:
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
            # Even if Retry-After is longer, there is one more attempt within the time that is left.
            last = self._kept_until - REQUEST_TIMEOUT
            return last if until >= self._kept_until and last > since else until
        # Pings find out whether a connection to the container is lost.
        return math.inf if self.attached and self.open else self._reconnect_at
