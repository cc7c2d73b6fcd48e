"""The watch protocol: split bytes into lines, and parse lines into events. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, cast

from ..errors import ServerError
from .status import RequestInfo, plain

__all__ = ["EventType", "LineDecoder", "LineTooLong", "WatchEvent", "parse_event"]

# An object in etcd has at most 1.5 MiB; its JSON with managedFields is still far below.
MAX_LINE = 8 << 20


class LineTooLong(ValueError):
    """A line is longer than the decoder's limit. The decoder is of no use afterwards."""


class LineDecoder:
    """Splits bytes into lines, at ``\\n`` only: a carriage return or U+2028 inside of JSON ends no line.

    Linear in the bytes fed, however they are cut; holds at most one line of `max_line` bytes.
    """

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._begun = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` ends, without their ``\\n``. Raises `LineTooLong`."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            lines[0] = bytes(self._begun) + lines[0]
            self._begun.clear()
        self._begun += rest
        if len(self._begun) > self._max_line or any(len(line) > self._max_line for line in lines):
            raise LineTooLong(f"a line is longer than {self._max_line} bytes")
        return lines

    def finish(self) -> bytes | None:
        """What followed the last ``\\n``; None when there is nothing."""
        rest = bytes(self._begun)
        self._begun.clear()
        return rest or None


EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "SYNCED", "MISSING"]
_WIRE_TYPES = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"})


@dataclass(frozen=True)
class WatchEvent:
    """One change. `object` is the whole object after it; a Status for ERROR; its metadata alone for BOOKMARK.

    Two never come from a server: `list_and_watch` puts SYNCED after the events of a list, with its metadata, and
    tells MISSING of what is not in a new list any more, as it was last seen.
    https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
    """

    type: EventType
    object: dict[str, Any]


def parse_event(call: RequestInfo, line: bytes) -> WatchEvent:
    """The event in one line of a watch. Raises `ServerError` when it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        kind, body = value.get("type"), value.get("object")
        if isinstance(kind, str) and kind in _WIRE_TYPES and isinstance(body, dict):
            return WatchEvent(cast("EventType", kind), body)
    raise ServerError(
        f"{call}: not a watch event: '{plain(line[:200].decode('utf-8', 'replace'), 200)}'",
        code=200,
        reason="",
        request=str(call),
    )
