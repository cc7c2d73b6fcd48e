"""The watch protocol: split bytes into lines, and parse lines into events. Without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from .status import RequestInfo, bad_response, parse_object, plain

__all__ = ["EventStream", "EventType", "LineDecoder", "WatchEvent", "parse_event"]

MAX_LINE_BYTES = 8 << 20
"""An object in etcd has at most 1.5 MiB; its JSON with managedFields is much smaller than this limit."""


class LineDecoder:
    """Split bytes into lines at ``\\n`` only: a carriage return or U+2028 inside of JSON does not end a line.

    The time is linear in the number of bytes, however they are split. The decoder buffers at most one line.
    """

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without their ``\\n``.

        Raise ValueError for a line that is longer than `MAX_LINE_BYTES`. Do not use the decoder afterwards.
        """
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            lines[0] = bytes(self._partial) + lines[0]
            self._partial.clear()
        self._partial += rest
        if len(self._partial) > MAX_LINE_BYTES or any(len(line) > MAX_LINE_BYTES for line in lines):
            raise ValueError(f"a line is longer than {MAX_LINE_BYTES >> 20} MiB")
        return lines


EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "SYNCED", "MISSING"]
_WIRE_TYPES = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"})


@dataclass(frozen=True)
class WatchEvent:
    """One change: `object` is the whole object after it, a Status for ERROR, only metadata for BOOKMARK.

    Servers do not send SYNCED and MISSING. `Reflector` adds them: SYNCED, with the metadata of the list, after the
    events of a list; MISSING, with the last known object, for each object that a new list no longer contains.
    https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
    """

    type: EventType
    object: dict[str, Any]


def parse_event(info: RequestInfo, line: bytes) -> WatchEvent:
    """Return the event in one line of a watch. Raise `ServerError` if the line is not an event."""
    value = parse_object(line)
    if value is not None:
        kind, body = value.get("type"), value.get("object")
        if isinstance(kind, str) and kind in _WIRE_TYPES and isinstance(body, dict):
            return WatchEvent(cast("EventType", kind), body)
    raise bad_response(info, 200, f"not a watch event: '{plain(line[:200].decode('utf-8', 'replace'), 200)}'")


class EventStream:
    """An iterator over the events in the body of a watch."""

    def __init__(self, info: RequestInfo, body: AsyncIterator[bytes]) -> None:
        self._info = info
        self._body = body
        self._decoder = LineDecoder()
        self._lines: deque[bytes] = deque()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> WatchEvent:
        while True:
            while self._lines:
                line = self._lines.popleft()
                if line.strip():
                    return parse_event(self._info, line)
            # A line that is incomplete when the stream ends is dropped: the next watch returns that event again.
            chunk = await anext(self._body)
            try:
                self._lines.extend(self._decoder.feed(chunk))
            except ValueError as error:
                raise bad_response(self._info, 200, str(error)) from error
