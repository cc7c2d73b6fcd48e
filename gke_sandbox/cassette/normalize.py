"""From raw exchanges to a cassette: generated names become placeholders, irrelevant fields are left out. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from .model import (
    SEND,
    AttachMessage,
    Cassette,
    Chunk,
    Exchange,
    Header,
    RecordedResponse,
    Step,
    job_of,
    jobs_of,
)
from .name_map import NameMap, parse_json, request_of
from .secrets import ALLOWED_HEADERS
from .stdin_request import readable_stdin

__all__ = ["event_line", "json_bytes", "normalize", "parse_json", "request_of"]

# Messages to an attached client that arrive within this time, in seconds, are joined.
_JOINED_WITHIN = 0.005


def normalize(
    exchanges: Sequence[Exchange], header: Header, start: datetime, source: str = "the cassette"
) -> Cassette:
    """Return the cassette of what was recorded from `start` on."""
    return Cassette(header, tuple(_Normalizer(_without_reauthentication(exchanges), start).steps()), source)


def event_line(type_: str, body: Any) -> bytes:
    """Return one event of a watch as the server writes it."""
    return json_bytes({"type": type_, "object": body}) + b"\n"


def json_bytes(value: Any) -> bytes:
    """Return JSON as the server writes it."""
    return _encode(value).encode("utf-8", "surrogatepass")


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _without_reauthentication(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """Leave out each 401 after which new credentials were sent: a replay has no credentials."""
    return [each for each in exchanges if each.status != 401 or not each.reauthenticated]


class _Normalizer:
    def __init__(self, exchanges: Sequence[Exchange], start: datetime) -> None:
        self._exchanges = exchanges
        self._responses = [_values(each) for each in exchanges]
        self._names = names = NameMap(exchanges, self._responses, start)
        self._requests = [
            (
                names.text(each.path, response=False),
                names.query(each.query),
                self._body(each),
            )
            for each in exchanges
        ]
        self._jobs = [job_of(*request) for request in self._requests]
        # The requests about each Job that something may follow.
        self._of_job: dict[str, list[int]] = {}
        for index, (job, each) in enumerate(zip(self._jobs, exchanges, strict=True)):
            if not each.is_status_poll:
                self._of_job.setdefault(job, []).append(index)
        self._labels = self._label()

    def _body(self, exchange: Exchange) -> Any:
        if exchange.method != SEND:
            return self._names.value(parse_json(exchange.body), response=False)
        body = readable_stdin(exchange.body) if exchange.body else None
        return body if body == "<any>" else self._names.plain(body)

    def steps(self) -> Iterator[Step]:
        for index, exchange in enumerate(self._exchanges):
            path, query, body = self._requests[index]
            response, job = self._response(index), self._jobs[index]
            yield Step(self._labels[index], _ms(exchange.at), exchange.method, path, query, body, response, job)

    def _label(self) -> list[str]:
        """Return a name for each step: its verb, resource and Job, and a count if that is not unique."""
        counts: dict[str, int] = {}
        labels = []
        for exchange, job in zip(self._exchanges, self._jobs, strict=True):
            request = request_of(exchange)
            label = (
                f"{request.verb}-{request.resource.replace('/', '-')}" if request.verb else exchange.method.lower()
            )
            label += f"-{job[5:-1]}" if job else ""
            counts[label] = counts.get(label, 0) + 1
            labels.append(label if counts[label] == 1 else f"{label}-again-{counts[label]}")
        return labels

    def _response(self, index: int) -> RecordedResponse:
        exchange, job = self._exchanges[index], self._jobs[index]
        at = exchange.at if exchange.responded_at is None else exchange.responded_at
        if exchange.method == SEND:
            return RecordedResponse(_ms(at), None)
        ended_at = None if exchange.ended_at is None else _ms(exchange.ended_at)
        response = RecordedResponse(_ms(at), exchange.status, ended_by=exchange.ended_by, ended_at=ended_at)
        if exchange.status is None:
            return response
        headers = {
            name: self._names.text(value, response=True)
            for name, value in ((name.lower(), value) for name, value in exchange.headers)
            if name in ALLOWED_HEADERS and (name, value.partition(";")[0]) != ("content-type", "application/json")
        }
        if exchange.status == 101 or exchange.is_stream:
            read = self._messages if exchange.status == 101 else self._events if exchange.is_watch else self._log
            return replace(response, headers=headers, chunks=tuple(read(index)))
        value = self._names.value(next(iter(self._responses[index]), None), response=True)
        others = [each for each in jobs_of(value) if each != job]
        return replace(
            response,
            headers=headers,
            json=value,
            data=b"".join(data for _, data in exchange.chunks) if value is None else None,
            ended_at=None,
            after=self._later(index, at) + self._follows(others, at),
        )

    def _log(self, index: int) -> Iterator[Chunk]:
        for at, data in self._exchanges[index].chunks:
            yield Chunk(_ms(at), data, after=self._later(index, at))

    def _messages(self, index: int) -> Iterator[Chunk]:
        """Iterate over the messages to an attached client, joined if nothing else happened between them."""
        first: AttachMessage | None = None
        last: Chunk | None = None
        for each in self._exchanges[index].messages:
            after = self._later(index, each.at, each.sent)
            chunk = Chunk(_ms(each.at), each.data, after=after, channel=each.channel, close=each.close)
            if first is not None and last is not None and _is_continued(first, each) and last.after == after:
                last = replace(chunk, data=last.data + chunk.data)
                continue
            if last is not None:
                yield last
            first, last = each, chunk
        if last is not None:
            yield last

    def _events(self, index: int) -> Iterator[Chunk]:
        for at, line, cuts, coalesced in _lines(self._exchanges[index].chunks):
            event = parse_json(line) if line.endswith(b"\n") else None
            if not isinstance(event, dict) or not {"type", "object"} <= event.keys():
                yield Chunk(_ms(at), line, coalesced=coalesced)
                continue
            body = self._names.value(event["object"], response=True)
            # The line is shorter than it was: it is cut in proportion.
            scale = len(event_line(event["type"], body)) / len(line) if cuts else 1
            yield Chunk(
                _ms(at),
                event={"type": event["type"], "object": body},
                after=self._follows(jobs_of(body), at),
                split_at=tuple((_ms(when), max(1, round(place * scale))) for when, place in cuts),
                coalesced=coalesced,
            )

    def _later(self, index: int, at: float, sent: Exchange | None = None) -> tuple[str, ...]:
        """Return the last request about the same Job that was sent after this one, and before `at`.

        `sent` is one that was certainly sent before.
        """
        job = self._jobs[index]
        found = [
            each
            for each in self._of_job.get(job, ())
            if job and each > index and (self._exchanges[each].at < at or self._exchanges[each] is sent)
        ]
        return (self._labels[found[-1]],) if found else ()

    def _follows(self, jobs: Sequence[str], at: float) -> tuple[str, ...]:
        """Return the last request before `at` about each Job.

        Its events also follow the two requests that create it, even if they arrived before the second one: a
        replay knows the program of a Job only after the ConfigMap.
        """
        found = []
        for job in jobs:
            indexes = self._of_job.get(job, ())
            before = [each for each in indexes if self._exchanges[each].at < at]
            created = [each for each in indexes if self._exchanges[each].method == "POST"][:2]
            if before or created:
                found.append(self._labels[max(before + created)])
        return tuple(found)


def _is_continued(message: AttachMessage, later: AttachMessage) -> bool:
    """Return whether two messages are one piece of output, which the server may have cut anywhere."""
    return (
        message.channel == later.channel in ("stdout", "stderr")
        and bool(message.data and later.data)
        and later.at - message.at <= _JOINED_WITHIN
    )


def _values(exchange: Exchange) -> list[Any]:
    """Return the JSON of a response: one body, or the events of a watch."""
    joined = b"".join(data for _, data in exchange.chunks)
    parts = joined.split(b"\n") if exchange.is_stream and exchange.is_watch else [joined]
    return [value for value in map(parse_json, parts) if value is not None]


def _lines(
    chunks: Sequence[tuple[float, bytes]],
) -> Iterator[tuple[float, bytes, list[tuple[float, int]], bool]]:
    """Iterate over lines: when the end arrived, the bytes, the cuts, and whether the line is coalesced.

    A line is coalesced if one chunk has its start and the end of the line before it.
    The last line is incomplete if it has no newline.
    """
    line, coalesced = b"", False
    cuts: list[tuple[float, int]] = []
    for at, data in chunks:
        *whole, rest = data.split(b"\n")
        for number, part in enumerate(whole):
            yield at, line + part + b"\n", cuts, coalesced
            line, cuts, coalesced = b"", [], number < len(whole) - 1 or bool(rest)
        line += rest
        if rest:
            cuts = [*cuts, (at, len(line))]
        else:
            coalesced = False
    if line:
        yield chunks[-1][0], line, [], coalesced


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
