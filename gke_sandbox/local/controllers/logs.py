"""A container's log as it lies on the node, and what a reader of it gets.

The container runtime takes the output apart into lines: a line goes on when its newline has come, and one
that is longer than 16 KiB in pieces of that size. The kubelet looks at a log's size every 10 s and rotates
one above 10 MiB; a reader that comes later gets only what came after, one that follows misses nothing.
https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import anyio

from ..notify import Notifier
from ..objects import Calendar

_LONGEST_LINE = 16 * 1024
_LINE_OVERHEAD = 45  # what the container runtime puts before each line: time, stream, tag
_ROTATED_ABOVE = 10 * 1024 * 1024


@dataclass(frozen=True)
class _Entry:
    at: datetime
    data: bytes


class _File:
    """One file of a log; `next` is the one that took its place."""

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self.size = 0
        self.next: _File | None = None


class ContainerLog:
    """The log of one container: written by its kubelet, read by any number of readers."""

    def __init__(self, calendar: Calendar, housekeeping: float) -> None:
        self._calendar = calendar
        self._housekeeping = housekeeping
        self._looked = anyio.current_time()
        self._line = bytearray()
        self.file = _File()
        self.written = 0
        """Bytes on the node's disk, of all files."""
        self.closed = False
        self.readable_from = 0.0
        """When the kubelet can serve the log, by the event loop's clock; infinite while the kubelet is away."""
        self.interruptions = 0
        self.changed = Notifier()

    def write(self, data: bytes) -> None:
        """Append output, in pieces of any size."""
        self.rotate_if_due()
        start = 0
        while start < len(data):
            newline = data.find(b"\n", start, start + _LONGEST_LINE - len(self._line))
            end = newline + 1 if newline >= 0 else min(start + _LONGEST_LINE - len(self._line), len(data))
            self._line += data[start:end]
            start = end
            if newline >= 0 or len(self._line) >= _LONGEST_LINE:
                self._flush()
        self.changed.notify()

    def _flush(self) -> None:
        if self._line:
            entry = _Entry(self._calendar.now(), bytes(self._line))
            self.file.entries.append(entry)
            self.file.size += len(entry.data) + _LINE_OVERHEAD
            self.written += len(entry.data) + _LINE_OVERHEAD
            self._line.clear()

    def rotate_if_due(self) -> None:
        """Do what the kubelet did at its last look at the log."""
        now = anyio.current_time()
        if now - self._looked < self._housekeeping:
            return
        self._looked += (now - self._looked) // self._housekeeping * self._housekeeping
        if self.file.size > _ROTATED_ABOVE:
            self.file.next = _File()
            self.file = self.file.next
            self.changed.notify()

    def interrupt(self) -> None:
        """The kubelet stops: readers that follow come to an end, wherever they are."""
        self.readable_from = math.inf
        self.interruptions += 1
        self.changed.notify()

    def flush(self) -> None:
        """The container has ended: what is left of its last line goes out without a newline."""
        self._flush()
        self.changed.notify()

    def close(self) -> None:
        """There will be no more; readers that follow come to an end."""
        self._flush()
        self.closed = True
        self.changed.notify()


@dataclass(frozen=True)
class LogOptions:
    """What a reader asks for. https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/"""

    follow: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: datetime | None = None
    timestamps: bool = False

    @staticmethod
    def since_seconds(calendar: Calendar, seconds: int) -> datetime:
        return calendar.now() - timedelta(seconds=seconds)


class LogStream:
    """The answer to one request for a log, piece by piece."""

    def __init__(self, log: ContainerLog, options: LogOptions) -> None:
        log.rotate_if_due()
        self._log = log
        self._interruptions = log.interruptions
        self._options = options
        self._file = log.file
        self._at = 0
        if options.tail_lines is not None:
            self._at = max(len(self._file.entries) - options.tail_lines, 0)
        self._left = options.limit_bytes
        # Without following, the log is read as far as it went when it was asked for.
        self._end = None if options.follow else len(self._file.entries)

    async def next(self) -> bytes | None:
        """The next line, None at the end; waits if the log is followed."""
        while self._interruptions == self._log.interruptions:
            piece = self._read()
            if piece is not None:
                return piece
            if self._left == 0 or not self._options.follow or self._log.closed:
                return None
            await self._log.changed.wait()
        return None

    def _read(self) -> bytes | None:
        while self._left != 0:
            end = len(self._file.entries) if self._end is None else self._end
            if self._at < end:
                entry = self._file.entries[self._at]
                self._at += 1
                if self._options.since is None or entry.at >= self._options.since:
                    return self._limited(self._stamped(entry))
            elif self._options.follow and self._file.next is not None:
                self._file, self._at = self._file.next, 0
            else:
                return None
        return None

    def _stamped(self, entry: _Entry) -> bytes:
        if not self._options.timestamps:
            return entry.data
        return entry.at.strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode() + entry.data

    def _limited(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        data = data[: self._left]
        self._left -= len(data)
        return data
