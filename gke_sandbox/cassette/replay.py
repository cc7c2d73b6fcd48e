"""The transport that replays: a cassette stands for the cluster. No network, and no sleeping unless told to."""

from __future__ import annotations

import itertools
import json
import math
import threading
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

import anyio
import anyio.lowlevel
import httpx

from ..errors import CassetteError, ReplayMismatch
from ..kube.bodies import Body, Timeouts
from ..payload import runner_text
from .matching import Asked, Matcher
from .model import Answer, Cassette, Chunk, Step
from .normal import event_line
from .placeholders import ServerNames, render

__all__ = ["Player", "ReplayTransport"]

# What may be recorded as the end of an exchange, and is raised again.
_ERRORS: dict[str, type[httpx.TransportError]] = {
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


_BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Player:
    """One playing of a cassette, from its first step to its last; for one event loop at a time.

    `timing` keeps the recorded pauses. `strict` compares bodies whole; see `Matcher`. `began` is the calendar
    time of the recording's beginning in what is replayed.
    """

    def __init__(
        self,
        cassette: Cassette,
        *,
        strict: bool = False,
        timing: bool = False,
        began: datetime | None = None,
    ) -> None:
        self.cassette = cassette
        self.timing = timing
        self.matcher = Matcher(cassette, strict=strict, runner=runner_text())
        self.streams: list[_Stream] = []
        self.broken: ReplayMismatch | None = None
        self._open = 0
        self._thread = 0
        self._choose = ServerNames(runner_text(), _BEGAN if began is None else began)
        self._changed: anyio.Event | None = None
        self._check_ends()

    def _check_ends(self) -> None:
        for step in self.cassette.steps:
            if step.answer.ends not in ("server", "client", *_ERRORS):
                raise CassetteError(
                    f"{self.cassette.where(step)}: ends: {step.answer.ends!r} is none of server, client, "
                    f"{', '.join(_ERRORS)}"
                )

    def finish(self) -> None:
        """Raise `ReplayMismatch` if the run was not the recorded one: the first error, or steps not played."""
        if self.broken is not None:
            raise self.broken
        left = self.matcher.not_played()
        if left:
            where = "\n".join(f"  {self.cassette.where(step)}: {step}" for step in left[:10])
            more = f"\n  and {len(left) - 10} more" if len(left) > 10 else ""
            raise ReplayMismatch(
                f"{self.cassette.source}: {len(left)} of {len(self.cassette.steps)} recorded requests did not "
                f"come:\n{where}{more}",
                hint="if the change is meant, record it again",
            )

    # What a transport asks.

    def enter(self) -> None:
        """A transport opens. Raises `CassetteError` if one is open in another thread: streams wait in one loop."""
        here = threading.get_ident()
        if self._open and self._thread != here:
            raise CassetteError(
                f"{self.cassette.source} is being played in another thread",
                hint="give each Sandbox that runs at the same time a cassette of its own",
            )
        self._thread = here
        self._open += 1

    def leave(self) -> None:
        """A transport has closed."""
        self._open -= 1

    def take(self, asked: Asked) -> None:
        """A request has come. Raises `ReplayMismatch`, now and ever after, if it was not recorded."""
        if self.broken is not None:
            raise self.broken
        try:
            self.matcher.take(asked)
        except ReplayMismatch as error:
            self.broken = error
            raise
        finally:
            self.change()

    def change(self) -> None:
        """Something came or went: whoever waits looks again."""
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    async def changed(self, until: float = math.inf) -> None:
        """Wait for the next change, or until that time."""
        if self._changed is None:
            self._changed = anyio.Event()
        event = self._changed
        with anyio.move_on_after(until - anyio.current_time()):
            await event.wait()

    def due(self, after: tuple[str, ...], at: int, since: float, base: int) -> float | None:
        """When something recorded `at` is due; None: what it follows has not come.

        `since` and `base` are when its own request came, in this run and in the recording.
        """
        due = since + (at - base) / 1000
        for name in after:
            came = self.matcher.came(name)
            if came is None:
                return None
            due = max(due, came + (at - self._recorded(name)) / 1000)
        return due if self.timing else 0.0

    def _recorded(self, name: str) -> int:
        return next(step.at for step in self.cassette.steps if step.name == name)

    def jobs(self, after: tuple[str, ...]) -> list[str]:
        """The Jobs that something is about which follows these steps."""
        return [job for job in map(self.matcher.job_of, after) if job]

    def rendered(self, value: Any, jobs: list[str]) -> Any:
        """`value` with this run's names, which are settled now."""
        try:
            return render(value, self.matcher.bindings(jobs), self._choose)
        except KeyError as error:
            raise CassetteError(
                f"{self.cassette.source}: {error.args[0]} stands in an answer that comes before its request",
                hint="`after` names the request that the answer follows",
            ) from None


class _Stream:
    """What comes of one recorded stream: the source of a response's body."""

    def __init__(self, player: Player, step: Step, opened: float) -> None:
        self._player = player
        self._step = step
        self._opened = opened
        self._answer: Answer = step.answer
        self._pending = list(self._answer.chunks or ())
        self._pieces: list[bytes] = []
        self._in_order = not any(chunk.event is not None for chunk in self._pending)
        player.streams.append(self)

    def waits_before(self, at: int, jobs: list[str]) -> bool:
        """Whether something about one of `jobs` is still to come here that was recorded before `at`."""
        return any(chunk.at < at and set(self._about(chunk)) & set(jobs) for chunk in self._pending)

    def closed(self) -> None:
        """Nobody reads on."""
        self._pending.clear()
        if self in self._player.streams:
            self._player.streams.remove(self)
        self._player.change()

    async def next(self) -> bytes | None:
        """The next piece; None at the end."""
        player = self._player
        while not self._pieces:
            if player.broken is not None:
                raise player.broken
            if not self._pending:
                return await self._end()
            due, chunk = self._first_due()
            if chunk is not None and due <= anyio.current_time():
                self._deliver(chunk)
            else:
                await player.changed(due)
        return self._pieces.pop(0)

    async def _end(self) -> bytes | None:
        if self._answer.ends == "client":
            # The recorded client had seen enough and hung up; so will this one.
            while self._player.broken is None:
                await self._player.changed()
            raise self._player.broken
        ended = self._answer.ended_at
        if self._player.timing and ended is not None:
            await anyio.sleep(self._opened + (ended - self._answer.at) / 1000 - anyio.current_time())
        error = _ERRORS.get(self._answer.ends)
        if error is not None:
            raise error(f"as recorded: {self._answer.ends}")
        return None

    def _first_due(self) -> tuple[float, Chunk | None]:
        """What comes next, and when. Events of different Jobs may overtake each other, of one Job never."""
        best, found = math.inf, None
        blocked: set[str] = set()
        for index, chunk in enumerate(self._pending):
            jobs = self._about(chunk)
            held = bool(blocked & set(jobs)) or (not jobs and index > 0)
            due = None if held else self._due(chunk, jobs)
            if due is not None and due < best:
                best, found = due, chunk
            if self._in_order:
                break
            blocked.update(jobs)
        return best, found

    def _due(self, chunk: Chunk, jobs: list[str]) -> float | None:
        others = (stream for stream in self._player.streams if stream is not self)
        if jobs and any(stream.waits_before(chunk.at, jobs) for stream in others):
            return None
        return self._player.due(chunk.after, chunk.at, self._opened, self._answer.at)

    def _about(self, chunk: Chunk) -> list[str]:
        if chunk.event is None:
            return [self._step.of] if self._step.of else []
        return self._player.jobs(chunk.after)

    def _deliver(self, chunk: Chunk) -> None:
        pieces = self._cut(chunk)
        # What came in one chunk with its end comes so again, if it may come at all.
        while self._pending:
            following, due = self._pending[0], None
            if following.joined:
                due = self._due(following, self._about(following))
            if due is None or due > anyio.current_time():
                break
            first, *rest = self._cut(following)
            pieces[-1] += first
            pieces += rest
        self._pieces += pieces
        self._player.change()

    def _cut(self, chunk: Chunk) -> list[bytes]:
        self._pending.remove(chunk)
        jobs = self._about(chunk)
        self._player.matcher.settle(jobs)
        if chunk.event is None:
            return [chunk.data]
        line = event_line(str(chunk.event["type"]), self._player.rendered(chunk.event["object"], jobs))
        edges = [0, *(min(place, len(line)) for _, place in chunk.cuts), len(line)]
        return [line[start:end] for start, end in itertools.pairwise(edges) if end > start]


class ReplayTransport(httpx.AsyncBaseTransport):
    """Answers as `player`'s cassette does. ``async with``; several transports may share one player.

    A request that was not recorded raises `ReplayMismatch`, in all that still waits too. With `check`, leaving
    the transport raises it again, even if nobody listened, and if recorded requests have not come.

    Silence is not timed out: it is the recorded server's, which was alive.
    """

    def __init__(self, player: Player, *, check: bool = True) -> None:
        self.player = player
        self._check = check
        self._bodies: dict[Body, _Stream] = {}

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
        if self._check:
            self.player.finish()

    async def aclose(self) -> None:
        """End every stream."""
        for body in tuple(self._bodies):
            body.abort()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request as it was answered."""
        player = self.player
        asked = Asked(
            request.method,
            request.url.path,
            dict(request.url.params),
            await request.aread(),
            at=anyio.current_time(),
        )
        # Whatever is ready is ready at once: without this, no other task would ever have its turn.
        await anyio.lowlevel.checkpoint()
        if (asked.method, asked.path) == ("GET", "/version"):
            return self._version(request)
        player.take(asked)
        with anyio.move_on_after(Timeouts.of(request).read) as limit:
            step = await self._until_due(asked)
        if limit.cancelled_caught:
            raise httpx.ReadTimeout("what this answer follows has not come", request=request)
        answer = step.answer
        if answer.status is None:
            raise _ERRORS[answer.ends](f"as recorded: {answer.ends}", request=request)
        return self._response(asked, step, request)

    def _version(self, request: httpx.Request) -> httpx.Response:
        """What the header says: recorders ask for it, and do not record that."""
        version = self.player.cassette.header.server
        if version is None:
            return httpx.Response(404, request=request)
        return httpx.Response(200, json={"gitVersion": version}, request=request)

    async def _until_due(self, asked: Asked) -> Step:
        player = self.player
        while True:
            if player.broken is not None:
                raise player.broken
            step = player.matcher.step_of(asked)
            answer = step.answer
            due = player.due(answer.after, answer.at, asked.at, step.at)
            never = answer.status is None and answer.ends not in _ERRORS
            if due is not None and due <= anyio.current_time() and not never:
                return step
            await player.changed(math.inf if due is None or never else due)

    def _response(self, asked: Asked, step: Step, request: httpx.Request) -> httpx.Response:
        player, answer = self.player, step.answer
        jobs = [step.of] if step.of else []
        jobs += player.jobs(answer.after)
        headers = {
            "content-type": "application/json",
            **{name: str(player.rendered(value, jobs)) for name, value in answer.headers.items()},
        }
        assert answer.status is not None
        if answer.chunks is not None:
            player.matcher.settle(jobs)
            stream = _Stream(player, step, anyio.current_time())
            body = Body(stream, None, request, self._closed)
            self._bodies[body] = stream
            return httpx.Response(answer.status, headers=headers, stream=body, request=request)
        if answer.json is not None:
            told = player.rendered(answer.json, jobs)
            asked.told = told
            content = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
        else:
            content = answer.data or b""
        if answer.ends in _ERRORS:
            body = Body(_Broken(content, answer.ends), None, request, self._closed)
            return httpx.Response(answer.status, headers=headers, stream=body, request=request)
        return httpx.Response(answer.status, headers=headers, stream=httpx.ByteStream(content), request=request)

    def _closed(self, body: Body) -> None:
        stream = self._bodies.pop(body, None)
        if stream is not None:
            stream.closed()


class _Broken:
    """A body that broke off, as it was recorded."""

    def __init__(self, content: bytes, ends: str) -> None:
        self._content = content
        self._ends = ends

    async def next(self) -> bytes | None:
        content, self._content = self._content, b""
        if content:
            return content
        raise _ERRORS[self._ends](f"as recorded: {self._ends}")
