"""What a cause of failure is, and how it is recognised. Pure; the table of them is in `causes`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Cause", "Place", "Ran", "Sign"]

Ran = Literal["no", "maybe", "yes"]
"""Whether the program ran."""

Place = Literal["waiting", "start", "scheduling", "pod event", "admission", "pod status", "terminated", "client"]
"""Where Kubernetes says it.

``waiting``      the container's state, with a reason
``start``        the message of a container that could not be started (terminated: StartError)
``scheduling``   the message of the pod's condition PodScheduled
``pod event``    an Event on the pod
``admission``    the Event FailedCreate on the Job, whose pod the API server refused
``pod status``   the pod's own reason, its condition DisruptionTarget, or the Job's condition Failed
``terminated``   the container's state
``client``       nowhere: this library's own conclusion
"""


@dataclass(frozen=True)
class Sign:
    """How a cause is recognised: the place, and patterns for Kubernetes' reason and for the message."""

    place: Place
    reason: str = ""
    text: str = ""

    def fits(self, place: Place, reason: str, message: str) -> bool:
        return (
            place == self.place
            and (not self.reason or re.fullmatch(self.reason, reason) is not None)
            and (not self.text or re.search(self.text, message, re.IGNORECASE) is not None)
        )


@dataclass(frozen=True)
class Cause:
    """One cause. `final`: no waiting mends it, so that the wait for the sandbox ends at once.

    `ran` "maybe": it depends on when it happened, and the ending tells (`Ending.ran`).
    """

    name: str
    summary: str
    hint: str
    signs: tuple[Sign, ...]
    ran: Ran = "no"
    final: bool = False
