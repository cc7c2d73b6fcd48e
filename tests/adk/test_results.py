"""The results that ADK and its model get for each way in which a program can end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.adk.code_executors.code_execution_utils import CodeExecutionResult

from gke_sandbox import ExecutionResult
from gke_sandbox._diagnosis.admission import Change
from gke_sandbox._diagnosis.messages import unsafe_admission_change
from gke_sandbox.adk.results import STDERR_HEADING, from_error, from_result
from gke_sandbox.errors import (
    ConfigError,
    Forbidden,
    NetworkError,
    NotFound,
    PayloadTooLarge,
    ReplayMismatch,
    ResultLost,
    SandboxClosed,
    SandboxError,
    SpecError,
    StartError,
)
from gke_sandbox.result import DroppedFile, DroppedOutput
from gke_sandbox.settings import Settings
from tests.adk.kit import HAS_EXIT_CODE, QUIET, contents, exit_code

pytestmark = QUIET

SETTINGS = Settings(timeout=5, memory_limit="512Mi")
TRACEBACK = b'Traceback (most recent call last):\n  File "main.py", line 1, in <module>\nZeroDivisionError: x\n'


def converted(
    status: Any, code: int | None = None, *, show_stderr: bool = True, **more: Any
) -> CodeExecutionResult:
    result = ExecutionResult(status=status, exit_code=code, **more)
    return from_result(result, SETTINGS, show_stderr=show_stderr)


def assert_exit_code(result: CodeExecutionResult, code: int | None) -> None:
    assert exit_code(result) == (code if HAS_EXIT_CODE else None)


def test_a_success_has_unchanged_stdout_and_empty_stderr() -> None:
    result = converted("succeeded", 0, stdout_bytes=b"42")
    assert (result.stdout, result.stderr, result.output_files) == ("42", "", [])
    assert_exit_code(result, 0)


def test_on_success_stderr_follows_stdout_under_a_heading() -> None:
    result = converted("succeeded", 0, stdout_bytes=b"42", stderr_bytes=b"main.py:1: UserWarning: old\n")
    assert result.stdout == f"42\n{STDERR_HEADING}\nmain.py:1: UserWarning: old\n"
    assert result.stderr == ""


def test_stderr_of_a_success_is_omitted_without_show_stderr() -> None:
    result = converted("succeeded", 0, stdout_bytes=b"42\n", stderr_bytes=b"old\n", show_stderr=False)
    assert (result.stdout, result.stderr) == ("42\n", "")


@pytest.mark.parametrize("blank", [b"", b"\n", b" \n\n"])
def test_a_blank_stderr_has_no_heading(blank: bytes) -> None:
    assert converted("succeeded", 0, stdout_bytes=b"42\n", stderr_bytes=blank).stdout == "42\n"


def test_stderr_of_a_failure_has_the_traceback_the_exit_code_and_the_output() -> None:
    result = converted("failed", 1, stdout_bytes=b"step 1\n", stderr_bytes=TRACEBACK)
    assert result.stderr == (
        f"{TRACEBACK.decode()}\nThe program ended with exit code 1.\n\nIts output until then:\nstep 1\n"
    )
    assert result.stdout == "step 1\n"
    assert_exit_code(result, 1)


def test_a_failure_without_output_has_text_in_stderr() -> None:
    result = converted("failed", 3)
    assert result.stderr == "The program ended with exit code 3 and wrote nothing to stderr.\n"
    assert_exit_code(result, 3)


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        ({"status": "timed_out"}, 124, "killed at its time limit of 5 s (timeout_seconds)"),
        ({"status": "out_of_memory", "signal": 9}, 137, "killed at its memory limit of 512Mi (mem_limit)"),
        (
            {"status": "out_of_memory", "signal": 9, "changed_limits": {"memory": "256Mi"}},
            137,
            "killed at its memory limit of 256Mi, which the cluster set instead of 512Mi (mem_limit)",
        ),
        ({"status": "signaled", "signal": 11}, 139, "terminated by signal 11 (SIGSEGV)"),
        ({"status": "signaled", "signal": 63}, 191, "terminated by signal 63"),
        ({"status": "signaled", "signal": 9, "message": "why"}, 137, "terminated by signal 9 (SIGKILL): why."),
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
        ({"status": "killed", "reason": "New", "message": "new reason"}, 137, "killed: New: new reason"),
        ({"status": "killed"}, 137, "killed: the reason is unknown"),
    ],
)
def test_other_ends_have_a_description_and_an_exit_code(ending: dict[str, Any], code: int, words: str) -> None:
    result = converted(**ending, stdout_bytes=b"half of it")
    assert words in result.stderr
    assert "Its output until then:\nhalf of it" in result.stderr
    assert_exit_code(result, code)


def test_successes_and_failures_have_files() -> None:
    for status, code in (("succeeded", 0), ("failed", 1)):
        result = converted(status, code, files={"a.txt": b"x"})
        assert contents(result) == {"a.txt": b"x"}


def test_dropped_output_is_noted_in_the_stream_that_the_model_gets() -> None:
    dropped = DroppedOutput(stdout=1234, stderr=0, files=2)
    for status, code, where in (("succeeded", 0, "stdout"), ("failed", 1, "stderr")):
        text = getattr(converted(status, code, dropped=dropped, output_truncated=True), where)
        assert "[1,234 more bytes of stdout were over the limit (max_output_bytes) and dropped]" in text
        assert "[dropped 2 output files over a limit (max_files in settings, max_file_bytes) or with" in text
        assert "[some of the output may be missing" in text


def test_notes_about_one_byte_or_file_use_the_singular() -> None:
    text = converted("succeeded", 0, dropped=DroppedOutput(stdout=1, stderr=1, files=1)).stdout
    assert "[1 more byte of stdout was over the limit (max_output_bytes) and dropped]" in text
    assert "[1 more byte of stderr was over" in text
    assert "[dropped 1 output file over a limit (max_files in settings, max_file_bytes) or with an" in text


def test_dropped_files_are_named_with_the_field_that_raises_the_limit() -> None:
    named = (DroppedFile("big.csv", "too_large", 5000), DroppedFile("e", "too_many", 1))
    text = converted("succeeded", 0, dropped=DroppedOutput(files=2, named_files=named)).stdout
    assert "[dropped 1 output file over the limit on the number of files (max_files in settings): 'e' " in text
    size = "over the limit on the size of all files (max_file_bytes)"
    assert f"[dropped 1 output file {size}: 'big.csv' (5,000 bytes)]" in text


def test_the_hint_of_a_cause_uses_the_names_of_the_fields() -> None:
    result = converted("killed", cause="out_of_memory", reason="OOMKilled")
    assert "\nHint: Raise mem_limit, or let the program use less. Files in /tmp" in result.stderr


def shell(**script: Any) -> bytes:
    """Return the output of google-adk's program for a shell script."""
    return b"\n" + json.dumps({"__shell_result__": True, **script}).encode() + b"\n"


FILES = b'__ADK_SKILL_GENERATED_FILES__:0123abcd:{"files": [{"path": "a.csv", "content_b64": "eA=="}]}\n'


def cut(stdout: bytes, **more: Any) -> CodeExecutionResult:
    return converted("succeeded", 0, stdout_bytes=stdout, dropped=DroppedOutput(stdout=99), **more)


def test_a_shell_script_whose_exit_code_is_truncated_is_a_failure_without_stdout() -> None:
    printed = shell(stdout="step 1\n", stderr="careful\n", returncode=0)
    result = cut(printed[: printed.index(b"returncode")])
    assert result.stdout == ""
    assert result.stderr == (
        "careful\n\nThe exit code of the script is unknown, because it was at the end of the truncated output."
        "\n\nIts output until then:\nstep 1\n\n"
        "[99 more bytes of stdout were over the limit (max_output_bytes) and dropped]\n"
    )
    assert_exit_code(result, 1)


def test_the_readable_part_of_a_truncated_envelope_is_kept() -> None:
    printed = shell(stdout='a "b" \\\n\U0001f40d', stderr='"stdout": \\"é', returncode=4)
    for length in range(len('\n{"__shell_result__"'), len(printed) - 2):
        stderr = cut(printed[:length]).stderr
        assert "exit code of the script is unknown" in stderr
        assert stderr.encode(), "half of a surrogate pair cannot be encoded"
    assert 'a "b" \\\n\U0001f40d' in stderr
    assert stderr.startswith('"stdout": \\"é\n')


def test_a_script_whose_files_are_truncated_is_a_failure() -> None:
    in_python = cut(b"no line end" + FILES[:-5])
    assert "ended with exit code 0, but the files that it created are lost" in in_python.stderr
    assert "Its output until then:\nno line end\n" in in_python.stderr
    in_shell = shell(stdout="written\n", stderr="", returncode=4)
    for length in (1, 20, 35, len(FILES) - 2):
        result = cut(in_shell + FILES[:length])
        assert "ended with exit code 4, but the files that it created are lost" in result.stderr
        assert "Its output until then:\nwritten\n" in result.stderr
        assert "__ADK" not in result.stderr
        assert result.stdout == ""
        assert_exit_code(result, 1)


@pytest.mark.parametrize("printed", [b"plain\n", shell(stdout="", stderr="", returncode=3), FILES])
def test_a_truncated_script_that_adk_can_parse_is_not_changed(printed: bytes) -> None:
    result = cut(printed)
    assert result.stdout.startswith(printed.decode())
    assert result.stderr == ""
    assert_exit_code(result, 0)


def test_files_of_a_failed_script_are_not_in_stderr() -> None:
    result = converted("failed", 1, stdout_bytes=b"step 1\n" + FILES, stderr_bytes=TRACEBACK)
    assert result.stdout.endswith(FILES.decode()), "google-adk parses them there"
    assert result.stderr.endswith("Its output until then:\nstep 1\n")


def test_a_long_stderr_is_cut_at_the_start_of_a_line() -> None:
    noise = b"".join(b"warning %d\n" % number for number in range(10_000))
    result = converted("failed", 1, stderr_bytes=noise + TRACEBACK, stdout_bytes=noise)
    assert len(result.stderr) < 25_000
    assert TRACEBACK.decode() in result.stderr
    lines = result.stderr.splitlines()
    assert lines[0].startswith("[the last 15,9")
    assert lines[1].startswith("warning ")
    assert lines[-1] == "warning 9999"


def test_both_ends_of_a_very_long_line_are_kept() -> None:
    result = converted("failed", 1, stderr_bytes=TRACEBACK, stdout_bytes=b"begin" + b"x" * 3000 + b"end\n")
    assert "begin" in result.stderr
    assert "[... 2,008 characters ...]" in result.stderr
    assert "xend" in result.stderr


def test_stdout_that_is_one_very_long_line_is_cut() -> None:
    result = converted("timed_out", stdout_bytes=b"x" * 1_000_000)
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
            "The program was not run, and its code is not the cause: the sandbox did not start: "
            "the image does not exist\n\nHint: check the image's name\n",
        ),
        (
            StartError("the sandbox did not start within 9 s (startup_timeout)", hint="lower cpu_request"),
            "The program was not run, and its code is not the cause: the sandbox did not start within 9 s "
            "(startup_timeout_seconds)\n\nHint: lower cpu_requested\n",
        ),
        (
            unsafe_admission_change([Change("hostPID", "spec.hostPID", None, True)], "job-1", ""),
            "The program was not run, and its code is not the cause: an admission policy or webhook removed "
            "protections, or made a second run possible (Job job-1): spec.hostPID: sent nothing, received true\n\n"
            "Hint: Find the policy or webhook "
            "(kubectl get mutatingwebhookconfigurations,mutatingadmissionpolicies) and exempt this namespace "
            "from it. Or, if you accept the risk, name hostPID in accept_admission_changes.\n",
        ),
        (
            StartError("the sandbox did not start within 9 s", may_have_run=True),
            "The program returned no result, and its code is not the cause: "
            "the sandbox did not start within 9 s\n",
        ),
        (SpecError("code", "too long"), "The program was not run: code: too long\n"),
        (
            PayloadTooLarge("code", "does not fit", size=9, limit=8, hint="less"),
            "The program was not run: code: does not fit\n\nHint: less\n",
        ),
        (
            PayloadTooLarge("files['a.csv']", "does not fit", size=9, limit=8),
            "The program was not run: input_files['a.csv']: does not fit\n",
        ),
        (
            SandboxClosed("the Sandbox is closed", may_have_run=False),
            "The code executor cannot run this: the Sandbox is closed\n",
        ),
        (
            SandboxClosed("the Sandbox was closed while the program ran", hint="keep it open"),
            "The program was cancelled: the Sandbox was closed while the program ran\n\nHint: keep it open\n",
        ),
    ],
)
def test_an_error_is_described_in_stderr(error: SandboxError, words: str) -> None:
    result = from_error(error)
    assert (result.stdout, result.stderr, result.output_files) == ("", words, [])
    assert_exit_code(result, None)


ONLY_THE_OPERATOR = "and its code is not the cause: only the operator of the sandbox can fix this.\n"


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("cannot read /home/me/.kube/config", hint="Set KUBECONFIG."),
        Forbidden("jobs is forbidden", code=403, reason="Forbidden", hint="rbac.yaml"),
        NotFound('namespaces "sandboxes" not found', code=404, reason="NotFound"),
        NetworkError("https://10.0.0.1: connection refused", sent=False),
        ReplayMismatch("/home/me/run.yaml: unexpected request"),
    ],
)
def test_the_model_gets_one_sentence_about_an_error_that_only_an_operator_can_fix(error: SandboxError) -> None:
    error.may_have_run = False
    assert from_error(error).stderr == f"The program was not run, {ONLY_THE_OPERATOR}"
    error.may_have_run = True
    assert from_error(error).stderr == f"The program returned no result, {ONLY_THE_OPERATOR}"
    lost = ResultLost("the log could not be read: pods/log is forbidden", stdout="step 1\n", hint="rbac.yaml")
    lost.__cause__ = error
    assert from_error(lost).stderr == (
        f"It is unknown how the program ended, {ONLY_THE_OPERATOR}\nIts output until then:\nstep 1\n"
    )


def test_a_lost_result_has_the_output_that_was_read() -> None:
    error = ResultLost("the pod is gone", stdout="step 1\n", stderr="a warning\n", hint="it may have run")
    result = from_error(error)
    assert result.stderr == (
        "a warning\n\nIt is unknown how the program ended: the pod is gone\n\nHint: it may have run\n\n"
        "Its output until then:\nstep 1\n"
    )
    assert result.stdout == "step 1\n"
    assert_exit_code(result, None)
