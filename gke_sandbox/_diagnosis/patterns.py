"""Causes of a failure and the patterns that identify them. Pure; `causes` has the table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["FailureCause", "Pattern", "Source", "permanent", "temporary"]

Source = Literal[
    "waiting",
    "start",
    "init container",
    "scheduling",
    "pod event",
    "admission",
    "pod status",
    "terminated",
]
"""Where Kubernetes reports it.

``waiting``      the container's state, with a reason
``start``        the message of a container that could not be started (terminated: StartError)
``init container``  the state of an init container or sidecar; the reason is ``failed`` or ``retried``
``scheduling``   the message of the pod's condition PodScheduled
``pod event``    an Event on the pod
``admission``    the Event FailedCreate on the Job, whose pod the API server refused; the response to the POST of
                 the Job or its ConfigMap; or the Event Suspended on the Job
``pod status``   the pod's own reason, its condition DisruptionTarget, or the Job's condition Failed
``terminated``   the container's state
"""


@dataclass(frozen=True)
class Pattern:
    """A source, and regular expressions for Kubernetes' reason (all of it) and message (any part of it)."""

    source: Source
    reason: str = ""
    text: str = ""
    check: Callable[[str], bool] | None = None
    """A condition on the message that a regular expression cannot express."""

    def matches(self, source: Source, reason: str, message: str) -> bool:
        return (
            source == self.source
            and (not self.reason or re.fullmatch(self.reason, reason) is not None)
            and (not self.text or re.search(self.text, message, re.IGNORECASE) is not None)
            and (self.check is None or self.check(message))
        )


@dataclass(frozen=True)
class FailureCause:
    """One cause of a failure."""

    name: str
    summary: str
    hint: str
    patterns: tuple[Pattern, ...]
    """Empty if Kubernetes reports it nowhere: this library concludes it."""
    ran: bool | None
    """Whether the program ran. None if that depends on when it happened: see `Termination.ran`."""
    permanent: bool
    """Whether waiting cannot help, so that the wait for the sandbox ends at once.

    If a pod has ended before it ran, and the cause is not permanent, another Job takes its place.
    """


def permanent(name: str, summary: str, hint: str, *patterns: Pattern, ran: bool | None = False) -> FailureCause:
    """Return a cause that waiting cannot help."""
    return FailureCause(name, summary, hint, patterns, ran, permanent=True)


def temporary(name: str, summary: str, hint: str, *patterns: Pattern, ran: bool | None = False) -> FailureCause:
    """Return a cause that may pass."""
    return FailureCause(name, summary, hint, patterns, ran, permanent=False)
