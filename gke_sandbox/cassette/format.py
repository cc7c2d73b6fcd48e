"""Cassettes as files: YAML for people to review and edit. docs/replay.md describes the format."""

from __future__ import annotations

import base64
import binascii
import contextlib
import difflib
import errno
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from ..errors import CassetteError
from .canonical import canonical_form
from .format_yaml import LineMapping, dump, parse
from .model import ENDED_BY, FORMAT, SEND, Cassette, Chunk, Header, RecordedResponse, Step, job_of
from .normalize import event_line
from .placeholders import CAPTURED, placeholders_in
from .secrets import Secret, find_secret, find_secret_in_log

__all__ = ["check_writable", "load", "read", "save", "write"]

_HEADER = ("gke_sandbox_cassette", "scenario", "namespace", "recorded", "notes", "steps")
_RECORDED = ("at", "with", "server")
_STEP = ("step", "at", "request", "body", "status", "headers", "json", "text", "base64", "stream", "answered")
_SEND_STEP = ("step", "at", "request", "body")
_STEP_END = ("ended", "ends", "after")
_BODIES = ("json", "text", "base64", "stream")
_CHUNK = ("at", "after", "event", "object", "text", "base64", "cuts", "joined")
_MESSAGE = ("at", "after", "channel", "close", "text", "base64")
_CHANNEL = re.compile(r"stdout|stderr|status|text|25[0-5]|2[0-4]\d|1?\d?\d")
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
    text = write(cassette)
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
    return dump({**document, "steps": [_write_step(cassette, step) for step in cassette.steps]})


def _refuse(secret: Secret | None, cassette: Cassette, where: str) -> None:
    if secret is not None:
        raise CassetteError(
            f"{cassette.source} is not written: {where} contains {secret.what}, at {secret.path}",
            hint=secret.hint,
        )


def _write_step(cassette: Cassette, step: Step) -> dict[str, Any]:
    response = step.response
    out: dict[str, Any] = {"step": step.name, "at": step.at, "request": f"{step}"}
    if step.body is not None:
        out["body"] = step.body
    if step.method == SEND:
        _refuse(_secret_in(step, out), cassette, f"step {step.name} ({step})")
        return out
    out["status"] = response.status
    if response.status is not None:
        out["answered"] = response.at
    if response.headers:
        out["headers"] = dict(response.headers)
    if response.after:
        out["after"] = list(response.after)
    if response.chunks is not None:
        out["stream"] = [_write_chunk(chunk) for chunk in response.chunks]
    elif response.json is not None:
        out["json"] = response.json
    elif response.data:
        out.update(_write_bytes(response.data))
    if response.ended_at is not None:
        out["ended"] = response.ended_at
    if response.ended_by != "server" or response.chunks is not None:
        out["ends"] = response.ended_by
    _refuse(_secret_in(step, out), cassette, f"step {step.name} ({step})")
    return out


def _secret_in(step: Step, out: Mapping[str, Any]) -> Secret | None:
    """Find a secret in what is written, and in its content, which may be compressed or cut into pieces."""
    response = step.response
    contents = [canonical_form(body) for body in (step.body, response.json)]
    found = find_secret(out) or find_secret(contents)
    for channel in dict.fromkeys(chunk.channel for chunk in response.chunks or ()):
        parts = (chunk.data for chunk in response.chunks or () if chunk.channel == channel)
        found = found or find_secret_in_log(b"".join(parts))
    return found or find_secret_in_log(response.data or b"")


def _write_chunk(chunk: Chunk) -> dict[str, Any]:
    out: dict[str, Any] = {"at": chunk.at}
    if chunk.after:
        out["after"] = list(chunk.after)
    if chunk.coalesced:
        out["joined"] = True
    if chunk.split_at:
        out["cuts"] = [list(cut) for cut in chunk.split_at]
    if chunk.channel:
        out["channel"] = chunk.channel
    if chunk.close is not None:
        out["close"] = chunk.close
    if chunk.close is not None and not chunk.data:
        return out
    if chunk.event is None:
        return out | _write_bytes(chunk.data)
    return out | {"event": chunk.event["type"], "object": chunk.event["object"]}


def _write_bytes(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


# -- reading ---------------------------------------------------------------------------------------------------


def read(text: str, *, source: str = "the cassette", scenario: str | None = None) -> Cassette:
    """Return the cassette in `text`. Raises `CassetteError`."""
    document = parse(text, source)
    if not isinstance(document, LineMapping) or "gke_sandbox_cassette" not in document:
        raise CassetteError(f"{source} is not a cassette: its first line must be gke_sandbox_cassette: {FORMAT}")

    def place(name: str) -> str:
        return f"{source}, line {document.line_of(name)}"

    version, line = document["gke_sandbox_cassette"], place("gke_sandbox_cassette")
    if type(version) is not int or version < 1:
        raise CassetteError(
            f"{line}: gke_sandbox_cassette: must be the version of the format, got {version!r:.60}"
        )
    if version > FORMAT:
        raise CassetteError(
            f"{line}: format {version} is not supported; this release reads up to {FORMAT}",
            hint="Use a newer gke-sandbox, or record it again with this one.",
        )
    reader = _CassetteReader(source)
    reader.check_keys(document, _HEADER, "the header")
    recorded = reader.mapping(document, "recorded", "the header") or {}
    reader.check_keys(recorded, _RECORDED, "recorded")
    header = Header(
        scenario=reader.text(document, "scenario", "the header"),
        namespace=reader.text(document, "namespace", "the header") or None,
        recorded_at=reader.text(recorded, "at", "recorded"),
        recorded_with=reader.text(recorded, "with", "recorded"),
        server=reader.text(recorded, "server", "recorded") or None,
        notes=reader.text(document, "notes", "the header"),
    )
    if scenario is not None and header.scenario != scenario:
        raise CassetteError(
            f"{place('scenario')}: scenario: must be {scenario!r}, got {header.scenario!r}",
            hint="Use the right file, or record it again.",
        )
    steps = document.get("steps")
    if not isinstance(steps, list) or not steps:
        raise CassetteError(f"{place('steps')}: steps: must not be empty")
    found = (reader.step(step, number, document.line_of("steps")) for number, step in enumerate(steps, 1))
    cassette = Cassette(header, tuple(found), source)
    _check(cassette)
    return cassette


class _CassetteReader:
    """Reads values of the right types, or raises an error with the place."""

    def __init__(self, source: str) -> None:
        self._source = source

    def error(self, where: str, message: str, line: int = 0) -> CassetteError:
        return CassetteError(f"{self._source}{f', line {line}' if line else ''}, {where}: {message}")

    def check_keys(self, found: Mapping[str, Any], names: Iterable[str], where: str) -> None:
        for name in found:
            if name not in names:
                near = difflib.get_close_matches(name, list(names), 1)
                suggestion = f"; did you mean {near[0]!r}?" if near else ""
                raise self.error(where, f"unknown key {name!r}{suggestion}", _line(found, name))

    def mapping(self, found: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any] | None:
        value: Mapping[str, Any] | None = self._typed(found, name, where, dict, "a mapping")
        return value

    def text(self, found: Mapping[str, Any], name: str, where: str) -> str:
        return self._typed(found, name, where, str, "text") or ""

    def number(self, found: Mapping[str, Any], name: str, where: str, default: int = 0) -> int:
        value = found.get(name, default)
        if type(value) is not int:
            raise self.error(where, f"{name}: must be whole milliseconds, got {value!r:.60}", _line(found, name))
        return value

    def items(self, found: Mapping[str, Any], name: str, where: str) -> list[Any] | None:
        value: list[Any] | None = self._typed(found, name, where, list, "a list")
        return value

    def _typed(self, found: Mapping[str, Any], name: str, where: str, kind: type, what: str) -> Any:
        value = found.get(name)
        if value is not None and not isinstance(value, kind):
            raise self.error(where, f"{name}: must be {what}, got {value!r:.60}", _line(found, name))
        return value

    def step(self, found: Any, number: int, line: int) -> Step:
        if not isinstance(found, LineMapping):
            raise self.error(f"step {number}", f"must be a mapping, got {found!r:.60}", line)
        name = self.text(found, "step", f"step {number}") or str(number)
        where = f"step {name}"
        self.check_keys(found, _STEP + _STEP_END, where)
        method, path, query = self._request(found, where)
        at = self.number(found, "at", where)
        if method == SEND:
            self.check_keys(found, _SEND_STEP, f"{where}, which has no response")
            response = RecordedResponse(at, None)
        else:
            response = self._response(found, where, at)
        body = found.get("body")
        return Step(name, at, method, path, query, body, response, job_of(path, query, body), found.line)

    def _request(self, found: LineMapping, where: str) -> tuple[str, str, dict[str, str]]:
        target_text = self.text(found, "request", where)
        method, _, target = target_text.partition(" ")
        path, _, query = target.partition("?")
        if method not in _METHODS or not path.startswith("/"):
            message = f"request: must be a method and a path, such as GET /version, got {target_text!r:.60}"
            raise self.error(where, message, found.line_of("request"))
        pairs = (pair.partition("=") for pair in query.split("&") if pair)
        return method, path, {unquote(name): unquote(value) for name, _, value in pairs}

    def _response(self, found: LineMapping, where: str, at: int) -> RecordedResponse:
        status = found.get("status")
        if status is not None and (type(status) is not int or not 100 <= status <= 599):
            message = f"status: must be an HTTP status or null, got {status!r:.60}"
            raise self.error(where, message, found.line_of("status"))
        chunks, line = self.items(found, "stream", where), found.line_of("stream")
        bodies = [name for name in found if name in _BODIES]
        if len(bodies) > 1:
            message = f"{bodies[0]!r} and {bodies[1]!r} cannot be combined: a response has one body"
            raise self.error(where, message, found.line_of(bodies[1]))
        ended_by = self.text(found, "ends", where) or "server"
        if ended_by not in ENDED_BY:
            message = f"ends: must be one of {', '.join(ENDED_BY)}, got {ended_by!r}"
            raise self.error(where, message, found.line_of("ends"))
        if status is None and ended_by == "server":
            message = "status: missing; without a response, 'ends' must be client or an error"
            raise self.error(where, message, found.line)
        read = self._message if status == 101 else self._chunk
        return RecordedResponse(
            at=self.number(found, "answered", where, at),
            status=status,
            headers=self._headers(found, where),
            json=found.get("json"),
            data=self._bytes(found, where),
            chunks=None if chunks is None else tuple(read(chunk, where, line) for chunk in chunks),
            ended_by=ended_by,
            ended_at=self.number(found, "ended", where) if "ended" in found else None,
            after=self._names(found, "after", where),
        )

    def _headers(self, found: LineMapping, where: str) -> dict[str, str]:
        headers = self.mapping(found, "headers", where) or {}
        return {name: self.text(headers, name, f"{where}, headers") for name in headers}

    def _names(self, found: LineMapping, name: str, where: str) -> tuple[str, ...]:
        names = self.items(found, name, where) or []
        if not all(isinstance(each, str) for each in names):
            raise self.error(where, f"{name}: must be a list of steps", found.line_of(name))
        return tuple(names)

    def _bytes(self, found: LineMapping, where: str) -> bytes | None:
        if "text" in found:
            return self.text(found, "text", where).encode("utf-8", "surrogatepass")
        if "base64" not in found:
            return None
        try:
            return base64.b64decode(self.text(found, "base64", where), validate=True)
        except (binascii.Error, ValueError) as error:
            raise self.error(where, f"invalid base64: {error}", found.line_of("base64")) from None

    def _chunk(self, found: Any, where: str, line: int) -> Chunk:
        if not isinstance(found, LineMapping):
            raise self.error(where, f"stream: a chunk must be a mapping, got {found!r:.60}", line)
        self.check_keys(found, _CHUNK, f"{where}, stream")
        if len([name for name in ("event", "text", "base64") if name in found]) != 1:
            raise self.error(where, "stream: a chunk needs one of event, text and base64", found.line)
        event = None
        if "event" in found:
            body = self.mapping(found, "object", where) or {}
            event = {"type": self.text(found, "event", where), "object": body}
        elif "object" in found:
            raise self.error(where, "'object' is only allowed together with 'event'", found.line_of("object"))
        coalesced = found.get("joined", False)
        if not isinstance(coalesced, bool):
            message = f"joined: must be true or false, got {coalesced!r:.60}"
            raise self.error(where, message, found.line_of("joined"))
        return Chunk(
            at=self.number(found, "at", where),
            data=self._bytes(found, where) or b"",
            event=event,
            after=self._names(found, "after", where),
            split_at=self._cuts(found, where, event),
            coalesced=coalesced,
            line=found.line,
        )

    def _message(self, found: Any, where: str, line: int) -> Chunk:
        """Read a message to an attached client."""
        if not isinstance(found, LineMapping):
            raise self.error(where, f"stream: a message must be a mapping, got {found!r:.60}", line)
        self.check_keys(found, _MESSAGE, f"{where}, stream")
        channel, close = self.text(found, "channel", where), found.get("close")
        if channel and not _CHANNEL.fullmatch(channel):
            message = f"channel: must be stdout, stderr, status, text or '0' to '255', got {channel!r:.60}"
            raise self.error(where, message, found.line_of("channel"))
        if close is not None and (type(close) is not int or not 1000 <= close <= 4999 or channel):
            message = f"close: must be a code from 1000 to 4999, without a channel, got {close!r:.60}"
            raise self.error(where, message, found.line_of("close"))
        if len([name for name in ("text", "base64") if name in found]) != 1 and close is None:
            raise self.error(where, "stream: a message needs one of text, base64 and close", found.line)
        return Chunk(
            at=self.number(found, "at", where),
            data=self._bytes(found, where) or b"",
            after=self._names(found, "after", where),
            line=found.line,
            channel=channel,
            close=close,
        )

    def _cuts(
        self, found: LineMapping, where: str, event: Mapping[str, Any] | None
    ) -> tuple[tuple[int, int], ...]:
        def error(message: str) -> CassetteError:
            return self.error(where, message, found.line_of("cuts"))

        cuts = self.items(found, "cuts", where) or []
        if not all(isinstance(cut, list) and [type(one) for one in cut] == [int, int] for cut in cuts):
            raise error("cuts: must be pairs of milliseconds and bytes")
        if not cuts:
            return ()
        if event is None:
            raise error("'cuts' is only allowed on events; split other data into several chunks")
        times, places = zip(*cuts, strict=True)
        if [*times] != sorted(times) or [*places] != sorted(places):
            raise error("cuts: must be in the order of time and of bytes")
        length = len(event_line(event["type"], event["object"]))
        if places[0] < 1 or places[-1] > length:
            outside = places[0] if places[0] < 1 else places[-1]
            raise error(f"cuts: must be within the {length} bytes of the event, got {outside}")
        return tuple(zip(times, places, strict=True))


def _line(found: Mapping[str, Any], name: str) -> int:
    return found.line_of(name) if isinstance(found, LineMapping) else 0


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
