"""A program that writes to its pod's log directly is stopped before it fills the node's disk."""

from __future__ import annotations

import os
from typing import Any

import anyio
import pytest

from gke_sandbox import AsyncSandbox, Cluster, ExecutionResult
from gke_sandbox._engine.log_stream import FOREIGN_BYTES, LogStream
from gke_sandbox._output_limits import MAX_LOG_BYTES, log_limit
from gke_sandbox._wire.frames import encode
from gke_sandbox.local.faults import CutBody, Fault, Match, Respond
from gke_sandbox.local.runtimes.scripted import Script
from gke_sandbox.settings import Settings
from tests.clock import run_on_mock_clock
from tests.pods import START, out, pods
from tests.wire.runner_driver import Program, run

LOG = Match("get", "pods/log")
MIB = 1 << 20

FLOODS = {
    "one line": b"x" * MIB,
    "lines": (b"x" * 1023 + b"\n") * 1024,
    "frames": encode("out", b"x" * (MIB - 20)),
}
MANY_LINES = {"short lines": b"x\n", "empty lines": b"\n", "short frames": out("x")}


def flood(chunk: bytes, *faults: Fault) -> tuple[ExecutionResult, float]:
    """Return the result of a program that writes 20 MiB per second, and the size of its log in MiB."""

    async def main() -> tuple[ExecutionResult, float]:
        chunks = [(0.0, START), (0.1, out("first")), *((0.1 + 0.05 * (each + 1), chunk) for each in range(1000))]
        async with pods(Script(chunks), *faults) as cluster:
            result = await cluster.sandbox.run("pass")
            seconds = anyio.current_time()
            await anyio.sleep(10)
            assert cluster.left() == [], "the Job is deleted"
            return result, seconds

    return run_on_mock_clock(main)


@pytest.mark.parametrize("name", FLOODS)
def test_a_program_that_writes_more_than_the_runner_can_is_killed(name: str) -> None:
    result, seconds = flood(FLOODS[name])
    assert (result.status, result.reason, result.cause) == ("killed", "LogTooLarge", "log_too_large")
    assert result.stdout.startswith("first")
    assert result.output_truncated
    assert seconds < 2, "9 MiB take half a second"


@pytest.mark.parametrize("name", MANY_LINES)
def test_lines_count_as_they_are_stored_on_the_node(name: str) -> None:
    line = MANY_LINES[name]
    on_disk = len(line) + 46 * line.count(b"\n")
    log = opened()
    log.feed(line * ((MAX_LOG_BYTES + FOREIGN_BYTES) // on_disk), 0.0)
    assert not log.is_too_large
    log.feed(line, 0.0)
    assert log.is_too_large


def opened(**settings: Any) -> LogStream:
    log = LogStream(Settings(**settings), lambda: 1.0, 0.0)
    log.connect(1, 0.0)
    log.opened(1, 0.0)
    return log


def test_the_size_follows_from_the_limits_of_the_program() -> None:
    output = encode("out", b"x" * MIB) * 20
    default, higher = opened(delivery="attach"), opened(delivery="attach", max_output_bytes=20 * MIB)
    default.feed(output, 0.0)
    higher.feed(output, 0.0)
    assert default.is_too_large
    assert not higher.is_too_large
    higher.set_limits(Settings())
    assert higher.is_too_large, "a waiting pod gets a program with other limits"


def test_the_runner_has_room_for_all_output_up_to_high_limits() -> None:
    limit = log_limit(max_output_bytes=8 * MIB, max_file_bytes=8 * MIB, max_files=100)
    code = "import os\ndata = os.urandom(8 << 20)\nopen('file', 'wb').write(data)\n"
    code += "for start in range(0, len(data), 4096): os.write(1, data[start:start + 4096])\n"
    ran = run(Program(code, output=8 * MIB, file_bytes=8 * MIB, log_bytes=limit), "attach")
    assert ran.exit["dropped"] == {"out": 0, "err": 0, "files": 0}
    log = opened(delivery="attach", max_output_bytes=8 * MIB, max_file_bytes=8 * MIB)
    log.feed(ran.log, 0.0)
    assert not log.is_too_large
    assert (log.decoder.stdout, log.decoder.files) == (ran.files["file"], ran.files)


def test_a_large_log_that_is_opened_again_is_measured_from_its_beginning() -> None:
    cuts = [Fault(CutBody(after=5 * MIB), LOG), Fault(Respond.unavailable(2), LOG, skip=1)]
    result, _ = flood(FLOODS["lines"], *cuts)
    assert result.cause == "log_too_large"


def test_bytes_that_are_read_twice_count_once() -> None:
    """Each of three connections delivers the same 5 MiB."""
    body = START + FLOODS["lines"] * 5
    log = opened()
    for number in (2, 3):
        log.feed(body, 0.0)
        assert not log.is_too_large
        log.connect(number, 0.0)
        log.opened(number, 0.0)
    log.feed(body + body, 0.0)
    assert log.is_too_large


def test_a_log_of_the_runners_maximum_size_and_some_foreign_lines_is_not_too_large() -> None:
    log = opened()
    frame = out("\n" * 1000)
    on_disk = len(frame) + 46 * frame.count(b"\n")
    for _ in range(MAX_LOG_BYTES // on_disk):
        log.feed(frame, 0.0)
    log.feed(b"failed to create fsnotify watcher: too many open files\n" * 100, 0.0)
    assert not log.is_too_large
    log.feed(b"\n" * ((FOREIGN_BYTES) // 46 + 1000), 0.0)
    assert log.is_too_large


WRITES_TO_THE_LOG = """\
import os
log = os.open(f"/proc/{os.getppid()}/fd/1", os.O_WRONLY)
print("before", flush=True)
while True:
    os.write(log, b"x" * 65535 + b"\\n")
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.anyio
async def test_a_program_that_opens_the_stdout_of_its_runner_is_killed() -> None:
    async with AsyncSandbox(Cluster.local("process")) as sandbox:
        result = await sandbox.run(WRITES_TO_THE_LOG, timeout=60)
        assert (result.status, result.cause) == ("killed", "log_too_large")
    assert sandbox.leftovers == []
