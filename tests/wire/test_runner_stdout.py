"""The program's stdout, a buffer in shared memory: it loses nothing, and keeps the order of ``python3 -u``."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from .runner_driver import Lifeline, Program, read_frames, run, started


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="this kernel does not count writes")
def test_a_line_costs_no_system_call() -> None:
    """With ``python3 -u`` it costs two, which take 10 to 30 us each under gVisor."""
    ran = run("for n in range(20_000): print(n)\nprint(open('/proc/self/io').read())")
    *lines, io = ran.stdout.split(b"\n", 20_000)
    assert lines == [b"%d" % n for n in range(20_000)]
    assert int(re.findall(rb"syscw: (\d+)", io)[0]) < 1000


@pytest.mark.parametrize(
    "end",
    [
        "os._exit(7)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "os.abort()",
        "os.execv(sys.executable, [sys.executable, '-c', ''])",
        "os.fork() or os._exit(0); os._exit(0)",
        "threading.Thread(target=print, args=('x',), kwargs={'end': ''}).start(); time.sleep(0.2); os._exit(0)",
    ],
)
@pytest.mark.parametrize("before", ["", "print('first')", "for n in range(1000): print('line', n)"])
def test_output_before_an_abrupt_end_arrives(before: str, end: str) -> None:
    ran = run(f"import os, signal, sys, threading, time\n{before}\nprint('the end', end='')\n{end}")
    lines = [f"line {n}" for n in range(1000)] if "line" in before else ["first"] if before else []
    assert ran.stdout.decode().removesuffix("x") == "\n".join([*lines, "the end"])


OTHER_WRITERS = {
    "os.write": "os.write(1, b'b\\n')",
    "posix.write": "import posix; posix.write(1, b'b\\n')",
    "a subprocess": "subprocess.run(['echo', 'b'])",
    "a subprocess with stdout": "subprocess.run(['echo', 'b'], stdout=sys.stdout)",
    "os.system": "os.system('echo b')",
    "os.posix_spawn": "os.waitpid(os.posix_spawn('/bin/echo', ['echo', 'b'], {}), 0)",
    "os.fork": "os.fork() and os.wait() or (print('b'), os._exit(0))",
    "os.popen": "os.popen('echo b >&2; echo b').read(); os.write(1, b'b\\n')",
    "multiprocessing with fork": "multiprocess('fork')",
    "multiprocessing with spawn": "multiprocess('spawn')",
    "an open file": "open(1, 'w', closefd=False).write('b\\n')",
    "/dev/stdout": "open('/proc/self/fd/1', 'w').write('b\\n')",
    "its number": "open(sys.stdout.fileno(), 'wb', closefd=False).write(b'b\\n')",
    "its buffer": "sys.stdout.buffer.write(b'b\\n')",
    "a copy of its number": "copy = os.dup(1); os.write(copy, b'b\\n')",
}


@pytest.mark.parametrize("writer", OTHER_WRITERS)
def test_the_order_is_kept_when_something_else_writes_to_stdout(writer: str) -> None:
    code = (
        "import os, subprocess, sys\n"
        "def multiprocess(method):\n"
        "    import multiprocessing\n"
        "    child = multiprocessing.get_context(method).Process(target=print, args=('b',))\n"
        "    child.start()\n"
        "    child.join()\n"
        "if __name__ == '__main__':\n"
        "    for n in range(50): print('a')\n"
        f"    {OTHER_WRITERS[writer]}\n"
        "    for n in range(50): print('c')\n"
        f"    {OTHER_WRITERS[writer]}\n"
        "    print('d')\n"
    )
    ran = run(code)
    assert ran.stdout.decode() == "a\n" * 50 + "b\n" + "c\n" * 50 + "b\n" + "d\n"


def test_a_redirected_stdout_receives_what_is_printed() -> None:
    code = "import os\nprint('before')\nsaved = os.dup(1)\nos.dup2(os.open('f', os.O_WRONLY | os.O_CREAT), 1)\n"
    code += "print('hidden')\nos.dup2(saved, 1)\nprint('after')\n"
    ran = run(code)
    assert ran.stdout == b"before\nafter\n"
    assert ran.files == {"f": b"hidden\n"}


def test_more_than_the_buffer_arrives_completely() -> None:
    code = "import sys\nfor n in range(20): print(str(n) * 90_000)\nsys.stdout.buffer.write(b'x' * 2_500_000)\n"
    code += "for n in range(200_000): print(n)\n"
    ran = run(Program(code, output=1 << 25, log_bytes=1 << 28))
    expected = "".join(str(n) * 90_000 + "\n" for n in range(20)) + "x" * 2_500_000
    assert ran.stdout.decode() == expected + "".join(f"{n}\n" for n in range(200_000))


def test_output_of_threads_and_signal_handlers_arrives_completely() -> None:
    code = (
        "import signal, threading\n"
        "signal.signal(signal.SIGALRM, lambda *_: print('signal\\n', end=''))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "def many(name):\n"
        "    for n in range(5000): print(f'{name} {n}\\n', end='')\n"
        "threads = [threading.Thread(target=many, args=(name,)) for name in 'ab']\n"
        "for thread in threads: thread.start()\n"
        "many('c')\n"
        "for thread in threads: thread.join()\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
    )
    ran = run(code)
    assert ran.stderr == b""
    lines = [line for line in ran.stdout.decode().splitlines() if line != "signal"]
    assert sorted(lines) == sorted(f"{name} {n}" for name in "abc" for n in range(5000))


def test_each_line_arrives_while_the_program_goes_on(tmp_path: Path) -> None:
    """The program waits until the test has received the line, again and again."""
    os.mkfifo(tmp_path / "gate")
    code = f"gate = open({str(tmp_path / 'gate')!r})\n"
    code += "for n in range(8):\n    print('line', n)\n    gate.readline()\n"
    with started(Program(code), base=tmp_path) as process:
        log = b""
        with open(tmp_path / "gate", "w") as gate:
            for n in range(8):
                while b"line %d\n" % n not in b"".join(re.findall(rb"\x1eout \d+\n((?:[^\x1e])*)\n", log)):
                    log += os.read(process.stdout.fileno(), 4096)
                gate.write("go on\n")
                gate.flush()
        log += process.stdout.read()
    assert read_frames(log)[-1].kind == "exit"


@pytest.mark.parametrize("word", range(4))
@pytest.mark.parametrize("value", [0, 1, 1 << 20, (1 << 20) + 5, 1 << 63, (1 << 64) - 1])
def test_a_program_that_overwrites_the_buffer_only_falsifies_its_output(word: int, value: int) -> None:
    code = "import sys\nprint('a')\nring = sys.stdout.buffer.ring\n"
    code += f"ring.words[{word}] = {value}\nring.data[:10] = b'forged\\nxyz'\nsys.stderr.write('err')\n"
    ran = run(Program(code, timeout=5))
    assert (ran.status, ran.stderr) == (0, b"err")


def test_a_program_whose_runner_is_killed_does_not_wait_for_it(tmp_path: Path) -> None:
    with Lifeline(tmp_path) as lifeline:
        code = lifeline.prelude + "while True: print('x' * 100_000)\n"
        with started(Program(code), base=tmp_path) as process:
            lifeline.wait_for(b"alive")
            process.send_signal(signal.SIGKILL)
        assert lifeline.is_cut()
