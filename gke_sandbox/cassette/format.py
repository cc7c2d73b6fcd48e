"""Cassettes as files: YAML that a person reads in review and may edit. docs/replay.md shows the format."""

from __future__ import annotations

import base64
import binascii
import contextlib
import difflib
import errno
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..errors import CassetteError
from .canonical import meaning
from .ends import ENDS
from .format_yaml import Mapped, dump, parse
from .model import FORMAT, Answer, Cassette, Chunk, Header, Step, job_of
from .normalize import event_line
from .placeholders import CAPTURED, used
from .secrets import Secret, find_secret, find_secret_in_log

__all__ = ["check_writable", "load", "read", "save", "write"]

_HEADER = ("gke_sandbox_cassette", "scenario", "namespace", "recorded", "notes", "steps")
_RECORDED = ("at", "with", "server")
_STEP = ("step", "at", "request", "body", "status", "headers", "json", "text", "base64", "stream", "answered")
_STEP_ENDS = ("ended", "ends", "after")
_BODIES = ("json", "text", "base64", "stream")
_CHUNK = ("at", "after", "event", "object", "text", "base64", "cuts", "joined")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def load(path: str | os.PathLike[str], *, scenario: str | None = None) -> Cassette:
    """Read a cassette; with `scenario` it must be of that one. Raises `CassetteError`, which says where."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise CassetteError(
            f"there is no cassette {os.fspath(path)}",
            hint="record one: Cluster.record(path, cluster), gke-sandbox run --record FILE",
        ) from None
    except OSError as error:
        raise CassetteError(f"the cassette {os.fspath(path)} cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CassetteError(f"{os.fspath(path)}, line {line}: is not a cassette: no UTF-8 text") from None
    return read(text, source=os.fspath(path), scenario=scenario)


def save(cassette: Cassette, path: str | os.PathLike[str]) -> None:
    """Write a cassette, whole or not at all; its directory is made if it is missing.

    What the file held before is replaced; a link stays, and the file that it leads to is replaced. Raises
    `CassetteError` if the cassette holds what looks like a secret, or if it cannot be written.
    """
    text = write(cassette)
    target = Path(path)
    temporary = ""
    try:
        target = _target(path)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(text)
        # As any other file that is made here, not for its owner alone.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise _unwritable(target, error) from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise `CassetteError` if a cassette cannot be written there, as far as can be seen without writing it."""
    try:
        with tempfile.TemporaryFile(dir=_target(path).parent):
            pass
    except OSError as error:
        raise _unwritable(Path(path), error) from error


def _target(path: str | os.PathLike[str]) -> Path:
    """The file to replace; its directory is there. Raises `OSError`: a device or a pipe must not be replaced."""
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
    """The text of a cassette. Raises `CassetteError` if it holds what looks like a secret."""
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
    return dump({**document, "steps": [_step_out(cassette, step) for step in cassette.steps]})


def _refuse(secret: Secret | None, cassette: Cassette, where: str) -> None:
    if secret is not None:
        raise CassetteError(
            f"{cassette.source} is not written: {where} holds {secret.what}, at {secret.path}", hint=secret.hint
        )


def _step_out(cassette: Cassette, step: Step) -> dict[str, Any]:
    answer = step.answer
    out: dict[str, Any] = {"step": step.name, "at": step.at, "request": f"{step}"}
    if step.body is not None:
        out["body"] = step.body
    out["status"] = answer.status
    if answer.status is not None:
        out["answered"] = answer.at
    if answer.headers:
        out["headers"] = dict(answer.headers)
    if answer.after:
        out["after"] = list(answer.after)
    if answer.chunks is not None:
        out["stream"] = [_chunk_out(chunk) for chunk in answer.chunks]
    elif answer.json is not None:
        out["json"] = answer.json
    elif answer.data:
        out.update(_bytes_out(answer.data))
    if answer.ended_at is not None:
        out["ended"] = answer.ended_at
    if answer.ends != "server" or answer.chunks is not None:
        out["ends"] = answer.ends
    _refuse(_secret_in(step, out), cassette, f"step {step.name} ({step})")
    return out


def _secret_in(step: Step, out: Mapping[str, Any]) -> Secret | None:
    """In what is written, and in what that stands for: it may be compressed, or cut into pieces."""
    answer = step.answer
    log = b"".join(chunk.data for chunk in answer.chunks or ()) or answer.data or b""
    meanings = [meaning(body) for body in (step.body, answer.json)]
    return find_secret(out) or find_secret(meanings) or find_secret_in_log(log)


def _chunk_out(chunk: Chunk) -> dict[str, Any]:
    out: dict[str, Any] = {"at": chunk.at}
    if chunk.after:
        out["after"] = list(chunk.after)
    if chunk.joined:
        out["joined"] = True
    if chunk.cuts:
        out["cuts"] = [list(cut) for cut in chunk.cuts]
    if chunk.event is None:
        return out | _bytes_out(chunk.data)
    return out | {"event": chunk.event["type"], "object": chunk.event["object"]}


def _bytes_out(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


# -- reading ---------------------------------------------------------------------------------------------------


def read(text: str, *, source: str = "the cassette", scenario: str | None = None) -> Cassette:
    """A cassette from its text. Raises `CassetteError`."""
    document = parse(text, source)
    if not isinstance(document, Mapped) or "gke_sandbox_cassette" not in document:
        raise CassetteError(f"{source} is not a cassette: it does not begin with gke_sandbox_cassette: {FORMAT}")

    def place(name: str) -> str:
        return f"{source}, line {document.line_of(name)}"

    version, line = document["gke_sandbox_cassette"], place("gke_sandbox_cassette")
    if type(version) is not int or version < 1:
        raise CassetteError(f"{line}: gke_sandbox_cassette must be the format's number, not {version!r:.60}")
    if version > FORMAT:
        raise CassetteError(
            f"{line}: has the format {version}; this release reads up to {FORMAT}",
            hint="use a newer gke-sandbox, or record it again with this one",
        )
    reader = _Reader(source)
    reader.known(document, _HEADER, "the header")
    recorded = reader.mapping(document, "recorded", "the header") or {}
    reader.known(recorded, _RECORDED, "recorded")
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
            f"{place('scenario')}: is for the scenario {header.scenario!r}, not for {scenario!r}",
            hint="name the right file, or record it again",
        )
    steps = document.get("steps")
    if not isinstance(steps, list) or not steps:
        raise CassetteError(f"{place('steps')}: has no steps: nothing was recorded")
    found = (reader.step(step, number, document.line_of("steps")) for number, step in enumerate(steps, 1))
    cassette = Cassette(header, tuple(found), source)
    _check(cassette)
    return cassette


class _Reader:
    """Values with the right types, or an error that says where."""

    def __init__(self, source: str) -> None:
        self._source = source

    def fail(self, where: str, message: str, line: int = 0) -> CassetteError:
        return CassetteError(f"{self._source}{f', line {line}' if line else ''}, {where}: {message}")

    def known(self, found: Mapping[str, Any], names: Iterable[str], where: str) -> None:
        for name in found:
            if name not in names:
                near = difflib.get_close_matches(name, list(names), 1)
                wish = f"; did you mean {near[0]}?" if near else ""
                raise self.fail(where, f"nothing here is called {name}{wish}", _line(found, name))

    def mapping(self, found: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any] | None:
        value: Mapping[str, Any] | None = self._typed(found, name, where, dict, "a mapping")
        return value

    def text(self, found: Mapping[str, Any], name: str, where: str) -> str:
        return self._typed(found, name, where, str, "text") or ""

    def number(self, found: Mapping[str, Any], name: str, where: str, default: int = 0) -> int:
        value = found.get(name, default)
        if type(value) is not int:
            raise self.fail(where, f"{name} must be whole milliseconds, not {value!r:.60}", _line(found, name))
        return value

    def items(self, found: Mapping[str, Any], name: str, where: str) -> list[Any] | None:
        value: list[Any] | None = self._typed(found, name, where, list, "a list")
        return value

    def _typed(self, found: Mapping[str, Any], name: str, where: str, kind: type, what: str) -> Any:
        value = found.get(name)
        if value is not None and not isinstance(value, kind):
            raise self.fail(where, f"{name} must be {what}, not {value!r:.60}", _line(found, name))
        return value

    def step(self, found: Any, number: int, line: int) -> Step:
        if not isinstance(found, Mapped):
            raise self.fail(f"step {number}", f"must be a mapping, not {found!r:.60}", line)
        name = self.text(found, "step", f"step {number}") or str(number)
        where = f"step {name}"
        self.known(found, _STEP + _STEP_ENDS, where)
        method, path, query = self._request(found, where)
        at = self.number(found, "at", where)
        answer = self._answer(found, where, at)
        body = found.get("body")
        return Step(name, at, method, path, query, body, answer, job_of(path, query, body), found.line)

    def _request(self, found: Mapped, where: str) -> tuple[str, str, dict[str, str]]:
        method, _, target = self.text(found, "request", where).partition(" ")
        path, _, query = target.partition("?")
        if method not in _METHODS or not path.startswith("/"):
            raise self.fail(
                where, "request must be a method and a path, such as GET /version", found.line_of("request")
            )
        pairs = (pair.partition("=") for pair in query.split("&") if pair)
        return method, path, {unquote(name): unquote(value) for name, _, value in pairs}

    def _answer(self, found: Mapped, where: str, at: int) -> Answer:
        status = found.get("status")
        if status is not None and (type(status) is not int or not 100 <= status <= 599):
            raise self.fail(
                where, f"status must be an HTTP status or null, not {status!r:.60}", found.line_of("status")
            )
        chunks, line = self.items(found, "stream", where), found.line_of("stream")
        bodies = [name for name in found if name in _BODIES]
        if len(bodies) > 1:
            message = f"has {' and '.join(bodies)}: an answer has one of them"
            raise self.fail(where, message, found.line_of(bodies[1]))
        ends = self.text(found, "ends", where) or "server"
        if ends not in ENDS:
            raise self.fail(where, f"ends: {ends!r} is none of {', '.join(ENDS)}", found.line_of("ends"))
        if status is None and ends == "server":
            raise self.fail(where, "has no answer: status is missing", found.line)
        return Answer(
            at=self.number(found, "answered", where, at),
            status=status,
            headers=self._headers(found, where),
            json=found.get("json"),
            data=self._bytes(found, where),
            chunks=None if chunks is None else tuple(self._chunk(chunk, where, line) for chunk in chunks),
            ends=ends,
            ended_at=self.number(found, "ended", where) if "ended" in found else None,
            after=self._names(found, "after", where),
        )

    def _headers(self, found: Mapped, where: str) -> dict[str, str]:
        headers = self.mapping(found, "headers", where) or {}
        return {name: self.text(headers, name, f"{where}, headers") for name in headers}

    def _names(self, found: Mapped, name: str, where: str) -> tuple[str, ...]:
        names = self.items(found, name, where) or []
        if not all(isinstance(each, str) for each in names):
            raise self.fail(where, f"{name} must name steps", found.line_of(name))
        return tuple(names)

    def _bytes(self, found: Mapped, where: str) -> bytes | None:
        if "text" in found:
            return self.text(found, "text", where).encode("utf-8", "surrogatepass")
        if "base64" not in found:
            return None
        try:
            return base64.b64decode(self.text(found, "base64", where), validate=True)
        except (binascii.Error, ValueError) as error:
            raise self.fail(where, f"base64 is none: {error}", found.line_of("base64")) from None

    def _chunk(self, found: Any, where: str, line: int) -> Chunk:
        if not isinstance(found, Mapped):
            raise self.fail(where, f"a piece of the stream must be a mapping, not {found!r:.60}", line)
        self.known(found, _CHUNK, f"{where}, stream")
        if len([name for name in ("event", "text", "base64") if name in found]) != 1:
            raise self.fail(where, "a piece of the stream has one of event, text and base64", found.line)
        event = None
        if "event" in found:
            body = self.mapping(found, "object", where) or {}
            event = {"type": self.text(found, "event", where), "object": body}
        elif "object" in found:
            raise self.fail(where, "an object stands with an event", found.line_of("object"))
        joined = found.get("joined", False)
        if not isinstance(joined, bool):
            raise self.fail(where, f"joined must be true or false, not {joined!r:.60}", found.line_of("joined"))
        return Chunk(
            at=self.number(found, "at", where),
            data=self._bytes(found, where) or b"",
            event=event,
            after=self._names(found, "after", where),
            cuts=self._cuts(found, where, event),
            joined=joined,
            line=found.line,
        )

    def _cuts(self, found: Mapped, where: str, event: Mapping[str, Any] | None) -> tuple[tuple[int, int], ...]:
        def wrong(message: str) -> CassetteError:
            return self.fail(where, f"cuts {message}", found.line_of("cuts"))

        cuts = self.items(found, "cuts", where) or []
        if not all(isinstance(cut, list) and [type(one) for one in cut] == [int, int] for cut in cuts):
            raise wrong("must be pairs: milliseconds and bytes")
        if not cuts:
            return ()
        if event is None:
            raise wrong("are an event's: other pieces are cut by being several")
        times, places = zip(*cuts, strict=True)
        if [*times] != sorted(times) or [*places] != sorted(places):
            raise wrong("must be in their order, of time and of bytes")
        length = len(event_line(event["type"], event["object"]))
        if places[0] < 1 or places[-1] > length:
            outside = places[0] if places[0] < 1 else places[-1]
            raise wrong(f"must lie within the event's {length} bytes; {outside} does not")
        return tuple(zip(times, places, strict=True))


def _line(found: Mapping[str, Any], name: str) -> int:
    return found.line_of(name) if isinstance(found, Mapped) else 0


def _check(cassette: Cassette) -> None:
    """That steps have names of their own, that `after` names steps, and that every placeholder gets a value."""
    names: dict[str, Step] = {}
    for step in cassette.steps:
        if step.name in names:
            raise CassetteError(f"{cassette.where(step)}: another step has the same name")
        names[step.name] = step
    asked = {found.group() for step in cassette.steps for found in used(_asked(step))}
    for step in cassette.steps:
        _check_answer(cassette, step, names, asked)


def _asked(step: Step) -> list[Any]:
    return [step.path, dict(step.query), step.body]


def _check_answer(cassette: Cassette, step: Step, names: Mapping[str, Step], asked: set[str]) -> None:
    def check(value: Any, after: Iterable[str], line: int) -> None:
        for name in after:
            if name not in names:
                raise CassetteError(f"{cassette.where(step, line)}: after: there is no step {name}")
        for found in used(value):
            if found["kind"] in CAPTURED and found.group() not in asked:
                raise CassetteError(
                    f"{cassette.where(step, line)}: nobody fills {found.group()}: no request has it"
                )
            if found.group() == "<any>":
                raise CassetteError(f"{cassette.where(step, line)}: <any> can stand in requests only")

    answer = step.answer
    check(answer.json, answer.after, step.line)
    check(dict(answer.headers), (), step.line)
    for chunk in answer.chunks or ():
        check(chunk.event or {}, chunk.after, chunk.line)
