"""Notification of waiting tasks."""

from __future__ import annotations

import anyio


class Notifier:
    """Wakes all waiting tasks each time it is notified. They check their condition themselves."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    @property
    def has_waiters(self) -> bool:
        """Whether a task waits."""
        return self._event.statistics().tasks_waiting > 0

    def notify(self) -> None:
        """Wake all waiting tasks."""
        if self.has_waiters:
            event, self._event = self._event, anyio.Event()
            event.set()

    async def wait(self) -> None:
        """Wait for the next notification."""
        await self._event.wait()

    async def wait_until(self, deadline: float) -> None:
        """Wait for the next notification, at most until this time of the event loop.

        A point in time, because the rest of a duration can be smaller than the resolution of the clock.
        """
        with anyio.CancelScope(deadline=deadline):
            await self._event.wait()
