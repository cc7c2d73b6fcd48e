"""Faults of a WebSocket to an attached container. To refuse it, use the faults of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .match import Point


@dataclass(frozen=True)
class CutAttach:
    """Cut the connection without a close frame."""

    point: ClassVar[Point] = "attach"
    after: int = 0
    """The number of bytes of output (or input) that still arrive. With 0 not even the first empty message does."""
    direction: Literal["output", "input"] = "output"
    """Whether `after` counts the container's output or its input."""
    inside_frame: bool = False
    """Cut in the middle of the WebSocket frame that contains the last bytes of output."""
    clean: bool = False
    """End the stream of bytes normally instead of with httpcore.ReadError."""


@dataclass(frozen=True)
class CloseAttach:
    """Send a close frame, as a proxy or a restarting API server does."""

    point: ClassVar[Point] = "attach"
    after: int = 0
    """The number of bytes of output that are still delivered."""
    code: int = 1001
    """The close code. https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1"""
    reason: str = ""
    """The text in the close frame."""


@dataclass(frozen=True)
class GarbleAttach:
    """Send bytes that are not a WebSocket frame, then end the connection."""

    point: ClassVar[Point] = "attach"
    after: int = 0
    """The number of bytes of output that are still delivered."""
    garbage: bytes = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
    """The bytes that follow."""


@dataclass(frozen=True)
class StallAttach:
    """Stop sending and receiving, and keep the connection open. Pings are not answered."""

    point: ClassVar[Point] = "attach"
    after: int = 0
    """The number of bytes of output that are still delivered."""


@dataclass(frozen=True)
class DelayAttach:
    """Delay output, then continue."""

    point: ClassVar[Point] = "attach"
    seconds: float
    """The length of the delay, in seconds."""
    after: int = 0
    """The number of bytes of output that are delivered before."""


AttachAction = CutAttach | CloseAttach | GarbleAttach | StallAttach | DelayAttach
