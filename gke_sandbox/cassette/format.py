"""Cassettes as files: YAML for people to review and edit. docs/replay.md describes the format."""

from __future__ import annotations

import base64
import contextlib
import difflib
import errno
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote
from uuid import uuid4

from ..errors import CassetteError
from .canonical import canonical_form
from .format_yaml import LineMapping, dump, parse
from .model import ENDED_BY, FORMAT, SEND, Cassette, Chunk, Header, RecordedResponse, Step, job_of
from .normalize import event_line
from .placeholders import CAPTURED, placeholders_in
from .secrets import Secret, find_secret, find_secret_in_log

__all__ = ["check_writable", "load", "read", "save", "save_text", "write"]

_HEADER = ("gke_sandbox_cassette", "scenario", "namespace", "recorded", "notes", "steps")
_RECORDED = ("at", "with", "server")
_STEP = ("step", "at", "request", "body", "status", "headers", "json", "text", "base64", "stream", "answered")
_SEND_STEP = ("step", "at", "request", "body")
_STEP_END = ("ended", "ends", "after")
_BODIES = ("json", "text", "base64", "stream")
_CHUNK = ("at", "after", "event", "object", "text", "base64", "cuts", "joined")
_MESSAGE = ("at", "after", "channel", "close", "text", "base64")
_CHANNEL = re.compile(r"stdout|stderr|status|text|25[0-5]|2[0-4]\d|1?\d?\d")
_T = TypeVar("_T")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", SEND)


def load(path: str | os.PathLike[str], *, scenario: str | None = None) -> Cassette:
    """Read a cassette, which must be of `scenario` if that is set. Raises `CassetteError` with the place."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise CassetteError(
            f"the cassette {os.fspath(path)} does not exist",
            hint="Record it: Cluster.record(path, cluster), or gke-sandbox run --record FILE.",
        ) from None
    except OSError as error:
        raise CassetteError(f"the cassette {os.fspath(path)} cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CassetteError(f"{os.fspath(path)}, line {line}: not a cassette: not UTF-8 text") from None
    return read(text, source=os.fspath(path), scenario=scenario)


def save(cassette: Cassette, path: str | os.PathLike[str]) -> None:
    """Write a cassette, completely or not at all. A missing directory is created.

    The previous content of the file is replaced; a symbolic link stays, and its target is replaced. Raises
    `CassetteError` if the cassette contains something that looks like a secret, or if it cannot be written.
    """
    save_text(write(cassette), path)


def save_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write the text of a cassette; see `save`."""
    try:
        target = _target(path)
        temporary = target.with_name(f".{uuid4().hex}.cassette")
        try:
            temporary.write_text(text, "utf-8")
            temporary.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise _unwritable(Path(path), error) from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise `CassetteError` if a cassette cannot be written, as far as can be seen before writing it."""
    try:
        with tempfile.TemporaryFile(dir=_target(path).parent):
            pass
    except OSError as error:
        raise _unwritable(Path(path), error) from error


def _target(path: str | os.PathLike[str]) -> Path:
    """Return the file to replace, in an existing directory. Raises `OSError` for a device or a pipe."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file")
    return target


def _unwritable(path: Path, error: OSError) -> CassetteError:
    return CassetteError(f"the cassette {path} cannot be written: {error.strerror or error}")


# -- writing ---------------------------------------------------------------------------------------------------


def write(cassette: Cassette) -> str:
    """Return the text of a cassette. Raises `CassetteError` for something that looks like a secret."""
    header = cassette.header
    recorded = {"at": header.recorded_at, "with": header.recorded_with, "server": header.server}
    document = {
        "gke_sandbox_cassette": FORMAT,
        "scenario": header.scenario,
        "namespace": header.namespace,
        "recorded": recorded,
        "notes": header.notes,
    }
    if not header.notes:
        del document["notes"]
    _refuse(find_secret(document), cassette, "its header")
    searched: set[str] = set()
    return dump({**document, "steps": [_write_step(cassette, step, searched) for step in cassette.steps]})


def _refuse(secret: Secret | None, cassette: Cassette, where: str) -> None:
    if secret is not None:
        raise CassetteError(
            f"{cassette.source} is not written: {where} contains {secret.what}, at {secret.path}",
            hint=secret.hint,
        )


def _write_step(cassette: Cassette, step: Step, searched: set[str]) -> dict[str, Any]:
    response = step.response
    out: dict[str, Any] = {"step": step.name, "at": step.at, "request": f"{step}", "body": step.body}
    if step.method != SEND:
        chunks = response.chunks
        out |= {
            "status": response.status,
            "answered": None if response.status is None else response.at,
            "headers": dict(response.headers) or None,
            "after": list(response.after) or None,
            "stream": None if chunks is None else [_write_chunk(chunk) for chunk in chunks],
            "json": response.json,
            **(_write_bytes(response.data) if response.data else {}),
            "ended": response.ended_at,
            "ends": None if response.ended_by == "server" and chunks is None else response.ended_by,
        }
    out = {name: value for name, value in out.items() if value is not None or name == "status"}
    _refuse(_secret_in(step, out, searched), cassette, f"step {step.name} ({step})")
    return out


def _secret_in(step: Step, out: Mapping[str, Any], searched: set[str]) -> Secret | None:
    """Find a secret in what is written, and in its content, which may be compressed or cut into pieces."""
    response = step.response
    contents = [canonical_form(body) for body in (step.body, response.json)]
    found = find_secret(out, searched) or find_secret(contents, searched)
    for channel in dict.fromkeys(chunk.channel for chunk in response.chunks or ()):
        parts = (chunk.data for chunk in response.chunks or () if chunk.channel == channel)
        found = found or find_secret_in_log(b"".join(parts))
    return found or find_secret_in_log(response.data or b"")


def _write_chunk(chunk: Chunk) -> dict[str, Any]:
    out: dict[str, Any] = {
        "at": chunk.at,
        "after": list(chunk.after),
        "joined": chunk.coalesced,
        "cuts": [list(cut) for cut in chunk.split_at],
        "channel": chunk.channel,
        "close": chunk.close,
    }
    out = {name: value for name, value in out.items() if value or name == "at"}
    if chunk.event is not None:
        return out | {"event": chunk.event["type"], "object": chunk.event["object"]}
    return out | (_write_bytes(chunk.data) if chunk.data or chunk.close is None else {})


def _write_bytes(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


# -- reading ---------------------------------------------------------------------------------------------------


def read(text: str, *, source: str = "the cassette", scenario: str | None = None) -> Cassette:
    """Return the cassette in `text`. Raises `CassetteError`."""
    found = parse(text, source)
    if not isinstance(found, LineMapping) or "gke_sandbox_cassette" not in found:
        raise CassetteError(f"{source} is not a cassette: its first line must be gke_sandbox_cassette: {FORMAT}")
    version, line = found["gke_sandbox_cassette"], found.line_of("gke_sandbox_cassette")
    if type(version) is int and version > FORMAT:
        raise CassetteError(
            f"{source}, line {line}: format {version} is not supported; this release reads up to {FORMAT}",
            hint="Use a newer gke-sandbox, or record it again with this one.",
        )
    document = _Fields(found, source, "the header", _HEADER)
    if type(version) is not int or version < 1:
        raise document.wrong("gke_sandbox_cassette", "the version of the format")
    recorded = document.part("recorded", found.get("recorded"), _RECORDED)
    header = Header(
        scenario=document.text("scenario"),
        namespace=document.text("namespace") or None,
        recorded_at=recorded.text("at"),
        recorded_with=recorded.text("with"),
        server=recorded.text("server") or None,
        notes=document.text("notes"),
    )
    if scenario is not None and header.scenario != scenario:
        raise document.wrong("scenario", repr(scenario), hint="Use the right file, or record it again.")
    steps, line = document.items("steps"), found.line_of("steps")
    if not steps:
        raise document.wrong("steps", "a list of steps")
    cassette = Cassette(
        header, tuple(_read_step(step, n, source, line) for n, step in enumerate(steps, 1)), source
    )
    _check(cassette)
    return cassette


class _Fields:
    """A mapping in a cassette. It returns values of the right types, or raises an error with the place.

    `names` are the allowed keys, None for any. `line` is the place of a value that is not a mapping.
    """

    def __init__(self, values: Any, source: str, where: str, names: Sequence[str] | None, line: int = 0) -> None:
        self.values = values if isinstance(values, LineMapping) else LineMapping(line, {})
        self.where = where
        self._source = source
        if values is not None and values is not self.values:
            raise self.error("", f"must be a mapping, got {values!r:.60}")
        for name in self.values:
            if names is not None and name not in names:
                near = difflib.get_close_matches(name, names, 1)
                raise self.error(name, f"unknown key {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def part(self, name: str, values: Any, names: Sequence[str] | None) -> _Fields:
        """Return a mapping below a key."""
        return _Fields(values, self._source, f"{self.where}, {name}", names, self.values.line_of(name))

    def error(self, name: str, message: str, hint: str = "") -> CassetteError:
        """Return an error at the line of a key, or at that of the mapping if it has no such key."""
        line = self.values.line_of(name)
        return CassetteError(f"{self._source}, line {line}, {self.where}: {message}", hint=hint)

    def wrong(self, name: str, expected: str, hint: str = "") -> CassetteError:
        """Return an error for the value of a key."""
        return self.error(name, f"{name}: must be {expected}, got {self.values.get(name)!r:.60}", hint)

    def typed(self, name: str, kind: type[_T], expected: str) -> _T | None:
        """Return the value of a key; None without it."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, kind):
            raise self.wrong(name, expected)
        return value

    def text(self, name: str) -> str:
        return self.typed(name, str, "text") or ""

    def items(self, name: str) -> list[Any]:
        return self.typed(name, list, "a list") or []

    def number(self, name: str, default: int = 0) -> int:
        value = self.values.get(name, default)
        if type(value) is not int:
            raise self.wrong(name, "whole milliseconds")
        return value

    def after(self) -> tuple[str, ...]:
        names = self.items("after")
        if not all(isinstance(each, str) for each in names):
            raise self.wrong("after", "a list of steps")
        return tuple(names)

    def content(self) -> bytes | None:
        """Return the value of `text` or `base64`; None without them."""
        if "text" in self:
            return self.text("text").encode("utf-8", "surrogatepass")
        if "base64" not in self:
            return None
        try:
            return base64.b64decode(self.text("base64"), validate=True)
        except ValueError as error:
            raise self.error("base64", f"invalid base64: {error}") from None


def _read_step(found: Any, number: int, source: str, line: int) -> Step:
    name = found.get("step") if isinstance(found, dict) else None
    name = name if isinstance(name, str) and name else str(number)
    fields = _Fields(found, source, f"step {name}", _STEP + _STEP_END, line)
    fields.text("step")
    method, _, target = fields.text("request").partition(" ")
    path, _, query_text = target.partition("?")
    if method not in _METHODS or not path.startswith("/"):
        raise fields.wrong("request", "a method and a path, such as GET /version")
    pairs = (pair.partition("=") for pair in query_text.split("&") if pair)
    query = {unquote(key): unquote(value) for key, _, value in pairs}
    at, body = fields.number("at"), fields.values.get("body")
    if method == SEND:
        _Fields(found, source, f"{fields.where}, which has no response", _SEND_STEP)
        response = RecordedResponse(at, None)
    else:
        response = _read_response(fields, at)
    return Step(name, at, method, path, query, body, response, job_of(path, query, body), fields.values.line)


def _read_response(fields: _Fields, at: int) -> RecordedResponse:
    status = fields.values.get("status")
    if status is not None and (type(status) is not int or not 100 <= status <= 599):
        raise fields.wrong("status", "an HTTP status or null")
    bodies = [name for name in fields.values if name in _BODIES]
    if len(bodies) > 1:
        message = f"{bodies[0]!r} and {bodies[1]!r} cannot be combined: a response has one body"
        raise fields.error(bodies[1], message)
    ended_by = fields.text("ends") or "server"
    if ended_by not in ENDED_BY:
        raise fields.wrong("ends", f"one of {', '.join(ENDED_BY)}")
    if status is None and ended_by == "server":
        raise fields.error("", "status: missing; without a response, 'ends' must be client or an error")
    headers = fields.part("headers", fields.values.get("headers"), None)
    read, names = (_read_message, _MESSAGE) if status == 101 else (_read_chunk, _CHUNK)
    chunks = tuple(read(fields.part("stream", chunk, names)) for chunk in fields.items("stream"))
    return RecordedResponse(
        at=fields.number("answered", at),
        status=status,
        headers={name: headers.text(name) for name in headers.values},
        json=fields.values.get("json"),
        data=fields.content(),
        chunks=None if fields.values.get("stream") is None else chunks,
        ended_by=ended_by,
        ended_at=fields.number("ended") if "ended" in fields else None,
        after=fields.after(),
    )


def _read_chunk(fields: _Fields) -> Chunk:
    if sum(name in fields for name in ("event", "text", "base64")) != 1:
        raise fields.error("", "a chunk needs one of event, text and base64")
    event = None
    if "event" in fields:
        event = {"type": fields.text("event"), "object": fields.typed("object", dict, "a mapping") or {}}
    elif "object" in fields:
        raise fields.error("object", "'object' is only allowed together with 'event'")
    coalesced = fields.values.get("joined", False)
    if not isinstance(coalesced, bool):
        raise fields.wrong("joined", "true or false")
    return Chunk(
        at=fields.number("at"),
        data=fields.content() or b"",
        event=event,
        after=fields.after(),
        split_at=_read_cuts(fields, event),
        coalesced=coalesced,
        line=fields.values.line,
    )


def _read_message(fields: _Fields) -> Chunk:
    """Read a message to an attached client."""
    channel, close = fields.text("channel"), fields.values.get("close")
    if channel and not _CHANNEL.fullmatch(channel):
        raise fields.wrong("channel", "stdout, stderr, status, text or '0' to '255'")
    if close is not None and (type(close) is not int or not 1000 <= close <= 4999 or channel):
        raise fields.wrong("close", "a code from 1000 to 4999, without a channel")
    if ("text" in fields) == ("base64" in fields) and close is None:
        raise fields.error("", "a message needs one of text, base64 and close")
    return Chunk(
        at=fields.number("at"),
        data=fields.content() or b"",
        after=fields.after(),
        line=fields.values.line,
        channel=channel,
        close=close,
    )


def _read_cuts(fields: _Fields, event: Mapping[str, Any] | None) -> tuple[tuple[int, int], ...]:
    cuts = fields.items("cuts")
    if not all(isinstance(cut, list) and [type(one) for one in cut] == [int, int] for cut in cuts):
        raise fields.error("cuts", "cuts: must be pairs of milliseconds and bytes")
    if not cuts:
        return ()
    if event is None:
        raise fields.error("cuts", "'cuts' is only allowed on events; split other data into several chunks")
    times, places = zip(*cuts, strict=True)
    if [*times] != sorted(times) or [*places] != sorted(places):
        raise fields.error("cuts", "cuts: must be in the order of time and of bytes")
    length = len(event_line(event["type"], event["object"]))
    if places[0] < 1 or places[-1] > length:
        outside = places[0] if places[0] < 1 else places[-1]
        raise fields.error("cuts", f"cuts: must be within the {length} bytes of the event, got {outside}")
    return tuple(zip(times, places, strict=True))


def _check(cassette: Cassette) -> None:
    """Check that names of steps are unique, that `after` names steps, and that every placeholder gets a value."""
    names: set[str] = set()
    for step in cassette.steps:
        if step.name in names:
            raise CassetteError(f"{cassette.where(step)}: another step has the same name")
        names.add(step.name)
    requests = ([step.path, dict(step.query), step.body] for step in cassette.steps)
    requested = {found.group() for request in requests for found in placeholders_in(request)}

    # Equal parts of a file are the same object.
    checked: set[int] = set()

    def check(step: Step, value: Any, after: Iterable[str] = (), line: int = 0) -> None:
        for name in after:
            if name not in names:
                raise CassetteError(f"{cassette.where(step, line)}: after: unknown step {name!r}")
        for found in placeholders_in(value, checked):
            placeholder = found.group()
            if found["kind"] in CAPTURED and placeholder not in requested:
                message = f"{placeholder} is never set: it does not occur in any request"
                raise CassetteError(f"{cassette.where(step, line)}: {message}")
            if placeholder == "<any>":
                raise CassetteError(f"{cassette.where(step, line)}: <any> is only allowed in requests")

    for step in cassette.steps:
        response = step.response
        check(step, response.json, response.after, step.line)
        check(step, response.headers)
        for chunk in response.chunks or ():
            check(step, None if chunk.event is None else chunk.event["object"], chunk.after, chunk.line)
