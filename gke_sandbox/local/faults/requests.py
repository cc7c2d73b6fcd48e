"""Faults of requests, response bodies and watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .plan import Action


class RequestAction(Action):
    """A fault of a request."""


class BodyAction(Action):
    """A fault of a response body."""

    after: int
    """The number of bytes that are still delivered."""


class WatchAction(Action):
    """A fault of a watch."""


@dataclass(frozen=True)
class Refuse(RequestAction):
    """Refuse the connection: the client gets httpx.ConnectError and nothing is sent."""


@dataclass(frozen=True)
class Drop(RequestAction):
    """Break the connection before a response arrives: the client gets httpx.ReadError."""

    carried_out: bool = True
    """Whether the server still processes the request."""


@dataclass(frozen=True)
class Delay(RequestAction):
    """Delay the response. A shorter client timeout expires first."""

    seconds: float
    """The length of the delay, in seconds."""
    at: Literal["connect", "request", "response"] = "request"
    """When to wait: before the connection is established, before the request is processed, or after it."""


@dataclass(frozen=True)
class Respond(RequestAction):
    """Send this response instead of the real one."""

    code: int
    """The HTTP status code."""
    reason: str
    """The `reason` of the Status, such as ``AlreadyExists``."""
    message: str
    """The `message` of the Status."""
    retry_after: int | None = None
    """The Retry-After header, in seconds; None for no header."""
    text: str | None = None
    """Send this plain text, as proxies do, instead of a Status."""
    carried_out: bool = False
    """Whether the server still processes the request (a 504 after the work was done)."""
    kind: str = ""
    """The ``details.kind`` of the Status."""

    @classmethod
    def unauthorized(cls) -> Respond:
        """Return 401: the credentials are missing, wrong or expired."""
        return cls(401, "Unauthorized", "Unauthorized")

    @classmethod
    def too_many_requests(cls, retry_after: int | None = 1) -> Respond:
        """Return 429 in plain text, as API Priority and Fairness does.

        https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
        """
        message = "Too many requests, please try again later."
        return cls(429, "TooManyRequests", message, retry_after, text=message + "\n")

    @classmethod
    def internal_error(cls, carried_out: bool = False) -> Respond:
        """Return 500: etcd did not respond."""
        message = "Internal error occurred: etcdserver: request timed out"
        return cls(500, "InternalError", message, carried_out=carried_out)

    @classmethod
    def unavailable(cls, retry_after: int | None = None) -> Respond:
        """Return 503: the API server is starting or overloaded."""
        message = "the server is currently unable to handle the request"
        return cls(503, "ServiceUnavailable", message, retry_after)

    @classmethod
    def timed_out(cls, carried_out: bool = True) -> Respond:
        """Return 504: the API server did not finish the request in time."""
        message = "Timeout: request did not complete within requested timeout - context deadline exceeded"
        return cls(504, "Timeout", message, carried_out=carried_out)

    @classmethod
    def quota_conflict(cls, quota: str = "gke-sandbox") -> Respond:
        """Return 409 Conflict for a POST: the server could not update the ResourceQuota, and created nothing.

        It happens when many objects are created at once. https://github.com/kubernetes/kubernetes/issues/67761
        """
        message = (
            f'Operation cannot be fulfilled on resourcequotas "{quota}": the object has been modified; please '
            "apply your changes to the latest version and try again"
        )
        return cls(409, "Conflict", message)

    @classmethod
    def bad_gateway(cls) -> Respond:
        """Return 502 in HTML, as a load balancer in front of the API server does."""
        return cls(502, "", "", text="<html><head><title>502 Bad Gateway</title></head></html>\n")


@dataclass(frozen=True)
class Forbid(RequestAction):
    """Respond with 403: the caller lacks the permission for the request."""


@dataclass(frozen=True)
class CutBody(BodyAction):
    """End the response body early."""

    after: int = 0
    """The number of bytes that are still delivered."""
    clean: bool = False
    """End the body normally instead of with httpx.ReadError."""


@dataclass(frozen=True)
class StallBody(BodyAction):
    """Stop sending the response body, and keep the connection open."""

    after: int = 0
    """The number of bytes that are still delivered."""


@dataclass(frozen=True)
class GarbleBody(BodyAction):
    """Replace the rest of the response body, then end it."""

    after: int = 0
    """The number of bytes that are still delivered."""
    garbage: bytes = b"\x00<not json>"
    """The bytes that follow."""


@dataclass(frozen=True)
class ExpireWatch(WatchAction):
    """Respond to a watch with 410: its resourceVersion is too old."""

    status: bool = False
    """Send 410 as the response itself. A real server always sends an ERROR event, the default."""
    after: int = 0
    """The number of events that come before the ERROR event."""


@dataclass(frozen=True)
class EndWatch(WatchAction):
    """End a watch normally, as a restarting API server does."""

    after: int = 0
    """The number of events that are delivered."""


@dataclass(frozen=True)
class OmitEvents(WatchAction):
    """Leave out events of a watch."""

    first: int = 0
    """The index of the first omitted event (0 is the first event; bookmarks count)."""
    count: int = 1
    """The number of omitted events."""


@dataclass(frozen=True)
class RepeatEvents(WatchAction):
    """Deliver events of a watch twice."""

    first: int = 0
    """The index of the first repeated event."""
    count: int = 1
    """The number of repeated events."""


@dataclass(frozen=True)
class SwapEvents(WatchAction):
    """Deliver an event of a watch after the one that follows it."""

    first: int = 0
    """The index of the event that comes late."""
