"""Signals and closed pipes end the run, and the Job is deleted before the command exits."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from gke_sandbox.cli.console import write_all

from .processes import read, start, until

_SECONDS = 20.0


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    stdout, stderr = process.communicate(timeout=_SECONDS)
    return process.returncode, stdout, stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_deletes_the_job_and_is_reported(number: signal.Signals, status: int, journal: Path) -> None:
    process = start("prints and waits", journal)
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    process.send_signal(number)
    message = f"gke-sandbox: error: interrupted by {number.name}; no Job is left in the cluster\n"
    assert finish(process) == (status, b"", message.encode())
    assert read(journal) == ["created", "deleted"]


def test_an_interrupted_run_with_json_prints_the_error_as_json(journal: Path) -> None:
    process = start("waits", journal, "--json")
    until(journal, "created")
    process.send_signal(signal.SIGINT)
    status, stdout, stderr = finish(process)
    assert (status, stderr) == (130, b"")
    assert stdout.startswith(b'{"error": {"kind": "Interrupted"')


def test_a_second_ctrl_c_exits_at_once_and_names_the_job(journal: Path) -> None:
    process = start("prints and waits, slow to delete", journal, "-n", "agents")
    until(journal, "created")
    process.send_signal(signal.SIGTERM)
    # timeout(1) sends its signal twice, so only Ctrl-C exits at once.
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGINT)
    status, _, stderr = finish(process)
    assert status == 143
    assert stderr.decode().splitlines() == [
        "gke-sandbox: error: interrupted by SIGTERM; possibly not deleted: job-1",
        "hint: Run: kubectl --namespace agents delete job job-1",
    ]
    assert read(journal) == ["created"]


def test_a_second_ctrl_c_kills_local_programs(journal: Path) -> None:
    process = start("waits, slow to delete", journal, "--local")
    until(journal, "created")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert read(journal) == ["created", "deleted now"]


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(journal: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = start("prints and ends", journal, preexec_fn=ignore)
    until(journal, "created")
    process.send_signal(signal.SIGHUP)
    assert finish(process) == (0, b"one\n", b"")


def test_a_pipe_closed_during_output_ends_the_run_without_a_message(journal: Path) -> None:
    process = start("prints forever", journal)
    assert process.stdout is not None
    assert process.stdout.read(10) == b"y\n" * 5
    process.stdout.close()
    assert process.wait(_SECONDS) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert read(journal) == ["created", "deleted"]


def test_a_closed_pipe_ends_a_run_that_prints_nothing_more(journal: Path) -> None:
    process = start("prints and waits", journal)
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    process.stdout.close()
    assert process.wait(_SECONDS) == 141
    assert read(journal) == ["created", "deleted"]


def test_a_program_that_ends_right_after_the_pipe_is_closed_keeps_its_exit_code(journal: Path) -> None:
    process = start("prints and ends", journal)
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    process.stdout.close()
    assert process.wait(_SECONDS) == 0


def test_ctrl_c_works_while_the_reader_of_a_full_pipe_does_not_read(journal: Path) -> None:
    process = start("prints forever", journal)
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    until(journal, "created")
    time.sleep(0.2)  # until the pipe is full; there is no event to wait for
    process.send_signal(signal.SIGINT)
    assert process.wait(_SECONDS) == 130
    assert read(journal) == ["created", "deleted"]


def test_a_full_disk_is_reported_and_the_job_is_deleted(journal: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        status, _, stderr = finish(start("prints and waits", journal, stdout=full))
    assert status == 125
    assert stderr == b"gke-sandbox: error: cannot write to stdout: No space left on device\n"
    assert read(journal) == ["created", "deleted"]


def test_a_full_disk_with_json_is_reported_on_stderr(journal: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        status, _, stderr = finish(start("hello", journal, "--json", stdout=full))
    assert status == 125
    assert stderr == b"gke-sandbox: error: cannot write to stdout: No space left on device\n"


def test_a_stdout_that_is_closed_at_the_start_is_an_error(journal: Path) -> None:
    status, _, stderr = finish(start("hello", journal, stdout=None, preexec_fn=lambda: os.close(1)))
    assert status == 125
    assert b"cannot write to stdout" in stderr


def test_a_stderr_that_is_closed_at_the_start_is_discarded(journal: Path) -> None:
    status, stdout, _ = finish(start("both", journal, stderr=None, preexec_fn=lambda: os.close(2)))
    assert (status, stdout) == (124, b"out")


def test_a_non_blocking_pipe_receives_all_of_the_output() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def write() -> None:
        write_all(writing, b"x" * 300_000)
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb") as pipe:
        assert len(pipe.read()) == 300_000
    writer.join()


def test_an_unexpected_error_deletes_the_job_and_is_reported_as_a_bug(journal: Path) -> None:
    status, stdout, stderr = finish(start("crashes", journal))
    assert (status, stdout) == (125, b"some\n")
    assert b"RuntimeError: unexpected" in stderr
    assert stderr.endswith(b"hint: Please report it, with the traceback.\n")
    assert read(journal) == ["created", "deleted"]
