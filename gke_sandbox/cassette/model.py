"""The content of a cassette: a header and steps, each a request and its response. Pure.

`Exchange` is the raw form that a recorder sees; `Step` is the form that is written, with placeholders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from ..settings import SESSION_LABEL
from .placeholders import jobs_in

__all__ = [
    "ENDED_BY",
    "ERRORS",
    "FORMAT",
    "ONE_THREAD_HINT",
    "SEND",
    "AttachMessage",
    "Cassette",
    "Chunk",
    "Exchange",
    "Header",
    "RecordedResponse",
    "Request",
    "Step",
    "job_of",
    "jobs_of",
    "metadata_of",
]

_JOB_LABELS = ("batch.kubernetes.io/job-name", "job-name")

FORMAT = 1
"""The version of the format that this release writes, and the newest that it reads."""

ERRORS: dict[str, type[httpx.TransportError]] = {
    kind.__name__: kind
    for kind in (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.PoolTimeout,
        httpx.ProxyError,
        httpx.ReadError,
        httpx.ReadTimeout,
        httpx.RemoteProtocolError,
        httpx.LocalProtocolError,
        httpx.WriteError,
        httpx.WriteTimeout,
    )
}
"""The errors that are recorded by name and raised again."""

ENDED_BY = ("server", "client", *ERRORS)
"""All values of `RecordedResponse.ended_by`."""


ONE_THREAD_HINT = "Give each Sandbox that runs at the same time its own cassette."
"""The hint if Sandboxes in several threads share a cassette."""

SEND = "SEND"
"""The method of what a client writes to a container's stdin: it is recorded like a request without a response.

Its path is that of the attach, and its query is empty, or ``close=stdin``.
"""


class Request:
    """The method, path and query of a request, recorded or of a replay, and its purpose."""

    method: str
    path: str
    query: Mapping[str, str]

    @property
    def is_watch(self) -> bool:
        """Whether it is a watch."""
        return self.query.get("watch") in ("true", "1")

    @property
    def is_status_poll(self) -> bool:
        """Whether it polls the state of a single sandbox.

        How often a client polls depends on time, and a replay has other times: such a request may be left out or
        repeated, and no event follows it.
        """
        of_job = self._lists_pods_by("batch.kubernetes.io/job-name")
        return self.method == "GET" and not self.is_watch and (self.path.endswith("/events") or of_job)

    @property
    def is_pod_list_watch(self) -> bool:
        """Whether it lists or watches all pods of a Sandbox: see `timeline`."""
        return self.method == "GET" and self._lists_pods_by(SESSION_LABEL)

    def _lists_pods_by(self, label: str) -> bool:
        return self.path.endswith("/pods") and self.query.get("labelSelector", "").partition("=")[0] == label

    def __str__(self) -> str:
        # Escaped no more than a reader needs.
        parts = ([quote(each, safe="/=<>,:;!()[]@$'* ") for each in pair] for pair in self.query.items())
        query = "&".join("=".join(pair) for pair in parts)
        return f"{self.method} {self.path}{'?' if query else ''}{query}"


@dataclass(frozen=True)
class AttachMessage:
    """A message of the server to an attached client.

    `channel` is ``stdout``, ``stderr``, ``status`` or a number, ``text`` for a text message, and empty for bytes
    that are not a message. `close` is the code of a close frame, and `data` its reason. `sent` is what the client
    had last written to stdin: the times may be equal.
    """

    at: float
    channel: str
    data: bytes
    close: int | None = None
    sent: Exchange | None = None


@dataclass(eq=False)
class Exchange(Request):
    """One request as it was sent, and its response. Times are seconds since the start of the recording."""

    at: float
    method: str
    path: str
    query: dict[str, str]
    body: bytes = b""
    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    responded_at: float | None = None
    """When the headers arrived."""
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    messages: list[AttachMessage] = field(default_factory=list)
    """The messages that an attached client received."""
    ended_at: float | None = None
    ended_by: str = "client"
    """``client``, ``server``, or the name of httpx's exception."""
    reauthenticated: bool = False
    """Whether the same request was sent again with new credentials: its 401 is not part of the recording."""

    @property
    def is_stream(self) -> bool:
        """Whether the response is a followed log or a watch, which arrives piece by piece."""
        follow = self.query.get("follow") in ("true", "1")
        return (follow or self.is_watch) and self.status == 200


@dataclass(frozen=True)
class Header:
    """Where a cassette comes from."""

    scenario: str = ""
    namespace: str | None = None
    """The namespace of all requests, None if there were several or none."""
    recorded_at: str = ""
    recorded_with: str = ""
    server: str | None = None
    """The server's version, None if it did not return one."""
    notes: str = ""
    """Remarks for the reader, such as what was edited by hand."""


@dataclass(frozen=True)
class Chunk:
    """One piece of a stream: bytes of a log, one event of a watch, or one message to an attached client.

    The line of an event may have arrived in several pieces: `split_at` has the milliseconds and the byte of each
    cut. A `coalesced` event arrived in one piece with the end of the event before it. `after` names the requests
    that must arrive before the chunk is sent, at most one for each Job that it is about; the earlier requests
    about the same Job must have arrived as well.
    """

    at: int
    data: bytes = b""
    event: Mapping[str, Any] | None = None
    after: tuple[str, ...] = ()
    split_at: tuple[tuple[int, int], ...] = ()
    coalesced: bool = False
    line: int = 0
    channel: str = ""
    """Of an attached client: see `AttachMessage`, also for `close`."""
    close: int | None = None


@dataclass(frozen=True)
class RecordedResponse:
    """The response to a request. Without a response, `status` is None and `ended_by` names the error.

    Times are milliseconds since the start of the recording. One of `json`, `data` and `chunks` is the body.
    """

    at: int
    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    data: bytes | None = None
    chunks: tuple[Chunk, ...] | None = None
    ended_by: str = "server"
    ended_at: int | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step(Request):
    """One request and its response. `job` is the placeholder of its Job, or empty."""

    name: str
    at: int
    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    response: RecordedResponse
    job: str = ""
    line: int = 0

    @property
    def sends_request(self) -> bool:
        """Whether the client writes the runner's request to a container's stdin."""
        return self.method == SEND and (self.body == "<any>" or isinstance(self.body, Mapping))


@dataclass(frozen=True)
class Cassette:
    """A recording. `source` names the file in messages."""

    header: Header
    steps: tuple[Step, ...]
    source: str = "the cassette"

    def where(self, step: Step, line: int = 0) -> str:
        """Return the place of a step for a message: file, line, step."""
        number = line or step.line
        return f"{self.source}{f', line {number}' if number else ''}, step {step.name}"


def metadata_of(body: Any) -> Mapping[str, Any]:
    """Return the metadata of an object; an empty mapping if it has none, or is not an object."""
    metadata = body.get("metadata") if isinstance(body, Mapping) else None
    return metadata if isinstance(metadata, Mapping) else {}


def job_of(path: str, query: Mapping[str, str], body: Any) -> str:
    """Return the placeholder of the Job that a request is about; empty for none.

    An object belongs to the Job in its name, even if its program contains the names of other Jobs.
    """
    named = jobs_in(metadata_of(body).get("name")) or jobs_in([path, *query.values(), body])
    return named[0] if named else ""


def jobs_of(value: Any) -> list[str]:
    """Return the placeholders of the Jobs that a response or an event is about.

    A pod belongs to the Job in its labels, even if its program contains the names of other Jobs.
    """
    if isinstance(value, Mapping):
        labels = metadata_of(value).get("labels")
        named = jobs_in([labels.get(name) for name in _JOB_LABELS]) if isinstance(labels, Mapping) else []
        if named:
            return named
        items = value.get("items")
        if isinstance(items, list):
            return list(dict.fromkeys(job for item in items for job in jobs_of(item)))
    return jobs_in(value)
