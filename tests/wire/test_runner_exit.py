"""How a run ends: by itself, at its timeout, by SIGTERM; and the end of processes that the program started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .runner_driver import DELIVERIES, PYTHON, Delivery, Lifeline, Program, read_frames, run, started

AS_PID_1 = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def works(prefix: list[str]) -> bool:
    return (
        shutil.which(prefix[0]) is not None
        and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    )


@pytest.fixture
def as_pid_1() -> list[str]:
    if not works(AS_PID_1):
        pytest.skip("a PID namespace needs privileges that we do not have")
    return AS_PID_1


@pytest.fixture(params=["not pid 1", "pid 1"])
def prefix(request: pytest.FixtureRequest) -> list[str]:
    """Run the runner as in the embedded cluster without gVisor, and as in a container."""
    return request.getfixturevalue("as_pid_1") if request.param == "pid 1" else []


@pytest.fixture
def lifeline(tmp_path: Path) -> Iterator[Lifeline]:
    with Lifeline(tmp_path) as line:
        yield line


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize(
    ("ending", "code", "number", "status"),
    [
        ("pass", 0, None, 0),
        ("import sys; sys.exit(42)", 42, None, 42),
        ("1/0", 1, None, 1),
        ("import os; os._exit(255)", 255, None, 255),
        ("import os; os.kill(os.getpid(), 15)", None, 15, 143),
        ("import os; os.abort()", None, 6, 134),
        ("raise KeyboardInterrupt", None, 2, 130),
    ],
)
def test_the_exit_status_is_that_of_the_program(
    delivery: Delivery, ending: str, code: int | None, number: int | None, status: int
) -> None:
    ran = run(ending, delivery)
    assert (ran.exit["code"], ran.exit["signal"], ran.status) == (code, number, status)
    assert ran.exit["timed_out"] is False


def test_the_time_limit_kills_the_whole_process_group(lifeline: Lifeline, prefix: list[str]) -> None:
    code = lifeline.prelude + (
        "import signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('partial', end='', flush=True)\n"
        "for _ in range(3): os.fork()\n"
        "subprocess.Popen(['sleep', '1000'], pass_fds=[line])\n"
        "while True: time.sleep(1000)\n"
    )
    ran = run(Program(code, timeout=0.4), prefix=prefix)
    assert lifeline.is_cut()
    assert ran.stdout == b"partial"
    assert (ran.exit["code"], ran.exit["signal"], ran.exit["timed_out"]) == (None, 9, True)
    assert ran.status == 124
    assert 0.4 <= ran.exit["seconds"] < 5


def test_the_time_limit_ends_a_busy_loop_that_prints(prefix: list[str]) -> None:
    ran = run(Program("while True: print('again')", timeout=0.3), prefix=prefix)
    assert ran.status == 124
    assert ran.stdout.startswith(b"again\nagain\n")
    assert ran.exit["timed_out"] is True


def test_the_time_limit_ends_a_program_that_has_stopped_itself() -> None:
    ran = run(Program("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", timeout=0.2))
    assert ran.exit["timed_out"] is True


def test_the_time_limit_ends_a_bounded_fork_bomb(lifeline: Lifeline, prefix: list[str]) -> None:
    code = lifeline.prelude + "for _ in range(6): os.fork()\nwhile True: os.fork() or os._exit(0)\n"
    ran = run(Program(code, timeout=0.25), prefix=prefix)
    assert lifeline.is_cut()
    assert ran.status == 124


def test_files_created_before_the_timeout_are_returned() -> None:
    ran = run(Program("import time\nopen('half', 'w').write('done')\ntime.sleep(1000)", timeout=0.3))
    assert ran.files == {"half": b"done"}
    assert ran.status == 124


def test_the_timeout_applies_while_the_log_has_no_reader(lifeline: Lifeline, tmp_path: Path) -> None:
    code = lifeline.prelude + "data = b'x' * 65536\nwhile True: os.write(1, data)\n"
    with started(Program(code, timeout=0.4), base=tmp_path) as process:
        lifeline.wait_for(b"alive")
        assert lifeline.is_cut()
        frames = read_frames(process.stdout.read())
        assert process.wait() == 124
    assert b'"timed_out": true' in frames[-1].payload


def test_a_program_that_ends_in_time_did_not_time_out() -> None:
    assert (
        run(Program("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", timeout=5)).exit["timed_out"]
        is False
    )


def test_processes_that_outlive_the_program_are_killed(lifeline: Lifeline, prefix: list[str]) -> None:
    code = (
        lifeline.prelude
        + "import subprocess\nsubprocess.Popen(['sleep', '1000'], pass_fds=[line])\nprint('done')\n"
    )
    ran = run(code, prefix=prefix)
    assert lifeline.is_cut()
    assert (ran.status, ran.stdout) == (0, b"done\n")
    assert ran.exit["seconds"] < 5


def test_as_pid_1_the_runner_also_kills_what_has_left_the_session(lifeline: Lifeline, as_pid_1: list[str]) -> None:
    """If it is not pid 1 it cannot; the embedded cluster finds those processes."""
    code = lifeline.prelude + (
        "import subprocess\n"
        "subprocess.Popen(['sleep', '1000'], pass_fds=[line], start_new_session=True)\n"
        "print('done')\n"
    )
    ran = run(code, prefix=as_pid_1)
    assert lifeline.is_cut()
    assert (ran.status, ran.stdout) == (0, b"done\n")
    assert ran.exit["seconds"] < 1  # without waiting for the child


def test_a_grandchild_that_keeps_stdout_open_does_not_delay_the_exit(tmp_path: Path) -> None:
    """Even if it has left the session and cannot be killed by the runner."""
    os.mkfifo(tmp_path / "gate")
    code = (
        "import os, subprocess\n"
        f"subprocess.Popen(['cat', {str(tmp_path / 'gate')!r}], start_new_session=True)\n"
        "print('done')\n"
    )
    ran = run(code, base=tmp_path)
    (tmp_path / "gate").open("w").close()
    assert ran.stdout == b"done\n"
    assert ran.exit["code"] == 0


def test_a_grandchild_that_floods_stdout_does_not_delay_the_exit(lifeline: Lifeline) -> None:
    code = lifeline.prelude + "if os.fork() == 0:\n    while True: os.write(1, b'x' * 65536)\nprint('done')\n"
    ran = run(code)
    assert lifeline.is_cut()
    assert ran.exit["code"] == 0


def test_everything_written_before_the_exit_arrives() -> None:
    """More than the default capacity of a pipe, written by the program and by a child that it waited for."""
    code = "import os, subprocess\nsubprocess.run(['head', '-c', '300000', '/dev/zero'])\n"
    code += "os.write(1, b'last')\nos._exit(0)\n"
    assert run(code).stdout == bytes(300_000) + b"last"


def test_a_program_that_closes_its_streams_is_still_waited_for() -> None:
    code = "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(0.1)\n"
    code += "open('made', 'w').write('late')\nos._exit(3)\n"
    ran = run(code)
    assert ran.files == {"made": b"late"}
    assert ran.exit["code"] == 3


def test_as_pid_1_the_runner_reaps_orphans(as_pid_1: list[str]) -> None:
    code = """
import os, time
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
def zombies():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if open(f"/proc/{pid}/stat").read().rsplit(")")[1][1] == "Z":
                found.append(pid)
        except OSError:
            continue
    return found
until = time.monotonic() + 5
while zombies() and time.monotonic() < until:
    time.sleep(0.001)
print(os.getppid(), zombies())
"""
    assert run(code, prefix=as_pid_1).stdout == b"1 []\n"


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_sigterm_kills_the_program_and_ends_without_an_exit_frame(
    delivery: Delivery, lifeline: Lifeline, tmp_path: Path
) -> None:
    code = lifeline.prelude + (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('one')\nprint('two')\nprint('three')\n"
        "os.write(line, b'ready')\n"
        "time.sleep(1000)\n"
    )
    with started(Program(code), delivery, base=tmp_path) as process:
        lifeline.wait_for(b"ready")
        process.send_signal(signal.SIGTERM)
        frames = read_frames(process.stdout.read())
        assert process.wait() == 143
    assert lifeline.is_cut()
    assert {frame.kind for frame in frames} == {"start", "out"}
    assert b"".join(frame.payload for frame in frames if frame.kind == "out") == b"one\ntwo\nthree\n"


def test_sigterm_is_handled_as_pid_1(lifeline: Lifeline, tmp_path: Path, as_pid_1: list[str]) -> None:
    """The kernel does not deliver signals without a handler to pid 1."""
    code = lifeline.prelude + "import time\nos.write(line, b'ready')\ntime.sleep(1000)\n"
    with started(Program(code), base=tmp_path, prefix=as_pid_1) as process:
        lifeline.wait_for(b"ready")
        [runner] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(runner), signal.SIGTERM)
        assert process.wait() == 143
    assert lifeline.is_cut()


def test_the_runner_survives_signals_from_the_program(prefix: list[str]) -> None:
    """All that can be ignored; SIGTERM ends it, because the kubelet sends it too."""
    code = (
        "import os, signal, time\n"
        "for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM}:\n"
        "    os.kill(os.getppid(), number)\n"
        "time.sleep(0.2)\n"
        "print('done')\n"
    )
    ran = run(code, prefix=prefix)
    assert (ran.status, ran.stdout, ran.stderr) == (0, b"done\n", b"")
    assert ran.exit["timed_out"] is False


def test_the_program_has_the_signal_dispositions_of_a_plain_start() -> None:
    show = "import signal\nprint([(int(n), str(signal.getsignal(n))) for n in sorted(signal.valid_signals())])\n"
    show += "print([line for line in open('/proc/self/status') if line[:6] in ('SigBlk', 'SigIgn', 'SigCgt')])"
    plain = subprocess.run([PYTHON, "-c", show], capture_output=True)
    assert run(show).stdout == plain.stdout


def test_the_program_is_killed_when_the_log_is_closed(lifeline: Lifeline, tmp_path: Path) -> None:
    code = lifeline.prelude + "import time\nwhile True:\n    print('x' * 9999)\n    time.sleep(0.01)\n"
    with started(Program(code), base=tmp_path) as process:
        lifeline.wait_for(b"alive")
        process.stdout.close()
        assert process.wait() == 125
        assert lifeline.is_cut()


def test_the_program_is_a_session_leader() -> None:
    code = (
        "import os\nprint(os.getsid(0) == os.getpid() == os.getpgid(0), os.getsid(0) != os.getsid(os.getppid()))"
    )
    assert run(code).stdout == b"True True\n"
