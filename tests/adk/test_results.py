"""What is told to ADK and its model of each way in which a program can end."""

from __future__ import annotations

from typing import Any

import pytest
from google.adk.code_executors.code_execution_utils import CodeExecutionResult

from gke_sandbox import Dropped, ExecutionResult, Settings
from gke_sandbox.adk.results import STDERR_HEADING, of_error, of_result
from gke_sandbox.errors import (
    ConfigError,
    Forbidden,
    NetworkError,
    PayloadTooLarge,
    ResultLost,
    SandboxClosed,
    SandboxError,
    SpecError,
    StartError,
)
from tests.adk.kit import HAS_EXIT_CODE, QUIET, contents, exit_code

pytestmark = QUIET

SETTINGS = Settings(timeout=5, memory_limit="512Mi")
TRACEBACK = b'Traceback (most recent call last):\n  File "main.py", line 1, in <module>\nZeroDivisionError: x\n'


def told(status: Any, code: int | None = None, *, show_stderr: bool = True, **more: Any) -> CodeExecutionResult:
    result = ExecutionResult(status=status, exit_code=code, **more)
    return of_result(result, SETTINGS, show_stderr=show_stderr)


def assert_exit_code(result: CodeExecutionResult, code: int | None) -> None:
    assert exit_code(result) == (code if HAS_EXIT_CODE else None)


def test_success_is_stdout_as_it_was_and_an_empty_stderr() -> None:
    result = told("succeeded", 0, stdout_bytes=b"42")
    assert (result.stdout, result.stderr, result.output_files) == ("42", "", [])
    assert_exit_code(result, 0)


def test_on_success_stderr_follows_stdout_under_a_heading() -> None:
    result = told("succeeded", 0, stdout_bytes=b"42", stderr_bytes=b"main.py:1: UserWarning: old\n")
    assert result.stdout == f"42\n{STDERR_HEADING}\nmain.py:1: UserWarning: old\n"
    assert result.stderr == ""


def test_show_stderr_turns_that_off() -> None:
    result = told("succeeded", 0, stdout_bytes=b"42\n", stderr_bytes=b"old\n", show_stderr=False)
    assert (result.stdout, result.stderr) == ("42\n", "")


@pytest.mark.parametrize("blank", [b"", b"\n", b" \n\n"])
def test_a_blank_stderr_has_no_heading(blank: bytes) -> None:
    assert told("succeeded", 0, stdout_bytes=b"42\n", stderr_bytes=blank).stdout == "42\n"


def test_a_failure_tells_the_traceback_the_exit_code_and_what_was_printed() -> None:
    result = told("failed", 1, stdout_bytes=b"step 1\n", stderr_bytes=TRACEBACK)
    assert result.stderr == (
        f"{TRACEBACK.decode()}\nThe program ended with exit code 1.\n\nWhat it had printed until then:\nstep 1\n"
    )
    assert result.stdout == "step 1\n"
    assert_exit_code(result, 1)


def test_a_silent_failure_is_a_failure() -> None:
    result = told("failed", 3)
    assert result.stderr == "The program ended with exit code 3 and wrote nothing to stderr.\n"
    assert_exit_code(result, 3)


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        ({"status": "timed_out"}, 124, "killed at its time limit of 5 s (timeout_seconds)"),
        ({"status": "out_of_memory", "signal": 9}, 137, "killed for its memory: 512Mi are its limit (mem_limit)"),
        ({"status": "signaled", "signal": 11}, 139, "died of signal 11 (SIGSEGV)"),
        ({"status": "signaled", "signal": 63}, 191, "died of signal 63"),
        (
            {
                "status": "killed",
                "signal": 9,
                "cause": "storage_exceeded",
                "reason": "Evicted",
                "message": 'Usage of EmptyDir volume "tmp" exceeds the limit "64Mi".',
            },
            137,
            "killed: the program wrote more to disk than its limit (Evicted: Usage of EmptyDir",
        ),
        ({"status": "killed", "reason": "New", "message": "of its own"}, 137, "killed: New: of its own"),
        ({"status": "killed"}, 137, "killed: nobody says by what"),
    ],
)
def test_other_ends_are_told_in_words_and_as_an_exit_code(ending: dict[str, Any], code: int, words: str) -> None:
    result = told(**ending, stdout_bytes=b"half of it")
    assert words in result.stderr
    assert "What it had printed until then:\nhalf of it" in result.stderr
    assert_exit_code(result, code)


def test_files_come_with_a_success_and_with_a_failure() -> None:
    for status, code in (("succeeded", 0), ("failed", 1)):
        result = told(status, code, files={"a.txt": b"x"})
        assert contents(result) == {"a.txt": b"x"}


def test_what_was_dropped_is_told_wherever_the_model_looks() -> None:
    dropped = Dropped(stdout=1234, stderr=0, files=2)
    for status, code, where in (("succeeded", 0, "stdout"), ("failed", 1, "stderr")):
        text = getattr(told(status, code, dropped=dropped, output_may_be_missing=True), where)
        assert "[1,234 more bytes of stdout are over the limit (max_output_bytes) and lost]" in text
        assert "[2 of the files" in text
        assert "[some of the output may be missing" in text


def test_of_a_long_stderr_the_end_is_told_from_the_beginning_of_a_line() -> None:
    noise = b"".join(b"warning %d\n" % number for number in range(10_000))
    result = told("failed", 1, stderr_bytes=noise + TRACEBACK, stdout_bytes=noise)
    assert len(result.stderr) < 25_000
    assert TRACEBACK.decode() in result.stderr
    lines = result.stderr.splitlines()
    assert lines[0].startswith("[the last 15,9")
    assert lines[1].startswith("warning ")
    assert lines[-1] == "warning 9999"


def test_of_a_very_long_line_both_ends_are_told() -> None:
    result = told("failed", 1, stderr_bytes=TRACEBACK, stdout_bytes=b"begin" + b"x" * 3000 + b"end\n")
    assert "begin" in result.stderr
    assert "[... 2,008 characters ...]" in result.stderr
    assert "xend" in result.stderr


def test_stdout_that_is_one_endless_line_is_cut() -> None:
    result = told("timed_out", stdout_bytes=b"x" * 1_000_000)
    assert "[the last 4,000 of 1,000,000 characters of stdout]" in result.stderr
    assert len(result.stderr) < 2000


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            StartError(
                "the sandbox did not start: the image does not exist",
                cause="image_not_found",
                hint="check the image's name",
            ),
            "The program was not run, through no fault of its own: the sandbox did not start: the image does not "
            "exist\n\nHint: check the image's name\n",
        ),
        (
            StartError("the sandbox did not start within 9 s (startup_timeout)", hint="lower cpu_request"),
            "The program was not run, through no fault of its own: the sandbox did not start within 9 s "
            "(startup_timeout_seconds)\n\nHint: lower cpu_requested\n",
        ),
        (SpecError("code", "too long"), "The program was not run: code: too long\n"),
        (
            PayloadTooLarge("code", "does not fit", size=9, limit=8, hint="less"),
            "The program was not run: code: does not fit\n\nHint: less\n",
        ),
        (ConfigError("no cluster"), "The program could not be run, through no fault of its own: no cluster\n"),
        (
            Forbidden("jobs is forbidden", code=403, reason="Forbidden", hint="rbac.yaml"),
            "The program could not be run, through no fault of its own: jobs is forbidden\n\nHint: rbac.yaml\n",
        ),
        (
            NetworkError("connection refused", sent=False),
            "The program could not be run, through no fault of its own: connection refused\n",
        ),
        (SandboxClosed("the Sandbox is closed"), "The code executor cannot run this: the Sandbox is closed\n"),
    ],
)
def test_what_kept_a_program_from_running_is_told(error: SandboxError, words: str) -> None:
    result = of_error(error)
    assert (result.stdout, result.stderr, result.output_files) == ("", words, [])
    assert_exit_code(result, None)


def test_a_lost_result_tells_what_was_read_of_it() -> None:
    error = ResultLost("the pod is gone", stdout="step 1\n", stderr="a warning\n", hint="it may have run")
    result = of_error(error)
    assert result.stderr == (
        "a warning\n\nHow the program ended is not known: the pod is gone\n\nHint: it may have run\n\n"
        "What it had printed until then:\nstep 1\n"
    )
    assert result.stdout == "step 1\n"
    assert_exit_code(result, None)
