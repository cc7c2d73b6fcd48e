"""This command's stdout and stderr: the program's bytes pass through, our own lines stand by themselves."""

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

_ERASE = "\r\x1b[K"


class OutputFailed(Exception):
    """stdout or stderr took no more: its reader is gone, or its disk is full."""

    def __init__(self, stream: Stream, error: OSError) -> None:
        super().__init__(f"{stream} could not be written: {error.strerror or error}")
        self.reader_gone = error.errno in (errno.EPIPE, errno.ECONNRESET)


def open_closed_streams() -> None:
    """Put something behind each standard stream that was closed when we were started.

    Otherwise the next file or socket that is opened gets its number, and output goes into it. A closed
    stderr takes whatever comes; writing to a closed stdout fails, as it should.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # open() takes the lowest free number, which is this one.
            os.open(os.devnull, mode)


def one_line(text: str) -> str:
    """`text` as one line that is safe on a terminal: servers and programs have a say in our messages."""
    words = " ".join(text.split())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in words)


class Console:
    """Writes to both. `json`: the outcome is one JSON object on stdout, errors included."""

    def __init__(self, *, json: bool = False, stdout: int = 1, stderr: int = 2) -> None:
        self.json = json
        self._descriptors: dict[Stream, int] = {"stdout": stdout, "stderr": stderr}
        self._encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        self._status_shown = False
        self._mid_line = False
        self._hanging = False
        # What is printed on stdout disturbs our lines on stderr only if both go to the same place.
        self._same_place = _same_file(stdout, stderr)

    # -- the program's output -----------------------------------------------------------------------------

    async def pass_through(self, stream: Stream, data: bytes) -> None:
        """Write what the program wrote. Raises `OutputFailed`.

        In a thread, so that a reader that has stopped reading (a pager) does not stop the event loop, and
        with it the signals and the time limits.
        """
        import anyio.to_thread

        self.clear_status()
        self._hanging = True
        await anyio.to_thread.run_sync(self._write, stream, data, abandon_on_cancel=True)

    def leave(self, status: int) -> int:
        """Return `status`; or, where a thread still hangs in a write that nobody reads, leave with it at once.

        Python would wait for that thread at its exit, and so for ever.
        """
        if self._hanging:
            os._exit(status)
        return status

    def print_json(self, value: object) -> None:
        """Write `value` to stdout as one line of JSON, in ASCII. Raises `OutputFailed`."""
        self._write("stdout", json.dumps(value).encode("ascii") + b"\n")

    def _write(self, stream: Stream, data: bytes) -> None:
        try:
            write_all(self._descriptors[stream], data)
        except OSError as error:
            raise OutputFailed(stream, error) from error
        finally:
            self._hanging = False
        if data and (stream == "stderr" or self._same_place):
            self._mid_line = not data.endswith(b"\n")

    async def stdout_reader_gone(self) -> OutputFailed:
        """Return when whoever read our stdout through a pipe has gone; never, if it is not a pipe."""
        import anyio

        descriptor = self._descriptors["stdout"]
        if not _is_writing_end(descriptor):
            await anyio.sleep_forever()
        # The writing end of a pipe becomes "readable" in one case only: the error that there is no reader.
        await anyio.wait_readable(descriptor)
        return OutputFailed("stdout", BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

    # -- our own lines ------------------------------------------------------------------------------------

    def fail(self, kind: str, message: str, hint: str = "", *, in_lines: bool = False, **more: Any) -> None:
        """Tell the error that ends this command: two lines on stderr, or with `json` an object on stdout.

        `in_lines`: the message's own line breaks are kept.
        """
        if not self.json:
            self.error(message, hint, in_lines=in_lines)
            return
        try:
            self.print_json({"error": {"kind": kind, "message": message, "hint": hint, **more}})
        except OutputFailed as failed:
            if not failed.reader_gone:
                self.error(str(failed))

    def error(self, message: str, hint: str = "", *, in_lines: bool = False) -> None:
        first, *more = message.split("\n") if in_lines else [message]
        self.line(f"gke-sandbox: error: {first}")
        for line in more:
            indent = len(line) - len(line.lstrip(" "))
            self.text(f"{' ' * (2 + indent)}{one_line(line)}\n")
        if hint:
            self.line(f"hint: {hint}")

    def interrupted(self, number: int, jobs: Sequence[str], namespace: str) -> None:
        """Tell that signal `number` ended this command, and which Jobs it may leave."""
        message = f"interrupted by {signal.Signals(number).name}; "
        if jobs:
            hint = f"kubectl --namespace {namespace} delete job {' '.join(jobs)}"
            message += f"may be left in the cluster: {', '.join(jobs)}"
        else:
            hint = ""
            message += "nothing is left in the cluster"
        self.fail("Interrupted", message, hint, jobs=list(jobs))

    def note(self, message: str) -> None:
        self.line(f"gke-sandbox: note: {message}")

    def line(self, text: str) -> None:
        """One line on stderr, beginning at the left margin."""
        self.text(f"{one_line(text)}\n")

    def text(self, text: str) -> None:
        """Lines on stderr. If stderr does not take them there is nowhere left to say so."""
        start = _ERASE if self._status_shown else "\n" if self._mid_line else ""
        self._status_shown = self._mid_line = False
        with contextlib.suppress(OSError):
            write_all(self._descriptors["stderr"], (start + text).encode(self._encoding, "backslashreplace"))

    # -- the status line ----------------------------------------------------------------------------------

    @property
    def has_status_line(self) -> bool:
        """Whether stderr is a terminal on which a line can be drawn again and again."""
        return os.isatty(self._descriptors["stderr"]) and os.environ.get("TERM", "dumb") != "dumb"

    def status(self, text: str) -> None:
        """Draw the status line, over the one before; anything else that is written takes it away first."""
        descriptor = self._descriptors["stderr"]
        try:
            columns = os.get_terminal_size(descriptor).columns or 80
        except OSError:
            columns = 80
        shown = one_line(text).encode("ascii", "replace").decode("ascii")[: columns - 1]
        start = "\n" if self._mid_line else ""
        self._mid_line = False
        with contextlib.suppress(OSError):
            write_all(descriptor, f"{start}{_ERASE}{shown}".encode("ascii"))
            self._status_shown = True

    def clear_status(self) -> None:
        if self._status_shown:
            self._status_shown = False
            with contextlib.suppress(OSError):
                write_all(self._descriptors["stderr"], _ERASE.encode("ascii"))


class LogLines(logging.Handler):
    """Log records as lines of ours on stderr."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.line(f"gke-sandbox: {record.levelname.lower()}: {record.getMessage()}")
        if record.exc_info:
            self._console.text(f"{logging.Formatter().formatException(record.exc_info)}\n")


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, though the descriptor may be in non-blocking mode: a parent may have left it so."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def print_text(text: str) -> None:
    """Print to stdout and flush. Raises `OutputFailed`."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What Python still holds goes nowhere: its own flush, at exit, would complain once more.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        raise OutputFailed("stdout", error) from error


def _same_file(one: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def _is_writing_end(descriptor: int) -> bool:
    """Whether this is a pipe, opened for writing only."""
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return False
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
