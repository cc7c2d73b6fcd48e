"""How the command reports a run: output, exit code, messages on stderr, JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from gke_sandbox._wire.dropped import DroppedFile, DroppedOutput
from gke_sandbox.errors import (
    ConfigError,
    Forbidden,
    NetworkError,
    PayloadTooLarge,
    ResultLost,
    SandboxError,
    StartError,
)

from .fake import Step, command, err, finished, out, phases

CODE = ("-c", "x")
NO_PANDAS = b"Traceback (most recent call last):\nModuleNotFoundError: No module named 'pandas'\n"


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (finished(), 0),
        (finished("failed", 3), 3),
        (finished("failed", 255), 255),
        (finished("signaled", None, signal=11), 139),
        (finished("timed_out", None, signal=9), 124),
        (finished("out_of_memory", None, signal=9), 137),
        (finished("killed", None, signal=9, reason="Evicted"), 137),
        (finished("killed", 0, reason="Deleted"), 137),
        (ConfigError("no cluster"), 125),
        (StartError("it did not start"), 125),
        (ResultLost("it is lost"), 125),
        (NetworkError("no answer", sent=False), 125),
        (PayloadTooLarge("code", "does not fit", size=2, limit=1), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_exit_code_depends_on_the_outcome(end: Step, expected: int) -> None:
    assert command([*phases(), end], *CODE).status == expected


def test_both_streams_pass_through_byte_for_byte(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    steps = [*phases(), out(b"\x00\xff"), err(b"\x1b[31m"), out(b"a\r\n"), err(b"b"), finished()]
    assert command(steps, *CODE).status == 0
    assert capfdbinary.readouterr() == (b"\x00\xffa\r\n", b"\x1b[31mb")


def stderr_lines(steps: list[Step], capfd: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    command(steps, *CODE, *arguments)
    return capfd.readouterr().err.splitlines()


def test_dropped_output_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    dropped = DroppedOutput(stdout=1234567, stderr=1, files=2)
    assert stderr_lines([finished(dropped=dropped, output_truncated=True)], capfd) == [
        "gke-sandbox: note: dropped 1,234,567 bytes of stdout above the limit (--max-output)",
        "gke-sandbox: note: dropped 1 byte of stderr above the limit (--max-output)",
        "gke-sandbox: note: some of the output may be missing: the log ended early",
        "gke-sandbox: note: dropped 2 output files over a limit (--max-files, --max-file-bytes) or with an "
        "invalid name",
    ]


def test_dropped_files_are_named_with_the_option_that_raises_the_limit(capfd: pytest.CaptureFixture[str]) -> None:
    many = tuple(DroppedFile(f"f{number}", "too_many", 0) for number in range(12))
    others = (
        DroppedFile("big", "too_large", 1 << 30),
        DroppedFile("late", "log_full", 1),
        DroppedFile("closed", "unreadable"),
        DroppedFile(r"a\x1b[31m", "refused_name", 5),
        DroppedFile("deep", "not_searched"),
    )
    dropped = DroppedOutput(files=20, named_files=(*many, *others))
    shown = ", ".join(f"'f{number}' (0 bytes)" for number in range(10))
    lines = [
        f"dropped 12 output files over the limit on the number of files (--max-files): {shown} and 2 more",
        "dropped 1 output file over the limit on the size of all files (--max-file-bytes): "
        "'big' (1,073,741,824 bytes)",
        "dropped 1 output file beyond the size of the pod's log, which also contains stdout and stderr: "
        "'late' (1 byte)",
        "dropped 1 output file that could not be read: 'closed'",
        "dropped 1 output file with an invalid name (a control or format character, a backslash, ...): "
        r"'a\x1b[31m' (5 bytes)",
        "dropped all files after 20,000 entries of directories: the search ended in 'deep'",
        "dropped 3 more output files over a limit (--max-files, --max-file-bytes) or with an invalid name",
    ]
    assert stderr_lines([finished(dropped=dropped)], capfd) == [f"gke-sandbox: note: {line}" for line in lines]


@pytest.mark.parametrize(
    ("end", "arguments", "expected"),
    [
        (
            finished("timed_out", None),
            ("--timeout", "1.5"),
            ["error: the program was killed at its time limit of 1.5 s", "hint: Raise --timeout."],
        ),
        (
            finished("out_of_memory", None, reason="OOMKilled"),
            ("--memory", "1Gi"),
            [
                "error: the program was killed because it exceeded its memory limit of 1Gi",
                "hint: Raise --memory, or let the program use less. Files in /tmp, where its working directory "
                "is, count too: under gVisor they are in memory, except with delivery mount.",
            ],
        ),
        (
            finished("out_of_memory", None, reason="OOMKilled", changed_limits={"memory": "256Mi"}),
            ("--memory", "1Gi"),
            [
                "error: the program was killed because it exceeded its memory limit of 256Mi, which the cluster "
                "set instead of 1Gi",
                "hint: The cluster changed the limit. GKE Autopilot sets it to --memory-request: raise that, too. "
                "Raise --memory, or let the program use less. Files in /tmp, where its working directory "
                "is, count too: under gVisor they are in memory, except with delivery mount.",
            ],
        ),
        (
            finished("timed_out", None, reason="Overtime", message="its Job was deleted"),
            (),
            [
                "error: the program was killed at its time limit of 300 s",
                "hint: The program may have stopped the runner in its pod.",
            ],
        ),
        (
            finished("killed", None, cause="storage_exceeded", reason="Evicted", message="Usage of\nEmptyDir\x1b"),
            (),
            [
                "error: the program was killed: the program wrote more to disk than its limit "
                r"(Evicted: Usage of EmptyDir\x1b)",
                "hint: Let the program write less, or raise --ephemeral-storage and --tmp-size.",
            ],
        ),
        (
            finished("killed", None, cause="evicted", reason="Evicted", message="low on resource: memory"),
            (),
            [
                "error: the program was killed: the node was short of resources and evicted the pod "
                "(Evicted: low on resource: memory)",
                "hint: Run it again. Requests that are closer to what the program uses make eviction less likely.",
            ],
        ),
        (
            finished("killed", None, cause="preempted", reason="PreemptionByScheduler"),
            (),
            [
                "error: the program was killed: a pod with a higher priority replaced the pod "
                "(PreemptionByScheduler)",
                "hint: Run it again, or give it a higher priority (--priority-class).",
            ],
        ),
        (
            finished("killed", None, reason="New", message="message"),
            (),
            ["error: the program was killed: New: message", "hint: Run the program again if that is safe."],
        ),
        (finished("signaled", None, signal=11), (), ["note: the program was ended by signal 11 (SIGSEGV)"]),
        (finished("signaled", None, signal=63), (), ["note: the program was ended by signal 63"]),
        (
            finished("signaled", None, signal=9, message="nothing explains it"),
            (),
            ["note: the program was ended by signal 9 (SIGKILL): nothing explains it"],
        ),
        (finished("failed", 1), (), []),
        (
            finished("failed", 1, stderr_bytes=NO_PANDAS),
            ("--image", "python:3.12"),
            ["note: the image python:3.12 must contain the module pandas; --image uses another image"],
        ),
        (
            finished("failed", 1, stderr_bytes=NO_PANDAS),
            ("--local",),
            [
                "note: with --local, the program uses the Python of gke-sandbox: install the module pandas there "
                "(with gVisor not as an editable package)"
            ],
        ),
        (finished("failed", 1, stderr_bytes=NO_PANDAS + b"ValueError: another\n"), (), []),
        (finished("succeeded", 0, stderr_bytes=NO_PANDAS), (), []),
    ],
    ids=[
        "time",
        "memory",
        "memory that the cluster changed",
        "overtime",
        "storage",
        "node",
        "preempted",
        "no cause",
        "signal",
        "unnamed signal",
        "signal nine",
        "exit code",
        "module",
        "module, local",
        "another exception",
        "success",
    ],
)
def test_the_end_of_a_program_is_explained(
    end: Step, arguments: tuple[str, ...], expected: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    lines = stderr_lines([end], capfd, *arguments)
    assert [line.removeprefix("gke-sandbox: ") for line in lines] == expected


def test_an_error_of_the_sandbox_is_one_line_and_a_hint_that_name_options(
    capfd: pytest.CaptureFixture[str],
) -> None:
    error = StartError("it did not start\nwithin 300 s (startup_timeout)", hint="raise memory_limit")
    assert stderr_lines([error], capfd) == [
        "gke-sandbox: error: it did not start within 300 s (--startup-timeout)",
        "hint: raise --memory",
    ]


def test_a_message_starts_on_a_new_line_after_an_unfinished_line_of_the_program(
    capfd: pytest.CaptureFixture[str],
) -> None:
    steps: list[Step] = [err(b"half a li"), finished("timed_out", None)]
    assert stderr_lines(steps, capfd)[:2] == [
        "half a li",
        "gke-sandbox: error: the program was killed at its time limit of 300 s",
    ]


def test_without_an_output_directory_a_note_names_the_files(capfd: pytest.CaptureFixture[str]) -> None:
    note = "gke-sandbox: note: the program wrote {}; use --output-dir DIR to get them"
    assert stderr_lines([finished(files={"a": b""})], capfd) == [note.format("1 output file ('a')")]
    files = {f"d/{number:02}": b"" for number in range(12)}
    shown = ", ".join(f"'d/{number:02}'" for number in range(10))
    assert stderr_lines([finished(files=files)], capfd) == [note.format(f"12 output files ({shown} and 2 more)")]
    assert command([finished("failed", 3, files=files)], *CODE, "--json").status == 3
    assert capfd.readouterr().err == ""


def test_names_of_output_files_are_escaped_for_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """The decoder refuses most of them."""
    (line,) = stderr_lines([finished(files={"a\u200db\x1b[31m\u202e": b""})], capfd)
    assert r"('a\u200db\x1b[31m\u202e')" in line


def test_an_unexpected_error_is_printed_with_its_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    done = command([*phases(), RuntimeError("unexpected")], *CODE)
    lines = capfd.readouterr().err.splitlines()
    assert done.status == 125
    assert lines[-2:] == [
        "gke-sandbox: error: this is a bug in gke-sandbox",
        "hint: Please report it, with the traceback.",
    ]
    assert any("RuntimeError: unexpected" in line for line in lines)


# -- JSON --------------------------------------------------------------------------------------------------


def object_of(steps: list[Step], capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """Return the exit code and the JSON object, which must be all that was printed."""
    done = command(steps, *CODE, "--json", *arguments)
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    assert stdout.isascii()
    assert stdout.count("\n") == 1
    assert done.status is not None
    return done.status, json.loads(stdout)


def test_json_has_the_whole_result(capfd: pytest.CaptureFixture[str]) -> None:
    end = finished(
        "failed",
        3,
        stdout_bytes="é\n".encode(),
        stderr_bytes=b"\xff!",
        files={"a/b.bin": b"\x00\xff"},
        dropped=DroppedOutput(5, files=1, named_files=(DroppedFile("big", "too_large", 7),)),
    )
    status, found = object_of([*phases(), out(b"passes by"), end], capfd, "-n", "agents")
    assert status == 3
    assert found == {
        "status": "failed",
        "exit_code": 3,
        "signal": None,
        "stdout": "é\n",
        "stdout_base64": None,
        "stderr": "\ufffd!",
        "stderr_base64": base64.b64encode(b"\xff!").decode(),
        "files": {"a/b.bin": {"size": 2, "base64": base64.b64encode(b"\x00\xff").decode()}},
        "dropped": {
            "stdout": 5,
            "stderr": 0,
            "files": 1,
            "named_files": [{"name": "big", "reason": "too_large", "size": 7}],
        },
        "output_truncated": False,
        "cause": "",
        "reason": "",
        "message": "",
        "changed_limits": {},
        "timings": {
            "created": 0.011,
            "scheduled": None,
            "started": None,
            "first_output": None,
            "finished": None,
            "returned": 0.7123,
            "program": None,
        },
        "namespace": "agents",
        "job": "job-1",
        "pod": "pod-1",
    }


def test_json_has_the_cause_of_a_terminated_pod(capfd: pytest.CaptureFixture[str]) -> None:
    end = finished("killed", None, cause="node_lost", reason="Terminated", message="imminent node shutdown")
    _, found = object_of([*phases(), end], capfd)
    assert (found["cause"], found["reason"]) == ("node_lost", "Terminated")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            StartError("no start", cause="image_not_found", reason="ErrImagePull", job="j", pod="p", hint="h"),
            {
                "kind": "StartError",
                "hint": "h",
                "cause": "image_not_found",
                "reason": "ErrImagePull",
                "may_have_run": False,
                "job": "j",
                "pod": "p",
            },
        ),
        (
            Forbidden("not you", code=403, reason="Forbidden"),
            {"kind": "Forbidden", "hint": "", "code": 403, "reason": "Forbidden"},
        ),
        (
            ResultLost("gone", cause="pods_not_seen", job="j", pod="p", stdout="so far"),
            {
                "kind": "ResultLost",
                "hint": "",
                "cause": "pods_not_seen",
                "may_have_run": True,
                "job": "j",
                "pod": "p",
                "stdout": "so far",
                "stderr": "",
            },
        ),
        (ConfigError("where?"), {"kind": "ConfigError", "hint": "--local needs no cluster."}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_has_the_error(
    error: SandboxError, expected: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    assert object_of([*phases(), error], capfd) == (125, {"error": {**expected, "message": error.message}})
