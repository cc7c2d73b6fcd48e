"""The changes of pods in recorded lists and watches."""

from __future__ import annotations

from typing import Any

import pytest

from gke_sandbox.cassette.model import Cassette, Chunk, Header, RecordedResponse, Step
from gke_sandbox.cassette.timeline import PodTimeline, read_timelines

SELECTOR = "gke-sandbox/session=<session-1>"
POD = {"kind": "Pod", "apiVersion": "v1"}


def pod(version: int, job: int = 1) -> dict[str, Any]:
    labels = {"job-name": f"<job-{job}>"}
    return {"metadata": {"name": f"<job-{job}>-x", "resourceVersion": f"<version-{version}>", "labels": labels}}


def step(name: str, response: RecordedResponse, **query: str) -> Step:
    return Step(name, response.at, "GET", "/api/v1/pods", {"labelSelector": SELECTOR, **query}, None, response)


def listed(name: str, at: int, *pods: dict[str, Any]) -> Step:
    return step(name, RecordedResponse(at, 200, json={"metadata": {}, "items": list(pods)}))


def watched(name: str, *events: tuple[str, dict[str, Any]], ended_by: str = "server") -> Step:
    chunks = tuple(
        Chunk(index, event={"type": type_, "object": body}) for index, (type_, body) in enumerate(events)
    )
    return step(name, RecordedResponse(0, 200, chunks=chunks, ended_by=ended_by), watch="true")


def read(*steps: Step) -> tuple[list[tuple[str, str, bool]], list[tuple[str, str, int]]]:
    events, failures = read_timelines(Cassette(Header(), steps))
    changes = [
        (event.type, event.chunk.event["object"]["metadata"]["resourceVersion"], event.missing)
        for event in events.get("<job-1>", ())
        if event.chunk.event is not None
    ]
    return changes, [(each.kind, each.step.name, each.pending) for each in failures[SELECTOR].failures]


def test_a_change_that_a_list_and_several_watches_showed_is_one_change() -> None:
    changes, failures = read(
        listed("first", 0),
        watched("watch", ("ADDED", pod(1)), ("MODIFIED", pod(2))),
        listed("second", 5, pod(2)),
        watched("again", ("MODIFIED", pod(2)), ("BOOKMARK", {}), ("MODIFIED", pod(3)), ("DELETED", pod(4))),
    )
    assert changes == [
        ("ADDED", "<version-1>", False),
        ("MODIFIED", "<version-2>", False),
        ("MODIFIED", "<version-3>", False),
        ("DELETED", "<version-4>", False),
    ]
    assert failures == []


def test_a_pod_that_a_later_list_does_not_contain_is_missing() -> None:
    changes, _ = read(
        listed("first", 1, pod(1)), listed("second", 2, pod(2)), listed("third", 3), listed("fourth", 4)
    )
    assert changes == [
        ("ADDED", "<version-1>", False),
        ("MODIFIED", "<version-2>", False),
        ("MODIFIED", "<version-2>", True),
    ]


def test_failures_follow_the_changes_that_were_recorded_before_them() -> None:
    refused = RecordedResponse(0, 503, json={"kind": "Status"})
    changes, failures = read(
        step("no-list", refused),
        watched("broken", ("ADDED", pod(1)), ("MODIFIED", pod(2)), ("ERROR", {"kind": "Status"})),
        step("no-watch", refused, watch="true"),
        watched("cut", ("MODIFIED", pod(3)), ended_by="ReadError"),
        watched("left", ended_by="client"),
    )
    assert len(changes) == 3
    assert failures == [
        ("list", "no-list", 0),
        ("stream", "broken", 2),
        ("watch", "no-watch", 0),
        ("stream", "cut", 1),
    ]


def test_a_list_is_a_snapshot_and_a_watch_continues_from_its_version() -> None:
    events, _ = read_timelines(Cassette(Header(), (watched("watch", ("ADDED", pod(1)), ("DELETED", pod(2))),)))
    added, deleted = events["<job-1>"]
    timeline = PodTimeline(SELECTOR)
    empty = timeline.snapshot()
    timeline.add(added, {**POD, **pod(1)}, "<job-1>")
    full = timeline.snapshot()
    timeline.add(deleted, {**POD, **pod(2)}, "<job-1>")
    assert [empty["items"], full["items"], timeline.snapshot()["items"]] == [[], [pod(1)], []]
    positions = [
        timeline.position(each["metadata"]["resourceVersion"]) for each in (empty, full, timeline.snapshot())
    ]
    assert positions == [0, 1, 2]


@pytest.mark.parametrize("events", [[], [("lists", 1)], [("lists", 2)], [("lists", 1), ("watch", 1)]], ids=str)
def test_changes_are_released_to_an_open_watch_or_to_a_client_that_only_lists(
    events: list[tuple[str, int]],
) -> None:
    timeline = PodTimeline(SELECTOR)
    for kind, count in events:
        for _ in range(count):
            (timeline.count_list if kind == "lists" else timeline.count_watch)()
    assert timeline.is_live is (events in ([("lists", 2)], [("lists", 1), ("watch", 1)]))
