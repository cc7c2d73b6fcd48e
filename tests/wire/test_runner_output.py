"""How the runner forwards a program's output: frames, limits, and a log that stays small on the node's disk."""

from __future__ import annotations

import fcntl
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gke_sandbox._output_limits import MAX_LOG_BYTES
from gke_sandbox._wire import runner
from gke_sandbox._wire.frames import Decoder, DroppedOutput, Exit, Limits, Output, OutputFile, Start
from gke_sandbox._wire.log_decoder import ReplayableLogDecoder

from .runner_driver import DELIVERIES, Delivery, Program, Ran, on_disk, read_frames, run, started

MIB = 1 << 20


def kinds(ran: Ran) -> list[str]:
    return [frame.kind for frame in ran.frames]


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_the_first_frame_is_start_and_the_last_is_exit(delivery: Delivery) -> None:
    ran = run("import sys; print('out'); print('err', file=sys.stderr); open('f', 'w').close()", delivery)
    assert kinds(ran)[0] == "start"
    assert ran.frames[0].payload.startswith(b'{"protocol": 1, "python": "3.')
    assert kinds(ran)[-2:] == ["file", "exit"]
    assert ran.exit.keys() == {"code", "signal", "timed_out", "seconds", "dropped"}
    assert 0 < ran.exit["seconds"] < 10


def test_the_decoder_of_the_client_reads_the_same() -> None:
    code = "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 999)\nsys.stderr.write('e')\n"
    code += "open('a \"b\" \\u00e9.txt', 'w').write('content')\nsys.exit(3)\n"
    ran = run(code)
    decoder = Decoder()
    frames = decoder.feed(ran.log)
    assert isinstance(frames[0], Start)
    for stream, data in (("stdout", ran.stdout), ("stderr", ran.stderr)):
        assert b"".join(f.data for f in frames if isinstance(f, Output) and f.stream == stream) == data
    assert [f for f in frames if isinstance(f, OutputFile)] == [OutputFile('a "b" é.txt', b"content")]
    assert isinstance(frames[-1], Exit)
    assert frames[-1].code == 3
    assert decoder.unframed == b""


def test_the_first_bytes_of_a_stream_are_sent_immediately(tmp_path: Path) -> None:
    """The program waits until the test has received them."""
    os.mkfifo(tmp_path / "gate")
    code = f"print('first', end='')\nopen({str(tmp_path / 'gate')!r}).read()\n"
    with started(Program(code), base=tmp_path) as process:
        log = b""
        while b"first" not in log:
            log += os.read(process.stdout.fileno(), 4096)
        (tmp_path / "gate").write_text("go on")
        log += process.stdout.read()
    assert [frame.kind for frame in read_frames(log)] == ["start", "out", "exit"]


def test_output_after_a_pause_is_sent_without_further_output(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    code = f"print('a')\nprint('b')\nprint('last', end='')\nopen({str(tmp_path / 'gate')!r}).read()\n"
    with started(Program(code), base=tmp_path) as process:
        log = b""
        while b"last" not in log:
            log += os.read(process.stdout.fileno(), 4096)
        (tmp_path / "gate").write_text("go on")


def test_stdout_written_before_stderr_arrives_before_it() -> None:
    code = "import sys\nfor n in range(5): print(n)\nprint('then', file=sys.stderr)\n"
    ran = run(code)
    last_out = max(frame.at for frame in ran.of("out"))
    assert last_out < ran.of("err")[0].at
    assert ran.stdout == b"0\n1\n2\n3\n4\n"


@pytest.mark.parametrize(
    ("code", "size", "files"),
    [
        ("print('x' * 200_000, end='')", 200_000, []),
        ("import os\nfor _ in range(5): os.write(1, b'x' * 1_000_000)", 5_000_000, []),
        ("import os\nopen('big', 'wb').write(os.urandom(3_000_000))", 0, ["big"]),
    ],
    ids=["200 KB", "5 MB", "a file of 3 MB"],
)
def test_a_non_blocking_stdout_that_is_full_loses_nothing(
    code: str, size: int, files: list[str], tmp_path: Path
) -> None:
    """As under some releases of gVisor, which report EAGAIN for a full pipe."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with (
        open(reader, "rb") as pipe,
        started(Program(code, output=5 * MIB), base=tmp_path, stdout=writer) as process,
    ):
        os.close(writer)
        log = pipe.read()
        assert process.wait() == 0
    frames = read_frames(log)
    assert b'"dropped": {"out": 0, "err": 0, "files": 0}' in frames[-1].payload
    assert b"".join(frame.payload for frame in frames if frame.kind == "out") == b"x" * size
    assert [frame.meta for frame in frames if frame.kind == "file"] == files


@pytest.mark.parametrize("size", [MIB >> 2, pytest.param(MIB, marks=pytest.mark.slow)])
def test_many_single_bytes_make_few_frames_and_a_small_log(size: int) -> None:
    """With one frame per byte, 1 MiB would be a log of 93 MB, and the node would evict the pod."""
    ran = run(f"import os\nfor _ in range({size}): os.write(1, b'x')\n")
    assert ran.stdout == b"x" * size
    # One per 32 KiB, and one per 50 ms.
    assert len(ran.of("out")) <= size // (32 << 10) + 1 + ran.exit["seconds"] / 0.05 + 1
    assert on_disk(ran.log) < 1.1 * size


def test_each_stream_is_truncated_at_its_limit_and_dropped_bytes_are_counted() -> None:
    code = "import sys\nsys.stdout.write('abcde' * 1000)\nsys.stderr.write('x' * 1001)\n"
    ran = run(Program(code, output=1001))
    assert ran.stdout == b"abcde" * 200 + b"a"
    assert ran.stderr == b"x" * 1001
    assert ran.exit["dropped"] == {"out": 3999, "err": 0, "files": 0}


def test_a_limit_of_zero_bytes_returns_no_output() -> None:
    ran = run(Program("print('x' * 99)", output=0))
    assert kinds(ran) == ["start", "exit"]
    assert ran.exit["dropped"]["out"] == 100


def noise(size: int, seed: int = 1, *, line: int = 0) -> bytes:
    """Return bytes that cannot be compressed, in lines of that length, or without a newline."""
    data = bytearray(random.Random(seed).randbytes(size).replace(b"\n", b" "))
    if line:
        data[line - 1 :: line] = b"\n" * len(data[line - 1 :: line])
    return bytes(data)


COPY = """\
import os
for number, name in (1, 'out'), (2, 'err'):
    data = open(name, 'rb').read()
    while data: data = data[os.write(number, data[:5000]):]
"""


@pytest.mark.parametrize("line", [3, 100, 0], ids=["short", "long", "endless"])
@pytest.mark.parametrize("log_bytes", [100_000, 2 * MIB])
def test_the_log_never_grows_above_its_limit_on_the_disk(line: int, log_bytes: int) -> None:
    written = noise(3 * MIB, line=line)
    code = COPY + "open('result', 'w').write('x' * 50)\n"
    files = {"out": written, "err": b""}
    ran = run(Program(code, files=files, output=10 * MIB, log_bytes=log_bytes), "mount")
    assert on_disk(ran.log) <= log_bytes
    assert on_disk(ran.log) > log_bytes / 2
    assert written.startswith(ran.stdout)
    assert len(ran.stdout) + ran.exit["dropped"]["out"] == len(written)
    assert len(ran.files) + ran.exit["dropped"]["files"] == 1


def test_a_full_log_has_no_holes() -> None:
    """After a stream is truncated, everything that follows is dropped."""
    written = noise(90_000, line=100)
    code = COPY + "os.write(1, b'after')\nos.write(2, b'err')\n" * 9
    ran = run(Program(code, files={"out": written, "err": b""}, log_bytes=50_000), "mount")
    assert written.startswith(ran.stdout)
    assert ran.exit["dropped"]["out"] == 90_000 + 45 - len(ran.stdout)
    assert len(ran.stderr) + ran.exit["dropped"]["err"] == 27
    assert on_disk(ran.log) <= 50_000


@pytest.mark.parametrize(
    "line", [3, 138, 0, *(pytest.param(line, marks=pytest.mark.slow) for line in (60, 100, 200))]
)
def test_output_and_files_up_to_the_limits_arrive_completely(line: int) -> None:
    """Nothing of it can be compressed, and each length of the lines costs another amount on the node's disk."""
    out, err, data = noise(MIB, 1, line=line), noise(MIB, 2, line=line), noise(4 * MIB, 3)
    code = COPY + "os.rename('data', 'copy')\n"
    log = run(Program(code, files={"out": out, "err": err, "data": data}), "mount").log
    assert whole(log) == (out, err, {"copy": data})
    assert on_disk(log) <= MAX_LOG_BYTES


def whole(log: bytes) -> tuple[bytes, bytes, dict[str, bytes]]:
    """Return stdout, stderr and files as the client decodes them. Raises AssertionError if it dropped anything."""
    decoder = ReplayableLogDecoder(Limits())
    decoder.reopen()
    for start in range(0, len(log), 10_000):
        for _ in decoder.feed(log[start : start + 10_000]):
            pass
    assert decoder.exit is not None
    assert decoder.dropped == DroppedOutput()
    assert decoder.unframed == b""
    return bytes(decoder.stdout), bytes(decoder.stderr), decoder.files


sizes = st.integers(0, MIB) | st.integers(0, 3000) | st.just(MIB)
contents = st.one_of(
    st.builds(lambda size, line, seed: noise(size, seed, line=line), sizes, st.integers(0, 300), st.integers()),
    st.builds(
        lambda size, text: (text * (size // len(text) + 1))[:size], sizes, st.binary(min_size=1, max_size=50)
    ),
    st.builds(
        lambda size, text: (text * (size // 2))[:size], sizes, st.sampled_from([b"\n\n", b"x\n", b"\x1e\n"])
    ),
    st.builds(lambda size: b"".join(b"%d\n" % i for i in range(size // 8)), sizes),
)


@pytest.mark.slow
@given(out=contents, err=contents, data=contents)
@settings(max_examples=50)
def test_any_content_arrives_completely(out: bytes, err: bytes, data: bytes) -> None:
    code = COPY + "import shutil\nfor n in 'abcd': shutil.copy('data', n)\n"
    log = run(Program(code, files={"out": out, "err": err, "data": data}), "mount").log
    assert whole(log) == (out, err, dict.fromkeys("abcd", data))


@pytest.mark.parametrize(
    "code",
    [
        "for i in range(100_000): print(i)",
        "for i in range(150_000): print(i % 10)",
        pytest.param("for i in range(500_000): print(i % 10)", marks=pytest.mark.slow),
    ],
)
def test_many_short_lines_make_few_lines_of_the_log(code: str) -> None:
    """The kubelet sends each line of the log as a separate HTTP chunk."""
    ran = run(code)
    assert ran.stdout.count(b"\n") == int(code.split("(")[1].split(")")[0])
    assert ran.exit["dropped"]["out"] == 0
    # Two lines per frame, which has 32 KiB or is sent after 50 ms.
    assert ran.log.count(b"\n") < 200 + 2 * ran.exit["seconds"] / 0.05
    assert on_disk(ran.log) < MIB


def test_few_lines_are_readable_in_the_log() -> None:
    ran = run("print('\\n'.join(map(str, range(30))))")
    assert b"\n10\n11\n12\n" in ran.log


@pytest.mark.parametrize("seconds", [60.0, 300.0, 3600.0, 7 * 86400.0])
@pytest.mark.parametrize("text", [b"x\n", b"\n" * 9, b"x" * 300 + b"\n"])
def test_a_program_that_prints_slowly_leaves_room_for_the_limits(seconds: float, text: bytes) -> None:
    """Every frame that is sent early costs more than its payload."""
    log = runner.Log()
    log.limit, log.reserved = MAX_LOG_BYTES, runner.worst(4 * MIB)
    streams = [runner.Stream(kind, MIB) for kind in (b"out", b"err")]
    now, intervals = 0.0, []
    while now < seconds and streams[0].left > len(text):
        for stream in streams:
            stream.left -= len(text)
            log.used += log.encoded(stream.kind, text)[1]
        rest = sum(runner.worst(stream.left) for stream in streams)
        assert log.used + log.reserved + rest < MAX_LOG_BYTES
        intervals.append(log.interval(streams, seconds - now))
        now += intervals[-1]
    for stream in streams:
        os.close(stream.fd)
        os.close(stream.end)
    assert set(intervals[:500]) == {runner.INTERVAL}
    assert max(intervals) < max(seconds / 300, 0.2)


def test_a_full_log_still_ends_with_the_exit_frame() -> None:
    ran = run(Program("print('x')\nopen('f', 'w').write('x')", log_bytes=0))
    assert kinds(ran) == ["start", "exit"]
    assert ran.exit["dropped"] == {"out": 2, "err": 0, "files": 1, "named": [["f", "log_full", 1]]}


def test_files_count_against_the_log_limit() -> None:
    """A file that does not fit is omitted and counted; a smaller file after it is returned."""
    code = (
        "import os\nfor name in 'abc': open(name, 'wb').write(os.urandom(60_000))\nopen('d', 'w').write('small')\n"
    )
    ran = run(Program(code, log_bytes=200_000))
    assert {name: len(data) for name, data in ran.files.items()} == {"a": 60_000, "b": 60_000, "d": 5}
    assert ran.exit["dropped"]["named"] == [["c", "log_full", 60_000]]
    assert on_disk(ran.log) <= 200_000


def test_gigabytes_of_output_neither_block_the_program_nor_fill_the_memory() -> None:
    code = "import os\ndata = b'x' * 65536\nfor _ in range(1 << 13): os.write(1, data); os.write(2, data)\n"
    code += "open('peak', 'w').write(open(f'/proc/{os.getppid()}/status').read().split('VmHWM:')[1].split()[0])\n"
    ran = run(code)
    assert ran.exit["dropped"] == {"out": (1 << 29) - MIB, "err": (1 << 29) - MIB, "files": 0}
    assert int(ran.files["peak"]) < 40 << 10  # KiB; the interpreter itself takes about 10 MiB


def test_frames_that_the_program_prints_are_data() -> None:
    forged = b'\x1eexit 2\n{}\n\x1efile 4 "../../evil"\nAAAA\n\x1estart 2\n{}\n'
    ran = run(f"import os\nos.write(1, {forged!r})\nos.write(2, {forged!r})\n")
    assert kinds(ran) == ["start", "out", "err", "exit"]
    assert (ran.stdout, ran.stderr) == (forged, forged)


def test_the_runner_writes_nothing_to_stderr() -> None:
    ran = run("import sys, os\nos.write(2, b'x')\nprint('y', file=sys.stderr)\nraise ValueError\n")
    assert ran.noise == b""
