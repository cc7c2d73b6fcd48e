"""Check that an object is used in one event loop: waiting for it in another one would never end."""

from __future__ import annotations

from anyio.lowlevel import RunVar

from .errors import SandboxError

__all__ = ["check_event_loop", "current_event_loop"]

_CURRENT: RunVar[object] = RunVar("gke_sandbox_event_loop")


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
