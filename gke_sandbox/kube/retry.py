"""When to try again: what may pass, how long to wait, and when to give up."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import anyio

from ..errors import ApiError, Conflict, NetworkError, SandboxError, ServerError, TooManyRequests

__all__ = ["MAX_RETRY_AFTER", "Retry", "is_retryable"]

# The server's own wish (Retry-After) is kept up to here, seconds.
MAX_RETRY_AFTER = 120.0


def is_retryable(error: SandboxError) -> bool:
    """Whether trying again may help: a broken connection, 5xx, 429, or 409 with the reason Conflict.

    Conflict means that other requests changed the same object at the same time. If the request had a precondition,
    the caller must check first whether that is the reason.
    """
    return isinstance(error, (NetworkError, ServerError, TooManyRequests, Conflict))


class Retry:
    """One series of tries at one thing. Times are seconds.

    `max_attempts` is how often it may be tried in all. The pauses begin at `initial_delay` and double up to
    `max_delay`; the upper half of each is random, so that many clients do not come back at once. No pause ends
    after `deadline`, by the event loop's clock. A server's Retry-After is waited for instead. `uniform` gives
    numbers from 0 to 1.

    ::

        retry = Retry(max_attempts=4)
        while True:
            try:
                return await ask()
            except SandboxError as error:
                await retry.wait_or_raise(error)
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
        """How often in a row it went wrong."""

    def reset(self) -> None:
        """The series begins anew."""
        self.failures = 0

    def record_failure(self, error: SandboxError | None = None) -> float | None:
        """Count a failure; return how long to wait before the next try, None to give up.

        Whether the error may pass is for the caller to say: see `is_retryable`.
        """
        self.failures += 1
        if self.failures >= self._max_attempts:
            return None
        backoff = min(self._max_delay, self._initial_delay * 2.0 ** min(self.failures - 1, 30))
        backoff *= 0.5 + 0.5 * self._uniform()
        wish = error.retry_after if isinstance(error, ApiError) else None
        pause = backoff if wish is None else max(backoff, min(wish, MAX_RETRY_AFTER))
        return pause if anyio.current_time() + pause <= self._deadline else None

    async def wait_or_raise(self, error: SandboxError) -> None:
        """Wait for the next try, or raise `error`: it cannot pass, or it was tried often enough."""
        pause = self.record_failure(error) if is_retryable(error) else None
        if pause is None:
            raise error
        await anyio.sleep(pause)
