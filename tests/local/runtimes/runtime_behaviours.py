"""Tests for all runtimes of the embedded cluster.

The test modules of the runtimes import these tests and define the fixture `runtime`.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any, cast

import httpx
import pytest

from gke_sandbox.local import LocalTransport
from gke_sandbox.local.runtimes.base import ContainerExit, ContainerStartError, RunningContainer
from gke_sandbox.local.runtimes.gvisor import GVisorRuntime
from gke_sandbox.local.runtimes.process import ProcessRuntime

from ..attaching import attached, log_of, start
from ..kit import Kit
from .containers import container, python, run, running

RealRuntime = GVisorRuntime | ProcessRuntime

UNTIL_TERMINATED = """
import signal, sys
def on_term(number, frame):
    print("asked to end", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, on_term)
print("ready")
while True:
    signal.pause()
"""


async def test_stdout_and_stderr_are_merged_in_order(runtime: RealRuntime) -> None:
    code = "import sys\nfor i in range(3): print('out', i); print('err', i, file=sys.stderr)"
    ended, output = await run(runtime, python(code))
    assert output == b"out 0\nerr 0\nout 1\nerr 1\nout 2\nerr 2\n"
    assert ended == ContainerExit(0, "Completed")


async def test_stdout_and_stderr_are_separate_open_files(runtime: RealRuntime) -> None:
    code = "import os\nos.set_blocking(1, False)\nprint(os.get_blocking(1), os.get_blocking(2))"
    assert (await run(runtime, python(code)))[1] == b"False True\n"


async def test_an_exit_code_is_reported_as_an_error(runtime: RealRuntime) -> None:
    ended, _ = await run(runtime, python("import sys; sys.exit(3)"))
    assert ended == ContainerExit(3, "Error")


async def test_death_by_a_signal_is_128_plus_its_number(runtime: RealRuntime) -> None:
    ended, _ = await run(runtime, python("import os; os.kill(os.getpid(), 11)"))
    assert ended == ContainerExit(128 + signal.SIGSEGV, "Error")


async def test_a_command_that_does_not_exist_cannot_be_started(runtime: RealRuntime) -> None:
    with pytest.raises(
        ContainerStartError, match=r'error finding executable "no-such-python" in PATH \[.*/usr/bin'
    ):
        await runtime.start(container("no-such-python", "-c", "1"))


async def test_python3_is_this_python_interpreter(runtime: RealRuntime) -> None:
    _, output = await run(runtime, python("import sys; print(sys.version)"))
    assert output.decode() == sys.version + "\n"


async def test_without_a_command_python_runs_with_an_empty_stdin(runtime: RealRuntime) -> None:
    assert await run(runtime, container()) == (ContainerExit(0, "Completed"), b"")


async def test_output_arrives_while_the_program_runs_and_sigterm_reaches_it(runtime: RealRuntime) -> None:
    async with running(runtime, python(UNTIL_TERMINATED)) as (started, lines):
        assert await lines.next() == "ready"
        await started.stop(30)
        assert await started.wait() == ContainerExit(7, "Error")
        assert await lines.rest() == b"asked to end\n"
        await started.stop(30)


async def test_a_program_that_ignores_sigterm_is_killed_after_the_grace_period(runtime: RealRuntime) -> None:
    code = (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready')\nwhile True: signal.pause()"
    )
    async with running(runtime, python(code)) as (started, lines):
        await lines.next()
        await started.stop(0.2)
        assert await started.wait() == ContainerExit(137, "Error")


async def test_the_program_does_not_inherit_the_environment(
    runtime: RealRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    _, output = await run(
        runtime, python("import json, os; print(json.dumps(dict(os.environ)))", env={"A": "1 ä"})
    )
    seen = json.loads(output)
    assert set(seen) <= {"PATH", "LANG", "HOSTNAME", "A", "TMPDIR", "HOME"}
    assert (seen["A"], seen["LANG"], seen["HOSTNAME"]) == ("1 ä", "C.UTF-8", "job-x7x2p")
    assert seen.get("HOME", "/") == "/"


async def test_a_large_environment_arrives_whole(runtime: RealRuntime) -> None:
    env = {f"GKE_SANDBOX_CODE_{number}": str(number) * 120_000 for number in range(7)}
    code = "import os; print(sum(map(len, os.environ.values())) > 840_000, os.environ['GKE_SANDBOX_CODE_6'][-1])"
    assert (await run(runtime, python(code, env=env)))[1] == b"True 6\n"


async def test_mounted_files_are_next_to_the_script_and_read_only(runtime: RealRuntime) -> None:
    code = """
import os, sys
folder = os.path.dirname(sys.argv[0])
print(sorted(os.listdir(folder)), open(folder + "/request", "rb").read())
print([oct(os.stat(os.path.join(folder, name)).st_mode & 0o222) for name in (".", "request")])
"""
    files = {"/app/runner": code.encode(), "/app/request": b"\x00\xff{}"}
    ended, output = await run(runtime, container("python3", "-u", "/app/runner", files=files))
    assert output.decode() == "['request', 'runner'] b'\\x00\\xff{}'\n['0o0', '0o0']\n"
    assert ended.exit_code == 0


async def test_scratch_space_can_be_written_with_and_without_a_volume(runtime: RealRuntime) -> None:
    code = """
import tempfile
with tempfile.TemporaryFile() as file:
    file.write(b"x" * 100_000)
print(tempfile.gettempdir())
"""
    for scratch in ({}, {"/tmp": 1 << 20}):
        ended, output = await run(runtime, python(code, scratch=scratch))
        assert ended.exit_code == 0, output
        assert output.endswith(b"/tmp\n")


async def test_a_program_that_holds_more_memory_than_its_limit_is_killed(runtime: RealRuntime) -> None:
    code = "print('before')\nb = bytearray(10**9)\nfor i in range(0, len(b), 4096): b[i] = 1\nprint('after')"
    ended, output = await run(runtime, python(code, memory_limit=64 << 20))
    assert ended == ContainerExit(128 if runtime.name == "gvisor" else 137, "OOMKilled")
    assert output == b"before\n"


async def test_a_program_within_its_memory_limit_is_not_killed(runtime: RealRuntime) -> None:
    """Memory shared by three processes counts once."""
    code = """
import os
held = b"x" * (60 << 20)
pids = []
for _ in range(3):
    if not (pid := os.fork()):
        for _ in range(10): sum(held[::4096])
        os._exit(0)
    pids.append(pid)
print([os.waitpid(pid, 0)[1] for pid in pids])
"""
    ended, output = await run(runtime, python(code, memory_limit=120 << 20))
    assert (ended.reason, output) == ("Completed", b"[0, 0, 0]\n")


ECHO = """
import os
while data := os.read(0, 1 << 16):
    os.write(1, data)
os.write(1, b"end of stdin\\n")
"""


async def test_a_program_reads_stdin_while_it_is_written_and_its_end(runtime: RealRuntime) -> None:
    async with running(runtime, python(ECHO, stdin=True)) as (started, lines):
        for text in ("one", "two"):
            await started.write_stdin(text.encode() + b"\n")
            assert await lines.next() == text
        started.close_stdin()
        assert await lines.next() == "end of stdin"
        started.close_stdin()
        await started.write_stdin(b"too late\n")
        assert await started.wait() == ContainerExit(0, "Completed")


async def test_with_stdin_stderr_is_separate(runtime: RealRuntime) -> None:
    code = "import sys\nprint('out')\nprint('error', file=sys.stderr)\nsys.stdin.read()"
    started = await runtime.start(python(code, stdin=True))
    started.close_stdin()
    assert b"".join([chunk async for chunk in started.errors()]) == b"error\n"
    assert b"".join([chunk async for chunk in started.output()]) == b"out\n"
    await started.aclose()
    assert [chunk async for chunk in (await started_without_stdin(runtime)).errors()] == []


async def started_without_stdin(runtime: RealRuntime) -> RunningContainer:
    started = await runtime.start(python("import sys; print('error', file=sys.stderr)"))
    assert b"".join([chunk async for chunk in started.output()]) == b"error\n"
    await started.write_stdin(b"discarded")
    started.close_stdin()
    await started.aclose()
    return started


async def test_a_program_is_attached_and_its_log_has_the_whole_output(runtime: RealRuntime) -> None:
    cluster = LocalTransport(runtime)
    async with httpx.AsyncClient(transport=cluster, base_url="https://embedded.invalid", timeout=None) as client:
        kit = Kit(cluster, client, cast("Any", runtime))
        await start(kit, command=["python3", "-c", ECHO])
        async with attached(kit) as websocket:
            await websocket.send(b"one\n")
            assert await websocket.output(4) == b"one\n"
            await websocket.cut()
        assert await log_of(kit) == b"one\nend of stdin\n"
        await kit.phase("Succeeded")
