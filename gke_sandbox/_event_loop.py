"""The running event loop: its identity, and tasks that belong to it and not to a task group.

anyio has no such tasks. This is the only module that uses asyncio and trio directly.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import RunVar

from .errors import SandboxError

if TYPE_CHECKING:
    import asyncio

__all__ = ["check_event_loop", "current_event_loop", "start_task"]

_CURRENT: RunVar[object] = RunVar("gke_sandbox_event_loop")

_tasks: set[asyncio.Task[Any]] = set()
"""The running tasks: the event loop of asyncio has only weak references to them."""


def current_event_loop() -> object:
    """Return an object that identifies the running event loop."""
    try:
        return _CURRENT.get()
    except LookupError:
        token = object()
        _CURRENT.set(token)
        return token


def check_event_loop(opened_in: object, what: str, *, may_have_run: bool) -> None:
    """Raise `SandboxError` if the running event loop is not `opened_in`. `what` starts the message."""
    if current_event_loop() is not opened_in:
        error = SandboxError(
            f"{what} is used in another event loop than the one that opened it",
            hint="Create an AsyncSandbox in each event loop, for example in each asyncio.run(). A Sandbox can be "
            "used from all threads.",
        )
        error.may_have_run = may_have_run
        raise error


def start_task(call: Callable[[], Awaitable[None]], name: str) -> None:
    """Start a task of the running event loop. It has the context variables of the caller.

    When the event loop ends, it cancels the task and waits until it has finished. The task must raise nothing but
    the cancellation: no other task gets its errors.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        # https://trio.readthedocs.io/en/stable/reference-lowlevel.html#trio.lowlevel.spawn_system_task
        trio.lowlevel.spawn_system_task(call, name=name, context=copy_context())
        return
    import asyncio

    async def run() -> None:
        await call()

    task = asyncio.get_running_loop().create_task(run(), name=name)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
