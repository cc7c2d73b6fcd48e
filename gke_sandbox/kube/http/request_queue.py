"""The queue in front of an API server: a limit on the requests in flight that follows the server's capacity."""

from __future__ import annotations

import heapq
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from ..status import RequestInfo

__all__ = ["RequestQueue"]

INITIAL_IN_FLIGHT, MIN_IN_FLIGHT, MAX_IN_FLIGHT = 16, 4, 100
"""The number of requests in flight: at first, and its limits. Until the first 429 it grows by one with each
response, and after that by one with each round of responses. A 429 halves it."""
DEFAULT_PAUSE, MAX_PAUSE = 1.0, 2.0
"""Seconds without a new request after a 429: without Retry-After, and at most."""


class RequestQueue:
    """Decides when the next request is sent.

    A server that is slow or overloaded gets no more requests than it can process: the others wait here, where a
    timeout cannot leave them half done. Requests of low priority are sent when no others wait; one that got 429 is
    sent first when it is repeated. An open stream counts until its response has begun to arrive.
    """

    def __init__(self) -> None:
        self._limit = float(INITIAL_IN_FLIGHT)
        self._was_throttled = False
        self._in_flight = 0
        self._number = 0
        # By priority, and then by number.
        self._waiting: list[tuple[int, int, _Waiter]] = []
        self._throttled: set[RequestInfo] = set()
        # For requests of low priority, and for the others.
        self._low_paused_until = self._paused_until = -math.inf

    @asynccontextmanager
    async def turn(self, request: RequestInfo, *, low_priority: bool = False) -> AsyncIterator[None]:
        """Wait until `request` may be sent. It is in flight while the block runs."""
        await self._wait(request, low_priority)
        try:
            yield
        finally:
            self._in_flight -= 1
            self._grant()

    async def _wait(self, request: RequestInfo, low_priority: bool) -> None:
        self._number += 1
        priority = -1 if request in self._throttled else int(low_priority)
        self._throttled.discard(request)
        waiter = _Waiter(low_priority=priority == 1)
        heapq.heappush(self._waiting, (priority, self._number, waiter))
        self._grant()
        try:
            while not waiter.granted:
                until = self._pause_of(waiter)
                with anyio.CancelScope(deadline=until if until > anyio.current_time() else math.inf):
                    await waiter.changed.wait()
                waiter.changed = anyio.Event()
                self._grant()
        except BaseException:
            waiter.cancelled = True
            if waiter.granted:
                self._in_flight -= 1
                self._grant()
            raise

    def _pause_of(self, waiter: _Waiter) -> float:
        return self._low_paused_until if waiter.low_priority else self._paused_until

    def _grant(self) -> None:
        now = anyio.current_time()
        while self._waiting and self._in_flight < int(self._limit) and now >= self._pause_of(self._waiting[0][2]):
            waiter = heapq.heappop(self._waiting)[2]
            if not waiter.cancelled:
                self._in_flight += 1
                waiter.granted = True
                waiter.changed.set()

    def record_success(self) -> None:
        """Allow more requests in flight, after a response that is not 429."""
        growth = 1 / self._limit if self._was_throttled else 1
        self._limit = min(self._limit + growth, MAX_IN_FLIGHT)

    def record_throttled(self, request: RequestInfo, retry_after: float | None) -> None:
        """Send less, after a response with status 429.

        For a while send no requests of low priority, and after a second 429 in that time no others either.
        """
        now = anyio.current_time()
        self._throttled.add(request)
        pause = DEFAULT_PAUSE if retry_after is None else min(retry_after, MAX_PAUSE)
        if now < self._low_paused_until:
            self._paused_until = max(self._paused_until, now + pause)
        else:
            self._was_throttled = True
            self._limit = max(self._limit / 2, MIN_IN_FLIGHT)
        self._low_paused_until = max(self._low_paused_until, now + pause)
        for _, _, waiter in self._waiting:
            waiter.changed.set()


class _Waiter:
    """A request that waits for its turn."""

    def __init__(self, *, low_priority: bool) -> None:
        self.low_priority = low_priority
        self.granted = self.cancelled = False
        self.changed = anyio.Event()
