"""Waiting for something to change."""

from __future__ import annotations

import anyio


class Notifier:
    """Wakes everybody who waits, each time it is notified. Who waits looks again for themselves."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    @property
    def has_waiters(self) -> bool:
        """Somebody waits."""
        return self._event.statistics().tasks_waiting > 0

    def notify(self) -> None:
        if self.has_waiters:
            event, self._event = self._event, anyio.Event()
            event.set()

    async def wait(self) -> None:
        await self._event.wait()

    async def wait_until(self, deadline: float) -> None:
        """Wait until notified, at most until that time of the event loop's.

        A point in time and not a span: what is left of a span can become too small for the clock to show.
        """
        with anyio.CancelScope(deadline=deadline):
            await self._event.wait()
