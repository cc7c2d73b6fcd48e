"""Streams that are replayed: a log, piece by piece, and the watches of a Sandbox's pods."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from .ends import ERRORS
from .model import Answer, Step
from .news import Followed, News, news_of
from .normalize import event_line

if TYPE_CHECKING:
    from .player import Player

__all__ = ["Stream", "Watch"]


class Stream:
    """What comes of one recorded stream, or of `news`: the source of a response's body."""

    def __init__(self, player: Player, step: Step, opened: float, news: list[News] | None = None) -> None:
        self._player = player
        self._step = step
        self._opened = opened
        self._pieces: list[bytes] = []
        self._news = news_of(step, player.matcher.by_name) if news is None else news
        self._in_order = news is None and not any(each.chunk.event is not None for each in self._news)
        player.streams.append(self)

    @property
    def _left(self) -> Sequence[News]:
        """What is still to come, in its order."""
        return self._news

    def _take(self, news: News, body: Any) -> None:  # noqa: ARG002 - for those that keep it
        """A piece is about to be told; `body` is the object of an event."""
        self._news.remove(news)

    def waits_before(self, at: int, jobs: Sequence[str]) -> bool:
        """Whether something about one of `jobs` is still to come here that was recorded before `at`."""
        return any(news.chunk.at < at and set(news.jobs) & set(jobs) for news in self._left)

    def closed(self) -> None:
        """Nobody reads on."""
        if self in self._player.streams:
            self._player.streams.remove(self)
        self._player.change()

    async def next(self) -> bytes | None:
        """The next piece; None at the end."""
        player = self._player
        while not self._pieces:
            if player.broken is not None:
                raise player.broken
            due, news = self._first_due()
            if news is not None and due <= anyio.current_time():
                self._deliver(news)
            elif self._is_over():
                await self._end(self._step.answer)
                return None
            else:
                await player.changed(min(due, self._later_due()))
        return self._pieces.pop(0)

    def _later_due(self) -> float:
        """When something is due that was told after this stream, and ends it."""
        return math.inf

    def _is_over(self) -> bool:
        """`ends: client`: that client had seen enough and hung up; so will this one."""
        return not self._left and (self._step.answer.ends != "client" or self._was_silent)

    @property
    def _was_silent(self) -> bool:
        """Whether the recorded client opened this once more, for its silence: a replay does not wait for that."""
        return not self._player.timing and self._player.matcher.is_asked_again(self._step)

    async def _end(self, answer: Answer) -> None:
        """End as it was recorded, or sooner."""
        if answer.ends == "client":
            raise httpx.ReadError("the recorded client opened it once more")
        ended = answer.ended_at
        if self._player.timing and ended is not None:
            await anyio.sleep_until(self._opened + (ended - answer.at) / 1000)
        error = ERRORS.get(answer.ends)
        if error is not None:
            raise error(f"as recorded: {answer.ends}")

    def _first_due(self) -> tuple[float, News | None]:
        """What comes next, and when. Events of different Jobs may overtake each other, of one Job never."""
        best, found = math.inf, None
        blocked: set[str] = set()
        for index, news in enumerate(self._left):
            held = bool(blocked & set(news.jobs)) if news.jobs else index > 0 or self._is_held(news)
            due = None if held else self._due(news)
            if due is not None and due < best:
                best, found = due, news
            if self._in_order:
                break
            blocked.update(news.jobs)
        return best, found

    def _is_held(self, news: News) -> bool:  # noqa: ARG002 - for those that hold some
        """Whether a piece that is about no Job has to wait, though it is the next one."""
        return False

    def _due(self, news: News) -> float | None:
        others = (stream for stream in self._player.streams if stream is not self)
        if news.jobs and any(stream.waits_before(news.chunk.at, news.jobs) for stream in others):
            return None
        return self._player.due(news.chunk, self._opened, self._step.answer.at, self._unfollowed(news))

    def _unfollowed(self, news: News) -> list[str]:
        """Jobs that a piece is about though it does not say what it follows."""
        if news.chunk.event is None:
            return []
        followed = {self._player.matcher.job_of(name) for name in news.chunk.after}
        return [job for job in news.jobs if job not in followed]

    def _deliver(self, news: News) -> None:
        pieces = self._cut(news)
        # What came in one chunk with its end comes so again, if it may come at all.
        while self._left:
            following, due = self._left[0], None
            if following.chunk.joined:
                due = self._due(following)
            if due is None or due > anyio.current_time():
                break
            first, *rest = self._cut(following)
            pieces[-1] += first
            pieces += rest
        self._pieces += pieces
        self._player.change()

    def _cut(self, news: News) -> list[bytes]:
        chunk, jobs = news.chunk, list(news.jobs)
        self._player.matcher.settle(jobs)
        if chunk.event is None:
            self._take(news, None)
            return [chunk.data]
        body = self._player.rendered(chunk.event["object"], jobs, news.step, chunk.line)
        self._take(news, body)
        line = event_line(str(chunk.event["type"]), body)
        edges = [0, *(min(place, len(line)) for _, place in chunk.cuts), len(line)]
        return [line[start:end] for start, end in itertools.pairwise(edges) if end > start]


class Watch(Stream):
    """A watch of a Sandbox's pods, which is told all that is still to be told of them: see `news`.

    `step` is None for one that was not recorded.
    """

    def __init__(self, player: Player, step: Step | None, opened: float, followed: Followed) -> None:
        self.followed = followed
        last = followed.reach(step, timing=player.timing)
        self._last = last
        self._spoilt = False
        super().__init__(player, last or NOTHING, opened, [])

    @property
    def _left(self) -> Sequence[News]:
        return [] if self._spoilt else self.followed.up_to(self._last)

    def _take(self, news: News, body: Any) -> None:
        self._spoilt = _spoils(news)
        self._player.matcher.outdated(self.followed.told(news, body))

    def _is_held(self, news: News) -> bool:
        """After such a piece nothing more is understood, whoever's Jobs it is about."""
        return _spoils(news) and any(each.jobs for each in self._left)

    def tell_all(self) -> None:
        """Take for told what is due now: a list shows it, and no watch. What a list shows is not gone by then."""
        shown: set[str] = set()
        held: set[str] = set()
        for news in self._left:
            due, jobs = self._due(news), set(news.jobs)
            gone = news.chunk.event is not None and news.chunk.event["type"] == "DELETED" and jobs & shown
            if not jobs or jobs & held or gone or due is None or due > anyio.current_time():
                held |= jobs
            else:
                self._cut(news)
                shown |= jobs
        self._player.streams.remove(self)

    def closed(self) -> None:
        self.followed.closed(self._last)
        super().closed()

    def _is_over(self) -> bool:
        """Also when what comes next comes after the end: what is left here will not come in this run."""
        last = self._last
        if last is None:
            return False
        comes_later = self._later_due() <= anyio.current_time()
        if last.answer.ends == "client":
            # That client hung up, and asked again; this one does, if there is something to be told.
            return comes_later
        if last.answer.ends == "server" and not self._player.timing and not self.followed.goes_on(last):
            # That it ended was a matter of time.
            return False
        return not self._left or comes_later

    async def _end(self, answer: Answer) -> None:
        if answer.ends != "client":
            await super()._end(answer)

    def _later_due(self) -> float:
        later = [] if self._last is None else self.followed.after(self._last)
        times = [self._due(news) for news in later if news.jobs]
        return min((time for time in times if time is not None), default=math.inf)


def _spoils(news: News) -> bool:
    """Whether a watch is at its end with this: an ERROR, or a line that was cut off."""
    event = news.chunk.event
    return event is None or event["type"] == "ERROR"


NOTHING = Step("not recorded", 0, "GET", "", {}, None, Answer(0, 200, chunks=(), ends="client"))
"""A watch on which nothing happens."""
