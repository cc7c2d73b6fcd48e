"""The log of a container on the node, and its readers.

The container runtime splits the output into lines: it writes a line when the newline arrives, and a line of more
than 16 KiB in parts of that size. The kubelet checks the size of a log every 10 s and rotates a log of more than
10 MiB. A later reader gets only the new file; a reader that follows the log misses nothing.
https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation
"""

from __future__ import annotations

import math

import anyio

from ..notify import Notifier

MAX_LINE = 16 * 1024
LINE_OVERHEAD = 45  # the container runtime prefixes each line with time, stream and tag
MAX_FILE_SIZE = 10 * 1024 * 1024


class _File:
    """One file of a log; `next` is the file that replaced it."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.size = 0
        self.next: _File | None = None


class ContainerLog:
    """The log of one container, with one writer and any number of readers."""

    def __init__(self, housekeeping: float) -> None:
        self._housekeeping = housekeeping
        self._checked = anyio.current_time()
        self._lines: dict[str, bytearray] = {}
        self.file = _File()
        self.written = 0
        """Bytes on the disk of the node, in all files."""
        self.closed = False
        self.readable_from = 0.0
        """The time of the event loop from which the log can be read; infinite while the kubelet is away."""
        self.interruptions = 0
        self.changed = Notifier()

    def write(self, data: bytes, stream: str = "stdout") -> None:
        """Append output in chunks of any size. The lines of the two streams are never mixed."""
        self.rotate_if_due()
        line = self._lines.setdefault(stream, bytearray())
        start = 0
        while start < len(data):
            newline = data.find(b"\n", start, start + MAX_LINE - len(line))
            end = newline + 1 if newline >= 0 else min(start + MAX_LINE - len(line), len(data))
            line += data[start:end]
            start = end
            if newline >= 0 or len(line) >= MAX_LINE:
                self._append(line)
        self.changed.notify()

    def _append(self, line: bytearray) -> None:
        self.file.lines.append(bytes(line))
        self.file.size += len(line) + LINE_OVERHEAD
        self.written += len(line) + LINE_OVERHEAD
        line.clear()

    def rotate_if_due(self) -> None:
        """Rotate the log if the kubelet would have done so at its last check."""
        now = anyio.current_time()
        if now - self._checked < self._housekeeping:
            return
        self._checked += (now - self._checked) // self._housekeeping * self._housekeeping
        if self.file.size > MAX_FILE_SIZE:
            self.file.next = _File()
            self.file = self.file.next
            self.changed.notify()

    def interrupt(self) -> None:
        """Stop serving the log, because the kubelet stops; end the responses that follow it."""
        self.readable_from = math.inf
        self.interruptions += 1
        self.changed.notify()

    def flush(self) -> None:
        """Write an unfinished last line; call it after the end of the output."""
        for line in self._lines.values():
            if line:
                self._append(line)
        self.changed.notify()

    def close(self) -> None:
        """End the log, and with it the responses that follow it."""
        self.closed = True
        self.flush()


class LogBody:
    """The body of the response to one log request."""

    def __init__(self, log: ContainerLog, *, follow: bool) -> None:
        log.rotate_if_due()
        self._log = log
        self._interruptions = log.interruptions
        self._follow = follow
        self._file = log.file
        self._at = 0
        # Without `follow` the response ends where the log ended at the time of the request.
        self._end = None if follow else len(self._file.lines)

    async def next(self) -> bytes | None:
        """Return the next line, or None at the end. Wait for it if the log is followed."""
        while self._interruptions == self._log.interruptions:
            end = len(self._file.lines) if self._end is None else self._end
            if self._at < end:
                self._at += 1
                return self._file.lines[self._at - 1]
            if not self._follow:
                return None
            if self._file.next is not None:
                self._file, self._at = self._file.next, 0
            elif self._log.closed:
                return None
            else:
                await self._log.changed.wait()
        return None
