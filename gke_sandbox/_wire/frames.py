r"""Protocol 1: what the runner in the pod writes into the container's log, and the decoder of it. Pure.

The log is a series of frames; whatever stands outside them (a loader's warning, an image without Python) is
kept for the diagnosis and is otherwise no matter::

    frame = RS kind SP length [SP JSON] LF payload LF        RS = 0x1e, length in bytes of the payload

    start   JSON {"protocol": 1, "python": "3.11.2"}; the first frame
    out     bytes that the program wrote to its stdout; not necessarily whole lines, nor UTF-8
    err     the same of its stderr
    file    base64 of zlib of a file that the program made or changed; the header's JSON is its relative path
    exit    JSON {"code", "signal", "timed_out", "seconds", "dropped": {"out", "err", "files"}}; the last
            frame; one of code and signal is null, and dropped.files may be missing

**Nothing in a log is to be trusted.** The program can write to the log past the runner and forge any frame.
What it gains is a wrong result for itself, and no more: `Decoder` never raises, needs time linear in what it
is fed and memory bounded by its `Limits`, and enforces again every cap that the runner was told.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .paths import MAX_NAME, FileTree, safe_name

__all__ = [
    "PROTOCOL",
    "Decoder",
    "DroppedOutput",
    "Exit",
    "Frame",
    "Limits",
    "Output",
    "OutputFile",
    "Start",
    "encode",
]

PROTOCOL = 1

_RS = 0x1E
_LF = 0x0A
#: The longest header: JSON escapes a character of 2 bytes with 6 (`\u00e9`), and there is the rest of the line.
_MAX_META = 3 * MAX_NAME + 2
_MAX_HEADER = _MAX_META + 18
#: A header holds no LF and no RS but its own: JSON escapes them.
_HEADER = re.compile(rb"\x1e(start|out|err|file|exit) (0|[1-9][0-9]{0,8})(?: ([^\n\x1e]{1,%d}))?\n" % _MAX_META)
#: The runner sends some 32 KiB a frame, and what a pipe of 1 MiB still holds at the end; start and exit are below
#: 200 bytes.
_MAX_OUTPUT_PAYLOAD = 2 << 20
_MAX_JSON_PAYLOAD = 4096
_MAX_OUTSIDE = 64 << 10
#: No count and no duration in an exit frame is larger; what is, was made up.
_MAX_COUNT = 1 << 53


@dataclass(frozen=True)
class Limits:
    """What one execution may bring back: bytes of each stream, bytes of all files together, count of files."""

    output_bytes: int = 1 << 20
    file_bytes: int = 4 << 20
    file_count: int = 100


@dataclass(frozen=True)
class Start:
    """The runner runs. `python` is the interpreter's version, `protocol` what the runner speaks."""

    python: str
    protocol: int


@dataclass(frozen=True)
class Output:
    """Bytes that the program wrote, as they came: they may end within a line or within a character."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True)
class OutputFile:
    """A file that the program made or changed. `name` has passed `safe_name`."""

    name: str
    data: bytes


@dataclass(frozen=True)
class DroppedOutput:
    """What did not come back because of a cap: bytes of stdout, bytes of stderr, files."""

    stdout: int = 0
    stderr: int = 0
    files: int = 0


@dataclass(frozen=True)
class Exit:
    """How the program ended, in the runner's words: one of `code` (0 to 255) and `signal` (1 to 64) is None.

    `seconds` is the program's running time. `dropped` is what the runner dropped; `Decoder.dropped` is to be
    added to it.
    """

    code: int | None
    signal: int | None
    timed_out: bool
    seconds: float
    dropped: DroppedOutput


Frame = Start | Output | OutputFile | Exit


class _Header(NamedTuple):
    kind: str
    length: int  # of the payload
    name: str  # of a file, else empty
    size: int  # of the header itself, with its LF


class Decoder:
    """Turns a container's log into frames, however its bytes are cut.

    What is not a frame is `outside`: an unknown kind, a length that is no number or larger than any frame of
    that kind, a payload that no LF follows, a second `start`, an `exit` that does not say how the program
    ended, a file whose name, base64 or zlib is bad, whose name came before, or that goes over a cap (such a
    file is also counted in `dropped`). After `exit` everything is ignored.

    Invariants: never raises; time is linear in what was fed; the memory is bounded by `limits`, and so is all
    decompression together. A frame's payload is looked at again as if it were log only if no LF follows it:
    so a forged header cannot hide more of the log than one payload's length.
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        self.started = False
        self.exited = False
        self._limits = limits
        self._buffer = bytearray()
        self._header: _Header | None = None
        self._outside = bytearray()
        self._kept = {"out": 0, "err": 0}
        self._dropped = {"out": 0, "err": 0, "files": 0}
        self._names = FileTree()
        self._file_bytes = 0
        self._inflated = 0

    @property
    def outside(self) -> bytes:
        """What stood outside frames, its first 64 KiB: for the diagnosis."""
        return bytes(self._outside)

    @property
    def dropped(self) -> DroppedOutput:
        """What this decoder dropped, beyond what the runner did."""
        return DroppedOutput(self._dropped["out"], self._dropped["err"], self._dropped["files"])

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the log; return the frames that they complete, in order.

        Neighbouring outputs of one stream come as one. After the exit frame everything is ignored.
        """
        if self.exited:
            return []
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        at = 0
        while not self.exited:
            if self._header is None:
                at = self._find_header(at)
                if self._header is None:
                    break
            header = self._header
            begin = at + header.size
            end = begin + header.length
            if end >= len(buffer):
                break
            self._header = None
            if buffer[end] != _LF:
                self._put_outside(at, begin)
                at = begin
                continue
            if not self._take(header, bytes(buffer[begin:end]), frames):
                self._put_outside(at, end + 1)
            at = end + 1
        if self.exited:
            buffer.clear()
        else:
            del buffer[:at]
        return list(_merged(frames))

    def restart(self) -> None:
        """What comes next is not what followed: a half frame is forgotten. What was counted stays counted."""
        self._buffer.clear()
        self._header = None
        self.started = False

    def _find_header(self, at: int) -> int:
        """Set `_header` to the next one; return where it begins, or where to look when more has come."""
        buffer = self._buffer
        found = _HEADER.search(buffer, at) if buffer.find(_LF, at) >= 0 else None
        while found is not None:
            self._header = self._parse_header(found)
            if self._header is not None:
                self._put_outside(at, found.start())
                return found.start()
            found = _HEADER.search(buffer, found.end())
        # A header may have begun.
        keep = buffer.rfind(_RS, at)
        if keep < 0 or len(buffer) - keep >= _MAX_HEADER or buffer.find(_LF, keep) >= 0:
            keep = len(buffer)
        self._put_outside(at, keep)
        return keep

    def _parse_header(self, found: re.Match[bytes]) -> _Header | None:
        kind, length, meta = found.group(1).decode(), int(found.group(2)), found.group(3)
        if length > self._longest(kind) or (meta is not None) != (kind == "file"):
            return None
        name = "" if meta is None else _json(meta)
        if not isinstance(name, str):
            return None
        return _Header(kind, length, name, found.end() - found.start())

    def _longest(self, kind: str) -> int:
        if kind == "file":
            # zlib adds 5 bytes for every 16 KiB that it cannot compress, base64 a third.
            return 4 * ((self._limits.file_bytes + self._limits.file_bytes // 1024 + 64) // 3 + 1)
        return _MAX_OUTPUT_PAYLOAD if kind in ("out", "err") else _MAX_JSON_PAYLOAD

    def _take(self, header: _Header, payload: bytes, frames: list[Frame]) -> bool:
        """Append what the frame says; False: it is none."""
        if header.kind in ("out", "err"):
            kept = payload[: self._limits.output_bytes - self._kept[header.kind]]
            self._kept[header.kind] += len(kept)
            self._dropped[header.kind] += len(payload) - len(kept)
            if kept:
                frames.append(Output("stdout" if header.kind == "out" else "stderr", kept))
            return True
        frame: Frame | None
        if header.kind == "file":
            frame = self._file(header.name, payload)
            if frame is None:
                self._dropped["files"] += 1
        elif header.kind == "start":
            frame = None if self.started else _start(payload)
            self.started = self.started or frame is not None
        else:
            frame = _exit(payload)
            self.exited = frame is not None
        if frame is None:
            return False
        frames.append(frame)
        return True

    def _file(self, name: str, payload: bytes) -> OutputFile | None:
        try:
            name = safe_name(name)
            self._names.check(name)
        except ValueError:
            return None
        room = self._limits.file_bytes - self._file_bytes
        # What was decompressed only to be refused counts too, or a flood of small bombs would cost minutes.
        if len(self._names) >= self._limits.file_count or self._inflated > 2 * self._limits.file_bytes:
            return None
        data = self._inflate(payload, room)
        if data is None:
            return None
        self._names.add(name)
        self._file_bytes += len(data)
        return OutputFile(name, data)

    def _inflate(self, payload: bytes, room: int) -> bytes | None:
        """The file's bytes, or None: not base64 of one whole zlib stream, or more than `room`."""
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(base64.b64decode(payload, validate=True), room + 1)
        except (ValueError, zlib.error):
            return None
        self._inflated += len(data)
        if len(data) > room or not inflater.eof or inflater.unused_data:
            return None
        return data

    def _put_outside(self, begin: int, end: int) -> None:
        room = _MAX_OUTSIDE - len(self._outside)
        if room > 0:
            self._outside += self._buffer[begin : min(end, begin + room)]


def _merged(frames: Iterable[Frame]) -> Iterable[Frame]:
    for stream, group in itertools.groupby(frames, lambda f: f.stream if isinstance(f, Output) else None):
        if stream is None:
            yield from group
        else:
            yield Output(stream, b"".join(f.data for f in group if isinstance(f, Output)))


def _json(text: bytes) -> object:
    """What the JSON says; None if it is none (a bare null says nothing either)."""
    try:
        value: object = json.loads(text.decode())
    except (ValueError, RecursionError):  # nesting: json's scanner recurses
        return None
    return value


def _int(value: object, low: int, high: int) -> int | None:
    """`value` if it is an integer in that range; JSON's true and false are none."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    return None


def _start(payload: bytes) -> Start | None:
    said = _json(payload)
    if not isinstance(said, dict):
        return None
    protocol, python = _int(said.get("protocol"), 1, _MAX_COUNT), said.get("python")
    if protocol is None:
        return None
    if not isinstance(python, str):
        # Another protocol need not say it; that it is another must be told all the same.
        if protocol == PROTOCOL:
            return None
        python = ""
    return Start(python, protocol)


def _exit(payload: bytes) -> Exit | None:
    said = _json(payload)
    if not isinstance(said, dict):
        return None
    counts, timed_out, seconds = said.get("dropped"), said.get("timed_out"), said.get("seconds")
    if (said.get("code") is None) == (said.get("signal") is None) or not isinstance(counts, dict):
        return None
    code, signal = _int(said.get("code"), 0, 255), _int(said.get("signal"), 1, 64)
    if (code is None) == (signal is None) or not isinstance(timed_out, bool):
        return None
    # A comparison with NaN, which Python's json reads, is false.
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= _MAX_COUNT:
        return None
    out, err = _int(counts.get("out"), 0, _MAX_COUNT), _int(counts.get("err"), 0, _MAX_COUNT)
    files = _int(counts.get("files", 0), 0, _MAX_COUNT)
    if out is None or err is None or files is None:
        return None
    return Exit(code, signal, timed_out, float(seconds), DroppedOutput(out, err, files))


def encode(kind: str, payload: bytes, meta: object = None) -> bytes:
    """One frame, as the runner writes it; `meta` is the header's JSON (a file's name). For scripts and tests."""
    header = f"{kind} {len(payload)}" if meta is None else f"{kind} {len(payload)} {json.dumps(meta)}"
    return b"\x1e" + header.encode() + b"\n" + payload + b"\n"
