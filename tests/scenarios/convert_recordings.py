"""Convert raw recordings of a server to the cassettes in fixtures/.

Run it from the root of the repository, with the directories of the recordings and of the cassettes::

    python -m tests.scenarios.convert_recordings RECORDINGS fixtures/

The requests in a raw recording differ from those of this library: requests that this library does not send are
dropped, and the bodies and queries of the others are built by this library for the scenario in `table.SCENARIOS`.
Responses are not changed. The `notes` of a scenario list parts that are written by hand or come from another
recording. A recording that is a cassette of this library (`CONTINUATIONS`) keeps its requests.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from gke_sandbox import __version__
from gke_sandbox._wire.frames import encode
from gke_sandbox._wire.manifests import CONTAINER, Manifests, build, build_waiting
from gke_sandbox._wire.payload import Payload
from gke_sandbox._wire.program import Program
from gke_sandbox.cassette import Cassette, load, save
from gke_sandbox.cassette.model import Chunk, Exchange, Header
from gke_sandbox.cassette.normalize import event_line, normalize, parse_json, request_of
from gke_sandbox.settings import SESSION_LABEL, Settings

from .attached import attached
from .readme import write_table
from .table import IDLE_TIMEOUT, SCENARIOS, Run, Scenario

__all__ = ["CONTINUATIONS", "CONVERSIONS", "convert", "main"]

# The requests that this library sends in every run; others are dropped from a recording.
_SENT = (
    "create jobs",
    "create configmaps",
    "list pods",
    "watch pods",
    "get pods/log",
    "get pods/attach",
    "send pods/attach",
    "delete jobs",
)
_SESSION = "0b5e55ed"
_DATE = "2026-11-22"


class Recordings:
    """The raw recordings in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def version(self, name: str) -> str:
        return str(self._load(name)["server"]["gitVersion"])

    def exchanges(self, name: str) -> list[Exchange]:
        """Return the exchanges; the first request is sent at 0 s."""
        recorded = self._load(name)["exchanges"]
        started_at = recorded[0]["at_ms"]
        return [_exchange(each, started_at) for each in recorded]

    def attach(self, name: str) -> dict[str, Any]:
        """Return the first attach of a recording of attached clients."""
        found: dict[str, Any] = next(each for each in self._load(name)["exchanges"] if "frames" in each)
        return found

    def _load(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._directory / f"{name}.json").read_text())
        return found


def _exchange(recorded: dict[str, Any], started_at: int) -> Exchange:
    request, response = recorded["request"], recorded["response"]
    at = (recorded["at_ms"] - started_at) / 1000
    body = request.get("body")
    exchange = Exchange(
        at=at,
        method=request["method"],
        path=request["path"],
        query=dict(request["query"]),
        body=b"" if body is None else json.dumps(body).encode(),
        status=response["status"],
        headers=list(response.get("headers", {}).items()),
    )
    if "chunks" in response:
        # The time of the headers was not recorded.
        exchange.responded_at = at
        exchange.chunks = [((each["at_ms"] - started_at) / 1000, _bytes(each)) for each in response["chunks"]]
        exchange.ended_by = response["ended_by"]
        if exchange.ended_by == "server":
            exchange.ended_at = exchange.chunks[-1][0]
        return exchange
    # In milliseconds: a request sent in the same millisecond as the response was sent after it.
    exchange.responded_at = exchange.ended_at = (recorded["at_ms"] - started_at + response["took_ms"]) / 1000
    body = response["body"]
    exchange.chunks = [(exchange.responded_at, body.encode() if isinstance(body, str) else _json(body))]
    exchange.ended_by = "server"
    return exchange


def _bytes(chunk: dict[str, Any]) -> bytes:
    return base64.b64decode(chunk["base64"]) if "base64" in chunk else str(chunk["text"]).encode()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _kind(exchange: Exchange) -> str:
    """``create jobs``."""
    request = request_of(exchange)
    return f"{request.verb} {request.resource}"


# -- requests of this library ------------------------------------------------------------------------------------


def _with_new_requests(exchanges: Sequence[Exchange], scenario: Scenario) -> list[Exchange]:
    session = _session(exchanges)
    made = _manifests(exchanges, scenario, session)
    return [_with_new_request(each, made, session) for each in exchanges]


def _session(exchanges: Sequence[Exchange]) -> str:
    for exchange in exchanges:
        label, _, value = exchange.query.get("labelSelector", "").partition("=")
        if label == SESSION_LABEL:
            return value
    return _SESSION


def _manifests(exchanges: Sequence[Exchange], scenario: Scenario, session: str) -> dict[str, Manifests]:
    """Return the manifests of this library, by the name of the recorded Job."""
    settings = Settings().override(**scenario.all_settings)
    names = {_name(each): None for each in exchanges if _kind(each) == "create jobs"}
    made = {}
    for name in names:
        if scenario.warm:
            made[name] = build_waiting(settings, name=name, session=session, idle_timeout=IDLE_TIMEOUT)
            continue
        run = scenario.runs[0] if len(scenario.runs) == 1 else _run_of(name, exchanges, scenario)
        program = Program(code=run.code, files=dict(run.files))
        made[name] = build(settings, program, name=name, session=session)
    return made


def _run_of(job: str, exchanges: Sequence[Exchange], scenario: Scenario) -> Run:
    (config_map,) = (each for each in exchanges if _kind(each) == "create configmaps" and _name(each) == job)
    code = parse_json(config_map.body)["data"]["code_0"]
    (run,) = (run for run in scenario.runs if run.code == code)
    return run


def _name(exchange: Exchange) -> str:
    return str(parse_json(exchange.body)["metadata"]["name"])


def _with_new_request(exchange: Exchange, made: dict[str, Manifests], session: str) -> Exchange:
    selector = {"labelSelector": f"{SESSION_LABEL}={session}"}
    kind = _kind(exchange)
    if kind == "create jobs":
        return replace(exchange, query={"fieldValidation": "Strict"}, body=_json(made[_name(exchange)].job))
    if kind == "create configmaps":
        owner = parse_json(exchange.body)["metadata"]["ownerReferences"][0]["uid"]
        body = made[_name(exchange)].config_map(owner)
        return replace(exchange, query={"fieldValidation": "Strict"}, body=_json(body))
    if kind == "list pods":
        return replace(exchange, query=selector)
    if kind == "watch pods":
        query = {
            "watch": "true",
            **selector,
            "resourceVersion": exchange.query["resourceVersion"],
            "allowWatchBookmarks": "true",
            "timeoutSeconds": "300",
        }
        return replace(exchange, query=query)
    if kind == "list events":
        return replace(exchange, query={"fieldSelector": exchange.query["fieldSelector"], "limit": "100"})
    if kind == "get pods/log":
        return replace(exchange, query={"container": CONTAINER, "follow": "true"})
    if kind == "send pods/attach":
        return replace(exchange, body=exchange.body or made[request_of(exchange).name.rpartition("-")[0]].request)
    if kind == "delete jobs":
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        return replace(exchange, query={}, body=_json(options))
    return exchange


# -- changes to recordings ------------------------------------------------------------------------------------

Edit = Callable[[list[Exchange], Recordings], list[Exchange]]


def _find(exchanges: Sequence[Exchange], kind: str, number: int = 0) -> Exchange:
    return [each for each in exchanges if _kind(each) == kind][number]


def _job(exchanges: Sequence[Exchange]) -> str:
    return _name(_find(exchanges, "create jobs"))


def _pod(exchanges: Sequence[Exchange]) -> str:
    event = json.loads(b"".join(data for _, data in _find(exchanges, "watch pods").chunks).partition(b"\n")[0])
    return str(event["object"]["metadata"]["name"])


def _at(exchange: Exchange, at: float, **changes: Any) -> Exchange:
    """Return the exchange with another time of the request; the response is moved by the same amount."""
    assert exchange.responded_at is not None
    responded_at = at + exchange.responded_at - exchange.at
    chunks = [(responded_at, data) for _, data in exchange.chunks]
    times = {"at": at, "responded_at": responded_at, "ended_at": responded_at}
    return replace(exchange, **{**times, "chunks": chunks, **changes})


def _renamed(exchange: Exchange, before: str, after: str) -> Exchange:
    """Return the exchange with another object name."""
    old, new = before.encode(), after.encode()
    chunks = [(at, data.replace(old, new)) for at, data in exchange.chunks]
    return replace(exchange, chunks=chunks, path=exchange.path.replace(before, after))


def _with_response_of(exchange: Exchange, other: Exchange) -> Exchange:
    """Return the request of `exchange` with the response of `other`."""
    at = exchange.at + 0.003
    chunks = [(at, data) for _, data in other.chunks]
    return replace(
        exchange, status=other.status, headers=other.headers, responded_at=at, ended_at=at, chunks=chunks
    )


def _base(recordings: Recordings) -> list[Exchange]:
    """Return a successful execution, for scenarios that differ from it in one step."""
    return recordings.exchanges("execution-success")


def _evicted(exchanges: list[Exchange], recordings: Recordings) -> list[Exchange]:
    running, ended = 1.020, 53.930
    start = encode("start", b'{"protocol": 1, "python": "3.11.2"}')
    printed = encode("out", b"filling\n")
    unfollowed = _find(exchanges, "get pods/log")
    log = replace(
        unfollowed,
        at=running,
        query={"follow": "true"},
        responded_at=running,
        status=200,
        headers=[("content-type", "text/plain")],
        chunks=[(running + 0.1, start), (running + 0.2, printed)],
        ended_at=ended,
    )
    return [log if each is unfollowed else each for each in exchanges]


def _hardened(exchanges: list[Exchange], recordings: Recordings) -> list[Exchange]:
    """The server returned the recorder's Job; this library fails at once if it gets less than it sent."""
    post = _find(exchanges, "create jobs")
    ((at, data),) = post.chunks
    job = json.loads(data)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["securityContext"].update(capabilities={"drop": ["ALL"]}, allowPrivilegeEscalation=False)
    return [replace(each, chunks=[(at, _json(job))]) if each is post else each for each in exchanges]


def _stops_the_runner(exchanges: list[Exchange], recordings: Recordings) -> list[Exchange]:
    """The recorder deleted the Job before it saw the container's exit; this library waits for it."""
    watch, delete = _find(exchanges, "watch pods"), _find(exchanges, "delete jobs")
    lines = b"".join(data for _, data in watch.chunks).splitlines()
    ended = next(
        event["object"] for event in map(json.loads, lines) if event["object"]["status"]["phase"] == "Failed"
    )
    del ended["metadata"]["deletionTimestamp"], ended["metadata"]["deletionGracePeriodSeconds"]
    ended["status"]["phase"] = "Running"
    exited = (delete.at - 0.005, event_line("MODIFIED", ended))
    number = next(number for number, (at, _) in enumerate(watch.chunks) if at > delete.at)
    chunks = [*watch.chunks[:number], exited, *watch.chunks[number:]]
    return [replace(each, chunks=chunks) if each is watch else each for each in exchanges]


def _forges_frames(exchanges: list[Exchange], recordings: Recordings) -> list[Exchange]:
    """The recorder stopped at the forged exit frame."""
    log = _find(exchanges, "get pods/log")
    last = log.chunks[-1][0]
    fields = {"code": 0, "signal": None, "timed_out": False, "seconds": 0.1, "dropped": {"out": 0, "err": 0}}
    added = [
        (last + 0.001, encode("out", b"done\n")),
        (last + 0.004, encode("exit", json.dumps(fields).encode())),
    ]
    delete = _find(exchanges, "delete jobs")
    later = _at(delete, delete.at + 0.005)
    changed = {id(log): replace(log, chunks=[*log.chunks, *added]), id(delete): later}
    return [changed.get(id(each), each) for each in exchanges]


def _hangs_up(exchanges: list[Exchange], recordings: Recordings) -> list[Exchange]:
    """A run that is cancelled does not read its log to the end."""
    log = _find(exchanges, "get pods/log")
    return [replace(each, ended_by="client", ended_at=None) if each is log else each for each in exchanges]


def _already_exists(exchanges: list[Exchange], recordings: Recordings) -> list[Exchange]:
    refused = next(each for each in exchanges if each.status == 409)
    base = _base(recordings)
    post = _find(base, "create jobs")
    job = _job(base)
    lost = replace(post, status=None, responded_at=None, chunks=[], ended_by="ReadError", ended_at=post.at + 0.001)
    again = _renamed(_with_response_of(replace(post, at=post.at + 0.001), refused), _name(refused), job)
    read = replace(
        post, method="GET", path=f"{post.path}/{job}", query={}, body=b"", at=post.at + 0.005, status=200
    )
    number = base.index(post)
    return [*base[:number], lost, again, read, *base[number + 1 :]]


def _log_errors(exchanges: list[Exchange], recordings: Recordings) -> list[Exchange]:
    early = next(each for each in exchanges if each.status == 400)
    base = _base(recordings)
    log = _find(base, "get pods/log")
    refused = _with_response_of(replace(log, ended_by="server"), early)
    refused = _renamed(refused, request_of(early).name, _pod(base))
    later = log.at + 0.005
    number = base.index(log)
    return [*base[:number], refused, replace(log, at=later, responded_at=later), *base[number + 1 :]]


def _invalid_job(exchanges: list[Exchange], recordings: Recordings) -> list[Exchange]:
    refused = next(each for each in exchanges if each.status == 422)
    base = _base(recordings)
    post = _find(base, "create jobs")
    watch = replace(_find(base, "watch pods"), chunks=[])
    return [
        _find(base, "list pods"),
        watch,
        _renamed(_with_response_of(post, refused), _name(refused), _job(base)),
    ]


def _config_map_too_large(exchanges: list[Exchange], recordings: Recordings) -> list[Exchange]:
    refused = next(each for each in exchanges if each.status == 422)
    base = _base(recordings)
    post, delete, watch = (_find(base, kind) for kind in ("create configmaps", "delete jobs", "watch pods"))
    waiting = [(at, data) for at, data in watch.chunks if at < post.at + 0.01]
    return [
        _find(base, "list pods"),
        replace(watch, chunks=waiting),
        _find(base, "create jobs"),
        _renamed(_with_response_of(post, refused), "gke-sandbox-big", _job(base)),
        _at(delete, post.at + 0.012),
    ]


def _forbidden(exchanges: list[Exchange], recordings: Recordings) -> list[Exchange]:
    watch = _find(exchanges, "watch pods")
    listed = replace(_renamed(watch, "cannot watch", "cannot list"), query={}, at=0.0)
    return [listed, _find(exchanges, "create jobs")]


def _attach_in(base: str, recording: str, *, killed: bool = False) -> Edit:
    """The execution `base`, whose client attaches to its pod as in `recording`."""

    def edit(_: list[Exchange], recordings: Recordings) -> list[Exchange]:
        exchanges = recordings.exchanges(base)
        log = _find(exchanges, "get pods/log")
        path = f"{log.path.rpartition('/')[0]}/attach"
        attach, request = attached(recordings.attach(recording), log.at, path, killed=killed)
        found = [each for each in exchanges if _kind(each) not in ("create configmaps", "get pods/log")]
        if killed:
            # Without an exit frame, the client continues with the log, which has ended too.
            assert attach.ended_at is not None
            at = attach.ended_at + 0.002
            data = b"".join(data for _, data in log.chunks)
            read = replace(log, at=at, responded_at=at, chunks=[(at + 0.003, data)], ended_at=at + 0.004)
            found.append(read)
        return [_waiting(each) for each in [*found, attach, request]]

    return edit


def _warm(_: list[Exchange], recordings: Recordings) -> list[Exchange]:
    """The two executions on one watch, whose pods wait for programs."""
    exchanges = recordings.exchanges("two-executions-one-watch")
    found = [each for each in exchanges if _kind(each) not in ("create configmaps", "get pods/log")]
    settings = Settings().override(**SCENARIOS["attach-warm"].all_settings)
    for log, run in zip(
        [each for each in exchanges if _kind(each) == "get pods/log"], SCENARIOS["attach-warm"].runs, strict=True
    ):
        path, prints = f"{log.path.rpartition('/')[0]}/attach", str(run.expected.stdout)
        # This recorder was attached for 95 s before it sent the program.
        attach, request = attached(recordings.attach("attach-idle"), log.at, path, prints=prints)
        program = Program(code=run.code, files=dict(run.files))
        request.body = Payload(program, settings).attach_request(settings.env)
        found += [attach, request]
        delete = next(
            each for each in found if _kind(each) == "delete jobs" and each.path.rpartition("/")[2] in log.path
        )
        found[found.index(delete)] = _at(delete, attach.messages[-1].at + 0.001)
    delay = min(each.at for each in found if _kind(each) == "delete jobs") - min(
        each.at for each in exchanges if _kind(each) == "delete jobs"
    )
    # The pods change after their deletion as they did without the wait.
    ready = max(each.at for each in found if _kind(each) == "get pods/attach")
    watch = _find(found, "watch pods")
    chunks = [(at if at <= ready else at + delay, data) for at, data in watch.chunks]
    found[found.index(watch)] = replace(watch, chunks=chunks)
    return [_waiting(each) for each in found]


def _waiting(exchange: Exchange) -> Exchange:
    """The server returned the recorder's Job; the one of an attach waits on stdin."""
    if _kind(exchange) != "create jobs":
        return exchange
    ((at, data),) = exchange.chunks
    job = json.loads(data)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container.update(stdin=True, stdinOnce=True)
    return replace(exchange, chunks=[(at, _json(job))])


@dataclass(frozen=True)
class Conversion:
    """The conversion of a recording to a cassette.

    `notes` describe the changes other than those of requests, if there are any. `left_out` are usual requests that
    this library does not send in this scenario; `also` are other requests that it sends, with the recorded
    query, as in ``also=("list events", "get jobs")``.
    """

    notes: str = ""
    edit: Edit = lambda exchanges, _: exchanges
    left_out: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


_IMAGE = "The request names an image without Python; the recorder used a command that is missing in its image."
_ATTACHED = (
    "the handshake and the times of the messages are those of the recording of an attached client, of 2026-11-27. "
    "By hand: the frames in the messages, because the recorder had another runner, and stdin in the Job."
)
_ONE_STEP = "Combined: the execution is that of execution-success;"

CONVERSIONS: dict[str, Conversion] = {
    **{
        name: Conversion(
            f"Combined: the Job and its pod are those of {base}, {_ATTACHED}",
            edit=_attach_in(base, name, killed=killed),
        )
        for name, base, killed in (
            ("attach-success", "execution-success", False),
            ("attach-streaming", "execution-streaming", False),
            ("attach-out-of-memory", "execution-out-of-memory", True),
        )
    },
    "attach-warm": Conversion(
        "Combined: the Jobs and their pods are those of two-executions-one-watch, later by the time in which they "
        f"waited; {_ATTACHED} The pods that took their place were not recorded.",
        edit=_warm,
    ),
    "already-exists": Conversion(
        f"{_ONE_STEP} the response to its first POST is lost (by hand), the second has the recorded one (409), "
        "and the response to the GET of the Job is that of the POST.",
        edit=_already_exists,
        also=("get jobs",),
    ),
    "configmap-too-large": Conversion(
        f"{_ONE_STEP} the response to the POST of the ConfigMap is the recorded one (422), although the program "
        "is not too large.",
        edit=_config_map_too_large,
    ),
    "deadline-exceeded": Conversion(
        "The recorded Job had a deadline of 3 s; a Job of this library has a longer one.", also=("get jobs",)
    ),
    "evicted": Conversion("The followed log is written by hand: the recorder did not request it.", edit=_evicted),
    "execution-bytes": Conversion(),
    "execution-exit-3": Conversion(),
    "execution-files": Conversion(),
    "execution-mounted": Conversion(),
    "execution-out-of-memory": Conversion(),
    "execution-output-capped": Conversion(),
    "execution-runs-to-log-end": Conversion(),
    "execution-signal": Conversion(),
    "execution-streaming": Conversion(),
    "execution-success": Conversion(),
    "execution-time-limit": Conversion(),
    "execution-traceback": Conversion(),
    "forbidden": Conversion(
        "By hand: the recorder watched the pods without a list; its 403 is changed to list.", edit=_forbidden
    ),
    "image-pull-backoff": Conversion(),
    "invalid-job": Conversion(
        "Combined: list and watch are those of execution-success; the response to the POST of the Job is the "
        "recorded one (422), although the Job is valid.",
        edit=_invalid_job,
    ),
    "job-deleted-by-client": Conversion(
        "By hand: the client closes the log before it deletes the Job; the recorder read it to the end.",
        edit=_hangs_up,
    ),
    "late-configmap": Conversion(),
    "log-errors": Conversion(
        f"{_ONE_STEP} the first response for its log is the recorded one (400), of a waiting container.",
        edit=_log_errors,
    ),
    "namespace-missing": Conversion(),
    "pod-security-violation": Conversion(
        "The recorded Job violated the standard as reported by the server; a Job of this library does not. By "
        "hand: the Job in the response does not either.",
        also=("list events",),
        edit=_hardened,
    ),
    "program-forges-frames": Conversion(
        "By hand: the log continues after the forged frames. The recorder stopped at one of them.",
        edit=_forges_frames,
    ),
    "program-stops-the-runner": Conversion(
        "By hand: the pod reports the exit of its container before the Job is deleted. The recorder deleted it "
        "earlier.",
        edit=_stops_the_runner,
    ),
    "python-missing": Conversion(_IMAGE, left_out=("get pods/log",)),
    "quota-exceeded": Conversion(also=("list events",)),
    "runtime-class-missing": Conversion(also=("list events",)),
    "two-executions-one-watch": Conversion(),
    "unauthorized": Conversion(),
    "unschedulable": Conversion(also=("list events",)),
}


def _reads_on(cassette: Cassette) -> Cassette:
    """The recording version failed at the 404; here the log is read again from its start to its end."""
    (first, refused) = (step for step in cassette.steps if step.path.endswith("/log"))
    before = b"".join(chunk.data for chunk in first.response.chunks or ())
    at = refused.at + 1000
    chunks = [Chunk(at + 10, before)]
    for number in range(before.count(b"\x1eout "), 24):
        # As recorded: one line every 501 ms; lines printed before `at` are available at once.
        printed = 396 + 501 * number
        chunks.append(Chunk(max(printed, at + 10), encode("out", f"{number}\n".encode())))
    fields = {"code": 0, "signal": None, "timed_out": False, "seconds": 12.02, "dropped": {"out": 0, "err": 0}}
    end = chunks[-1].at + 510
    chunks.append(Chunk(end, encode("exit", json.dumps(fields).encode())))
    response = replace(first.response, at=at + 5, chunks=tuple(chunks), ended_by="client", ended_at=end + 5)
    again = replace(refused, name="get-pods-log-1-again-3", at=at, response=response)
    delete = cassette.steps[-1]
    deleted = replace(delete, at=end + 2, response=replace(delete.response, at=end + 6))
    steps = [*(step for step in cassette.steps[:-1] if step.name != "list-pods-1-again-2"), again, deleted]
    watch = next(step for step in steps if step.name == "watch-pods")
    longer = replace(watch, response=replace(watch.response, ended_at=end + 6))
    return replace(cassette, steps=tuple(longer if step is watch else step for step in steps))


CONTINUATIONS: dict[str, tuple[str, Callable[[Cassette], Cassette]]] = {
    "kubelet-restart": (
        "Recorded by this library on a real server; the kubelet was stopped at 5.8 s for 2.5 s. By hand: the "
        "steps after the 404, at which the recording version failed. Here the log is read again, to its end.",
        _reads_on,
    ),
}
"""Recordings that are already cassettes of this library: the notes of each, and the function that completes it."""


def continued(name: str, source: Path) -> Cassette:
    """Return the cassette of one scenario whose recording is a cassette."""
    cassette = load(source / f"{name}.yaml")
    notes, edit = CONTINUATIONS[name]
    return edit(replace(cassette, header=replace(cassette.header, scenario=name, notes=notes)))


def convert(name: str, recordings: Recordings) -> Cassette:
    """Return the cassette of one scenario."""
    conversion, scenario = CONVERSIONS[name], SCENARIOS[name]
    exchanges = conversion.edit([] if name.startswith("attach-") else recordings.exchanges(name), recordings)
    sent = {*_SENT, *conversion.also} - {*conversion.left_out}
    exchanges = [each for each in exchanges if _kind(each) in sent and not _unfollowed(each)]
    exchanges.sort(key=lambda each: each.at)
    header = Header(
        scenario=name,
        namespace=request_of(exchanges[0]).namespace,
        recorded_at=_DATE,
        recorded_with=f"a recorder of raw responses, converted by gke-sandbox {__version__}",
        server=recordings.version("attach-success" if name.startswith("attach-") else name),
        notes=f"Responses of a real server, requests of this library. {conversion.notes}".strip(),
    )
    return normalize(_with_new_requests(exchanges, scenario), header, _start_time(exchanges), f"{name}.yaml")


def _unfollowed(exchange: Exchange) -> bool:
    """Return whether the request reads a log without following it, which this library never does."""
    return _kind(exchange) == "get pods/log" and "follow" not in exchange.query


def _start_time(exchanges: Sequence[Exchange]) -> datetime:
    """Return the time at which the recording started, from timestamps of its objects."""
    for exchange in exchanges:
        body = parse_json(b"".join(data for _, data in exchange.chunks)) or {}
        created = body.get("metadata", {}).get("creationTimestamp")
        if created:
            moment = datetime.strptime(created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
            return moment - timedelta(seconds=int(exchange.at))
    return datetime.strptime(_DATE, "%Y-%m-%d").replace(tzinfo=timezone.utc)


def main(arguments: Sequence[str]) -> None:
    source, target = map(Path, arguments)
    recordings = Recordings(source)
    for name in CONVERSIONS:
        save(convert(name, recordings), target / f"{name}.yaml")
    for name in CONTINUATIONS:
        save(continued(name, source), target / f"{name}.yaml")
    write_table(target)


if __name__ == "__main__":
    main(sys.argv[1:])
