"""The embedded cluster responds like the recorded API server.

Each recording is replayed: its requests at their times, its pods as scripts. The tests compare status codes,
Status bodies, created objects with their defaults, Events, logs, and the states of each pod in a watch. `ALLOWED`
lists all differences that are accepted.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.clock import run_on_mock_clock

from .replaying import RECORDED, Got, Player

ALLOWED = {
    "versions": "each server chooses resourceVersions, uids, times and the suffixes of pod names",
    "terminated-while-running": (
        "in 6 of 20 recordings a pod that is being deleted shows its terminated container before its phase "
        "changes; it depends on which of two loops of the kubelet sees the exit first"
    ),
    "bookmark-times": (
        "the number of BOOKMARK events in the first second of a watch that starts at 0 depends on a timer that "
        "all watches of the server share; it is compared for the watches that wait for bookmarks"
    ),
    "cluster-dns": "the recorded node had no cluster DNS, which it reported in an Event (MissingClusterDNS)",
    "event-counts": "the count of an Event depends on the kubelet's resyncs; the texts are compared",
    "discovery": "the embedded cluster has no discovery, and reports another build in /version",
    "future-versions": "the package lists without a resourceVersion, so the server does not wait for a later one",
    "rules-reviews": "the package does not create SelfSubjectRulesReviews, so the embedded cluster has none",
}

SCENARIOS = sorted(path.stem for path in RECORDED.glob("*.json"))
_NOT_SERVED = ("/apis/batch/v1", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews")
_BOOKMARKS = ("watch-quiet", "watch-bookmark-and-timeout")

_OWN = ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_TIMES = ("startTime", "completionTime", "lastProbeTime", "lastTransitionTime")


def play(scenario: str) -> tuple[Player, list[Got]]:
    labels = {} if scenario == "unschedulable" else None
    # This recording started with a pod of the previous one.
    lead = "already-exists" if scenario == "watch-bookmark-and-timeout" else ""

    async def main() -> tuple[Player, list[Got]]:
        player = Player(scenario, node_labels=labels, lead=lead)
        return player, await player.play()

    return run_on_mock_clock(main)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_responses_equal_the_recorded_ones(scenario: str) -> None:
    player, answers = play(scenario)
    for exchange, got in zip(player.exchanges, answers, strict=True):
        recorded = exchange["response"]
        if exchange["request"]["path"] in _NOT_SERVED or _lists_future_version(exchange["request"]):
            continue
        where = f"{exchange['request']['method']} {exchange['request']['path']} at {exchange['at_ms']} ms"
        assert got.status == recorded["status"], f"{where}: {got.text}"
        for name in ("warning", "retry-after", "content-type"):
            assert got.headers.get(name) == recorded.get("headers", {}).get(name), where
        if "body" in recorded:
            ours = _comparable(player.normal(got.json()))
            assert ours == _comparable(recorded["body"]), where
        if "log" in recorded:
            text = "".join(text for _, text in recorded["log"])
            assert (got.text[: len(text)] if recorded["ended_by"] == "client" else got.text) == text, where
        if "pods" in recorded:
            states = [one for _, one in recorded["pods"]]
            ours = _sequences([player.normal(one) for one in got.pods])
            theirs = _sequences(states)
            if recorded["ended_by"] == "client":
                # The recorder closed this watch; the server would have sent more.
                ours = {name: ours[name][: len(seen)] for name, seen in theirs.items()}
            assert ours == theirs, where
            if scenario in _BOOKMARKS:
                assert _bookmarks(got.pods) == _bookmarks(states), where
            added = {one["metadata"]["name"]: _spec(one) for one in map(player.normal, got.first)}
            assert added == {one["metadata"]["name"]: _spec(one) for one in recorded["first"]}, where


def _lists_future_version(request: dict[str, Any]) -> bool:
    return request.get("query", {}).get("resourceVersionMatch") == "Exact"


def _sequences(states: list[dict[str, Any]]) -> dict[str, list[tuple[Any, ...]]]:
    """Return the states of each pod (and of the watch itself under ""), without repetitions."""
    shown: dict[str, list[tuple[Any, ...]]] = {}
    for one in states:
        if one["type"] == "BOOKMARK":
            continue
        if one["type"] == "ERROR":
            shown.setdefault("", []).append(("ERROR", _comparable(one["status"])))
            continue
        if one["deleting"] and one["phase"] == "Running" and one["container"] == "terminated":
            continue  # ALLOWED["terminated-while-running"]
        names = ("phase", "container", "reason", "exit_code", "message", "pod_reason", "pod_message", "deleting")
        seen = (one["type"] == "DELETED", *(one[name] for name in names))
        sequence = shown.setdefault(one["pod"], [])
        if not sequence or sequence[-1] != seen:
            sequence.append(seen)
    return shown


def _bookmarks(states: list[dict[str, Any]]) -> list[Any]:
    return [one.get("annotations") for one in states if one["type"] == "BOOKMARK"]


def _spec(pod: dict[str, Any]) -> dict[str, Any]:
    spec = {name: value for name, value in pod["spec"].items() if name != "nodeName"}
    return {"spec": spec, "metadata": _comparable(pod["metadata"])}


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("kind") == "EventList":
            return {(one["type"], one["reason"], _text(one["message"])) for one in _compared(value["items"])}
        if value.get("kind") == "PodList":
            return [_spec(pod) for pod in value["items"]]
        dropped = (*_OWN, *_TIMES)
        return {name: _comparable(one) for name, one in value.items() if name not in dropped}
    if isinstance(value, list):
        return [_comparable(one) for one in value]
    return _text(value) if isinstance(value, str) else value


def _compared(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["reason"] != "MissingClusterDNS"]


def _text(text: str) -> str:
    text = re.sub(r"too old resource version: \d+ \(\d+\)", "too old resource version", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID", text)
    return re.sub(r"(gke-sandbox-[0-9a-f]{10})-[a-z0-9]{5}", r"\1-SUFFIX", text)


def test_every_allowed_difference_has_a_reason() -> None:
    assert all(len(reason.split()) > 5 for reason in ALLOWED.values())
