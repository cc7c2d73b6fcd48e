"""A list and a watch that continues after every end, with time on a mock clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest

from gke_sandbox.errors import BadRequest, Forbidden, NotFound, SandboxError, Unauthorized
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.reflector import Reflector
from gke_sandbox.kube.resources import PODS
from gke_sandbox.kube.watch import WatchEvent

from ..clock import run_on_mock_clock
from .recordings import recorded
from .servers import FOREVER, MemoryTransport, ScriptedResponse

CONFIG = ClusterConfig(server="http://cluster")


def pod(name: str, version: int, uid: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": uid or f"u-{name}", "resourceVersion": str(version)}
    }


def listed(version: int, *pods: dict[str, Any]) -> ScriptedResponse:
    return ScriptedResponse(
        body={"kind": "PodList", "metadata": {"resourceVersion": str(version)}, "items": list(pods)}
    )


def line(kind: str, body: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return line("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def watched(*chunks: bytes | float | Exception) -> ScriptedResponse:
    return ScriptedResponse(chunks=chunks)


def error_response(code: int, reason: str, **more: object) -> ScriptedResponse:
    return ScriptedResponse(code, {"kind": "Status", "code": code, "reason": reason, "message": "no", **more})


def expired() -> bytes:
    return line("ERROR", json.loads(recorded("watch-expired")[0].chunks[0])["object"])


def summary(event: WatchEvent) -> str:
    """Return type, name and version: ``ADDED a 3``."""
    metadata = event.object["metadata"]
    return " ".join(filter(None, [event.type, metadata.get("name"), metadata.get("resourceVersion")]))


def events_within(
    server: MemoryTransport, seconds: float, uniform: Callable[[], float] = lambda: 0.0
) -> list[str]:
    """Return the events that a Reflector yields within `seconds`. Raise its errors."""

    async def main() -> list[str]:
        events = []
        async with KubeClient(CONFIG, transport=server) as client:
            with anyio.move_on_after(seconds):
                async with Reflector(client, PODS, "ns", label_selector="a=b", uniform=uniform) as stream:
                    async for event in stream:
                        events.append(summary(event))
            assert server.open_streams == 0
        return events

    return run_on_mock_clock(main)


def test_a_list_is_followed_by_its_changes() -> None:
    server = MemoryTransport(
        [
            listed(5, pod("a", 3), pod("b", 4)),
            watched(
                line("MODIFIED", pod("a", 6)) + line("ADDED", pod("c", 7)), line("DELETED", pod("b", 8)), FOREVER
            ),
        ]
    )
    assert events_within(server, 10) == [
        "ADDED a 3",
        "ADDED b 4",
        "SYNCED 5",
        "MODIFIED a 6",
        "ADDED c 7",
        "DELETED b 8",
    ]
    assert server.request_lines == ["list", "watch 5"]
    first, second = (dict(request.url.params) for request in server.requests)
    assert first == {"labelSelector": "a=b"}
    assert second == {
        "watch": "true",
        "labelSelector": "a=b",
        "resourceVersion": "5",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "240",
    }


def test_missing_contains_only_the_part_of_an_object_to_keep() -> None:
    server = MemoryTransport(
        [listed(5, {**pod("a", 3), "spec": {}}), error_response(410, "Expired"), listed(9), watched(FOREVER)]
    )

    async def main() -> list[WatchEvent]:
        async with (
            KubeClient(CONFIG, transport=server) as client,
            Reflector(client, PODS, "ns", keep=lambda known: {"metadata": known["metadata"]}) as stream,
        ):
            return [await anext(stream) for _ in range(3)]

    added, _, missing = run_on_mock_clock(main)
    assert (added.type, added.object) == ("ADDED", {**pod("a", 3), "spec": {}})
    assert (missing.type, missing.object) == ("MISSING", pod("a", 3))


def test_an_event_may_arrive_in_many_chunks() -> None:
    text = line("ADDED", pod("a", 6))
    chunks = [text[i : i + 1] for i in range(len(text))]
    assert events_within(MemoryTransport([listed(5), watched(*chunks, FOREVER)]), 1) == ["SYNCED 5", "ADDED a 6"]


def test_invalid_utf_8_in_a_list_or_an_event_is_replaced() -> None:
    def broken(response: bytes) -> bytes:
        return response.replace(b"?", b"\xc3(\xff")

    whole = json.dumps({"metadata": {"resourceVersion": "5"}, "items": [pod("a?", 4)]}).encode()
    server = MemoryTransport(
        [ScriptedResponse(body=broken(whole)), watched(broken(line("ADDED", pod("b?", 6))), FOREVER)]
    )
    assert events_within(server, 60) == ["ADDED a\ufffd(\ufffd 4", "SYNCED 5", "ADDED b\ufffd(\ufffd 6"]
    assert server.request_lines == ["list", "watch 5"]


def test_an_empty_list_may_be_null() -> None:
    body = {"metadata": {"resourceVersion": "5"}, "items": None}
    assert events_within(MemoryTransport([ScriptedResponse(body=body)]), 1) == ["SYNCED 5"]


def test_a_watch_that_ends_is_reopened_at_the_last_version() -> None:
    server = MemoryTransport(
        [
            listed(5),
            watched(line("ADDED", pod("a", 6)), 240.0),
            watched(100.0, bookmark(9), 100.0, bookmark(12), 40.0),
            watched(line("MODIFIED", pod("a", 14)), FOREVER),
        ]
    )
    assert events_within(server, 500) == ["SYNCED 5", "ADDED a 6", "MODIFIED a 14"]
    assert server.request_lines[:4] == ["list", "watch 5", "watch 6", "watch 12"]


def test_the_length_of_a_watch_is_random() -> None:
    server = MemoryTransport([listed(5)])
    events_within(server, 1, uniform=lambda: 1.0)
    assert server.requests[1].url.params["timeoutSeconds"] == "300"


@pytest.mark.parametrize(
    "response", [watched(expired()), error_response(410, "Expired"), error_response(410, "Gone")]
)
def test_an_expired_version_lists_again_and_yields_the_differences(response: ScriptedResponse) -> None:
    server = MemoryTransport(
        [
            listed(5, pod("same", 1), pod("changed", 2), pod("gone", 3), pod("replaced", 4, "u-1")),
            response,
            listed(50, pod("same", 1), pod("changed", 40), pod("replaced", 41, "u-2"), pod("new", 42)),
            watched(FOREVER),
        ]
    )
    assert events_within(server, 10)[4:] == [
        "SYNCED 5",
        "MISSING gone 3",
        "MODIFIED changed 40",
        "MISSING replaced 4",
        "ADDED replaced 41",
        "ADDED new 42",
        "SYNCED 50",
    ]
    assert server.request_lines == ["list", "watch 5", "list", "watch 50"]


def test_a_version_newer_than_the_servers_lists_again() -> None:
    exchange = recorded("watch-expired")[1]
    server = MemoryTransport(
        [listed(999), ScriptedResponse(exchange.status, exchange.body), listed(5), watched(FOREVER)]
    )
    assert events_within(server, 10) == ["SYNCED 999", "SYNCED 5"]


def test_a_version_is_yielded_once() -> None:
    server = MemoryTransport(
        [
            listed(5, pod("a", 3)),
            watched(
                line("ADDED", pod("a", 3)), line("MODIFIED", pod("a", 6)), line("MODIFIED", pod("a", 6)), FOREVER
            ),
        ]
    )
    assert events_within(server, 1) == ["ADDED a 3", "SYNCED 5", "MODIFIED a 6"]


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("cut"),
        error_response(500, "InternalError"),
        error_response(503, "ServiceUnavailable"),
        error_response(429, "TooManyRequests"),
        ScriptedResponse(502, b"<html>bad gateway</html>"),
        # From an API server, and truncated.
        ScriptedResponse(200, b"not json", headers=[("audit-id", "1")]),
        ScriptedResponse(200, {"kind": "PodList"}),
    ],
    ids=repr,
)
def test_a_failed_list_is_retried(failure: ScriptedResponse | Exception) -> None:
    server = MemoryTransport([failure, failure, failure, listed(5, pod("a", 3))])
    assert events_within(server, 60) == ["ADDED a 3", "SYNCED 5"]
    assert server.request_lines == ["list", "list", "list", "list", "watch 5"]


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        error_response(500, "InternalError"),
        error_response(429, "TooManyRequests"),
        watched(httpx.ReadError("reset")),
        watched(line("ERROR", {"kind": "Status", "code": 500, "reason": "InternalError", "message": "no"})),
        watched(b"garbage\n"),
        watched(b"x" * (9 << 20)),
    ],
    ids=lambda failure: repr(failure)[:60],
)
def test_a_failed_watch_is_reopened_at_the_last_version(failure: ScriptedResponse | Exception) -> None:
    server = MemoryTransport(
        [
            listed(5),
            watched(line("ADDED", pod("a", 6)), 2.0, httpx.ReadError("reset")),
            failure,
            failure,
            watched(line("MODIFIED", pod("a", 7)), FOREVER),
        ]
    )
    assert events_within(server, 60) == ["SYNCED 5", "ADDED a 6", "MODIFIED a 7"]
    assert server.request_lines == ["list", "watch 5", "watch 6", "watch 6", "watch 6"]


def test_a_truncated_line_is_yielded_by_the_next_watch() -> None:
    text = line("ADDED", pod("a", 6))
    server = MemoryTransport([listed(5), watched(bookmark(5), text[:-10]), watched(text, FOREVER)])
    assert events_within(server, 60) == ["SYNCED 5", "ADDED a 6"]


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (error_response(401, "Unauthorized"), Unauthorized),
        (error_response(403, "Forbidden"), Forbidden),
        (error_response(404, "NotFound"), NotFound),
        (error_response(400, "BadRequest"), BadRequest),
    ],
)
def test_an_error_that_a_retry_does_not_resolve_is_raised(
    response: ScriptedResponse, kind: type[SandboxError]
) -> None:
    with pytest.raises(kind):
        events_within(MemoryTransport([response]), 60)
    server = MemoryTransport([listed(5), response])
    with pytest.raises(kind):
        events_within(server, 60)
    assert server.open_streams == 0


def test_a_watch_that_ends_immediately_is_reopened_slowly() -> None:
    server = MemoryTransport(lambda request: watched() if request.url.params.get("watch") else listed(5))
    events_within(server, 60)
    watches = [at for at, kind in zip(server.times, server.request_lines, strict=True) if kind != "list"]
    assert all(later - earlier >= 1 for earlier, later in pairwise(watches))
    assert len(watches) < 12


def test_a_version_that_is_always_expired_is_listed_slowly() -> None:
    server = MemoryTransport(lambda request: watched(expired()) if request.url.params.get("watch") else listed(5))
    assert events_within(server, 60).count("SYNCED 5") < 10
    assert len(server.requests) < 20


def test_a_watch_that_ends_after_each_event_is_reopened_once_a_second() -> None:
    versions = iter(range(6, 1000))

    def response(request: httpx.Request) -> ScriptedResponse:
        if request.url.params.get("watch"):
            return watched(line("MODIFIED", pod("a", next(versions))))
        return listed(5)

    server = MemoryTransport(response)
    assert len(events_within(server, 10)) == 11
    assert len(server.requests) == 11


def test_back_off_grows_to_30_seconds_and_is_reset_by_an_event() -> None:
    down: list[ScriptedResponse | Exception] = [httpx.ConnectError("refused")] * 8
    server = MemoryTransport([listed(5), *down, watched(bookmark(6), httpx.ReadError("reset")), watched(FOREVER)])
    events_within(server, 200, uniform=lambda: 1.0)
    gaps = [later - earlier for earlier, later in pairwise(server.times)]
    assert gaps == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 1.0]


@pytest.mark.parametrize(("seconds", "waited"), [(7, 7.0), (100_000, 120.0)])
def test_retry_after_is_respected_up_to_two_minutes(seconds: int, waited: float) -> None:
    busy = error_response(429, "TooManyRequests", details={"retryAfterSeconds": seconds})
    server = MemoryTransport([busy, listed(5)])
    events_within(server, 200)
    assert server.times[1] - server.times[0] == waited


def test_a_watch_without_bookmarks_or_events_is_replaced() -> None:
    server = MemoryTransport([listed(5), watched(60.0, bookmark(6), 60.0, bookmark(7), FOREVER), watched(FOREVER)])
    events_within(server, 250)
    assert server.request_lines[:3] == ["list", "watch 5", "watch 7"]
    silence = server.times[2] - server.times[1] - 120.0
    assert 90 < silence < 130


def test_a_quiet_watch_with_bookmarks_stays_open() -> None:
    stream = next(e for e in recorded("watch-quiet") if e.chunks)
    pauses = (59.1, 60.9, 28.0)
    chunks: Sequence[Any] = [part for pair in zip(pauses, stream.chunks, strict=True) for part in pair]
    server = MemoryTransport([listed(5), watched(*chunks, 2.0)])
    events_within(server, 149)
    assert server.request_lines == ["list", "watch 5"]


def test_cancellation_closes_all_streams() -> None:
    """Cancel at each of the first 40 checkpoints in turn."""

    async def main(steps: int) -> bool:
        server = MemoryTransport(
            [listed(5, pod("a", 3)), watched(line("ADDED", pod("b", 6)), line("ADDED", pod("c", 7)), FOREVER)]
        )
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()

            async with anyio.create_task_group() as group, KubeClient(CONFIG, transport=server) as client:
                group.start_soon(cancel)
                async with Reflector(client, PODS, "ns") as events:
                    async for _ in events:
                        await anyio.lowlevel.checkpoint()
        return server.open_streams == 0 and server.closed == server.entered

    for steps in range(40):
        assert run_on_mock_clock(main, steps), steps


def test_a_cancelled_wait_for_an_event_loses_nothing() -> None:
    async def main() -> list[str]:
        server = MemoryTransport(
            [
                listed(5),
                watched(line("ADDED", pod("a", 6)), FOREVER),
                watched(30.0, line("ADDED", pod("b", 7)), FOREVER),
            ]
        )
        events: list[str] = []
        async with KubeClient(CONFIG, transport=server) as client, Reflector(client, PODS, "ns") as stream:
            with anyio.move_on_after(5):
                while True:
                    events.append(summary(await anext(stream)))
            events.append("cancelled")
            events.append(summary(await anext(stream)))
            assert server.request_lines == ["list", "watch 5", "watch 6"]
        return events

    assert run_on_mock_clock(main) == ["SYNCED 5", "ADDED a 6", "cancelled", "ADDED b 7"]


@pytest.mark.anyio
async def test_iteration_can_stop_early_on_every_event_loop() -> None:
    server = MemoryTransport(
        [listed(5), watched(line("ADDED", pod("a", 6)) + line("ADDED", pod("b", 7)), FOREVER)]
    )
    async with KubeClient(CONFIG, transport=server) as client, Reflector(client, PODS, "ns") as events:
        async for event in events:
            if event.type == "ADDED":
                break
    assert server.open_streams == 0
