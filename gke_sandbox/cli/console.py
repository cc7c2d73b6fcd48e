"""Write to stdout and stderr: the output of the program unchanged, messages and tables of this command."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import select
import signal
import stat
import sys
from collections.abc import Sequence
from typing import Any, Literal

Stream = Literal["stdout", "stderr"]

_STDOUT, _STDERR = 1, 2
_ERASE_LINE = "\r\x1b[K"


class OutputFailed(Exception):
    """Writing to stdout or stderr failed: the reader closed the pipe, or the disk is full."""

    def __init__(self, stream: Stream, error: OSError) -> None:
        super().__init__(f"cannot write to {stream}: {error.strerror or error}")
        self.reader_gone = error.errno in (errno.EPIPE, errno.ECONNRESET)


def open_closed_streams() -> None:
    """Open something for each standard stream that was closed when the process started.

    Otherwise the next file or socket that is opened would get its descriptor, and output would go into it. stderr
    is then discarded; stdout is opened for reading only, so that writing to it fails.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # open() returns the lowest free descriptor, which is this one.
            os.open(os.devnull, mode)


def one_line(text: str) -> str:
    """Return `text` as one line without control characters: parts of it may come from servers and programs."""
    joined = " ".join(text.split())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in joined)


def aligned(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Return the rows as lines with aligned columns. An empty cell is shown as ``-``.

    `numbers`: align all columns except the first to the right.
    """
    cells = [[one_line(cell) or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = ["<", *((">" if numbers else "<") for _ in widths[1:])]
    return "".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        + "\n"
        for row in cells
    )


def age_text(seconds: float) -> str:
    """Return an age in its two largest units: ``2d3h``, ``1h5m``, ``12m``, ``40s``."""
    total = int(seconds)
    for unit, size, next_unit, next_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if total >= size:
            rest = total % size // next_size
            return f"{total // size}{unit}" + (f"{rest}{next_unit}" if rest else "")
    return f"{total}s"


class Console:
    """Write to stdout and stderr. With `json`, the outcome is one JSON object on stdout, errors included."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        self._status_shown = False
        self._mid_line = False
        self._writing_in_thread = False
        # Unfinished lines on stdout only matter to messages on stderr if both go to the same place.
        self._same_file = _same_file(_STDOUT, _STDERR)

    # -- the program's output -----------------------------------------------------------------------------

    async def pass_through(self, stream: Stream, data: bytes) -> None:
        """Write output of the program. Raises `OutputFailed`.

        The write runs in a thread: if the reader (a pager) stops reading, the event loop goes on, and with it
        signals and timeouts.
        """
        import anyio.to_thread

        self.clear_status()
        self._writing_in_thread = True
        await anyio.to_thread.run_sync(self._write, stream, data, abandon_on_cancel=True)

    def finish(self, exit_code: int) -> int:
        """Return `exit_code`, or exit the process with it if a thread is still blocked in a write.

        A normal exit would wait for that thread without a limit.
        """
        if self._writing_in_thread:
            os._exit(exit_code)
        return exit_code

    def print_json(self, value: object) -> None:
        """Write `value` to stdout as one line of JSON, in ASCII. Raises `OutputFailed`."""
        self._write("stdout", json.dumps(value).encode("ascii") + b"\n")

    def _write(self, stream: Stream, data: bytes) -> None:
        try:
            _write(stream, data)
        finally:
            self._writing_in_thread = False
        if data and (stream == "stderr" or self._same_file):
            self._mid_line = not data.endswith(b"\n")

    async def stdout_reader_gone(self) -> OutputFailed:
        """Return when the reader of stdout has closed the pipe. Wait until cancelled if stdout is not a pipe."""
        import anyio

        if not _is_writing_end(_STDOUT):
            await anyio.sleep_forever()
        # The writing end of a pipe only becomes "readable" when the reading end is closed.
        await anyio.wait_readable(_STDOUT)
        return OutputFailed("stdout", BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

    # -- messages -----------------------------------------------------------------------------------------

    def print_failure(
        self, kind: str, message: str, hint: str = "", *, keep_lines: bool = False, **details: Any
    ) -> None:
        """Print the error that ends this command: lines on stderr, or with `json` an object on stdout.

        With `keep_lines`, line breaks in the message are kept.
        """
        if not self.json:
            self.print_error(message, hint, keep_lines=keep_lines)
            return
        try:
            self.print_json({"error": {"kind": kind, "message": message, "hint": hint, **details}})
        except OutputFailed as failed:
            if not failed.reader_gone:
                self.print_error(str(failed))

    def print_error(self, message: str, hint: str = "", *, keep_lines: bool = False) -> None:
        """Print an error and its hint to stderr."""
        first, *more = message.split("\n") if keep_lines else [message]
        self.print_line(f"gke-sandbox: error: {first}")
        for line in more:
            indent = len(line) - len(line.lstrip(" "))
            self.print_lines(f"{' ' * (2 + indent)}{one_line(line)}\n")
        if hint:
            self.print_line(f"hint: {hint}")

    def print_interrupted(self, number: int, jobs: Sequence[str], namespace: str) -> None:
        """Print that signal `number` ended this command, and the Jobs that may still be in the cluster."""
        message, hint = f"interrupted by {signal.Signals(number).name}; no Job is left in the cluster", ""
        if jobs:
            message = f"interrupted by {signal.Signals(number).name}; possibly not deleted: {', '.join(jobs)}"
            hint = f"Run: kubectl --namespace {namespace} delete job {' '.join(jobs)}"
        self.print_failure("Interrupted", message, hint, jobs=list(jobs))

    def print_note(self, message: str) -> None:
        """Print a note to stderr."""
        self.print_line(f"gke-sandbox: note: {message}")

    def print_line(self, text: str) -> None:
        """Print one line to stderr, starting at the left margin."""
        self.print_lines(f"{one_line(text)}\n")

    def print_lines(self, text: str) -> None:
        """Print lines to stderr. Ignore errors: they cannot be reported anywhere else."""
        start = _ERASE_LINE if self._status_shown else "\n" if self._mid_line else ""
        self._status_shown = self._mid_line = False
        with contextlib.suppress(OSError):
            write_all(_STDERR, (start + text).encode(self._encoding, "backslashreplace"))

    # -- the status line ----------------------------------------------------------------------------------

    @property
    def can_show_status(self) -> bool:
        """Whether stderr is a terminal that can redraw a line."""
        return os.isatty(_STDERR) and os.environ.get("TERM", "dumb") != "dumb"

    def show_status(self, text: str) -> None:
        """Draw the status line over the previous one. The next write to stdout or stderr removes it."""
        try:
            columns = os.get_terminal_size(_STDERR).columns or 80
        except OSError:
            columns = 80
        shown = one_line(text).encode("ascii", "replace").decode("ascii")[: columns - 1]
        start = "\n" if self._mid_line else ""
        self._mid_line = False
        with contextlib.suppress(OSError):
            write_all(_STDERR, f"{start}{_ERASE_LINE}{shown}".encode("ascii"))
            self._status_shown = True

    def clear_status(self) -> None:
        """Remove the status line."""
        if self._status_shown:
            self._status_shown = False
            with contextlib.suppress(OSError):
                write_all(_STDERR, _ERASE_LINE.encode("ascii"))


class LogHandler(logging.Handler):
    """Print log records as lines on stderr."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print_line(f"gke-sandbox: {record.levelname.lower()}: {record.getMessage()}")
        if record.exc_info:
            self._console.print_lines(f"{logging.Formatter().formatException(record.exc_info)}\n")


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`. The descriptor may be in non-blocking mode, inherited from the parent process."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def print_text(text: str) -> None:
    """Print to stdout. Characters that its encoding does not have are escaped. Raises `OutputFailed`."""
    # Python has no sys.stdout if stdout was closed at the start.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    _write("stdout", text.encode(encoding, "backslashreplace"))


def _write(stream: Stream, data: bytes) -> None:
    try:
        write_all(_STDOUT if stream == "stdout" else _STDERR, data)
    except OSError as error:
        raise OutputFailed(stream, error) from error


def _same_file(first: int, second: int) -> bool:
    try:
        return os.path.sameopenfile(first, second)
    except OSError:
        return False


def _is_writing_end(descriptor: int) -> bool:
    """Whether the descriptor is a pipe that is open for writing only."""
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return False
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
