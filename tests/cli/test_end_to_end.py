"""The command with the embedded cluster and real programs, where necessary in a new process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from gke_sandbox.cli import main

from .processes import start_real

_SECONDS = 30.0
PROCESS = ["run", "--local", "--isolation", "process"]


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    """Run to the end. Return exit code, stdout, and stderr without the warning about missing isolation."""
    process = start_real([*PROCESS, *arguments], stdin=subprocess.PIPE)
    stdout, stderr = process.communicate(stdin, timeout=_SECONDS)
    warning, _, rest = stderr.partition(b"\n")
    assert warning.startswith(b"gke-sandbox: warning: ")
    return process.returncode, stdout, rest


def gone(pid: int) -> bool:
    """Return whether the process ends within five seconds."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(shutil.which("runsc") is None, reason="runsc is not installed")
def test_the_readmes_command_prints_42_under_gvisor() -> None:
    process = start_real(["run", "--local", "--isolation", "gvisor", "-c", "print(6 * 7)"])
    assert process.communicate(timeout=_SECONDS) == (b"42\n", b"")
    assert process.returncode == 0


EVERYTHING = """
import os, pathlib, sys
print(sys.argv, sys.stdin.read(), os.environ["COLOUR"], open("in/data.csv").read())
print("problem", file=sys.stderr)
pathlib.Path("made").mkdir()
pathlib.Path("made/result.bin").write_bytes(bytes(range(256)))
sys.exit(7)
"""


def test_a_program_receives_its_inputs_and_returns_its_files(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(EVERYTHING)
    (tmp_path / "data.csv").write_text("1,2")
    status, stdout, stderr = run(
        str(tmp_path / "script.py"),
        *("--file", f"{tmp_path}/data.csv:in/data.csv"),
        *("--stdin", "-"),
        *("--env", "COLOUR=blue"),
        *("--output-dir", str(tmp_path / "out")),
        *("--", "-x", "--json", "ü"),
        stdin=b"typed",
    )
    assert stdout.decode() == "['main.py', '-x', '--json', 'ü'] typed blue 1,2\n"
    assert (status, stderr) == (7, b"problem\n")
    assert (tmp_path / "out/made/result.bin").read_bytes() == bytes(range(256))


def test_a_time_limit_ends_the_program_and_keeps_its_output(capfd: pytest.CaptureFixture[str]) -> None:
    code = "print('partial')\nimport time\ntime.sleep(600)"
    assert main([*PROCESS, "-c", code, "--timeout", "0.5"]) == 124
    stdout, stderr = capfd.readouterr()
    assert stdout == "partial\n"
    assert "gke-sandbox: error: the program was killed at its time limit of 0.5 s\n" in stderr


def test_the_result_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*PROCESS, "--json", "-c", "import os; print('é'); os.kill(os.getpid(), 15)"]) == 143
    found = json.loads(capfd.readouterr().out)
    assert (found["status"], found["signal"], found["stdout"]) == ("signaled", 15, "é\n")
    assert found["timings"]["returned"] > 0


def test_verbose_twice_logs_every_request(capfd: pytest.CaptureFixture[str]) -> None:
    main([*PROCESS, "-v", "-c", "pass"])
    assert "HTTP Request" not in capfd.readouterr().err
    main([*PROCESS, "-vv", "-c", "pass"])
    assert "gke-sandbox: info: HTTP Request: POST " in capfd.readouterr().err


SLEEPER = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_output_arrives_while_the_program_runs_and_a_signal_ends_it(number: signal.Signals, status: int) -> None:
    process = start_real([*PROCESS, "-c", SLEEPER])
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(number)
    assert process.wait(_SECONDS) == status
    assert gone(pid)


def test_a_closed_pipe_ends_the_program() -> None:
    process = start_real([*PROCESS, "-c", SLEEPER])
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.stdout.close()
    assert process.wait(_SECONDS) == 141
    assert gone(pid)
