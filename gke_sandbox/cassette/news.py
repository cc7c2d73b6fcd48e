"""What the watches of one Sandbox are told, whichever watch tells it. Pure.

A Sandbox lists its pods and watches them, again and again for as long as it lives. How often, and where one watch
ends and the next begins, is a matter of time, and a replay has another time. So all that was recorded of pods is
one row of news: the events of every watch, and what each list between them showed. A Job's news go to the Sandbox
that runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .model import Chunk, Step, about, is_watch, metadata_of

__all__ = ["Followed", "News", "news_of"]


@dataclass(eq=False)
class News:
    """One piece of a stream. `jobs`: the placeholders of the Jobs that it is about."""

    step: Step
    chunk: Chunk
    jobs: tuple[str, ...] = ()


def news_of(step: Step, by_name: Mapping[str, Step]) -> list[News]:
    """What a step tells: its stream's pieces, or the items of its list, as events."""
    answer = step.answer
    if answer.chunks is not None:
        return [News(step, chunk, _about(step, chunk, by_name)) for chunk in answer.chunks]
    items = answer.json.get("items") if isinstance(answer.json, dict) else None
    return [_listed(step, item, by_name) for item in items or () if isinstance(item, dict)]


def _listed(step: Step, item: dict[str, Any], by_name: Mapping[str, Step]) -> News:
    jobs = tuple(about(item))
    after = tuple(name for name in step.answer.after if by_name[name].of in jobs)
    # The items of a list carry no kind.
    event = {"type": "ADDED", "object": {"kind": "Pod", "apiVersion": "v1", **item}}
    return News(step, Chunk(step.answer.at, event=event, after=after, line=step.line), jobs)


def _about(step: Step, chunk: Chunk, by_name: Mapping[str, Step]) -> tuple[str, ...]:
    if chunk.event is None:
        return (step.of,) if step.of else ()
    found = [by_name[name].of for name in chunk.after]
    return tuple(dict.fromkeys(job for job in [*found, *about(chunk.event["object"])] if job))


class Followed:
    """The lists and watches of one Sandbox, and what of the news is still to be told there.

    `steps` are its recorded lists and watches, in their order. `row` is all that is left of the news of the whole
    cassette, shared by its Sandboxes; `mine` says whether this one runs the Jobs that some are about, and None if
    nobody runs them yet: who runs what is for the run to decide, not for the recording.
    """

    def __init__(
        self, steps: Sequence[Step], row: list[News], mine: Callable[[Sequence[str]], bool | None]
    ) -> None:
        self._places = {step.name: place for place, step in enumerate(steps)}
        self._steps = steps
        self._row = row
        self._mine = mine
        self._pods: dict[str, Any] = {}
        self._version = "1"

    def reach(self, step: Step | None, *, timing: bool) -> Step | None:
        """The last step whose news a watch is told that was opened as `step`; None: as one that was not recorded.

        Where a watch ended well and was opened again, the next one's news are this one's, too.
        """
        if step is None:
            return self._steps[-1] if self._steps else None
        place = self._places[step.name]
        while not timing and _ended_well(self._steps[place]):
            rest = range(place + 1, len(self._steps))
            following = next((one for one in rest if is_watch(self._steps[one].query)), None)
            if following is None or any(not _answered(self._steps[one]) for one in range(place, following + 1)):
                break
            place = following
        return self._steps[place]

    def up_to(self, step: Step | None) -> list[News]:
        """What is left to tell of this step and of those before it; of another Sandbox's all that is ours."""
        last = -1 if step is None else self._places[step.name]
        return [news for news in self._ours() if self._place(news) <= last]

    def after(self, step: Step) -> list[News]:
        """What is left to tell of later steps."""
        last = self._places[step.name]
        return [news for news in self._ours() if self._place(news) > last]

    def _ours(self) -> list[News]:
        found = []
        for news in self._row:
            recorded = news.step.name in self._places
            mine = self._mine(news.jobs) if news.jobs else None
            if recorded if mine is None else mine:
                found.append(news)
        return found

    def _place(self, news: News) -> int:
        return self._places.get(news.step.name, -1)

    def goes_on(self, step: Step) -> bool:
        """Whether something was asked after this step."""
        return self._places[step.name] + 1 < len(self._steps)

    def listed(self, step: Step, told: Mapping[str, Any]) -> None:
        """A list was answered as recorded: what came before of the same pods is old."""
        place = self._places[step.name]
        jobs = {job for news in self._row if news.step is step for job in news.jobs}
        self._row[:] = [
            news
            for news in self._row
            if not (news.step is step or (self._place(news) <= place and set(news.jobs) & jobs))
        ]
        self._pods = {}
        for item in told.get("items") or ():
            self._keep(item)
        self._see(told)

    def told(self, news: News, body: Mapping[str, Any] | None) -> list[Step]:
        """A piece was told; `body` is the object of an event. The lists whose answers are old now."""
        self._row.remove(news)
        if body is not None and news.chunk.event is not None:
            kind = news.chunk.event["type"]
            if kind == "DELETED":
                self._pods.pop(_name(body), None)
            elif kind in ("ADDED", "MODIFIED"):
                self._keep(body)
            if kind != "ERROR":
                self._see(body)
        earlier = self._steps[: max(self._place(news), 0)]
        return [step for step in earlier if not is_watch(step.query) and _answered(step)]

    def closed(self, step: Step | None) -> None:
        """A watch up to this step is over; what it would have said of no Job goes with it."""
        for news in self.up_to(step):
            if not news.jobs:
                self._row.remove(news)

    def list_now(self) -> dict[str, Any]:
        """A list of what was told so far."""
        items = [
            {name: value for name, value in pod.items() if name not in ("kind", "apiVersion")}
            for pod in self._pods.values()
        ]
        return {
            "kind": "PodList",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": self._version},
            "items": items,
        }

    def _keep(self, pod: Mapping[str, Any]) -> None:
        self._pods[_name(pod)] = pod

    def _see(self, body: Mapping[str, Any]) -> None:
        version = metadata_of(body).get("resourceVersion")
        if isinstance(version, str) and version:
            self._version = version


def _answered(step: Step) -> bool:
    return step.answer.status == 200


def _ended_well(step: Step) -> bool:
    """Whether a watch ended, or was left, as watches do."""
    answer = step.answer
    events: Iterable[Mapping[str, Any]] = (chunk.event for chunk in answer.chunks or () if chunk.event is not None)
    return answer.ends in ("server", "client") and not any(event["type"] == "ERROR" for event in events)


def _name(pod: Mapping[str, Any]) -> str:
    return str(metadata_of(pod).get("name", ""))
