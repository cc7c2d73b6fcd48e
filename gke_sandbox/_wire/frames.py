r"""Protocol 1: the frames that the runner in the pod writes to the container's log, and their decoder. Pure.

The log is a series of frames. Other bytes (a loader's warning, the error of an image without Python) are kept for
the diagnosis and otherwise ignored::

    frame = RS kind SP length [SP JSON] LF payload LF        RS = 0x1e, length in bytes of the payload

    start   JSON {"protocol": 1, "python": "3.11.2"}; the first frame
    out     bytes that the program wrote to its stdout; not necessarily whole lines, nor UTF-8
    err     bytes that the program wrote to its stderr
            with the JSON {"encoding": "zlib"}: base64 of zlib of such bytes, on one line
    file    base64 of zlib of a file that the program created or changed; the header's JSON is its relative path
    exit    JSON {"code", "signal", "timed_out", "seconds", "dropped": {"out", "err", "files", "named"}};
            the last frame; one of code and signal is null; dropped.files and dropped.named may be missing;
            named are the first dropped files, each as [name, reason, size or null]

**The log is not trusted.** The program can bypass the runner, write to the log and forge any frame. That can only
falsify its own result: `Decoder` never raises, takes time linear in its input and memory bounded by its `Limits`,
and enforces every limit again that the runner enforces.
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

from .dropped import MAX_COUNT, MAX_NAMED, DroppedFile, DroppedOutput, DropReason, dropped_file, named_files
from .paths import MAX_NAME, FileTree, safe_output_name

PROTOCOL = 1

_RS = 0x1E
_LF = 0x0A
# JSON escapes a character of 2 bytes with 6 (`\u00e9`).
_MAX_META = 3 * MAX_NAME + 2
_MAX_HEADER = _MAX_META + 18
# JSON escapes LF and RS, so a header contains no others.
_HEADER = re.compile(rb"\x1e(start|out|err|file|exit) (0|[1-9][0-9]{0,8})(?: ([^\n\x1e]{1,%d}))?\n" % _MAX_META)
# The runner sends about 32 KiB per frame, and at the end the remaining content of a pipe of 1 MiB.
_MAX_OUTPUT_PAYLOAD = 2 << 20
# A start frame has less than 100 bytes. An exit frame has up to 6,200, with the names of dropped files.
_MAX_JSON_PAYLOAD = 16 << 10
_MAX_UNFRAMED = 64 << 10
# A multiple of 4, so that each step is complete base64.
_STEP = 16 << 10


@dataclass(frozen=True)
class Limits:
    """Limits on the output of one execution."""

    output_bytes: int = 1 << 20
    """Bytes of stdout, and of stderr."""
    file_bytes: int = 4 << 20
    """Bytes of all files together."""
    file_count: int = 100


@dataclass(frozen=True)
class Start:
    """The runner has started."""

    python: str
    """The version of the interpreter."""
    protocol: int
    """The version of the runner's protocol."""


@dataclass(frozen=True)
class Output:
    """Bytes that the program wrote; they can end within a line or a character."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True)
class OutputFile:
    """A file that the program created or changed. `name` is a valid `safe_output_name`."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Exit:
    """How the program ended, as reported by the runner.

    Either `code` (0 to 255) or `signal` (1 to 64) is None. `seconds` is the program's running time. `dropped`
    counts only what the runner dropped: add `Decoder.dropped`.
    """

    code: int | None
    signal: int | None
    timed_out: bool
    seconds: float
    dropped: DroppedOutput


Frame = Start | Output | OutputFile | Exit


class _Unpacker:
    """Decodes base64 of one zlib stream in steps while it arrives, so that the end of a large one is a short step.

    At most `room` bytes are wanted: if there are more, it stops after one more.
    """

    def __init__(self, room: int) -> None:
        self.size = 0
        """The number of decompressed bytes."""
        self._room = room
        self._inflater = zlib.decompressobj()
        self._pieces: list[bytes] = []
        self._at = 0
        self._damaged = False

    def advance(self, buffer: bytearray, start: int, end: int) -> None:
        """Decode the payload from `start` to `end`, as far as it is new, except for less than one step."""
        while end - start - self._at >= _STEP:
            self._add(buffer[start + self._at : start + self._at + _STEP])

    def finish(self, buffer: bytearray, start: int, end: int) -> bytes | DropReason:
        """Return the content, or its first `room` + 1 bytes if it is longer, or why it is dropped."""
        self.advance(buffer, start, end)
        self._add(buffer[start + self._at : end])
        if self._damaged or (self.size <= self._room and not self._inflater.eof):
            return "unreadable"
        return b"".join(self._pieces)

    def _add(self, encoded: bytearray) -> None:
        self._at += len(encoded)
        if self._damaged or self.size > self._room or not encoded:
            return
        try:
            data = self._inflater.decompress(base64.b64decode(encoded, validate=True), self._room + 1 - self.size)
        except (ValueError, zlib.error):
            self._damaged = True
            return
        self._pieces.append(data)
        self.size += len(data)
        self._damaged = self.size <= self._room and bool(self._inflater.unused_data)


class _Header(NamedTuple):
    kind: str
    length: int
    """The length of the payload, in bytes."""
    size: int
    """The length of the header, with its LF."""
    name: str = ""
    """The path of a file; empty for other frames."""
    content: _Unpacker | DropReason | None = None
    """The content of a payload that is base64 of zlib, or why it is dropped. None for other payloads."""


class Decoder:
    """Decodes a container's log, in chunks of any size, into frames.

    Everything else is collected in `unframed`: an unknown kind; a length that is not a number or too large for its
    kind; a payload without an LF after it; a second `start`; an incomplete `exit`; bad base64 or bad zlib; a file
    with a bad or repeated name, or one that exceeds a limit (such a file is also counted in `dropped`).
    Everything after `exit` is ignored.

    Invariants: the decoder never raises; its time is linear in its input; its memory and the total size of
    decompressed data are bounded by `limits`. If a payload has no LF after it, it is decoded again as if it were
    log, so a forged header cannot hide more of the log than the length of one payload.
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        self.started = False
        self.exited = False
        self._limits = limits
        self._buffer = bytearray()
        self._header: _Header | None = None
        self._unframed = bytearray()
        self._kept = {"out": 0, "err": 0}
        self._dropped = {"out": 0, "err": 0, "files": 0}
        self._named: list[DroppedFile] = []
        self._names = FileTree()
        self._file_bytes = 0
        self._inflated = {"out": 0, "err": 0, "file": 0}
        self._fed = 0
        # The position in the log after the last frame, and the length of `_unframed` there.
        self._complete = (0, 0)

    @property
    def size(self) -> int:
        """The number of bytes of the log until the end of the last frame."""
        return self._complete[0]

    @property
    def unframed(self) -> bytes:
        """The first 64 KiB of bytes outside of frames, for the diagnosis."""
        return bytes(self._unframed)

    @property
    def dropped(self) -> DroppedOutput:
        """The output that this decoder dropped, in addition to the runner."""
        return DroppedOutput(
            self._dropped["out"], self._dropped["err"], self._dropped["files"], tuple(self._named)
        )

    def feed(self, data: bytes) -> list[Frame]:
        """Decode the next bytes of the log and return the completed frames, in order.

        Adjacent outputs of one stream are joined. Everything after the exit frame is ignored.
        """
        if self.exited:
            return []
        buffer = self._buffer
        buffer += data
        self._fed += len(data)
        frames: list[Frame] = []
        at = 0
        while not self.exited:
            if self._header is None:
                at = self._find_header(at)
                if self._header is None:
                    break
            header = self._header
            start = at + header.size
            end = start + header.length
            if isinstance(header.content, _Unpacker):
                header.content.advance(buffer, start, min(end, len(buffer)))
            if end >= len(buffer):
                break
            self._header = None
            is_framed = buffer[end] == _LF
            frame = self._frame(header, start, end) if is_framed else None
            if isinstance(header.content, _Unpacker):
                self._inflated[header.kind] += header.content.size
            if not is_framed:
                self._keep_unframed(at, start)
                at = start
                continue
            if frame is not None:
                frames.append(frame)
            else:
                self._keep_unframed(at, end + 1)
            at = end + 1
            self._complete = (self._fed - len(buffer) + at, len(self._unframed))
        if self.exited:
            buffer.clear()
        else:
            del buffer[:at]
        return list(_merged(frames))

    def restart(self) -> None:
        """Expect a log that does not continue the previous one: discard a partial frame, but keep all counts."""
        self._buffer.clear()
        self._header = None
        self.started = False
        self._fed, self._complete = 0, (0, len(self._unframed))

    def rewind(self) -> None:
        """Expect the log from the end of the last frame: discard everything after it, as if it was not fed."""
        self._buffer.clear()
        self._header = None
        self._fed, kept = self._complete
        del self._unframed[kept:]

    def _find_header(self, at: int) -> int:
        """Set `_header` to the next header; return its position, or where to search when more data arrives."""
        buffer = self._buffer
        found = _HEADER.search(buffer, at) if buffer.find(_LF, at) >= 0 else None
        while found is not None:
            self._header = self._parse_header(found)
            if self._header is not None:
                self._keep_unframed(at, found.start())
                return found.start()
            found = _HEADER.search(buffer, found.end())
        # Keep the start of a possible header.
        keep = buffer.rfind(_RS, at)
        if keep < 0 or len(buffer) - keep >= _MAX_HEADER or buffer.find(_LF, keep) >= 0:
            keep = len(buffer)
        self._keep_unframed(at, keep)
        return keep

    def _parse_header(self, found: re.Match[bytes]) -> _Header | None:
        kind, length, meta = found.group(1).decode(), int(found.group(2)), found.group(3)
        if length > self._longest(kind):
            return None
        about = None if meta is None else _json(meta)
        size = found.end() - found.start()
        if kind == "file":
            return _Header(kind, length, size, about, self._new_file(about)) if isinstance(about, str) else None
        if meta is None:
            return _Header(kind, length, size)
        if kind not in ("out", "err") or about != {"encoding": "zlib"}:
            return None
        limit = self._limits.output_bytes
        return _Header(kind, length, size, "", self._new_unpacker(kind, limit - self._kept[kind], limit))

    def _new_file(self, name: str) -> _Unpacker | DropReason:
        try:
            self._names.check(safe_output_name(name))
        except ValueError:
            return "refused_name"
        if len(self._names) >= self._limits.file_count:
            return "too_many"
        limit = self._limits.file_bytes
        return self._new_unpacker("file", limit - self._file_bytes, limit)

    def _new_unpacker(self, kind: str, room: int, limit: int) -> _Unpacker | DropReason:
        """Rejected data counts too, up to twice `limit`, or many small decompression bombs would take minutes."""
        return "too_large" if self._inflated[kind] > 2 * limit else _Unpacker(room)

    def _longest(self, kind: str) -> int:
        if kind == "file":
            # zlib adds 5 bytes per 16 KiB of incompressible data, base64 a third.
            return 4 * ((self._limits.file_bytes + self._limits.file_bytes // 1024 + 64) // 3 + 1)
        return _MAX_OUTPUT_PAYLOAD if kind in ("out", "err") else _MAX_JSON_PAYLOAD

    def _frame(self, header: _Header, start: int, end: int) -> Frame | None:
        """Return the frame with the payload from `start` to `end`. Return None if it is invalid or dropped."""
        kind, content = header.kind, header.content
        if isinstance(content, _Unpacker):
            data = content.finish(self._buffer, start, end)
        else:
            data = content or bytes(self._buffer[start:end])
        if kind == "file":
            return self._file(header.name, data)
        if isinstance(data, str):
            return None
        if kind in ("out", "err"):
            kept = data[: self._limits.output_bytes - self._kept[kind]]
            self._kept[kind] += len(kept)
            self._dropped[kind] += len(data) - len(kept)
            return Output("stdout" if kind == "out" else "stderr", kept)
        if kind == "start":
            start_ = None if self.started else _start(data)
            self.started = self.started or start_ is not None
            return start_
        exit_ = _exit(data)
        self.exited = exit_ is not None
        return exit_

    def _file(self, name: str, data: bytes | DropReason) -> OutputFile | None:
        if not isinstance(data, str) and len(data) <= self._limits.file_bytes - self._file_bytes:
            safe = safe_output_name(name)
            self._names.add(safe)
            self._file_bytes += len(data)
            return OutputFile(safe, data)
        self._dropped["files"] += 1
        if len(self._named) < MAX_NAMED:
            self._named.append(dropped_file(name, data if isinstance(data, str) else "too_large"))
        return None

    def _keep_unframed(self, start: int, end: int) -> None:
        room = _MAX_UNFRAMED - len(self._unframed)
        if room > 0:
            self._unframed += self._buffer[start : min(end, start + room)]


def _merged(frames: Iterable[Frame]) -> Iterable[Frame]:
    for stream, group in itertools.groupby(frames, lambda f: f.stream if isinstance(f, Output) else None):
        if stream is None:
            yield from group
        elif data := b"".join(f.data for f in group if isinstance(f, Output)):
            yield Output(stream, data)


def _json(text: bytes) -> object:
    """Parse JSON. Return None if it is invalid or null."""
    try:
        value: object = json.loads(text.decode())
    except (ValueError, RecursionError):  # json recurses for nested values
        return None
    return value


def _int(value: object, low: int, high: int) -> int | None:
    """Return `value` if it is an integer in the range, else None. Booleans are not integers here."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    return None


def _start(payload: bytes) -> Start | None:
    content = _json(payload)
    if not isinstance(content, dict):
        return None
    protocol, python = _int(content.get("protocol"), 1, MAX_COUNT), content.get("python")
    if protocol is None:
        return None
    if not isinstance(python, str):
        # A frame of another protocol may omit it; return it anyway, so that the version can be reported.
        if protocol == PROTOCOL:
            return None
        python = ""
    return Start(python, protocol)


def _exit(payload: bytes) -> Exit | None:
    content = _json(payload)
    if not isinstance(content, dict):
        return None
    counts, timed_out, seconds = content.get("dropped"), content.get("timed_out"), content.get("seconds")
    if (content.get("code") is None) == (content.get("signal") is None) or not isinstance(counts, dict):
        return None
    code, signal = _int(content.get("code"), 0, 255), _int(content.get("signal"), 1, 64)
    if (code is None) == (signal is None) or not isinstance(timed_out, bool):
        return None
    # A comparison with NaN, which Python's json reads, is false.
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= MAX_COUNT:
        return None
    out, err = _int(counts.get("out"), 0, MAX_COUNT), _int(counts.get("err"), 0, MAX_COUNT)
    files, named = _int(counts.get("files", 0), 0, MAX_COUNT), named_files(counts.get("named", []))
    if out is None or err is None or files is None or named is None or len(named) > files:
        return None
    return Exit(code, signal, timed_out, float(seconds), DroppedOutput(out, err, files, named))


def encode(kind: str, payload: bytes, meta: object = None) -> bytes:
    """Encode one frame as the runner does. `meta` is the header's JSON. For scripts and tests."""
    header = f"{kind} {len(payload)}" if meta is None else f"{kind} {len(payload)} {json.dumps(meta)}"
    return b"\x1e" + header.encode() + b"\n" + payload + b"\n"
