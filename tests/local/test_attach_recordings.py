"""The embedded cluster attaches like the recorded API server, kubelet and container runtime.

The tests compare status codes, headers and bodies of refusals, the data of each channel, the first and the last
messages, close codes, the log, and the state of the pod. `ALLOWED` lists all differences that are accepted.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clock import run_on_mock_clock

from .attaching import SUCCESS
from .replaying_attach import RECORDED, Got, Player, content, load

ALLOWED = {
    "messages": "output is cut into messages anywhere: the data of a channel is compared as a whole",
    "streams": "the order of stdout and stderr, which are different pipes, depends on chance: also in the log",
    "empty-message": "the first message can pass the first one of the client, which the recorder sent early",
    "headers": "of refusals the content type is compared, and of the handshake the subprotocol",
}

SCENARIOS = sorted(path.stem for path in RECORDED.glob("*.json"))


def play(scenario: str, exchanges: list[dict[str, Any]], note: str = "") -> list[Got]:
    return run_on_mock_clock(lambda: Player(scenario, exchanges, note).play())


def test_there_is_a_recording_of_each_kind() -> None:
    assert len(SCENARIOS) == 21


@pytest.mark.parametrize("scenario", [scenario for scenario in SCENARIOS if scenario != "attach-refused"])
def test_attaching_equals_the_recording(scenario: str) -> None:
    exchanges = load(scenario)
    for exchange, got in zip(exchanges, play(scenario, exchanges), strict=True):
        compare(exchange, got)


REFUSALS = [
    (before["note"], exchange)
    for before, exchange in zip(load("attach-refused"), load("attach-refused")[1:], strict=False)
    if "request" in exchange
]


@pytest.mark.parametrize(("note", "exchange"), REFUSALS, ids=[note for note, _ in REFUSALS])
def test_refusals_equal_the_recorded_ones(note: str, exchange: dict[str, Any]) -> None:
    (got,) = play("attach-refused", [exchange], note)
    compare(exchange, got)


def compare(exchange: dict[str, Any], got: Got) -> None:
    if "request" not in exchange:
        return
    recorded = exchange["response"]
    where = f"{exchange['request']['path']} at {exchange['at_ms']} ms"
    assert got.status == recorded["status"], f"{where}: {got.text}"
    for name, value in recorded.get("headers", {}).items():
        assert got.headers.get(name) == value, where
    if "pod" in recorded:
        compare_pods(recorded["pod"], json.loads(got.text), where)
    elif "body" in recorded:
        ours, theirs = sorted(got.text.splitlines(True)), sorted(recorded["body"].splitlines(True))
        assert ours == theirs, where  # ALLOWED["streams"]
    if "frames" in exchange:
        compare_frames(exchange, got, where)


def compare_frames(exchange: dict[str, Any], got: Got, where: str) -> None:
    frames = [frame for frame in exchange["frames"] if frame[1] == "server"]
    assert got.messages[0] == (1, b""), where
    for channel in (1, 2, 3):
        theirs = b"".join(content(value) for _, _, number, value in frames if number == channel)
        assert got.channel(channel) == theirs, (where, channel)
    assert frames[-1][2] == "close"
    assert got.close == frames[-1][3], where
    if got.close == 1000:
        assert got.messages[-1] == (3, SUCCESS), where


def compare_pods(recorded: dict[str, Any], pod: dict[str, Any], where: str) -> None:
    ((kind, theirs),) = recorded["state"].items()
    ours = pod["status"]["containerStatuses"][0]["state"]
    assert (pod["status"]["phase"], list(ours)) == (recorded["phase"], [kind]), where
    for name in ("exitCode", "reason"):
        assert ours[kind].get(name) == theirs.get(name), where


def test_every_allowed_difference_has_a_reason() -> None:
    assert all(len(reason.split()) > 5 for reason in ALLOWED.values())
