"""End the work of a command at a signal, after its Jobs are deleted."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from ..errors import SandboxError
from .console import Console

if TYPE_CHECKING:
    from ..sandbox import AsyncSandbox

__all__ = ["Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Cancels the work of a command at the first signal, and exits the process at a later Ctrl-C.

    `local` means that the programs of the sandbox run on this machine. `on_signal` is called at the first signal.
    """

    def __init__(
        self, sandbox: AsyncSandbox, console: Console, *, local: bool, on_signal: Callable[[], None] = lambda: None
    ) -> None:
        self.signal: int | None = None
        """The first signal."""
        self._error: SandboxError | None = None
        self._sandbox = sandbox
        self._console = console
        self._local = local
        self._on_signal = on_signal

    def run(
        self, work: Callable[[anyio.abc.TaskGroup], Awaitable[None]], report: Callable[[], None] = lambda: None
    ) -> int | None:
        """Run `work`, which closes the sandbox when it ends or is cancelled. Raises its `SandboxError`.

        `work` is called with a task group for background tasks, which end with it. `report` is called afterwards,
        before the error of `work` is raised. If a signal ended it, print which Jobs are left in the cluster and
        return the exit code. Return None otherwise.
        """
        anyio.run(self._run, work)
        self._console.clear_status()
        report()
        if self.signal is not None:
            self._console.print_interrupted(self.signal, self._sandbox.leftovers, self._sandbox.namespace)
            return 128 + self.signal
        if self._error is not None:
            raise self._error
        return None

    async def _run(self, work: Callable[[anyio.abc.TaskGroup], Awaitable[None]]) -> None:
        # Signals that were ignored at the start stay ignored: nohup and `&` in a shell rely on it.
        handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*handled) as signals:
            async with anyio.create_task_group() as tasks:
                self._scope = anyio.CancelScope()
                tasks.start_soon(self._watch, signals)
                with self._scope:
                    try:
                        await work(tasks)
                    except SandboxError as error:
                        self._error = error  # In the task group, it would become an exception group.
                tasks.cancel_scope.cancel()

    def cancel(self) -> None:
        """Cancel the work."""
        self._scope.cancel()

    async def _watch(self, signals: AsyncIterator[signal.Signals]) -> None:
        """End the work at the first signal. Stop waiting for the deletion of Jobs at a later Ctrl-C.

        Other signals do not stop the wait: timeout(1) sends SIGTERM twice, a closing terminal SIGHUP.
        """
        async for number in signals:
            if self.signal is None:
                self.signal = number
                self._on_signal()
                self._scope.cancel()
            elif number == signal.SIGINT:
                self._exit_now()

    def _exit_now(self) -> None:
        """Exit the process, and print which Jobs may still be in the cluster.

        The event loop is not stopped first, because it shields deletions from cancellation.
        """
        jobs = self._sandbox.jobs
        if self._local:
            # The programs are processes on this machine: kill them.
            self._sandbox._delete_jobs_sync()
            jobs = []
        number = self.signal or signal.SIGINT
        self._console.print_interrupted(number, jobs, self._sandbox.namespace)
        os._exit(128 + number)
