"""Selection of the container runtime, with a warning if it does not isolate the code."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Literal

from ...errors import ConfigError
from .gvisor import GVisorRuntime, GVisorUnavailable
from .process import ProcessRuntime

_lock = threading.Lock()
_warned = False


def choose_runtime(isolation: Literal["auto", "gvisor", "process"]) -> GVisorRuntime | ProcessRuntime:
    """Return the runtime for containers on this machine.

    - ``gvisor`` requires runsc. A trial container is run (0.2 s or more); `ConfigError` explains why it fails.
    - ``process`` uses plain processes, without isolation. A warning on stderr says so, once per Python process.
    - ``auto`` uses gVisor if it works, and plain processes otherwise.

    A runsc found through an empty or relative entry of PATH is a `ConfigError` for ``auto`` too: a file in the
    current directory must not disable the isolation.
    """
    if isolation not in ("auto", "gvisor", "process"):
        raise ConfigError(f"isolation: must be auto, gvisor or process, got {isolation!r}")
    why = "isolation is 'process'"
    if isolation != "process":
        try:
            return GVisorRuntime()
        except GVisorUnavailable as error:
            if isolation == "gvisor":
                raise ConfigError(
                    f"the embedded cluster cannot run code under gVisor: {error}",
                    hint="Install runsc in a directory of PATH (https://gvisor.dev/docs/user_guide/install/), or "
                    "choose the isolation 'process', which runs the code on this machine without isolation.",
                ) from error
            why = str(error)
    _warn(why)
    return ProcessRuntime()


def _warn(why: str) -> None:
    global _warned
    with _lock:
        warned, _warned = _warned, True
    if not warned and sys.stderr is not None:
        # A closed or full stderr does not prevent the run.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(
                f"gke-sandbox: warning: {why}: the embedded cluster runs code as plain processes on this machine, "
                "without isolation\n"
            )
