"""Malicious logs and logs of random bytes: limits hold, memory and time are bounded, splits do not matter."""

from __future__ import annotations

import base64
import itertools
import tracemalloc
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gke_sandbox._wire.frames import (
    Decoder,
    DroppedOutput,
    Exit,
    Limits,
    Output,
    OutputFile,
    Start,
    encode,
    safe_output_name,
)
from tests.wire.frames import EXIT, START, decode, file_frame, one_by_one, outcome, packed


@pytest.mark.timeout(20)
def test_zlib_bombs_are_not_decompressed() -> None:
    bomb = file_frame("bomb", b"\0" * (16 << 20))
    decoder = Decoder(Limits(file_bytes=1 << 20))
    tracemalloc.start()
    try:
        for i in range(500):
            assert decoder.feed(bomb) == []
            assert decoder.dropped.files == i + 1
            assert len(decoder.dropped.named_files) == min(i + 1, 100)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("valid", [True, False])
def test_zlib_bombs_of_output_are_not_decompressed(valid: bool) -> None:
    data = base64.b64encode(zlib.compress(b"\0" * (16 << 20))[: None if valid else -20])
    bomb = encode("out", data, {"encoding": "zlib"})
    decoder = Decoder(Limits(output_bytes=1 << 20))
    tracemalloc.start()
    try:
        found = [frame for _ in range(500) for frame in decoder.feed(bomb)]
        assert sum(len(frame.data) for frame in found if isinstance(frame, Output)) == 1 << 20
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(20)
def test_invalid_bombs_below_the_limit_are_decompressed_only_up_to_twice_the_limit() -> None:
    bomb = encode("out", base64.b64encode(zlib.compress(b"\0" * (1 << 20))[:-1]), {"encoding": "zlib"})
    decoder = Decoder(Limits(output_bytes=1 << 20))
    for _ in range(20_000):
        assert decoder.feed(bomb) == []
    assert decoder.dropped == DroppedOutput()


FLOODS = [
    b"\x1e",
    b"\x1e\n",
    b"\x1eout 0\n\n",
    b"\x1eout 1\nx\n",
    b"\x1eout 1999999\n",
    b'\x1efile 0 "a"\n\n',
    b'\x1efile 0 "../a"\n\n',
    b'\x1eout 0 {"encoding": "zlib"}\n\n',
    b'\x1eout 1999999 {"encoding": "zlib"}\n',
    packed("out", b"x"),
    b"\x1eexit 0\n\n",
    b"\x1eexit 16000\n",
    b"\x1eexit 10000\n" + b"[" * 10000 + b"\n",
    b'\x1efile 4000000 "a"\n',
    b"\x1efile 1 " + b"a" * 3000,
    b"no frame at all",
]


# A search from the start of the buffer, a payload that never ends, many frames. The others differ in the frame.
REPRESENTATIVE = (b"\x1e", b"\x1eout 1999999\n", b"\x1eout 1\nx\n")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [pytest.param(each, marks=() if each in REPRESENTATIVE else pytest.mark.slow) for each in FLOODS],
)
def test_a_flood_takes_linear_time(piece: bytes) -> None:
    """1 MiB, which a forged length can keep buffered: reading bytes repeatedly would exceed the timeout."""
    decoder = Decoder()
    for _ in range(16):
        decoder.feed(piece * (65536 // len(piece)))


@pytest.mark.parametrize("piece", FLOODS)
@pytest.mark.no_cover  # tracemalloc counts the memory of coverage
def test_a_flood_takes_bounded_memory(piece: bytes) -> None:
    chunk = piece * (4096 // len(piece))
    decoder = Decoder(Limits(file_bytes=1000))
    tracemalloc.start()
    try:
        for _ in range(25):
            decoder.feed(chunk)
        remembered = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    waiting = 25 * len(chunk) if b"1999999" in piece else 0
    assert remembered < (96 << 10) + waiting
    assert len(decoder.unframed) <= 64 << 10


@pytest.mark.timeout(10)
def test_a_flood_of_single_bytes_takes_linear_time() -> None:
    decoder = Decoder()
    for _ in range(6):
        for byte in one_by_one(b'\x1efile 4000000 "' + b"a" * 3000 + b"\x1eout 30000\n" + b"\x1e" * 30000):
            decoder.feed(byte)


@pytest.mark.timeout(20)
def test_deep_names_take_memory_by_their_length_only() -> None:
    frames = [file_frame("/".join([f"d{i}"] + ["a"] * 500), b"") for i in range(30)]
    decoder = Decoder()
    tracemalloc.start()
    try:
        for frame in frames:
            assert len(decoder.feed(frame)) == 1
        assert tracemalloc.get_traced_memory()[0] < 5 << 20
    finally:
        tracemalloc.stop()


# -- split input ------------------------------------------------------------------------------------------

names_ = st.sampled_from(["a", "a/b", "./a", "b//c", "../x", "", "é", "x" * 300, "c"]) | st.text(max_size=8)
payloads = st.binary(max_size=40) | st.sampled_from([b"\x1e", b"\n", b"\x1eout 1\n", EXIT, START])
pieces = st.one_of(
    st.just(START),
    st.builds(encode, st.sampled_from(["out", "err"]), payloads),
    st.builds(packed, st.sampled_from(["out", "err", "exit"]), payloads),
    st.builds(encode, st.sampled_from(["out", "err"]), payloads, st.just({"encoding": "zlib"})),
    st.builds(file_frame, names_, payloads),
    st.builds(encode, st.just("file"), payloads, names_),
    st.builds(encode, st.sampled_from(["start", "exit", "news"]), payloads),
    payloads,
    st.builds(
        lambda kind, length: f"\x1e{kind} {length}\n".encode(),
        st.sampled_from(["out", "err", "file", "exit", "start"]),
        st.integers(0, 60) | st.just(10**12),
    ),
    st.just(EXIT),
)
logs = st.lists(pieces, max_size=12).map(b"".join)
small = Limits(output_bytes=50, file_bytes=60, file_count=2)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


@given(logs, st.lists(st.integers(0, 10_000), max_size=8))
def test_the_result_does_not_depend_on_how_the_log_is_split(data: bytes, places: list[int]) -> None:
    whole = outcome([data], small)
    assert outcome(cut(data, places), small) == whole
    assert outcome(one_by_one(data), small) == whole


@given(st.lists(st.binary(max_size=300)))
def test_the_decoder_never_raises(chunks: list[bytes]) -> None:
    decode(chunks)


@given(logs)
def test_limits_hold_for_any_log(data: bytes) -> None:
    frames, decoder = decode([data], small)
    output = [frame for frame in frames if isinstance(frame, Output)]
    files = [frame for frame in frames if isinstance(frame, OutputFile)]
    for stream in ("stdout", "stderr"):
        assert sum(len(frame.data) for frame in output if frame.stream == stream) <= small.output_bytes
    assert sum(len(frame.data) for frame in files) <= small.file_bytes
    assert len(files) <= small.file_count
    assert all(safe_output_name(frame.name) == frame.name for frame in files)
    assert sum(isinstance(frame, Exit) for frame in frames) <= 1
    assert sum(isinstance(frame, Start) for frame in frames) <= 1
    assert decoder.exited == any(isinstance(frame, Exit) for frame in frames)


@given(
    st.lists(
        st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=80), st.booleans()),
        max_size=8,
    ),
    st.dictionaries(st.from_regex(r"[a-z]{1,3}(\.txt)?", fullmatch=True), st.binary(max_size=80), max_size=4),
)
@settings(max_examples=50)
def test_frames_written_by_the_runner_are_decoded(
    output: list[tuple[str, bytes, bool]], files: dict[str, bytes]
) -> None:
    log = START + b"".join(
        (packed if compress else encode)("out" if stream == "stdout" else "err", data)
        for stream, data, compress in output
    )
    log += b"".join(file_frame(name, data) for name, data in files.items()) + EXIT
    frames, decoder = decode([log])
    for stream in ("stdout", "stderr"):
        said = b"".join(f.data for f in frames if isinstance(f, Output) and f.stream == stream)
        assert said == b"".join(data for where, data, _ in output if where == stream)
    assert {f.name: f.data for f in frames if isinstance(f, OutputFile)} == files
    assert (decoder.unframed, decoder.dropped, decoder.exited) == (b"", DroppedOutput(), True)
