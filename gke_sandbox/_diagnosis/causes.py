"""Why a sandbox did not start, or was terminated: every cause, its patterns, what it means. Pure.

docs/troubleshooting.md shows this table, and a test compares the two. The order matters: the first cause with a
matching pattern is the result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .end_causes import END_CAUSES
from .patterns import FailureCause, Pattern, Source
from .rejection_causes import REJECTION_CAUSES
from .start_causes import PULL_REASONS, START_CAUSES

__all__ = ["CAUSES", "FailureCause", "Pattern", "Source", "WaitReason", "cause", "match_cause"]


@dataclass(frozen=True)
class WaitReason:
    """Why a pod waits, with Kubernetes' reason and message."""

    cause: FailureCause
    reason: str
    message: str

    @property
    def is_permanent(self) -> bool:
        """Whether waiting cannot help."""
        return self.cause.permanent


# Names in a message about them: in quotes, with a path, a tag or a port, or by their position.
_NAMES = re.compile(r'"[^"\s]*"|lookup \S+|manifest \S+ in|\S*[/:@]\w\S*')

CAUSES: tuple[FailureCause, ...] = (*START_CAUSES, *REJECTION_CAUSES, *END_CAUSES)

_BY_NAME = {each.name: each for each in CAUSES}


def cause(name: str) -> FailureCause:
    """Return a cause by its name."""
    return _BY_NAME[name]


def match_cause(source: Source, reason: str, message: str) -> FailureCause | None:
    """Return the first cause with a pattern that matches, or None."""
    if re.fullmatch(PULL_REASONS, reason):
        # The name of an image can contain "forbidden", and its tag can be 429.
        message = _NAMES.sub("", message)
    return next(
        (each for each in CAUSES for pattern in each.patterns if pattern.matches(source, reason, message)),
        None,
    )
