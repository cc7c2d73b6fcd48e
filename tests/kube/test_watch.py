"""The watch protocol: lines and events."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox.errors import ServerError
from gke_sandbox.kube.resources import PODS
from gke_sandbox.kube.status import RequestInfo
from gke_sandbox.kube.watch import MAX_LINE_BYTES, LineDecoder, parse_event

from .recordings import recorded

INFO = RequestInfo("watch", "GET", PODS, "ns")


# Lines


@given(st.binary(max_size=200).map(lambda data: data.replace(b"a", b"\n")), st.lists(st.integers(1, 200)))
def test_lines_do_not_depend_on_how_the_bytes_are_split(data: bytes, sizes: list[int]) -> None:
    decoder, lines, rest = LineDecoder(), [], data
    for size in sizes:
        lines += decoder.feed(rest[:size])
        rest = rest[size:]
    lines += decoder.feed(rest)
    *expected, end = data.split(b"\n")
    assert lines == expected
    assert decoder.feed(b"\n") == [end]


def test_only_a_line_feed_ends_a_line() -> None:
    text = "10%\r20%\x0cpage\x85 next\u2028last".encode()
    assert LineDecoder().feed(text + b"\n") == [text]


def test_a_line_over_the_limit_is_an_error_complete_or_not() -> None:
    longest = b"x" * MAX_LINE_BYTES
    assert LineDecoder().feed(longest + b"\n" + longest) == [longest]
    with pytest.raises(ValueError, match="a line is longer than 8 MiB"):
        LineDecoder().feed(longest + b"x")
    with pytest.raises(ValueError, match="a line is longer than 8 MiB"):
        LineDecoder().feed(b"1\n" + longest + b"x\n")
    decoder = LineDecoder()
    decoder.feed(longest)
    with pytest.raises(ValueError, match="a line is longer than 8 MiB"):
        decoder.feed(b"x\n")


def test_a_long_line_in_small_chunks_takes_linear_time() -> None:
    def seconds(chunks: int) -> float:
        decoder, before = LineDecoder(), time.perf_counter()
        for _ in range(chunks):
            decoder.feed(b"x" * 8)
        return time.perf_counter() - before

    # A decoder that scans the whole line for every chunk would take 64 times as long for 8 times the chunks.
    assert min(seconds(160_000) for _ in range(3)) < 30 * min(seconds(20_000) for _ in range(3))


# Events


def test_recorded_events_are_parsed() -> None:
    stream = next(e for e in recorded("watch-bookmark-and-timeout") if e.chunks)
    decoder = LineDecoder()
    events = [parse_event(INFO, line) for chunk in stream.chunks for line in decoder.feed(chunk)]
    assert [event.type for event in events] == ["MODIFIED", "BOOKMARK", "MODIFIED", "MODIFIED", "DELETED"]
    assert {event.object["kind"] for event in events} == {"Pod"}


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"null", b"hello", b'{"type": "ADDED"}', b'{"type": "SYNCED", "object": {}}', b"\xff",
     b'{"type": ["ADDED"], "object": {}}', b'{"type": "ADDED", "object": []}', b"[" * 100_000],
)  # fmt: skip
def test_a_line_that_is_not_an_event_is_a_server_error(line: bytes) -> None:
    with pytest.raises(ServerError, match="not a watch event"):
        parse_event(INFO, line)
