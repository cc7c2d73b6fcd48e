"""The progress line on a terminal shows the phases, and is removed before other output."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from .processes import start, until

_SECONDS = 20.0


class Terminal:
    """A pseudo-terminal of 100 columns for the command's stderr, and for its stdout unless that is a pipe."""

    def __init__(self, scenario: str, journal: Path, *arguments: str, stdout: Any = None, term: str = "xterm"):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        environment = {**os.environ, "TERM": term}
        self.process = start(
            scenario,
            journal,
            *arguments,
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            env=environment,
        )
        os.close(slave)

    def finish(self) -> tuple[int, bytes]:
        """Return the exit code and everything that was sent to the terminal."""
        sent = b""
        while True:
            try:
                chunk = os.read(self.master, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not chunk:
                break
            sent += chunk
        os.close(self.master)
        return self.process.wait(_SECONDS), sent


def screen(sent: bytes) -> list[str]:
    """Return the lines on the screen. Supports carriage return, line feed and "erase to the end of line"."""
    lines, column = [""], 0
    rest = sent.decode()
    while rest:
        if rest.startswith("\x1b[K"):
            lines[-1] = lines[-1][:column]
            rest = rest[3:]
            continue
        letter, rest = rest[0], rest[1:]
        if letter == "\r":
            column = 0
        elif letter == "\n":
            lines.append("")
            column = 0
        else:
            assert letter.isprintable(), f"{letter!r} was sent to the terminal"
            lines[-1] = lines[-1][:column] + letter + lines[-1][column + 1 :]
            column += 1
            assert column < 100, "the line would wrap, and could not be erased"
    return lines


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_the_progress_line_shows_the_phases_and_is_removed(journal: Path) -> None:
    status, sent = Terminal("hello", journal).finish()
    assert status == 0
    assert b" s running (created 0.0 s, scheduled 0.0 s, started 0." in sent
    assert screen(sent) == ["42", ""]


def test_the_progress_line_is_not_shown_again_after_output(journal: Path) -> None:
    status, sent = Terminal("both", journal).finish()
    assert status == 124
    assert b"running" in sent
    assert screen(sent) == [
        "outerr",
        "gke-sandbox: error: the program was killed at its time limit of 300 s",
        "hint: Raise --timeout.",
        "",
    ]


def test_the_wait_reason_of_a_pod_is_shown_on_one_line_without_control_characters(journal: Path) -> None:
    status, sent = Terminal("pulls", journal).finish()
    assert status == 125
    assert rb"ErrImagePull: no such \x1b[31mimage xxx" in sent
    assert screen(sent) == [
        "gke-sandbox: error: the sandbox did not start: ErrImagePull",
        "hint: check the image's name",
        "",
    ]


def test_the_progress_line_is_not_written_to_a_piped_stdout(journal: Path) -> None:
    terminal = Terminal("hello", journal, stdout=subprocess.PIPE)
    status, sent = terminal.finish()
    stdout, _ = terminal.process.communicate()
    assert (status, stdout) == (0, b"42\n")
    assert b"running" in sent
    assert screen(sent) == [""]


@pytest.mark.parametrize(
    ("arguments", "term"), [(("--json",), "xterm"), (("-v",), "xterm"), ((), "dumb")], ids=str
)
def test_json_verbose_and_dumb_terminals_disable_the_progress_line(
    arguments: tuple[str, ...], term: str, journal: Path
) -> None:
    _, sent = Terminal("hello", journal, *arguments, stdout=subprocess.DEVNULL, term=term).finish()
    assert b"\x1b" not in sent


def test_without_a_terminal_no_progress_line_is_shown(journal: Path) -> None:
    assert start("hello", journal).communicate(timeout=_SECONDS) == (b"42\n", b"")


def test_ctrl_c_shows_on_the_terminal_that_the_job_is_being_deleted(journal: Path) -> None:
    terminal = Terminal("waits", journal)
    until(journal, "created")
    terminal.process.send_signal(signal.SIGINT)
    status, sent = terminal.finish()
    assert status == 130
    assert b"deleting the Job (press Ctrl-C again to exit without waiting)" in sent
