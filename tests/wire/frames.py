"""Frames and logs, for the tests of the protocol."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from typing import Any

from gke_sandbox._wire.frames import Decoder, Frame, Limits, Output, encode

DEFAULT = Limits()
START = encode("start", b'{"protocol": 1, "python": "3.11.2"}')
EXIT_0 = {
    "code": 0,
    "signal": None,
    "timed_out": False,
    "seconds": 0.5,
    "dropped": {"out": 0, "err": 0, "files": 0},
}
EXIT = encode("exit", json.dumps(EXIT_0).encode())


def file_frame(name: str, data: bytes) -> bytes:
    return encode("file", base64.b64encode(zlib.compress(data)), name)


def packed(kind: str, data: bytes) -> bytes:
    """A compressed frame of output."""
    return encode(kind, base64.b64encode(zlib.compress(data)), {"encoding": "zlib"})


def exit_frame(**changes: Any) -> bytes:
    return encode("exit", json.dumps({**EXIT_0, **changes}).encode())


def decode(chunks: Iterable[bytes], limits: Limits = DEFAULT) -> tuple[list[Frame], Decoder]:
    decoder = Decoder(limits)
    return [frame for chunk in chunks for frame in decoder.feed(chunk)], decoder


def outcome(chunks: Iterable[bytes], limits: Limits = DEFAULT) -> Any:
    """Return the outcome of a decoder, with adjacent outputs of one stream joined."""
    frames, decoder = decode(chunks, limits)
    merged: list[Any] = []
    for frame in frames:
        last = merged[-1] if merged else None
        if isinstance(frame, Output) and isinstance(last, Output) and last.stream == frame.stream:
            merged[-1] = Output(frame.stream, last.data + frame.data)
        else:
            merged.append(frame)
    return merged, decoder.unframed, decoder.dropped, decoder.started, decoder.exited


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]
