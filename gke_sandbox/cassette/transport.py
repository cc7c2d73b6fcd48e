"""The transport that replays a cassette: no network, and no waiting unless `Player.timing` is set."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import httpx

from .._fakes.body import Body, Timeouts, UpgradedBody
from ..kube.attach import accept_header
from .jobs import RecordedJob
from .matcher import ReplayRequest
from .model import ERRORS, Chunk, RecordedResponse, Step, jobs_of
from .normalize import event_line, json_bytes
from .player import OpenStream, Player
from .timeline import Failure, PodTimeline

if TYPE_CHECKING:
    from .replayed_attach import ReplayedConnection

__all__ = ["ReplayTransport"]

Jobs = Sequence["RecordedJob | str"]


class ReplayTransport(httpx.AsyncBaseTransport):
    """Sends the responses of a player's cassette. Several transports may share a player.

    A request that was not recorded raises `ReplayMismatch`, also from all responses that are still open. With
    `check`, leaving the transport raises it again, even if it was caught before; and, unless another error leaves
    the transport, for recorded requests that were not sent.

    Read timeouts do not apply to streams: the recorded server was silent for as long.
    """

    replays = True
    """See `KubeClient.replays`."""

    def __init__(self, player: Player, *, check: bool = True) -> None:
        self.player = player
        self._check = check
        self._bodies: dict[Body, _Stream] = {}
        self._connections: set[ReplayedConnection] = set()

    def starts_warm(self, digest: str) -> bool | None:
        """Return whether the next run of the program with this digest started in a warm pod. None if unknown."""
        return self.player.starts_warm(digest)

    async def __aenter__(self) -> ReplayTransport:
        self.player.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()
        self.player.leave()
        if self._check and exc_value is None:
            self.player.finish()
        elif self._check:
            # The error that leaves the block may be a consequence of this one.
            self.player.check()

    async def aclose(self) -> None:
        """End all streams."""
        for body in tuple(self._bodies):
            body.abort()
        for connection in tuple(self._connections):
            await connection.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the recorded response to a request."""
        player = self.player
        replayed = ReplayRequest(
            request.method,
            request.url.path,
            dict(request.url.params),
            await request.aread(),
            at=anyio.current_time(),
        )
        # Every response may be ready immediately: let the other tasks run.
        await anyio.lowlevel.checkpoint()
        if (replayed.method, replayed.path) == ("GET", "/version"):
            return self._version(request)
        if replayed.is_pod_list_watch:
            return await self._list_or_watch(replayed, request)
        step = player.take(replayed)
        with anyio.move_on_after(Timeouts.of(request).read) as limit:
            await self._until_due(step, replayed.at)
        if limit.cancelled_caught:
            player.expire(step)
            raise httpx.ReadTimeout("the requests that the response depends on were not sent", request=request)
        own: Jobs = [replayed.job] if replayed.job is not None else []
        jobs = [*own, *(job for job in player.jobs_of(step.response) if job != step.job)]
        if step.response.status == 101:
            return self._attached(step, jobs, request)
        if step.response.chunks is not None:
            stream = _RecordedStream(player, step, jobs)
            return self._streamed(stream, request, self._headers(step, jobs))
        return self._response(step, jobs, request)

    def _version(self, request: httpx.Request) -> httpx.Response:
        """Return the version in the header: recorders request it, and do not record that."""
        version = self.player.cassette.header.server
        if version is None:
            return httpx.Response(404, request=request)
        return httpx.Response(200, json={"gitVersion": version}, request=request)

    async def _until_due(self, step: Step, since: float) -> None:
        player, response = self.player, step.response
        while True:
            player.check()
            due = player.due(response, since, step.at)
            # The recorded client did not wait for the response.
            never = response.status is None and response.ended_by not in ERRORS
            if due is not None and due <= anyio.current_time() and not never:
                return
            await player.changed(step.job, None if never else due, response)

    async def _list_or_watch(self, replayed: ReplayRequest, request: httpx.Request) -> httpx.Response:
        player = self.player
        player.check()
        watch = replayed.is_watch
        timeline = player.open_timeline(replayed.query["labelSelector"])
        failure = timeline.failures.next("watch" if watch else "list")
        if failure is not None:
            timeline.failures.remove(failure)
            if player.timing:
                await anyio.sleep(failure.delay)
            return self._response(failure.step, [], request)
        if watch:
            return self._streamed(_Watch(player, timeline, replayed.query.get("resourceVersion")), request)
        return httpx.Response(200, json=player.snapshot(timeline), request=request)

    def _headers(self, step: Step, jobs: Jobs) -> dict[str, str]:
        headers = step.response.headers.items()
        rendered = {name: str(self.player.rendered(value, jobs, step)) for name, value in headers}
        return {"content-type": "application/json", **rendered}

    def _response(self, step: Step, jobs: Jobs, request: httpx.Request) -> httpx.Response:
        response = step.response
        if response.status is None:
            raise _error(response, request)
        if response.json is None:
            content = response.data or b""
        else:
            content = json_bytes(self.player.rendered(response.json, jobs, step))
        headers = self._headers(step, jobs)
        if response.ended_by in ERRORS:
            body = _BrokenBody(content, _error(response, request))
            return httpx.Response(response.status, headers=headers, stream=body, request=request)
        stream = httpx.ByteStream(content)
        return httpx.Response(response.status, headers=headers, stream=stream, request=request)

    def _attached(self, step: Step, jobs: Jobs, request: httpx.Request) -> httpx.Response:
        from .replayed_attach import ReplayedConnection  # wsproto is an optional dependency

        connection = ReplayedConnection(self.player, step, request.url.path, self._connections.discard)
        self._connections.add(connection)
        headers = {
            **self._headers(step, jobs),
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-accept": accept_header(request.headers.get("sec-websocket-key", "")),
        }
        del headers["content-type"]
        extensions = {"network_stream": connection}
        body = UpgradedBody(connection)
        return httpx.Response(101, headers=headers, stream=body, extensions=extensions, request=request)

    def _streamed(
        self, stream: _Stream, request: httpx.Request, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        body = Body(stream, None, request, self._closed)
        self._bodies[body] = stream
        return httpx.Response(200, headers=headers, stream=body, request=request)

    def _closed(self, body: Body) -> None:
        self._bodies.pop(body).close()


@dataclass
class _BrokenBody(httpx.AsyncByteStream):
    """A body that is cut off as it was recorded."""

    content: bytes
    error: httpx.TransportError

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.content
        raise self.error


class _Stream:
    """The source of a streamed body."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._opened_at = anyio.current_time()
        self._pieces: list[bytes] = []

    async def next(self) -> bytes | None:
        """Return the next piece; None at the end."""
        while not self._pieces:
            self._player.check()
            if not self._fill() and await self._ends():
                return None
        return self._pieces.pop(0)

    def _fill(self) -> bool:
        """Add the pieces that are due, and return whether there were any."""
        raise NotImplementedError

    async def _ends(self) -> bool:
        """Wait for a change or for the end of the stream, and return whether it is the end."""
        raise NotImplementedError

    def close(self) -> None:
        """The client has closed the stream."""

    def _add(self, chunk: Chunk, line: bytes) -> None:
        """Add an event, cut and joined as it was recorded."""
        edges = [0, *(min(place, len(line)) for _, place in chunk.split_at), len(line)]
        pieces = [line[start:end] for start, end in itertools.pairwise(edges) if end > start]
        if chunk.coalesced and self._pieces:
            self._pieces[-1] += pieces.pop(0)
        self._pieces += pieces


class _RecordedStream(_Stream, OpenStream):
    """One recorded stream, such as the log of a container."""

    def __init__(self, player: Player, step: Step, jobs: Jobs) -> None:
        _Stream.__init__(self, player)
        OpenStream.__init__(self, step)
        self._jobs = jobs
        self._is_log = all(chunk.event is None for chunk in self.left)
        if self._is_log:
            player.logs.setdefault(step.job, []).append(self)

    def close(self) -> None:
        if self._is_log:
            self._player.logs[self.step.job].remove(self)
            self._player.release(self.step.job)

    def _fill(self) -> bool:
        due, chunk = self._next()
        if chunk is None or due > anyio.current_time():
            return False
        self.left.remove(chunk)
        if chunk.event is None:
            self._pieces.append(chunk.data)
        else:
            jobs = [*self._jobs, *self._player.jobs_of(chunk), *jobs_of(chunk.event["object"])]
            self._add(chunk, _line(self._player, chunk, jobs, self.step))
        self._player.release(self.step.job)
        return True

    def _next(self) -> tuple[float, Chunk | None]:
        """Return the next chunk and when it is due. Events may overtake only events of other Jobs."""
        best, found = math.inf, None
        blocked: set[str] = set()
        for index, chunk in enumerate(self.left[:1] if self._is_log else self.left):
            jobs = set() if chunk.event is None else set(jobs_of(chunk.event["object"]))
            if not (jobs & blocked if jobs else index):
                due = self._player.due(chunk, self._opened_at, self.step.response.at)
                if due is not None and due < best:
                    best, found = due, chunk
            blocked |= jobs
        return best, found

    async def _ends(self) -> bool:
        player, response = self._player, self.step.response
        if self.left or response.ended_by == "client":
            if not self.left and not player.timing and player.matcher.is_repeated(self.step):
                # It opened the stream again after a silence: a replay does not wait for that.
                raise httpx.ReadError("the recorded client opened the stream again")
            await player.changed(self.step.job, self._next()[0], self.left[0] if self.left else None)
            return False
        if player.timing and response.ended_at is not None:
            await anyio.sleep_until(self._opened_at + (response.ended_at - response.at) / 1000)
        if response.ended_by in ERRORS:
            raise _error(response)
        return True


class _Watch(_Stream):
    """A watch of a Sandbox's pods: everything that is released after a resourceVersion."""

    def __init__(self, player: Player, timeline: PodTimeline, version: str | None) -> None:
        super().__init__(player)
        self._timeline = timeline
        self._position = timeline.position(version)
        self._failure: Failure | None = None
        player.open_watch(timeline)

    def close(self) -> None:
        self._timeline.watches -= 1

    def _fill(self) -> bool:
        player, timeline = self._player, self._timeline
        player.release_due()
        while self._failure is None and self._position < len(timeline.history):
            event, pod = timeline.history[self._position]
            if self._pieces and not event.chunk.coalesced:
                break
            self._position += 1
            if not event.missing:
                self._add(event.chunk, event_line(event.type, pod))
            player.delivered(timeline, self._position)
        return bool(self._pieces)

    async def _ends(self) -> bool:
        player, failures = self._player, self._timeline.failures
        if self._failure is not None:
            if self._failure.step.response.ended_by in ERRORS:
                raise _error(self._failure.step.response)
            return True
        failure, due = failures.next("stream"), math.inf
        if failure is not None:
            assert failure.ready_at is not None
            due = max(self._opened_at, failure.ready_at) + (failure.delay if player.timing else 0.0)
            if due <= anyio.current_time():
                failures.remove(failure)
                self._failure = failure
                if failure.chunk is not None:
                    self._pieces.append(_line(player, failure.chunk, [], failure.step))
                return False
        await player.changed(self._timeline.selector, min(due, player.next_due))
        return False


def _line(player: Player, chunk: Chunk, jobs: Jobs, step: Step) -> bytes:
    if chunk.event is None:
        return chunk.data
    return event_line(str(chunk.event["type"]), player.rendered(chunk.event["object"], jobs, step, chunk.line))


def _error(response: RecordedResponse, request: httpx.Request | None = None) -> httpx.TransportError:
    return ERRORS[response.ended_by](f"as recorded: {response.ended_by}", request=request)
