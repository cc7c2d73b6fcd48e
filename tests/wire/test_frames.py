"""The log protocol: recorded logs, and the rules of the decoder one by one."""

from __future__ import annotations

import base64
import json
import random
import zlib
from pathlib import Path

import pytest

from gke_sandbox._wire.frames import (
    PROTOCOL,
    Decoder,
    DroppedFile,
    DroppedOutput,
    Exit,
    Frame,
    Limits,
    Output,
    OutputFile,
    Start,
    _Unpacker,
    encode,
)
from tests.wire.frames import EXIT, EXIT_0, START, decode, exit_frame, file_frame, one_by_one, outcome, packed

LOGS = Path(__file__).with_name("recorded_logs")


def recorded(name: str) -> list[bytes]:
    chunks = json.loads((LOGS / f"{name}.json").read_text())["chunks"]
    return [base64.b64decode(each["base64"]) if "base64" in each else each["text"].encode() for each in chunks]


def ended(code: int | None, seconds: float, *, signal: int | None = None, timed_out: bool = False) -> Exit:
    return Exit(code, signal, timed_out, seconds, DroppedOutput())


def dropped(*files: DroppedFile) -> DroppedOutput:
    return DroppedOutput(files=len(files), named_files=files)


HELLO = Start("3.11.2", 1)
TRACEBACK = (
    b"Traceback (most recent call last):\n"
    b'  File "/tmp/work/main.py", line 3, in <module>\n    f()\n'
    b'  File "/tmp/work/main.py", line 2, in f\n    return 1/0\n           ~^~\n'
    b"ZeroDivisionError: division by zero\n"
)

# The content of each recorded log, with adjacent outputs of one stream joined.
RECORDED: dict[str, list[Frame]] = {
    "deadline-exceeded": [HELLO, Output("stdout", b"started\n")],
    "execution-bytes": [
        HELLO,
        Output("stdout", "ñandú 🦉".encode() + b"\xff\x00\x1eout 3\n"),
        ended(0, 0.081),
    ],
    "execution-exit-3": [
        HELLO,
        Output("stdout", b"to stdout\n"),
        Output("stderr", b"to stderr\n"),
        ended(3, 0.087),
    ],
    "execution-files": [
        HELLO,
        Output("stdout", b"3\n"),
        OutputFile("bytes.bin", bytes(range(256))),
        OutputFile("sum.txt", b"6"),
        ended(0, 0.088),
    ],
    "execution-mounted": [HELLO, Output("stdout", b"hola\n"), ended(0, 0.101)],
    "execution-out-of-memory": [HELLO, Output("stdout", b"before\n")],
    "execution-runs-to-log-end": [HELLO, Output("stdout", b"hola\n"), ended(0, 0.065)],
    "execution-signal": [HELLO, Output("stdout", b"bye\n"), ended(None, 0.044, signal=11)],
    "execution-streaming": [
        HELLO,
        *(
            Output(stream, b"%s %d\n" % (word, i))  # type: ignore[arg-type]
            for i in range(5)
            for stream, word in (("stdout", b"line"), ("stderr", b"err"))
        ),
        ended(0, 1.325),
    ],
    "execution-success": [HELLO, Output("stdout", b"hola\n"), ended(0, 0.091)],
    "execution-time-limit": [
        HELLO,
        Output("stdout", b"started\n"),
        ended(None, 2.003, signal=9, timed_out=True),
    ],
    "execution-traceback": [HELLO, Output("stderr", TRACEBACK), ended(1, 0.072)],
    "job-deleted-by-client": [HELLO, Output("stdout", b"started\n")],
    "late-configmap": [HELLO, Output("stdout", b"late\n"), ended(0, 0.082)],
    "program-forges-frames": [HELLO],
    "program-stops-the-runner": [HELLO],
    "python-missing": [],
    "two-executions-one-watch": [HELLO, Output("stdout", b"0\n"), ended(0, 0.063)],
    "two-executions-one-watch-2": [HELLO, Output("stdout", b"1\n"), ended(0, 0.083)],
}


def test_every_recorded_log_is_checked() -> None:
    assert {path.stem for path in LOGS.glob("*.json")} == {*RECORDED, "execution-output-capped"}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_log(name: str) -> None:
    chunks = recorded(name)
    as_recorded = outcome(chunks)
    assert as_recorded[0] == RECORDED[name]
    assert outcome([b"".join(chunks)]) == as_recorded
    assert outcome(one_by_one(b"".join(chunks))) == as_recorded


@pytest.mark.parametrize("cut", ["recorded", "whole", "bytes"])
def test_recorded_log_whose_runner_dropped_output(cut: str) -> None:
    chunks = recorded("execution-output-capped")
    data = b"".join(chunks)
    frames, outside, dropped, _, exited = outcome(
        {"recorded": chunks, "whole": [data], "bytes": one_by_one(data)}[cut]
    )
    start, output, end = frames
    assert start == HELLO
    assert output.stream == "stdout"
    assert output.data.replace(b"\n", b"").strip(b"x") == b""
    assert end == Exit(0, None, False, 1.091, DroppedOutput(stdout=228929))
    assert (outside, dropped, exited) == (b"", DroppedOutput(), True)


def test_forged_frames_are_kept_for_the_diagnosis() -> None:
    _, decoder = decode(recorded("program-forges-frames"))
    assert decoder.unframed == b'\x1efile 4 "../../evil"\nAAAA\n\x1eexit 2\n{}\n'
    assert decoder.dropped == dropped(DroppedFile("../../evil", "refused_name"))
    assert not decoder.exited


def test_loader_errors_without_python_are_kept_for_the_diagnosis() -> None:
    _, decoder = decode(recorded("python-missing"))
    assert b'error finding executable "no-such-python" in PATH' in decoder.unframed
    assert not decoder.started


def test_frames_follow_text_on_the_same_line() -> None:
    frames, decoder = decode([b"warning without a newline" + START + EXIT])
    assert frames[0] == HELLO
    assert decoder.unframed == b"warning without a newline"
    assert decoder.exited


def test_a_log_that_starts_within_a_frame_gives_the_frames_after_it() -> None:
    frames, _ = decode([b"end of a payload\n" + encode("out", b"later\n") + EXIT])
    assert frames == [Output("stdout", b"later\n"), ended(0, 0.5)]


def test_payloads_can_contain_frames() -> None:
    inner = START + encode("out", b"x") + EXIT
    frames, decoder = decode([START + encode("out", inner) + EXIT])
    assert frames == [HELLO, Output("stdout", inner), ended(0, 0.5)]
    assert decoder.unframed == b""


def test_an_empty_output_frame_gives_no_frame() -> None:
    frames, decoder = decode([START + encode("out", b"") + EXIT])
    assert frames == [HELLO, ended(0, 0.5)]
    assert decoder.unframed == b""


def test_adjacent_outputs_of_one_chunk_are_joined() -> None:
    chunk = b"".join(encode(kind, b"x") for kind in ("out", "out", "err", "out"))
    frames, _ = decode([chunk])
    assert frames == [Output("stdout", b"xx"), Output("stderr", b"x"), Output("stdout", b"x")]


def test_another_protocol_version_is_reported() -> None:
    frames, _ = decode([encode("start", b'{"protocol": 7}')])
    assert frames == [Start("", 7)]
    assert PROTOCOL == 1


def test_everything_after_the_exit_frame_is_ignored() -> None:
    frames, decoder = decode([START + EXIT + exit_frame(code=3) + encode("out", b"late"), b"more"])
    assert frames == [HELLO, ended(0, 0.5)]
    assert decoder.unframed == b""
    assert decoder.feed(START) == []


def test_a_second_start_is_not_a_frame() -> None:
    frames, decoder = decode([START + START])
    assert frames == [HELLO]
    assert decoder.unframed == START


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"not json",
        b"\xff",
        b"[" * 4000,
        json.dumps({**EXIT_0, "code": None}).encode(),
        json.dumps({**EXIT_0, "signal": 9}).encode(),
        json.dumps({**EXIT_0, "signal": "9"}).encode(),
        json.dumps({**EXIT_0, "code": 256}).encode(),
        json.dumps({**EXIT_0, "code": -1}).encode(),
        json.dumps({**EXIT_0, "code": True}).encode(),
        json.dumps({**EXIT_0, "code": 1.0}).encode(),
        json.dumps({**EXIT_0, "code": None, "signal": 0}).encode(),
        json.dumps({**EXIT_0, "code": None, "signal": 65}).encode(),
        json.dumps({**EXIT_0, "timed_out": 1}).encode(),
        json.dumps({**EXIT_0, "seconds": -1}).encode(),
        json.dumps({**EXIT_0, "seconds": float("nan")}).encode(),
        json.dumps({**EXIT_0, "seconds": float("inf")}).encode(),
        json.dumps({**EXIT_0, "seconds": 10**400}).encode(),
        json.dumps({**EXIT_0, "seconds": True}).encode(),
        json.dumps({**EXIT_0, "dropped": None}).encode(),
        json.dumps({**EXIT_0, "dropped": {"out": 0}}).encode(),
        json.dumps({**EXIT_0, "dropped": {"out": -1, "err": 0}}).encode(),
        json.dumps({**EXIT_0, "dropped": {"out": 1 << 60, "err": 0}}).encode(),
        json.dumps({**EXIT_0, "padding": "x" * (16 << 10)}).encode(),
        *(
            json.dumps({**EXIT_0, "dropped": {"out": 0, "err": 0, "files": 200, "named": named}}).encode()
            for named in (
                None,
                {},
                "a",
                ["a"],
                [["a", "too_many"]],
                [["a", "too_many", 1, 1]],
                [["a", "other", 1]],
                [["a", ["too_many"], 1]],
                [["a", None, 1]],
                [[1, "too_many", 1]],
                [[None, "too_many", 1]],
                [["a", "too_many", "1"]],
                [["a", "too_many", True]],
                [["a", "too_many", -1]],
                [["a", "too_many", 1.0]],
                [["a", "too_many", 1 << 60]],
                [["a", "too_many", 1]] * 101,
            )
        ),
        json.dumps(
            {**EXIT_0, "dropped": {"out": 0, "err": 0, "files": 0, "named": [["a", "too_many", 1]]}}
        ).encode(),
    ],
)
def test_a_malformed_exit_frame_is_not_a_frame(payload: bytes) -> None:
    forged = encode("exit", payload)
    frames, decoder = decode([START + forged + EXIT])
    assert frames == [HELLO, ended(0, 0.5)]
    assert decoder.unframed == forged


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b'{"python": "3"}',
        b'{"protocol": 1}',
        b'{"protocol": "1", "python": "3"}',
        b'{"protocol": true}',
    ],
)
def test_a_malformed_start_frame_is_not_a_frame(payload: bytes) -> None:
    frames, decoder = decode([encode("start", payload)])
    assert frames == []
    assert decoder.unframed == encode("start", payload)
    assert not decoder.started


@pytest.mark.parametrize(
    "header",
    [
        b"\x1eout 1000000000000\n",
        b"\x1eout 999999999\n",
        b'\x1efile 999999999 "a"\n',
        b"\x1eexit 999999\n",
        b"\x1eout -1\n",
        b"\x1eout 01\n",
        b"\x1eout 1.0\n",
        b"\x1eout \xd9\xa1\n",
        b"\x1eout\n",
        b'\x1eout 1 "meta"\n',
        b'\x1eout 1 {"encoding": "gzip"}\n',
        b'\x1eout 1 {"encoding": ["zlib"]}\n',
        b'\x1eout 1 {"encoding": "zlib", "more": 1}\n',
        b"\x1eout 1 {}\n",
        b'\x1eexit 1 {"encoding": "zlib"}\n',
        b'\x1efile 1 {"encoding": "zlib"}\n',
        b'\x1eout 9999999 {"encoding": "zlib"}\n',
        b"\x1efile 1\n",
        b"\x1efile 1 not-json\n",
        b"\x1efile 1 [1]\n",
        b"\x1efile 1 " + b"[" * 2500 + b"\n",
        b'\x1efile 1 "' + b"a" * 9000 + b'"\n',
        b"\x1enews 4\n",
        b"\x1eOUT 1\n",
        b"\x1e out 1\n",
        b"\x1e\n",
        b"\x1e\x1e\x1e",
    ],
)
def test_a_malformed_header_is_skipped_and_hides_nothing(header: bytes) -> None:
    frames, decoder = decode([START + header + encode("out", b"x") + EXIT])
    assert frames == [HELLO, Output("stdout", b"x"), ended(0, 0.5)]
    assert decoder.unframed == header


def test_a_payload_without_a_newline_after_it_hides_nothing() -> None:
    frames, decoder = decode([START + b"\x1eout 10\n" + encode("out", b"hello world") + EXIT])
    assert frames == [HELLO, Output("stdout", b"hello world"), ended(0, 0.5)]
    assert decoder.unframed == b"\x1eout 10\n"


@pytest.mark.parametrize("kind", ["out", "err"])
def test_output_over_the_limit_is_dropped_and_counted(kind: str) -> None:
    chunks = [encode(kind, b"abcd"), encode(kind, b"efgh"), encode(kind, b"ijkl"), EXIT]
    frames, decoder = decode(chunks, Limits(output_bytes=6))
    assert b"".join(f.data for f in frames if isinstance(f, Output)) == b"abcdef"
    assert decoder.dropped == (DroppedOutput(stdout=6) if kind == "out" else DroppedOutput(stderr=6))
    assert decoder.exited


@pytest.mark.parametrize("data", [b"", b"x", b"\n" * 100_000, bytes(range(256)) * 100])
def test_compressed_output_is_decompressed(data: bytes) -> None:
    log = START + packed("out", data) + encode("out", b"plain") + packed("err", data) + EXIT
    frames, unframed, *_ = outcome([log])
    assert frames == [
        HELLO,
        Output("stdout", data + b"plain"),
        *([Output("stderr", data)] if data else ()),
        ended(0, 0.5),
    ]
    assert unframed == b""
    assert outcome(one_by_one(log)) == outcome([log])


def test_compressed_output_over_the_limit_is_truncated_and_counted() -> None:
    chunks = [encode("out", b"ab"), packed("out", b"cdef"), packed("out", b"ghi"), packed("err", b"x"), EXIT]
    frames, decoder = decode(chunks, Limits(output_bytes=4))
    assert b"".join(f.data for f in frames if isinstance(f, Output)) == b"abcdx"
    # Not all of it is decompressed, so the number is a minimum.
    assert decoder.dropped == DroppedOutput(stdout=2)
    assert decoder.exited


def test_each_stream_has_a_separate_limit() -> None:
    frames, decoder = decode([encode("out", b"abcd") + encode("err", b"abcd")], Limits(output_bytes=4))
    assert frames == [Output("stdout", b"abcd"), Output("stderr", b"abcd")]
    assert decoder.dropped == DroppedOutput()


def test_files_together_stay_below_the_limit() -> None:
    log = [
        file_frame("a", b"x" * 60),
        file_frame("b", b"x" * 60),
        file_frame("c", b"x" * 40),
        file_frame("d", b""),
    ]
    frames, decoder = decode(log, Limits(file_bytes=100))
    assert [f.name for f in frames if isinstance(f, OutputFile)] == ["a", "c", "d"]
    assert decoder.dropped == dropped(DroppedFile("b", "too_large"))


def test_files_over_the_count_are_dropped_and_counted() -> None:
    frames, decoder = decode([file_frame(f"f{i}", b"") for i in range(5)], Limits(file_count=3))
    assert len(frames) == 3
    assert decoder.dropped == dropped(DroppedFile("f3", "too_many"), DroppedFile("f4", "too_many"))


def test_a_file_of_exactly_the_limit_is_returned() -> None:
    data = bytes(range(256)) * 4
    frames, _ = decode([file_frame("a", data)], Limits(file_bytes=len(data)))
    assert frames == [OutputFile("a", data)]


def test_a_file_that_does_not_compress_fits_into_the_longest_frame() -> None:
    data = random.Random(1).randbytes(1 << 20)
    frames, _ = decode([file_frame("a", data)], Limits(file_bytes=len(data)))
    assert frames == [OutputFile("a", data)]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not base64!",
        b"AAAA",
        base64.b64encode(b"not zlib"),
        base64.b64encode(zlib.compress(b"truncated" * 100)[:-6]),
        base64.b64encode(zlib.compress(b"x") + b"trailing"),
        base64.b64encode(zlib.compress(b"x")) + b"\n",
        "é".encode(),
    ],
)
def test_a_file_that_is_not_one_whole_zlib_stream_is_dropped(payload: bytes) -> None:
    forged = encode("file", payload, "a.txt")
    frames, decoder = decode([forged + file_frame("a.txt", b"real")])
    assert frames == [OutputFile("a.txt", b"real")]
    assert decoder.dropped == dropped(DroppedFile("a.txt", "unreadable"))
    assert decoder.unframed == forged


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not base64!",
        base64.b64encode(b"not zlib"),
        base64.b64encode(zlib.compress(b"truncated" * 100)[:-6]),
        base64.b64encode(zlib.compress(b"x") + b"trailing"),
    ],
)
def test_output_that_is_not_one_whole_zlib_stream_is_not_a_frame(payload: bytes) -> None:
    forged = encode("out", payload, {"encoding": "zlib"})
    frames, decoder = decode([forged + packed("out", b"real")])
    assert frames == [Output("stdout", b"real")]
    assert decoder.dropped == DroppedOutput()
    assert decoder.unframed == forged


NOISE = random.Random(1).randbytes(100_000)
LARGE = base64.b64encode(zlib.compress(NOISE))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (LARGE, None),
        (LARGE[:70_000] + b"!" + LARGE[70_001:], "unreadable"),
        (LARGE[:-4], "unreadable"),
        (base64.b64encode(zlib.compress(NOISE[:70_000]) + b"and more" * 2_000), "unreadable"),
        (base64.b64encode(zlib.compress(NOISE + b"x")), "too_large"),
        *((base64.b64encode(zlib.compress(NOISE[:size])), None) for size in range(24_560, 24_580)),
    ],
    ids=range(25),
)
def test_a_large_file_is_the_same_however_its_log_is_split(payload: bytes, reason: str | None) -> None:
    log = START + encode("file", payload, "a") + EXIT
    limits = Limits(file_bytes=len(NOISE))
    whole = outcome([log], limits)
    frames, decoder = decode([log], limits)
    assert [file.reason for file in decoder.dropped.named_files] == ([] if reason is None else [reason])
    assert any(isinstance(frame, OutputFile) for frame in frames) == (reason is None)
    for size in (1000, 16_384, 16_397, 50_000):
        assert outcome([log[at : at + size] for at in range(0, len(log), size)], limits) == whole


def test_a_large_file_is_decoded_while_it_arrives() -> None:
    """Decoding it at its end would block other runs."""
    decoder = Decoder()
    decoder.feed(encode("file", LARGE, "a")[:-1])
    unpacker = decoder._header.content if decoder._header is not None else None
    assert isinstance(unpacker, _Unpacker)
    assert unpacker.size > len(NOISE) - (16 << 10)


def test_a_file_that_is_read_again_does_not_use_up_the_limit() -> None:
    frame = encode("file", LARGE, "a")
    decoder = Decoder(Limits(file_bytes=len(NOISE)))
    for _ in range(10):
        assert decoder.feed(frame[:-1]) == []
        decoder.rewind()
    assert decoder.feed(frame) == [OutputFile("a", NOISE)]


@pytest.mark.parametrize("second", ["a/b", "./a/b", "a//b", "a", "a/b/c"])
def test_a_file_whose_name_clashes_with_an_earlier_one_is_dropped(second: str) -> None:
    frames, decoder = decode([file_frame("a/b", b"1"), file_frame(second, b"2")])
    assert frames == [OutputFile("a/b", b"1")]
    assert decoder.dropped == dropped(DroppedFile(second, "refused_name"))


def test_a_file_name_is_normalized() -> None:
    frames, _ = decode([file_frame("./out//plots/./a.png", b"")])
    assert frames == [OutputFile("out/plots/a.png", b"")]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../evil", "../evil"),
        ("/etc/passwd", "/etc/passwd"),
        ("a/../../b", "a/../../b"),
        ("", ""),
        (".", "."),
        ("a\0b", r"a\x00b"),
        ("..", ".."),
        ("a\\..\\b", r"a\\..\\b"),
        ("\ud800", r"\ud800"),
        ("new\nline", r"new\nline"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31mred", r"\x9b31mred"),
        ("fdp\u202e.exe", r"fdp\u202e.exe"),
        ("a\u200bb", r"a\u200bb"),
        ("x\u2028y", r"x\u2028y"),
        ("x" * 1100, "x" * 1024),
    ],
)
def test_a_file_with_an_unsafe_name_is_dropped_and_its_name_is_escaped(name: str, shown: str) -> None:
    frames, decoder = decode([file_frame(name, b"x")])
    assert frames == []
    assert decoder.dropped == dropped(DroppedFile(shown, "refused_name"))


def test_a_hundred_dropped_files_are_named_and_all_are_counted() -> None:
    _, decoder = decode([file_frame(f"f{i}", b"") for i in range(300)], Limits(file_count=0))
    assert decoder.dropped.files == 300
    assert [file.name for file in decoder.dropped.named_files] == [f"f{i}" for i in range(100)]


def test_the_files_that_the_runner_dropped_are_named() -> None:
    named = [["big", "too_large", 1 << 40], ["a\udcff\u202e", "refused_name", 1], ["d", "unreadable", None]]
    frames, _ = decode([START + exit_frame(dropped={"out": 1, "err": 2, "files": 5, "named": named})])
    end = frames[-1]
    assert isinstance(end, Exit)
    assert end.dropped == DroppedOutput(
        1,
        2,
        5,
        (
            DroppedFile("big", "too_large", 1 << 40),
            DroppedFile(r"a\udcff\u202e", "refused_name", 1),
            DroppedFile("d", "unreadable"),
        ),
    )
