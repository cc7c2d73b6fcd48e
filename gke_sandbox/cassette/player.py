"""The transport that replays: a cassette stands for the cluster. No network, and no sleeping unless told to."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

import anyio
import anyio.lowlevel
import httpx

from .._fakes.body import Body, Timeouts
from .._wire.payload import runner_text
from ..errors import CassetteError, ReplayMismatch
from .ends import ERRORS
from .matcher import Asked, Matcher
from .model import Answer, Cassette, Chunk, Step, is_watch
from .news import Followed, news_of
from .placeholders import ServerNames, render
from .streams import Stream, Watch

__all__ = ["Player", "ReplayTransport"]

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
        self.streams: list[Stream] = []
        self.broken: CassetteError | None = None
        follows = (step for step in cassette.steps if step.follows)
        self._row = [news for step in follows for news in news_of(step, self.matcher.by_name)]
        self._followed: dict[str, Followed] = {}
        self._open = 0
        self._thread = 0
        self._choose = ServerNames(runner_text(), _BEGAN if began is None else began)
        self._changed: anyio.Event | None = None

    def finish(self) -> None:
        """Raise the first error; or `ReplayMismatch` if recorded requests did not come."""
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

    def late(self, asked: Asked) -> None:
        """A request has waited in vain for what its answer follows: the recording cannot go like that."""
        step = self.matcher.step_of(asked)
        missing = [] if step is None else [name for name in step.answer.after if self.matcher.came(name) is None]
        if step is not None and missing and self.broken is None:
            self.broken = CassetteError(
                f"{self.cassette.where(step)}: its answer follows {' and '.join(missing)}, which did not come",
                hint="`after` names requests that are sent before this one is answered",
            )
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

    def due(self, piece: Answer | Chunk, since: float, base: int, jobs: Sequence[str] = ()) -> float | None:
        """When an answer, or a piece of one, is due; None: what it follows has not come.

        `since` and `base` are when its own request came, in this run and in the recording. `jobs`: what is about
        these cannot come before they are made, though it does not say so.
        """
        due = since + (piece.at - base) / 1000
        for name in piece.after:
            came = self.matcher.came(name)
            if came is None:
                return None
            due = max(due, came + (piece.at - self.matcher.by_name[name].at) / 1000)
        for job in jobs:
            made = self.matcher.made(job)
            if made is None:
                return None
            due = max(due, made)
        return due if self.timing else 0.0

    def jobs(self, after: Sequence[str]) -> list[str]:
        """The Jobs that something is about which follows these steps."""
        return [job for job in map(self.matcher.job_of, after) if job]

    def rendered(self, value: Any, jobs: Sequence[str], step: Step, line: int = 0) -> Any:
        """`value` with this run's names, which are settled now. It stands in `step`, at `line`."""
        try:
            return render(value, self.matcher.bindings(jobs), self._choose)
        except KeyError as error:
            self.broken = CassetteError(
                f"{self.cassette.where(step, line)}: {error.args[0]} stands in an answer that comes before its "
                "request",
                hint="`after` names the request that the answer follows",
            )
            raise self.broken from None

    def followed(self, asked: Asked) -> Followed:
        """What is to be told of the pods that a list or a watch follows."""
        selector = asked.query["labelSelector"]
        if selector not in self._followed:
            session = selector.partition("=")[2]

            def mine(jobs: Sequence[str]) -> bool | None:
                sessions = {self.matcher.session_of(job) for job in jobs} - {None}
                return session in sessions if sessions else None

            steps = self.matcher.following(self.matcher.selector_of(asked))
            self._followed[selector] = Followed(steps, self._row, mine)
        return self._followed[selector]


class ReplayTransport(httpx.AsyncBaseTransport):
    """Answers as `player`'s cassette does. ``async with``; several transports may share one player.

    A request that was not recorded raises `ReplayMismatch`, in all that still waits too. With `check`, leaving
    the transport raises it again, even if nobody listened; and, unless an error leaves it, for recorded requests
    that have not come.

    Silence is not timed out: it is the recorded server's, which was alive.
    """

    replays = True
    """See `KubeClient.replays`."""

    def __init__(self, player: Player, *, check: bool = True) -> None:
        self.player = player
        self._check = check
        self._bodies: dict[Body, Stream] = {}

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
        elif self._check and self.player.broken is not None:
            # Whatever else went wrong may have come of that.
            raise self.player.broken

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
            player.late(asked)
            raise httpx.ReadTimeout("what this answer follows has not come", request=request)
        if step is None:
            return self._not_recorded(asked, request)
        answer = step.answer
        if answer.status is None:
            raise ERRORS[answer.ends](f"as recorded: {answer.ends}", request=request)
        return self._response(asked, step, request)

    def _version(self, request: httpx.Request) -> httpx.Response:
        """What the header says: recorders ask for it, and do not record that."""
        version = self.player.cassette.header.server
        if version is None:
            return httpx.Response(404, request=request)
        return httpx.Response(200, json={"gitVersion": version}, request=request)

    async def _until_due(self, asked: Asked) -> Step | None:
        player = self.player
        while True:
            if player.broken is not None:
                raise player.broken
            step = player.matcher.step_of(asked)
            if step is None:
                return None
            answer = step.answer
            due = player.due(answer, asked.at, step.at)
            never = answer.status is None and answer.ends not in ERRORS
            if due is not None and due <= anyio.current_time() and not never:
                return step
            await player.changed(math.inf if due is None or never else due)

    def _not_recorded(self, asked: Asked, request: httpx.Request) -> httpx.Response:
        """Answer a list or a watch of pods that the recorded client did not send: as things are by now."""
        player, now = self.player, anyio.current_time()
        followed = player.followed(asked)
        if is_watch(asked.query):
            return self._streamed(Watch(player, None, now, followed), request)
        if not any(isinstance(stream, Watch) and stream.followed is followed for stream in player.streams):
            # Nothing else will tell it what happens.
            Watch(player, None, now, followed).tell_all()
        return httpx.Response(200, json=followed.list_now(), request=request)

    def _response(self, asked: Asked, step: Step, request: httpx.Request) -> httpx.Response:
        player, answer = self.player, step.answer
        jobs = [step.of] if step.of else []
        jobs += player.jobs(answer.after)
        headers = {
            "content-type": "application/json",
            **{name: str(player.rendered(value, jobs, step)) for name, value in answer.headers.items()},
        }
        assert answer.status is not None
        if answer.chunks is not None:
            player.matcher.settle(jobs)
            now = anyio.current_time()
            followed = player.followed(asked) if step.follows else None
            stream = Stream(player, step, now) if followed is None else Watch(player, step, now, followed)
            return self._streamed(stream, request, headers)
        if answer.json is not None:
            told = player.rendered(answer.json, jobs, step)
            asked.told = told
            if step.follows and answer.status == 200:
                player.matcher.settle(jobs)
                player.followed(asked).listed(step, told)
            content = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
        else:
            content = answer.data or b""
        if answer.ends in ERRORS:
            body = Body(_Broken(content, answer.ends), None, request, self._closed)
            return httpx.Response(answer.status, headers=headers, stream=body, request=request)
        return httpx.Response(answer.status, headers=headers, stream=httpx.ByteStream(content), request=request)

    def _streamed(
        self, stream: Stream, request: httpx.Request, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        body = Body(stream, None, request, self._closed)
        self._bodies[body] = stream
        return httpx.Response(200, headers=headers, stream=body, request=request)

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
        raise ERRORS[self._ends](f"as recorded: {self._ends}")
