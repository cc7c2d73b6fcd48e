"""Distinguish a 403 for a missing permission from one of an API server that has just started.

Pure: time is an argument.

An API server responds before its authorizer has read the Roles, so for about a second after its start it rejects
what is allowed.
"""

from __future__ import annotations

import math
from dataclasses import replace

from .status import RequestInfo

__all__ = ["Permissions"]

FORBIDDEN_GRACE = 5.0
"""Seconds for which a 403 can be that of a starting server."""
OUTAGE_WINDOW = 10.0
"""Seconds after the last failed connection in which the server counts as starting."""


class Permissions:
    """The permissions that one client was granted and denied."""

    def __init__(self) -> None:
        # Requests without the name of the object: a Role rarely contains names.
        self._granted: set[RequestInfo] = set()
        self._denied_at: dict[RequestInfo, float] = {}
        self._outage_at = -math.inf

    def record_outage(self, now: float) -> None:
        """Record that the server could not be reached."""
        self._outage_at = now

    def record_grant(self, info: RequestInfo) -> None:
        """Record a successful request."""
        permission = replace(info, name=None)
        self._granted.add(permission)
        self._denied_at.pop(permission, None)

    def record_denial(self, info: RequestInfo, now: float) -> bool:
        """Record a 403. Return whether the same request may be allowed in a moment.

        It may be if the server was just unreachable, or had granted the permission before; but not any more when
        the permission has been denied for `FORBIDDEN_GRACE`.
        """
        permission = replace(info, name=None)
        first = max(self._denied_at.get(permission, now), self._outage_at)
        self._denied_at[permission] = first
        starting = permission in self._granted or now - self._outage_at < OUTAGE_WINDOW
        return starting and now - first < FORBIDDEN_GRACE
