"""What a cassette holds: a header, and steps; each step a request and what came back. Pure.

`Exchange` is the raw form, as a recorder sees it; `Step` is what is written, with placeholders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ..settings import SESSION_LABEL
from .placeholders import jobs_in

__all__ = [
    "FORMAT",
    "Answer",
    "Cassette",
    "Chunk",
    "Exchange",
    "Header",
    "Step",
    "about",
    "follows",
    "is_look",
    "is_watch",
    "job_of",
    "metadata_of",
    "query_text",
]

_JOB_LABELS = ("batch.kubernetes.io/job-name", "job-name")

FORMAT = 1
"""The version of the format that this release writes, and the newest that it reads."""


@dataclass
class Exchange:
    """One request as it was sent, and all that came back. Times are seconds since the recording began."""

    at: float
    method: str
    path: str
    query: dict[str, str]
    body: bytes = b""
    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    answered: float | None = None
    """When the headers came."""
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    ended: float | None = None
    ends: str = "client"
    """Who ended it: ``client``, ``server``, or the name of httpx's exception."""
    renewed: bool = False
    """Whether the same request was sent once more, with other credentials: its 401 is no answer to anybody."""

    @property
    def streamed(self) -> bool:
        """Whether its answer goes on for as long as there is something to tell, and is not whole before."""
        follow = self.query.get("follow") in ("true", "1")
        return (follow or is_watch(self.query)) and self.status == 200


@dataclass(frozen=True)
class Header:
    """What the cassette is of."""

    scenario: str = ""
    namespace: str | None = None
    """The namespace that the recorded client worked in, if it did in one."""
    recorded_at: str = ""
    recorded_with: str = ""
    server: str | None = None
    """The server's version, None if it would not tell."""
    notes: str = ""
    """What a reader should know: where it came from, what was fused or written by hand."""


@dataclass(frozen=True)
class Chunk:
    """One piece of a stream: bytes as they came (of a log), or one event of a watch.

    An event's line may have come in several chunks: `cuts` says at which of its bytes and when it was cut. With
    `joined` it came in one chunk with what is before it. `after` names the requests that it follows, one for each
    Job that it is about: that one and all those before it of the same Job.
    """

    at: int
    data: bytes = b""
    event: Mapping[str, Any] | None = None
    after: tuple[str, ...] = ()
    cuts: tuple[tuple[int, int], ...] = ()
    joined: bool = False
    line: int = 0


@dataclass(frozen=True)
class Answer:
    """What came back. `status` None: nothing did; `ends` then says what happened instead.

    Times are milliseconds since the recording began. One of `json`, `data` and `chunks` is the body.
    """

    at: int
    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    data: bytes | None = None
    chunks: tuple[Chunk, ...] | None = None
    ends: str = "server"
    ended_at: int | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One request and its answer. `of` is the placeholder of the Job that it is about, empty for none."""

    name: str
    at: int
    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    answer: Answer
    of: str = ""
    line: int = 0

    @property
    def look(self) -> bool:
        """Whether it is a look: see `is_look`."""
        return is_look(self.method, self.path, self.query)

    @property
    def follows(self) -> bool:
        """Whether it follows a Sandbox's pods: see `follows`."""
        return follows(self.method, self.path, self.query)

    def __str__(self) -> str:
        return f"{self.method} {self.path}{query_text(self.query)}"


@dataclass(frozen=True)
class Cassette:
    """A recording. `source` names the file in messages."""

    header: Header
    steps: tuple[Step, ...]
    source: str = "the cassette"

    def where(self, step: Step, line: int = 0) -> str:
        """The place of a step, for a message: file, line, step."""
        number = line or step.line
        return f"{self.source}{f', line {number}' if number else ''}, step {step.name}"


def is_look(method: str, path: str, query: Mapping[str, str]) -> bool:
    """Whether a request only looks what has become of one sandbox, as a client does that waits.

    How often it looks is a matter of time, and a replay has another time: a look may be left out or repeated, and
    nothing follows it.
    """
    of_job = path.endswith("/pods") and _selected(query) == "batch.kubernetes.io/job-name"
    return method == "GET" and not is_watch(query) and (path.endswith("/events") or of_job)


def follows(method: str, path: str, query: Mapping[str, str]) -> bool:
    """Whether a request is the list or the watch by which a Sandbox follows all of its pods: see `news`."""
    return method == "GET" and path.endswith("/pods") and _selected(query) == SESSION_LABEL


def is_watch(query: Mapping[str, str]) -> bool:
    """Whether a request with this query is a watch."""
    return query.get("watch") in ("true", "1")


def _selected(query: Mapping[str, str]) -> str:
    return query.get("labelSelector", "").partition("=")[0]


def metadata_of(body: Any) -> Mapping[str, Any]:
    """The metadata of an object; nothing if it has none, or is none."""
    metadata = body.get("metadata") if isinstance(body, Mapping) else None
    return metadata if isinstance(metadata, Mapping) else {}


def job_of(path: str, query: Mapping[str, str], body: Any) -> str:
    """The placeholder of the Job that a request is about; empty for none.

    An object is about the Job whose name it has, whatever other names its program knows.
    """
    return next(iter([*jobs_in(metadata_of(body).get("name")), *jobs_in([path, *query.values(), body])]), "")


def query_text(query: Mapping[str, str]) -> str:
    """A query as it stands in an address, as far as a reader is concerned."""
    pairs = (f"{_quoted(name)}={_quoted(value)}" for name, value in query.items())
    return "?" + "&".join(pairs) if query else ""


def _quoted(text: str) -> str:
    return quote(text, safe="/=<>,:;!()[]@$'* ")


def about(value: Any) -> list[str]:
    """The placeholders of the Jobs that an answer or an event is about.

    A pod is about the Job whose label it has, whatever other names its program knows.
    """
    if isinstance(value, Mapping):
        labels = metadata_of(value).get("labels")
        named = jobs_in([labels.get(name) for name in _JOB_LABELS]) if isinstance(labels, Mapping) else []
        if named:
            return named
        items = value.get("items")
        if isinstance(items, list):
            return list(dict.fromkeys(job for item in items for job in about(item)))
    return jobs_in(value)
