"""``--record`` writes the responses of a cluster, and ``--replay`` runs without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gke_sandbox.cassette import load
from gke_sandbox.cli import main

from .processes import start_real

LOCAL = ("--local", "--isolation", "process")
Run = Callable[..., tuple[int, str, str]]
CODE = ("-c", "print(open('in.txt').read()); open('out.txt', 'w').write('back'); import sys; sys.exit(3)")


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in a temporary directory. Return exit code, stdout, and stderr without the warning."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = main(["run", *arguments])
        stdout, stderr = capfd.readouterr()
        return status, stdout, "\n".join(line for line in stderr.splitlines() if "without isolation" not in line)

    return call


FILE_NOTE = "gke-sandbox: note: the program wrote 1 output file ('out.txt'); use --output-dir DIR to get them"


def test_a_recorded_run_is_replayed_without_a_cluster(tmp_path: Path, run: Run) -> None:
    (tmp_path / "in.txt").write_text("hello")
    arguments = ("--file", "in.txt", *CODE)
    assert run(*LOCAL, "--record", "deep/run.yaml", *arguments) == (3, "hello\n", FILE_NOTE)
    cassette = load(tmp_path / "deep" / "run.yaml")
    assert cassette.header.scenario == "run"
    assert run("--replay", "deep/run.yaml", "--output-dir", "o", *arguments) == (3, "hello\n", "")
    assert (tmp_path / "o" / "out.txt").read_text() == "back"


def test_another_program_is_one_error_with_the_difference(tmp_path: Path, run: Run) -> None:
    run(*LOCAL, "--record", "run.yaml", "-c", "print(1)")
    status, stdout, stderr = run("--replay", "run.yaml", "-c", "print(2)")
    assert (status, stdout) == (125, "")
    first, *more = stderr.splitlines()
    assert first.startswith(
        "gke-sandbox: error: run.yaml: unexpected request (not recorded, or recorded fewer times"
    )
    assert more[0].startswith("  the nearest is run.yaml, line ")
    assert more[1:] == [
        "    code: recorded 'print(1)', got 'print(2)'",
        "hint: If the change is intended, record it again.",
    ]
    status, stdout, _ = run("--replay", "run.yaml", "--json", "-c", "print(2)")
    assert (status, json.loads(stdout)["error"]["kind"]) == (125, "ReplayMismatch")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--replay", "none.yaml"), 125, "the cassette none.yaml does not exist"),
        (("--replay", "other"), 125, "other is not a cassette"),
        (("--replay", ""), 2, "--replay: must not be empty"),
        (("--record", ""), 2, "--record: must not be empty"),
        (("--replay", "x", "--record", "y"), 2, "--replay cannot be combined with --record"),
        (("--replay", "x", *LOCAL), 2, "--replay cannot be combined with --local and --isolation"),
        (("--replay", "x", "--context", "c"), 2, "--replay cannot be combined with --context"),
        ((*LOCAL, "--record", "other/run.yaml"), 125, "other/run.yaml cannot be written: "),
        ((*LOCAL, "--record", "."), 125, "cannot be written: Is a directory"),
        ((*LOCAL, "--record", "/dev/full/x"), 125, "cannot be written: "),
    ],
)
def test_an_invalid_recording_is_reported_before_the_program_runs(
    tmp_path: Path, run: Run, arguments: tuple[str, ...], status: int, message: str
) -> None:
    (tmp_path / "other").write_text("hello: world\n...\n")
    returned, stdout, stderr = run(*arguments, "-c", "print('ran')")
    assert (returned, stdout) == (status, "")
    assert message in stderr
    assert "Traceback" not in stderr


def test_a_recording_with_a_secret_is_not_written_and_the_output_is_passed_on(tmp_path: Path, run: Run) -> None:
    token = "ghp_" + "a" * 36
    status, stdout, stderr = run(*LOCAL, "--record", "run.yaml", "-c", f"print('{token}')")
    assert (status, stdout) == (125, f"{token}\n")
    assert "run.yaml is not written" in stderr
    assert "a GitHub token" in stderr
    assert token not in stderr
    assert not (tmp_path / "run.yaml").exists()


def test_an_interrupted_run_is_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("previous content")
    arguments = [
        "run",
        *LOCAL,
        "--record",
        "run.yaml",
        "-c",
        "print('started', flush=True); import time; time.sleep(60)",
    ]
    process = start_real(arguments, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(20) == 130
    process.communicate()
    assert (tmp_path / "run.yaml").read_text() == "previous content"


def test_the_name_of_a_recording_may_contain_any_bytes(tmp_path: Path, run: Run) -> None:
    name = os.fsdecode(b"caf\xe9.yaml")
    assert run(*LOCAL, "--record", name, "-c", "print(1)") == (0, "1\n", "")
    assert load(tmp_path / name).header.scenario == "caf\N{REPLACEMENT CHARACTER}"
