"""Lines, events, and a list and watch that goes on whatever happens. Time is a mock clock's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox.errors import BadRequest, Forbidden, NotFound, SandboxError, ServerError, Unauthorized
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.reflector import list_and_watch
from gke_sandbox.kube.resources import PODS
from gke_sandbox.kube.status import RequestInfo
from gke_sandbox.kube.watch import LineDecoder, LineTooLong, WatchEvent, parse_event

from ..clock import run_on_mock_clock
from .recordings import recorded
from .servers import FOREVER, Answer, Memory

CALL = RequestInfo("watch", "GET", PODS, "ns")
CONFIG = ClusterConfig(server="http://cluster")


# Lines


@given(st.binary(max_size=200).map(lambda data: data.replace(b"a", b"\n")), st.lists(st.integers(1, 200)))
def test_lines_are_the_same_however_the_bytes_are_cut(data: bytes, sizes: list[int]) -> None:
    decoder, lines, rest = LineDecoder(), [], data
    for size in sizes:
        lines += decoder.feed(rest[:size])
        rest = rest[size:]
    lines += decoder.feed(rest)
    *expected, end = data.split(b"\n")
    assert lines == expected
    assert decoder.finish() == (end or None)


def test_only_a_line_feed_ends_a_line() -> None:
    text = "10%\r20%\x0cpage\x85 next\u2028last".encode()
    assert LineDecoder().feed(text + b"\n") == [text]


def test_a_line_over_the_limit_is_an_error_ended_or_not() -> None:
    assert LineDecoder(max_line=4).feed(b"1234\n1234") == [b"1234"]
    with pytest.raises(LineTooLong):
        LineDecoder(max_line=4).feed(b"12345")
    with pytest.raises(LineTooLong):
        LineDecoder(max_line=4).feed(b"1\n12345\n")
    decoder = LineDecoder(max_line=4)
    decoder.feed(b"123")
    with pytest.raises(LineTooLong):
        decoder.feed(b"45\n")


def test_a_long_line_in_small_pieces_takes_linear_time() -> None:
    def seconds(pieces: int) -> float:
        decoder, before = LineDecoder(), time.perf_counter()
        for _ in range(pieces):
            decoder.feed(b"x" * 8)
        return time.perf_counter() - before

    # 8 times the pieces: a decoder that looks at the line's begin again at each would take 64 times as long.
    assert min(seconds(160_000) for _ in range(3)) < 30 * min(seconds(20_000) for _ in range(3))


# Events


def test_recorded_events() -> None:
    stream = next(e for e in recorded("watch-bookmark-and-timeout") if e.chunks)
    decoder = LineDecoder()
    events = [parse_event(CALL, line) for chunk in stream.chunks for line in decoder.feed(chunk)]
    assert [event.type for event in events] == ["MODIFIED", "BOOKMARK", "MODIFIED", "MODIFIED", "DELETED"]
    assert {event.object["kind"] for event in events} == {"Pod"}


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"null", b"hello", b'{"type": "ADDED"}', b'{"type": "SYNCED", "object": {}}', b"\xff",
     b'{"type": ["ADDED"], "object": {}}', b'{"type": "ADDED", "object": []}', b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_event_is_a_server_error(line: bytes) -> None:
    with pytest.raises(ServerError, match="not a watch event"):
        parse_event(CALL, line)


# List and watch


def pod(name: str, version: int, uid: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": uid or f"u-{name}", "resourceVersion": str(version)}
    }


def listed(version: int, *pods: dict[str, Any]) -> Answer:
    return Answer(body={"kind": "PodList", "metadata": {"resourceVersion": str(version)}, "items": list(pods)})


def line(kind: str, body: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return line("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def watched(*chunks: bytes | float | Exception) -> Answer:
    return Answer(chunks=chunks)


def refusal(code: int, reason: str, **more: object) -> Answer:
    return Answer(code, {"kind": "Status", "code": code, "reason": reason, "message": "no", **more})


def expired() -> bytes:
    return line("ERROR", json.loads(recorded("watch-expired")[0].chunks[0])["object"])


def words(event: WatchEvent) -> str:
    """``ADDED a 3``: type, name, version."""
    metadata = event.object["metadata"]
    return " ".join(filter(None, [event.type, metadata.get("name"), metadata.get("resourceVersion")]))


def told(server: Memory, seconds: float, uniform: Callable[[], float] = lambda: 0.0) -> list[str]:
    """What `list_and_watch` tells in so many seconds; raises what it raises."""

    async def main() -> list[str]:
        changes = []
        async with KubeClient(CONFIG, transport=server) as client:
            with anyio.move_on_after(seconds):
                async with list_and_watch(client, PODS, "ns", label_selector="a=b", uniform=uniform) as stream:
                    async for change in stream:
                        changes.append(words(change))
            assert server.open_streams == 0
        return changes

    return run_on_mock_clock(main)


def test_a_list_then_its_changes() -> None:
    server = Memory(
        [
            listed(5, pod("a", 3), pod("b", 4)),
            watched(
                line("MODIFIED", pod("a", 6)) + line("ADDED", pod("c", 7)), line("DELETED", pod("b", 8)), FOREVER
            ),
        ]
    )
    assert told(server, 10) == ["ADDED a 3", "ADDED b 4", "SYNCED 5", "MODIFIED a 6", "ADDED c 7", "DELETED b 8"]
    assert server.asked == ["list", "watch 5"]
    first, second = (dict(request.url.params) for request in server.requests)
    assert first == {"labelSelector": "a=b"}
    assert second == {
        "watch": "true",
        "labelSelector": "a=b",
        "resourceVersion": "5",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "240",
    }


def test_an_event_in_many_chunks_is_one_event() -> None:
    text = line("ADDED", pod("a", 6))
    chunks = [text[i : i + 1] for i in range(len(text))]
    assert told(Memory([listed(5), watched(*chunks, FOREVER)]), 1) == ["SYNCED 5", "ADDED a 6"]


def test_an_empty_list_may_be_null() -> None:
    body = {"metadata": {"resourceVersion": "5"}, "items": None}
    assert told(Memory([Answer(body=body)]), 1) == ["SYNCED 5"]


def test_a_watch_that_ends_is_opened_again_from_the_last_version() -> None:
    server = Memory(
        [
            listed(5),
            watched(line("ADDED", pod("a", 6)), 240.0),
            watched(100.0, bookmark(9), 100.0, bookmark(12), 40.0),
            watched(line("MODIFIED", pod("a", 14)), FOREVER),
        ]
    )
    assert told(server, 500) == ["SYNCED 5", "ADDED a 6", "MODIFIED a 14"]
    assert server.asked[:4] == ["list", "watch 5", "watch 6", "watch 12"]


def test_the_watchs_length_is_random() -> None:
    server = Memory([listed(5)])
    told(server, 1, uniform=lambda: 1.0)
    assert server.requests[1].url.params["timeoutSeconds"] == "300"


@pytest.mark.parametrize("answer", [watched(expired()), refusal(410, "Expired"), refusal(410, "Gone")])
def test_an_expired_version_lists_again_and_tells_the_difference(answer: Answer) -> None:
    server = Memory(
        [
            listed(5, pod("same", 1), pod("changed", 2), pod("gone", 3), pod("replaced", 4, "u-1")),
            answer,
            listed(50, pod("same", 1), pod("changed", 40), pod("replaced", 41, "u-2"), pod("new", 42)),
            watched(FOREVER),
        ]
    )
    assert told(server, 10)[4:] == [
        "SYNCED 5",
        "MISSING gone 3",
        "MODIFIED changed 40",
        "MISSING replaced 4",
        "ADDED replaced 41",
        "ADDED new 42",
        "SYNCED 50",
    ]
    assert server.asked == ["list", "watch 5", "list", "watch 50"]


def test_a_version_that_the_server_has_not_reached_lists_again() -> None:
    exchange = recorded("watch-expired")[1]
    server = Memory([listed(999), Answer(exchange.status, exchange.body), listed(5), watched(FOREVER)])
    assert told(server, 10) == ["SYNCED 999", "SYNCED 5"]


def test_a_version_is_told_once() -> None:
    server = Memory(
        [
            listed(5, pod("a", 3)),
            watched(
                line("ADDED", pod("a", 3)), line("MODIFIED", pod("a", 6)), line("MODIFIED", pod("a", 6)), FOREVER
            ),
        ]
    )
    assert told(server, 1) == ["ADDED a 3", "SYNCED 5", "MODIFIED a 6"]


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("cut"),
        refusal(500, "InternalError"),
        refusal(503, "ServiceUnavailable"),
        refusal(429, "TooManyRequests"),
        Answer(502, b"<html>bad gateway</html>"),
        Answer(200, b"not json"),
        Answer(200, {"kind": "PodList"}),
    ],
    ids=repr,
)
def test_trouble_with_the_list_is_waited_out(trouble: Answer | Exception) -> None:
    server = Memory([trouble, trouble, trouble, listed(5, pod("a", 3))])
    assert told(server, 60) == ["ADDED a 3", "SYNCED 5"]
    assert server.asked == ["list", "list", "list", "list", "watch 5"]


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        refusal(500, "InternalError"),
        refusal(429, "TooManyRequests"),
        watched(httpx.ReadError("reset")),
        watched(line("ERROR", {"kind": "Status", "code": 500, "reason": "InternalError", "message": "no"})),
        watched(b"garbage\n"),
        watched(b"x" * (9 << 20)),
    ],
    ids=lambda trouble: repr(trouble)[:60],
)
def test_trouble_with_the_watch_goes_on_from_the_last_version(trouble: Answer | Exception) -> None:
    server = Memory(
        [
            listed(5),
            watched(line("ADDED", pod("a", 6)), 2.0, httpx.ReadError("reset")),
            trouble,
            trouble,
            watched(line("MODIFIED", pod("a", 7)), FOREVER),
        ]
    )
    assert told(server, 60) == ["SYNCED 5", "ADDED a 6", "MODIFIED a 7"]
    assert server.asked == ["list", "watch 5", "watch 6", "watch 6", "watch 6"]


def test_a_line_that_was_cut_off_is_told_by_the_next_watch() -> None:
    text = line("ADDED", pod("a", 6))
    server = Memory([listed(5), watched(bookmark(5), text[:-10]), watched(text, FOREVER)])
    assert told(server, 60) == ["SYNCED 5", "ADDED a 6"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal(401, "Unauthorized"), Unauthorized),
        (refusal(403, "Forbidden"), Forbidden),
        (refusal(404, "NotFound"), NotFound),
        (refusal(400, "BadRequest"), BadRequest),
    ],
)
def test_what_waiting_does_not_heal_is_raised(answer: Answer, kind: type[SandboxError]) -> None:
    with pytest.raises(kind):
        told(Memory([answer]), 60)
    server = Memory([listed(5), answer])
    with pytest.raises(kind):
        told(server, 60)
    assert server.open_streams == 0


def test_a_watch_that_ends_at_once_does_not_spin() -> None:
    server = Memory(lambda request: watched() if request.url.params.get("watch") else listed(5))
    told(server, 60)
    watches = [at for at, word in zip(server.times, server.asked, strict=True) if word != "list"]
    assert all(later - earlier >= 1 for earlier, later in pairwise(watches))
    assert len(watches) < 12


def test_a_version_that_is_always_expired_does_not_spin() -> None:
    server = Memory(lambda request: watched(expired()) if request.url.params.get("watch") else listed(5))
    assert told(server, 60).count("SYNCED 5") < 10
    assert len(server.requests) < 20


def test_a_watch_that_ends_after_each_event_does_not_spin() -> None:
    versions = iter(range(6, 1000))

    def answer(request: httpx.Request) -> Answer:
        if request.url.params.get("watch"):
            return watched(line("MODIFIED", pod("a", next(versions))))
        return listed(5)

    server = Memory(answer)
    assert len(told(server, 10)) == 11
    assert len(server.requests) == 11


def test_back_off_grows_to_30_seconds_and_starts_again_after_an_event() -> None:
    down: list[Answer | Exception] = [httpx.ConnectError("refused")] * 8
    server = Memory([listed(5), *down, watched(bookmark(6), httpx.ReadError("reset")), watched(FOREVER)])
    told(server, 200, uniform=lambda: 1.0)
    gaps = [later - earlier for earlier, later in pairwise(server.times)]
    assert gaps == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 1.0]


@pytest.mark.parametrize(("asked", "kept"), [(7, 7.0), (100_000, 120.0)])
def test_the_servers_wish_to_wait_is_kept(asked: int, kept: float) -> None:
    busy = refusal(429, "TooManyRequests", details={"retryAfterSeconds": asked})
    server = Memory([busy, listed(5)])
    told(server, 200)
    assert server.times[1] - server.times[0] == kept


def test_a_watch_that_has_gone_silent_is_found_out_and_replaced() -> None:
    server = Memory([listed(5), watched(60.0, bookmark(6), 60.0, bookmark(7), FOREVER), watched(FOREVER)])
    told(server, 250)
    assert server.asked[:3] == ["list", "watch 5", "watch 7"]
    silence = server.times[2] - server.times[1] - 120.0
    assert 90 < silence < 130


def test_a_quiet_watch_with_bookmarks_is_left_alone() -> None:
    stream = next(e for e in recorded("watch-quiet") if e.chunks)
    pauses = (59.1, 60.9, 28.0)
    chunks: Sequence[Any] = [part for pair in zip(pauses, stream.chunks, strict=True) for part in pair]
    server = Memory([listed(5), watched(*chunks, 2.0)])
    told(server, 149)
    assert server.asked == ["list", "watch 5"]


def test_cancelled_anywhere_it_leaves_no_stream_open() -> None:
    """At each of the first 40 checkpoints in turn."""

    async def main(steps: int) -> bool:
        server = Memory(
            [listed(5, pod("a", 3)), watched(line("ADDED", pod("b", 6)), line("ADDED", pod("c", 7)), FOREVER)]
        )
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()

            async with anyio.create_task_group() as group, KubeClient(CONFIG, transport=server) as client:
                group.start_soon(cancel)
                async with list_and_watch(client, PODS, "ns") as changes:
                    async for _ in changes:
                        await anyio.lowlevel.checkpoint()
        return server.open_streams == 0 and server.closed == server.entered

    for steps in range(40):
        assert run_on_mock_clock(main, steps), steps


def test_a_cancelled_wait_for_a_change_loses_nothing() -> None:
    async def main() -> list[str]:
        server = Memory(
            [
                listed(5),
                watched(line("ADDED", pod("a", 6)), FOREVER),
                watched(30.0, line("ADDED", pod("b", 7)), FOREVER),
            ]
        )
        changes: list[str] = []
        async with KubeClient(CONFIG, transport=server) as client, list_and_watch(client, PODS, "ns") as stream:
            with anyio.move_on_after(5):
                while True:
                    changes.append(words(await anext(stream)))
            changes.append("cancelled")
            changes.append(words(await anext(stream)))
            assert server.asked == ["list", "watch 5", "watch 6"]
        return changes

    assert run_on_mock_clock(main) == ["SYNCED 5", "ADDED a 6", "cancelled", "ADDED b 7"]


@pytest.mark.anyio
async def test_it_can_be_left_in_the_middle_on_any_event_loop() -> None:
    server = Memory([listed(5), watched(line("ADDED", pod("a", 6)) + line("ADDED", pod("b", 7)), FOREVER)])
    async with KubeClient(CONFIG, transport=server) as client, list_and_watch(client, PODS, "ns") as changes:
        async for change in changes:
            if change.type == "ADDED":
                break
    assert server.open_streams == 0
