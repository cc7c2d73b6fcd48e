"""Which runtime runs the containers of an embedded cluster, and the warning when nothing isolates them."""

from __future__ import annotations

import sys
import threading
from typing import Literal

from ...errors import ConfigError
from .gvisor import GVisorRuntime, GVisorUnavailable
from .process import ProcessRuntime

_lock = threading.Lock()
_warned = False


def choose_runtime(isolation: Literal["auto", "gvisor", "process"]) -> GVisorRuntime | ProcessRuntime:
    """The runtime for containers on this machine.

    ``gvisor``: runsc is a must, a container is run with it for trial (0.2 s and more), and `ConfigError` says why
    it does not work. ``process``: plain processes. ``auto``: gVisor where it works, else plain processes. That
    nothing isolates the code is then said on stderr, once in the life of this Python process. A runsc that is
    found through an empty or relative entry of PATH is a `ConfigError` for ``auto`` too: a file in the current
    directory must not turn the isolation off.
    """
    if isolation not in ("auto", "gvisor", "process"):
        raise ConfigError(f"unknown isolation {isolation!r}: it is auto, gvisor or process")
    why = "plain processes were asked for"
    if isolation != "process":
        try:
            return GVisorRuntime()
        except GVisorUnavailable as error:
            if isolation == "gvisor":
                raise ConfigError(
                    f"the embedded cluster cannot run code under gVisor: {error}",
                    hint="install runsc so that it is on PATH (https://gvisor.dev/docs/user_guide/install/), or "
                    " choose isolation 'process': it runs the code on this machine, and nothing isolates it",
                ) from error
            why = str(error)
    _warn(why)
    return ProcessRuntime()


def _warn(why: str) -> None:
    global _warned
    with _lock:
        said, _warned = _warned, True
    if not said and sys.stderr is not None:
        sys.stderr.write(
            f"gke-sandbox: warning: {why}: the embedded cluster runs code as plain processes on this machine, "
            "nothing isolates it\n"
        )
