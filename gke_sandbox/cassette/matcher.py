"""Which recorded step a request is. Pure.

Requests of several executions come in any order, and the recorded Jobs have other names. Every Job of this run
is taken for one of the recorded ones, as long as all that it has asked, and all that it was told, fits that one;
when a later request shows that it must be another (only the ConfigMap holds the code), they change places. What
a Job was told that the other was not would show: such a Job stays what it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import ReplayMismatch
from ..settings import SESSION_LABEL
from .canonical import meaning
from .model import Answer, Cassette, Step, follows, is_look, is_watch, metadata_of, query_text
from .placeholders import Bindings, Difference, unify

__all__ = ["Asked", "Matcher"]

_SHOWN_DIFFERENCES = 8


@dataclass
class Asked:
    """One request of this run. `told` is the JSON that it was answered with, once it was."""

    method: str
    path: str
    query: Mapping[str, str]
    content: bytes = b""
    at: float = 0.0
    told: Any = None
    run: Run | None = None

    @property
    def name(self) -> str:
        """The name of the object in its body."""
        return str(metadata_of(self.body).get("name", ""))

    @property
    def session(self) -> str:
        """The session label of the object in its body."""
        return _session_in(self.body)

    @property
    def words(self) -> Iterator[str]:
        """All that may name a Job, the likeliest first; a program may know the names of other Jobs."""
        yield self.name
        yield f"{self.path} {' '.join(self.query.values())}"
        yield self.content.decode("utf-8", "replace")

    @cached_property
    def chosen(self) -> Any:
        """What of the body its caller chose."""
        return meaning(self.body)

    @cached_property
    def body(self) -> Any:
        """The JSON of the body; text if it is none; None without one."""
        if not self.content:
            return None
        try:
            return json.loads(self.content)
        except ValueError:
            return self.content.decode("utf-8", "replace")

    @cached_property
    def look(self) -> bool:
        """Whether it is a look: see `is_look`."""
        return is_look(self.method, self.path, self.query)

    @cached_property
    def follows(self) -> bool:
        """Whether it follows a Sandbox's pods: see `follows`."""
        return follows(self.method, self.path, self.query)

    def __str__(self) -> str:
        return f"{self.method} {self.path}{query_text(self.query)}"


@dataclass(frozen=True)
class _Trace:
    """The steps that a run's requests are if it is a certain recorded Job, and the names that follow."""

    steps: list[Step]
    bindings: Bindings


@dataclass(eq=False)
class Run:
    """A Job of this run. `of` is the recorded Job that it is taken for, `steps` its requests' steps."""

    name: str
    asked: list[Asked] = field(default_factory=list)
    of: str = ""
    steps: list[Step] = field(default_factory=list)
    bindings: Bindings = field(default_factory=dict)
    settled: bool = False
    session: str = ""
    """The label of its Sandbox."""
    traced: tuple[tuple[object, ...], dict[str, _Trace]] | None = None


class Matcher:
    """Finds the step for each request, in whatever order the protocol lets them come.

    Without `strict`, Jobs and ConfigMaps of ours are compared by what their caller chose. `runner` is the text
    that ``<runner>`` stands for when strict.
    """

    def __init__(self, cassette: Cassette, *, strict: bool, runner: str) -> None:
        self.cassette = cassette
        self._strict = strict
        self._runner = runner if strict else ""
        self.by_name = {step.name: step for step in cassette.steps}
        self._of: dict[str, list[Step]] = {}
        for step in cassette.steps:
            self._of.setdefault(step.of, []).append(step)
        self._shared = self._of.pop("", [])
        self._played: dict[str, Asked] = {}
        self._bindings: Bindings = {}
        self._runs: dict[str, Run] = {}
        self._taken: dict[str, Run] = {}
        self._meanings: dict[str, Any] = {}
        self._outdated: set[str] = set()
        self._selectors: dict[str, str] = {}

    # -- requests -----------------------------------------------------------------------------------------

    def take(self, asked: Asked) -> None:
        """Find the step of a request. Raises `ReplayMismatch`, with the nearest one and how it differs."""
        if asked.follows:
            self._take_following(asked)
            return
        run = self._run_of(asked)
        if run is None:
            self._take_shared(asked)
            return
        run.asked.append(asked)
        traces = {each.name: self._traces(each) for each in self._runs.values()}
        before = dict(self._taken)
        self._taken.pop(run.of, None)
        if not self._place(run, traces, set()):
            self._taken = before
            run.asked.remove(asked)
            raise self._unexpected(asked, self._of_run(run))
        asked.run = run
        for of, each in self._taken.items():
            trace = traces[each.name][of]
            each.of, each.steps, each.bindings = of, trace.steps, trace.bindings

    def step_of(self, asked: Asked) -> Step | None:
        """The step that a request is taken for, for now; None for a list or a watch that was not recorded."""
        if asked.run is not None:
            return asked.run.steps[asked.run.asked.index(asked)]
        return next((self.by_name[name] for name, each in self._played.items() if each is asked), None)

    def _run_of(self, asked: Asked) -> Run | None:
        if asked.method == "POST" and asked.path.endswith("/jobs"):
            made = Run(asked.name, session=asked.session)
            return self._runs.setdefault(asked.name, made) if asked.name else None
        for words in asked.words:
            named = [run for name, run in self._runs.items() if name in words]
            if named:
                return max(named, key=lambda run: len(run.name))
        # A Job that nobody here made: deleted or read by its name.
        if self._matches(asked, self._shared, dict(self._bindings)) is not None or not self._of:
            return None
        name = _job_in(asked.path)
        return self._runs.setdefault(name, Run(name)) if name else None

    def _take_following(self, asked: Asked) -> None:
        """A list or a watch of a Sandbox's pods: the next one that was recorded, if it can be had now.

        How often there is one is a matter of time: see `news`. A list is not waited for, which may be waited for
        itself: what it follows comes after it in this run.
        """
        selector, watch = self.selector_of(asked), is_watch(asked.query)
        left = [
            step
            for step in self.following(selector)
            if is_watch(step.query) is watch and step.name not in self._played.keys() | self._outdated
        ]
        bindings: Bindings = {}
        step = self._matches(asked, left, bindings)
        if step is not None and (watch or step.answer.status != 200 or self._shows(step, asked, selector)):
            self._bindings = {**bindings, **self._bindings}
            self._played[step.name] = asked

    def _shows(self, step: Step, asked: Asked, selector: str) -> bool:
        """Whether a recorded list shows what there is: of the Jobs of this Sandbox, and of nobody else's."""
        if not all(self.came(name) is not None for name in step.answer.after):
            return False
        session, recorded = (text.partition("=")[2] for text in (asked.query["labelSelector"], selector))
        listed = {self.job_of(name) for name in step.answer.after}
        ours = {run.of for run in self._runs.values() if run.session == session and run.of}
        homes = {_session_in(self._of[of][0].body) for of in ours}
        return homes <= {recorded} and all(self.session_of(job) == session for job in listed)

    def following(self, selector: str) -> list[Step]:
        """The lists and watches that were recorded with this selector."""
        return [step for step in self._shared if step.follows and step.query["labelSelector"] == selector]

    def outdated(self, steps: Iterable[Step]) -> None:
        """These lists are not to be answered with any more: later news were told."""
        self._outdated.update(step.name for step in steps)

    def selector_of(self, asked: Asked) -> str:
        """The recorded selector that a request which follows pods is taken for; empty if there is none left."""
        selector = asked.query["labelSelector"]
        if selector not in self._selectors:
            recorded = [step.query["labelSelector"] for step in self._shared if step.follows]
            free = [one for one in recorded if one not in self._selectors.values()]
            found = next((one for one in free if not unify(one, selector, {}, "")), None)
            if found is None:
                return ""
            self._selectors[selector] = found
        return self._selectors[selector]

    def session_of(self, job: str) -> str | None:
        """The session label of the Sandbox that runs a recorded Job, by its placeholder; None: nobody yet."""
        run = self._taken.get(job)
        return None if run is None else run.session

    def _take_shared(self, asked: Asked) -> None:
        bindings = dict(self._bindings)
        step = self._matches(asked, [each for each in self._shared if each.name not in self._played], bindings)
        if step is None:
            raise self._unexpected(asked, self._left())
        self._bindings = bindings
        self._played[step.name] = asked

    def _matches(self, asked: Asked, steps: list[Step], bindings: Bindings) -> Step | None:
        """The first step that the request fits; its names are bound."""
        for step in steps:
            attempt = dict(bindings)
            if not self._differences(step, asked, attempt):
                bindings.update(attempt)
                return step
        return None

    def _differences(self, step: Step, asked: Asked, bindings: Bindings) -> list[Difference]:
        if step.method != asked.method:
            return [Difference("method", step.method, asked.method)]
        differences = unify(step.path, asked.path, bindings, self._runner, "path")
        differences += unify(_query(step), _query(asked), bindings, self._runner, "query")
        if differences:
            return differences
        template, body = step.body, asked.body
        if not self._strict:
            template, body = self._chosen(step), asked.chosen
            if isinstance(template, Mapping) != isinstance(body, Mapping):
                template, body = step.body, asked.body
        return unify(template, body, bindings, self._runner)

    def _chosen(self, step: Step) -> Any:
        if step.name not in self._meanings:
            self._meanings[step.name] = meaning(step.body)
        return self._meanings[step.name]

    # -- Jobs ---------------------------------------------------------------------------------------------

    def _traces(self, run: Run) -> dict[str, _Trace]:
        """Every recorded Job that this one may be."""
        told = sum(each.told is not None for each in run.asked)
        state = (run.of, run.settled, len(run.asked), told, len(self._bindings))
        if run.traced is not None and run.traced[0] == state:
            return run.traced[1]
        found = self._traces_now(run)
        run.traced = state, found
        return found

    def _traces_now(self, run: Run) -> dict[str, _Trace]:
        if run.settled:
            candidates = [run.of]
        else:
            candidates = list(self._of)
            if run.of:
                # It stays what it is, if it can.
                candidates.sort(key=lambda of: of != run.of)
        found = {of: self._trace(run, of) for of in candidates}
        return {of: trace for of, trace in found.items() if trace is not None}

    def _trace(self, run: Run, of: str) -> _Trace | None:
        # Which Sandbox runs it does not matter.
        others = {name: value for name, value in self._bindings.items() if not name.startswith("<session-")}
        bindings = {**others, of: run.name}
        left, steps = list(self._of[of]), []
        for asked in run.asked:
            step = self._look(asked, of, left, bindings) if asked.look else self._matches(asked, left, bindings)
            if step is None:
                return None
            if not asked.look and asked.told is not None and not self._told_the_same(step, asked.told, bindings):
                return None
            if step in left:
                left.remove(step)
            steps.append(step)
        return _Trace(steps, bindings)

    def _look(self, asked: Asked, of: str, left: list[Step], bindings: Bindings) -> Step:
        """The next recorded look, else the last one again; nothing to see, if there was none."""
        step = self._matches(asked, left, bindings) or self._matches(asked, self._of[of][::-1], bindings)
        if step is not None:
            return step
        nothing = Answer(0, 200, json={"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []})
        return Step("not recorded", 0, asked.method, asked.path, asked.query, None, nothing, of)

    def _told_the_same(self, step: Step, told: Any, bindings: Bindings) -> bool:
        """Whether what a run was told could have been this step's answer; its uids are bound."""
        # Each Job's answer has a version of its own, which nobody asks for; others' must not be held against it.
        attempt = {name: value for name, value in bindings.items() if not name.startswith("<version-")}
        if unify(step.answer.json, told, attempt, self._runner):
            return False
        bindings.update({name: value for name, value in attempt.items() if name.startswith("<uid-")})
        return True

    def _place(self, run: Run, traces: Mapping[str, Mapping[str, _Trace]], seen: set[str]) -> bool:
        """Find a recorded Job for `run`, moving others on if need be: an augmenting path.

        https://en.wikipedia.org/wiki/Maximum_cardinality_matching
        """
        for of in traces[run.name]:
            if of in seen:
                continue
            seen.add(of)
            other = self._taken.get(of)
            if other is None or self._place(other, traces, seen):
                self._taken[of] = run
                return True
        return False

    def settle(self, jobs: Iterable[str]) -> None:
        """These recorded Jobs have been told of: the runs that are taken for them are them."""
        for of in jobs:
            if of in self._taken:
                self._taken[of].settled = True

    # -- what has come ------------------------------------------------------------------------------------

    def came(self, name: str) -> float | None:
        """When a step's request came, and all those before it of the same Job; None: not yet. By its name."""
        step = self.by_name[name]
        if not step.of:
            asked = self._played.get(name)
            return None if asked is None else asked.at
        run = self._taken.get(step.of)
        if run is None:
            return None
        group = self._of[step.of]
        needed = [each for each in group[: group.index(step) + 1] if not each.look]
        if any(each not in run.steps for each in needed):
            return None
        return max(run.asked[run.steps.index(each)].at for each in needed)

    def made(self, job: str) -> float | None:
        """When the requests that make a recorded Job had come; None: not yet. By its placeholder."""
        made = [step for step in self._of.get(job, ()) if step.method == "POST"][:2]
        times = [time for step in made if (time := self.came(step.name)) is not None]
        return max(times) if times and len(times) == len(made) else None

    def is_asked_again(self, step: Step) -> bool:
        """Whether the same was recorded once more, later, of the same Job."""
        group = self._of.get(step.of, [])
        later = group[group.index(step) + 1 :] if step in group else []
        return any((each.method, each.path, each.query) == (step.method, step.path, step.query) for each in later)

    def job_of(self, name: str) -> str:
        """The placeholder of the Job that a step is about, by the step's name; empty for none."""
        return self.by_name[name].of

    def bindings(self, jobs: Iterable[str]) -> Bindings:
        """What placeholders stand for in what is told of these Jobs."""
        found = dict(self._bindings)
        for of in jobs:
            run = self._taken.get(of)
            if run is not None:
                found.update(run.bindings)
        return found

    def not_played(self) -> list[Step]:
        """The steps whose requests have not come, in their order, but for looks, and lists and watches."""
        played = {step.name for run in self._taken.values() for step in run.steps} | self._played.keys()
        return [
            step for step in self.cassette.steps if step.name not in played and not (step.look or step.follows)
        ]

    def _left(self) -> list[Step]:
        return self.not_played()

    def _of_run(self, run: Run) -> list[Step]:
        """Steps that a request of this run may have been meant to be: its own Job's first."""
        left = self._left()
        own = [step for step in left if step.of == run.of] if run.of else [step for step in left if step.of]
        return own or left

    def _unexpected(self, asked: Asked, candidates: list[Step]) -> ReplayMismatch:
        source = self.cassette.source
        lines = [f"{source}: a request that was not recorded, or not so often: {asked}"]
        ranked = sorted(self._ranked(asked, candidates), key=lambda each: each[0])
        if ranked:
            _, step, differences = ranked[0]
            lines.append(f"nearest is {self.cassette.where(step)}: {step}")
            lines += [f"  {difference}" for difference in differences[:_SHOWN_DIFFERENCES]]
            if len(differences) > _SHOWN_DIFFERENCES:
                lines.append(f"  and {len(differences) - _SHOWN_DIFFERENCES} more")
        else:
            lines.append("every recorded step of this kind was played already")
        return ReplayMismatch("\n".join(lines), hint="if the change is meant, record it again")

    def _ranked(self, asked: Asked, candidates: list[Step]) -> Iterator[tuple[int, Step, list[Difference]]]:
        for step in candidates:
            bindings = dict(self._bindings)
            if asked.run is not None:
                bindings.update(asked.run.bindings)
            differences = self._differences(step, asked, bindings)
            far = {"method": 1000, "path": 100}
            yield sum(far.get(each.path, 1) for each in differences), step, differences


def _session_in(body: Any) -> str:
    labels = metadata_of(body).get("labels")
    return str(labels.get(SESSION_LABEL, "")) if isinstance(labels, dict) else ""


def _query(request: Step | Asked) -> dict[str, str]:
    """What of a query must match. Where a watch goes on from depends on what it was told, and when."""
    return {
        name: value for name, value in request.query.items() if not (request.follows and name == "resourceVersion")
    }


def _job_in(path: str) -> str:
    _, found, rest = path.partition("/jobs/")
    return rest.partition("/")[0] if found else ""
