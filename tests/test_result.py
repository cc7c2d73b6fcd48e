"""ExecutionResult: its text, its summary, and how it is checked."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from gke_sandbox import ExecutionFailed, ExecutionResult, SandboxError


def result(status: Any, exit_code: int | None = None, **fields: Any) -> ExecutionResult:
    return ExecutionResult(status=status, exit_code=exit_code, **fields)


def test_a_result_with_exit_code_0_is_ok_and_passes_the_check() -> None:
    succeeded = result("succeeded", 0)
    assert succeeded.ok
    assert succeeded.check() is succeeded


@pytest.mark.parametrize(
    ("failed", "summary"),
    [
        (result("failed", 3), "exit code 3"),
        (result("signaled", signal=11), "signal 11"),
        (result("signaled", signal=9, message="nothing explains it"), "signal 9: nothing explains it"),
        (result("timed_out"), "timed out"),
        (result("out_of_memory", reason="OOMKilled"), "out of memory: OOMKilled"),
        (result("killed", reason="Evicted", message="low on disk"), "killed: Evicted: low on disk"),
    ],
)
def test_every_other_result_raises_an_error_that_contains_it(failed: ExecutionResult, summary: str) -> None:
    assert not failed.ok
    assert failed.summary == str(failed) == summary
    with pytest.raises(ExecutionFailed, match=summary) as caught:
        failed.check()
    assert caught.value.result is failed
    assert isinstance(caught.value, SandboxError)
    assert caught.value.may_have_run
    assert pickle.loads(pickle.dumps(caught.value)).result == failed


def test_the_error_of_the_check_contains_the_last_line_of_stderr() -> None:
    stderr = b"Traceback (most recent call last):\n  ...\nValueError: " + b"x" * 500 + b"\n\n"
    with pytest.raises(ExecutionFailed) as caught:
        result("failed", 1, stderr_bytes=stderr).check()
    assert str(caught.value) == f"the program did not succeed: exit code 1 (ValueError: {'x' * 188})"


def test_the_repr_of_a_result_is_short_and_has_sizes_and_the_first_and_last_line() -> None:
    short = result("succeeded", 0, stdout_bytes=b"42\n", job="gke-sandbox-1")
    assert repr(short) == "<ExecutionResult: exit code 0; stdout 3 bytes '42'; gke-sandbox-1>"
    long = result(
        "failed",
        1,
        stdout_bytes=b"first\n" + b"x" * 100_000 + b"\nlast\n",
        stderr_bytes=b"e" * 5000,
        files={"a": b"123", "b": b"4"},
        output_truncated=True,
        job="j",
    )
    assert repr(long) == (
        "<ExecutionResult: exit code 1; stdout 100012 bytes 'first' ... 'last'; "
        f"stderr 5000 bytes '{'e' * 60}' ... '{'e' * 60}'; 2 files, 4 bytes; output truncated; j>"
    )
