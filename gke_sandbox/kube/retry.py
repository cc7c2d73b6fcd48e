"""Retries: which errors are worth one, how long to wait, and when to give up."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from ..errors import ApiError, Conflict, Forbidden, NetworkError, SandboxError, ServerError, TooManyRequests

__all__ = ["MAX_RETRY_AFTER", "Retry", "is_retryable", "retried", "retry_delay"]

T = TypeVar("T")

MAX_RETRY_AFTER = 120.0
"""The maximum of a server's Retry-After, in seconds; a longer one is shortened."""
MAX_FORBIDDEN_DELAY = 1.0
"""The maximum delay after a 403, in seconds: it is worth a retry only for a few seconds."""


def is_retryable(error: SandboxError) -> bool:
    """Whether a retry may succeed: after a broken connection, 5xx, 429, or 409 with the reason Conflict.

    A 403 is worth one only if the server may have just started.

    Conflict means that other requests changed the same object at the same time. If the request had a precondition,
    check first whether that is the reason.
    """
    if isinstance(error, (Forbidden, NetworkError, ServerError)):
        return error.retryable
    return isinstance(error, (TooManyRequests, Conflict))


def retry_delay(
    failures: int, error: SandboxError | None, *, initial: float, maximum: float, uniform: Callable[[], float]
) -> float:
    """Return how long to wait after a number of failures, in seconds.

    The delay doubles from `initial` up to `maximum`; its upper half is random, so that many clients do not retry
    at the same time. A longer Retry-After in `error` takes precedence, up to `MAX_RETRY_AFTER`.
    """
    if isinstance(error, Forbidden) and error.retryable:
        maximum = min(maximum, MAX_FORBIDDEN_DELAY)
    backoff = min(maximum, initial * 2.0 ** min(failures - 1, 30)) * (0.5 + 0.5 * uniform())
    retry_after = error.retry_after if isinstance(error, ApiError) else None
    return backoff if retry_after is None else max(backoff, min(retry_after, MAX_RETRY_AFTER))


async def retried(send: Callable[[], Awaitable[T]], max_attempts: int = 4) -> T:
    """Send a request, and again after a pause while its error is retryable. Raises the last error."""
    retry = Retry(max_attempts=max_attempts)
    while True:
        try:
            return await send()
        except SandboxError as error:
            await retry.wait_or_raise(error)


class Retry:
    """The attempts at one operation; see `retried`. Times are in seconds.

    `max_attempts` includes the first one. The delays are those of `retry_delay`, from `initial_delay` to
    `max_delay`. No delay ends after `deadline` (on the clock of the event loop). `uniform` returns numbers from 0
    to 1.
    """

    def __init__(
        self,
        *,
        max_attempts: float = math.inf,
        initial_delay: float = 0.2,
        max_delay: float = 10.0,
        deadline: float = math.inf,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._max_attempts = max_attempts
        self._initial_delay = initial_delay
        self._max_delay = max_delay
        self._deadline = deadline
        self._uniform = uniform
        self.failures = 0
        """The number of failures since the last success."""

    def reset(self) -> None:
        """Forget the failures, after a success."""
        self.failures = 0

    def record_failure(self, error: SandboxError | None = None) -> float | None:
        """Count a failure. Return how long to wait before the next attempt, or None to give up.

        This does not check whether the error is worth a retry: see `is_retryable`.
        """
        self.failures += 1
        if self.failures >= self._max_attempts:
            return None
        delay = retry_delay(
            self.failures, error, initial=self._initial_delay, maximum=self._max_delay, uniform=self._uniform
        )
        return delay if anyio.current_time() + delay <= self._deadline else None

    async def wait_or_raise(self, error: SandboxError) -> None:
        """Wait until the next attempt. Raise `error` if it is not retryable or this was the last attempt."""
        delay = self.record_failure(error) if is_retryable(error) else None
        if delay is None:
            raise error
        await anyio.sleep(delay)
