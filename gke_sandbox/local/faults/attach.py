"""Faults of a WebSocket to an attached container. To refuse it, use the faults of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .plan import Action


class AttachAction(Action):
    """A fault of an attached connection."""

    after: int
    """The number of bytes that still arrive."""


@dataclass(frozen=True)
class CutAttach(AttachAction):
    """Cut the connection without a close frame."""

    after: int = 0
    """The number of bytes of output (or input) that still arrive. With 0 not even the first empty message does."""
    direction: Literal["output", "input"] = "output"
    """Whether `after` counts the container's output or its input."""
    inside_frame: bool = False
    """Cut in the middle of the WebSocket frame that contains the last bytes of output."""
    clean: bool = False
    """End the stream of bytes normally instead of with httpcore.ReadError."""


@dataclass(frozen=True)
class CloseAttach(AttachAction):
    """Send a close frame, as a proxy or a restarting API server does."""

    after: int = 0
    """The number of bytes of output that are still delivered."""
    code: int = 1001
    """The close code. https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1"""
    reason: str = ""
    """The text in the close frame."""


@dataclass(frozen=True)
class GarbleAttach(AttachAction):
    """Send bytes that are not a WebSocket frame, then end the connection."""

    after: int = 0
    """The number of bytes of output that are still delivered."""
    garbage: bytes = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
    """The bytes that follow."""


@dataclass(frozen=True)
class StallAttach(AttachAction):
    """Stop sending and receiving, and keep the connection open. Pings are not answered."""

    after: int = 0
    """The number of bytes of output that are still delivered."""


@dataclass(frozen=True)
class DelayAttach(AttachAction):
    """Delay output, then continue."""

    seconds: float
    """The length of the delay, in seconds."""
    after: int = 0
    """The number of bytes of output that are delivered before."""
