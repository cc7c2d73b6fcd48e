"""From raw exchanges to a cassette: generated names become placeholders, what says nothing is left out. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from .generated import Names, json_in, request_of
from .model import Answer, Cassette, Chunk, Exchange, Header, Step, about, is_look, is_watch, job_of
from .secrets import ALLOWED_HEADERS

__all__ = ["event_line", "normalise"]


def normalise(
    exchanges: Sequence[Exchange], header: Header, began: datetime, source: str = "the cassette"
) -> Cassette:
    """The cassette of what was recorded from `began` on."""
    return Cassette(header, tuple(_Normaliser(_without_renewals(exchanges), began).steps()), source)


def event_line(type_: str, body: Any) -> bytes:
    """One event of a watch as the server writes it."""
    text = json.dumps({"type": type_, "object": body}, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _without_renewals(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """Leave out each 401 that was answered with other credentials: a replay has none to renew."""
    return [each for each in exchanges if each.status != 401 or not each.renewed]


class _Normaliser:
    def __init__(self, exchanges: Sequence[Exchange], began: datetime) -> None:
        self._exchanges = exchanges
        self._names = names = Names(exchanges, began)
        self._asked = [
            (
                names.text(each.path, answer=False),
                names.query(each.query),
                names.value(json_in(each.body), answer=False),
            )
            for each in exchanges
        ]
        self._of = [job_of(*asked) for asked in self._asked]
        self._labels = self._label()

    def steps(self) -> Iterator[Step]:
        for index, exchange in enumerate(self._exchanges):
            path, query, body = self._asked[index]
            answer, of = self._answer(index), self._of[index]
            yield Step(self._labels[index], _ms(exchange.at), exchange.method, path, query, body, answer, of)

    def _label(self) -> list[str]:
        """A name for each step: what it does and for which Job, and a count where that is not enough."""
        counts: dict[str, int] = {}
        labels = []
        for exchange, of in zip(self._exchanges, self._of, strict=True):
            request = request_of(exchange)
            label = (
                f"{request.verb}-{request.resource.replace('/', '-')}" if request.verb else exchange.method.lower()
            )
            label += f"-{of[5:-1]}" if of else ""
            counts[label] = counts.get(label, 0) + 1
            labels.append(label if counts[label] == 1 else f"{label}-again-{counts[label]}")
        return labels

    def _answer(self, index: int) -> Answer:
        exchange, of = self._exchanges[index], self._of[index]
        ended_at = None if exchange.ended is None else _ms(exchange.ended)
        if exchange.status is None:
            return Answer(_ms(exchange.at), None, ends=exchange.ends, ended_at=ended_at)
        headers = {name.lower(): value for name, value in exchange.headers}
        headers = {
            name: self._names.text(value, answer=True)
            for name, value in headers.items()
            if name in ALLOWED_HEADERS and (name, value.partition(";")[0]) != ("content-type", "application/json")
        }
        answered = exchange.at if exchange.answered is None else exchange.answered
        common: dict[str, Any] = {"at": _ms(answered), "status": exchange.status, "headers": headers}
        if exchange.streamed:
            chunks = self._events(exchange) if is_watch(exchange.query) else self._log(index)
            return Answer(**common, chunks=tuple(chunks), ends=exchange.ends, ended_at=ended_at)
        joined = b"".join(data for _, data in exchange.chunks)
        value = self._names.value(json_in(joined), answer=True)
        others = [job for job in about(value) if job != of]
        return Answer(
            **common,
            json=value,
            data=joined if value is None else None,
            after=self._since(index, answered) + self._follows(others, answered),
            ends=exchange.ends,
        )

    def _log(self, index: int) -> Iterator[Chunk]:
        for at, data in self._exchanges[index].chunks:
            yield Chunk(_ms(at), data, after=self._since(index, at))

    def _events(self, exchange: Exchange) -> Iterator[Chunk]:
        for at, line, cuts, joined in _lines(exchange.chunks):
            event = json_in(line) if line.endswith(b"\n") else None
            if not isinstance(event, dict) or not {"type", "object"} <= event.keys():
                yield Chunk(_ms(at), line, joined=joined)
                continue
            body = self._names.value(event["object"], answer=True)
            # The line is shorter now than it was: it is cut where it was, in proportion.
            scale = len(event_line(event["type"], body)) / len(line)
            yield Chunk(
                _ms(at),
                event={"type": event["type"], "object": body},
                after=self._follows(about(body), at),
                cuts=tuple((_ms(when), max(1, round(place * scale))) for when, place in cuts),
                joined=joined,
            )

    def _since(self, index: int, at: float) -> tuple[str, ...]:
        """The last request for the same Job that was sent after this one, and before `at`."""
        of = self._of[index]
        later = [each for each in self._all_of(of) if each > index and self._exchanges[each].at < at] if of else []
        return (self._labels[later[-1]],) if later else ()

    def _follows(self, jobs: Sequence[str], at: float) -> tuple[str, ...]:
        """For each Job the last request before `at`.

        Its news also follow the two requests that make it, even if they were faster than the second: whatever
        is told of a Job tells two Jobs apart, and only the ConfigMap says which one it is.
        """
        found = []
        for job in jobs:
            all_of = self._all_of(job)
            before = [each for each in all_of if self._exchanges[each].at < at]
            made = [each for each in all_of if self._exchanges[each].method == "POST"][:2]
            if before or made:
                found.append(self._labels[max(before + made)])
        return tuple(found)

    def _all_of(self, job: str) -> list[int]:
        """The requests about a Job that something may follow."""
        return [index for index, of in enumerate(self._of) if of == job and not self._is_look(index)]

    def _is_look(self, index: int) -> bool:
        exchange = self._exchanges[index]
        return is_look(exchange.method, exchange.path, exchange.query)


def _lines(
    chunks: Sequence[tuple[float, bytes]],
) -> Iterator[tuple[float, bytes, list[tuple[float, int]], bool]]:
    """Lines as they came: when the end did, the bytes, where and when they were cut, and if the start was no edge.

    What has no newline at the end comes last, as it is.
    """
    line, joined = b"", False
    cuts: list[tuple[float, int]] = []
    for at, data in chunks:
        *whole, rest = data.split(b"\n")
        for number, part in enumerate(whole):
            yield at, line + part + b"\n", cuts, joined
            line, cuts, joined = b"", [], number < len(whole) - 1 or bool(rest)
        line += rest
        if rest:
            cuts = [*cuts, (at, len(line))]
        else:
            joined = False
    if line:
        yield chunks[-1][0], line, [], joined


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
