"""From recordings of attached clients and of executions to an execution that attaches.

The recordings of attached clients have no whole execution, and another runner. So the handshake, the times of the
messages and the end of the connection come from them; the Job, its pod and their changes come from an execution;
the frames in the messages are those of this library's runner.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from gke_sandbox._wire.frames import encode
from gke_sandbox.cassette.model import SEND, AttachMessage, Exchange

__all__ = ["attached"]

_CHANNELS = {1: "stdout", 2: "stderr", 3: "status"}
_FRAMES = {"stdout": "out", "stderr": "err"}
# Messages within this time, in milliseconds, are parts of one write.
_ONE_WRITE = 3
# The recorder's runner prints the length of the program before it starts it.
_STARTED = re.compile(r"got \d+\n")


def attached(
    recorded: dict[str, Any], at: float, path: str, *, killed: bool = False, prints: str | None = None
) -> tuple[Exchange, Exchange]:
    """Return a recorded attach, moved to a time and to another pod, and what the client sent to stdin.

    Its body is empty. `killed`: the recorded container was killed, so there is no exit frame. `prints` replaces
    the recorded output.
    """
    start, response = recorded["at_ms"], recorded["response"]

    def moved(milliseconds: int) -> float:
        return at + max(milliseconds - start, response["took_ms"]) / 1000

    attach = Exchange(
        at=at,
        method="GET",
        path=path,
        query=dict(recorded["request"]["query"]),
        status=response["status"],
        headers=list(response["headers"].items()),
        responded_at=at + response["took_ms"] / 1000,
    )
    (sent_at,) = (frame["at_ms"] for frame in recorded["frames"] if frame["from"] == "client")
    request = Exchange(moved(sent_at), SEND, path, {})
    (end,) = (frame for frame in recorded["frames"] if frame["type"] == "close")
    for time, channel, text in _writes(recorded["frames"]):
        parts = [text.encode()]
        if time > sent_at and channel in _FRAMES:
            # The runner writes stderr to stdout, in frames.
            parts, channel = list(_frames(channel, text, prints)), "stdout"
        last = request if time >= sent_at else None
        if channel != "status" or killed:
            attach.messages += [AttachMessage(moved(time), channel, part, sent=last) for part in parts]
    ended = moved(end["at_ms"])
    if killed:
        attach.messages.append(AttachMessage(ended, "", end["reason"].encode(), end["code"], request))
        attach.ended_at, attach.ended_by = ended, "server"
    else:
        code = _exit((end["at_ms"] - sent_at) / 1000)
        attach.messages.append(AttachMessage(ended, "stdout", code, sent=request))
    return attach, request


def _writes(frames: list[dict[str, Any]]) -> Iterator[tuple[int, str, str]]:
    """Iterate over the server's messages, joined if they are parts of one write."""
    found: list[tuple[int, str, str]] = []
    for frame in frames:
        if frame["from"] != "server" or frame["type"] != "binary":
            continue
        time, channel, text = frame["at_ms"], _CHANNELS[frame["channel"]], frame["text"]
        if found and found[-1][2] and found[-1][1] == channel and time - found[-1][0] <= _ONE_WRITE:
            time, _, before = found.pop()
            text = before + text
        found.append((time, channel, text))
    yield from found


def _frames(channel: str, text: str, prints: str | None) -> Iterator[bytes]:
    """Iterate over the frames of the runner in the place of what the recorder's runner printed."""
    started = _STARTED.match(text)
    if started is not None:
        yield encode("start", b'{"protocol": 1, "python": "3.11.2"}')
        text = text[started.end() :]
    if text:
        text = text if prints is None else prints
        yield encode(_FRAMES[channel], text.encode())
    elif not started:
        yield b""


def _exit(seconds: float) -> bytes:
    dropped = {"out": 0, "err": 0}
    fields = {"code": 0, "signal": None, "timed_out": False, "seconds": seconds, "dropped": dropped}
    return encode("exit", json.dumps(fields).encode())
