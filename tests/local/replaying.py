"""Play a recording against the embedded cluster: the recorded requests at their recorded times.

The pods follow scripts made from the recording: its own log chunks, end and times. Names and uids that the
recorded server chose are replaced in the requests by those that the embedded one chose.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import httpx

from gke_sandbox.local import (
    Caller,
    ContainerExit,
    ContainerSpec,
    ContainerStartError,
    Fault,
    FaultPlan,
    LocalTransport,
    Namespace,
    Pace,
    Quota,
    Rule,
    Script,
    ScriptedRuntime,
)
from gke_sandbox.local.faults import Respond

from .trim_recordings import state, watch_events

RECORDED = Path(__file__).with_name("recorded")
BASE = "https://embedded.invalid"
NAMESPACE = "agent-sandbox"

# The recorder's Role.
RUNNER = Caller.service_account(
    NAMESPACE,
    "runner",
    (
        Rule(("create", "get", "list", "watch", "delete"), ("batch",), ("jobs",)),
        Rule(("create", "get", "list", "delete"), ("",), ("configmaps",)),
        Rule(("get", "list", "watch"), ("",), ("pods",)),
        Rule(("get",), ("",), ("pods/log",)),
        Rule(("list",), ("",), ("events",)),
    ),
)
WITHOUT_PERMISSIONS = Caller.service_account(NAMESPACE, "nobody")


def load(scenario: str) -> list[dict[str, Any]]:
    """The exchanges of one trimmed recording."""
    exchanges: list[dict[str, Any]] = json.loads((RECORDED / f"{scenario}.json").read_text())["exchanges"]
    return exchanges


@dataclass
class Got:
    """The response of the embedded cluster to one recorded request."""

    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    text: str = ""
    pods: list[dict[str, Any]] = field(default_factory=list)
    first: list[dict[str, Any]] = field(default_factory=list)

    def json(self) -> Any:
        return json.loads(self.text)


def pod_states(exchanges: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """The recorded states of each pod, by its name, with their times in milliseconds."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for exchange in exchanges:
        for at, one in exchange["response"].get("pods", ()):
            if "pod" in one:
                found.setdefault(one["pod"], []).append((at, one))
    return found


def logs(exchanges: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, str]]]:
    """The recorded log of each pod, by its name."""
    return {
        exchange["request"]["path"].split("/")[-2]: exchange["response"]["log"]
        for exchange in exchanges
        if "log" in exchange["response"]
    }


def job_of(pod: str) -> str:
    return pod.rpartition("-")[0]


def _time_of(states: list[tuple[int, dict[str, Any]]], **wanted: object) -> int | None:
    for at, one in states:
        if all(one[name] == value for name, value in wanted.items()):
            return at
    return None


def pace_of(exchanges: Sequence[dict[str, Any]]) -> Pace:
    """The recorded pace, with the steps that differ from run to run taken from this recording."""
    created = next((one["at_ms"] for one in exchanges if one["request"]["path"].endswith("/jobs")), 0)
    return pace_for(created, list(pod_states(exchanges).values()))


def pace_for(created: int, pods: Sequence[list[tuple[int, dict[str, Any]]]]) -> Pace:
    """The pace at which `pods` went through their states, of Jobs that were created at that millisecond."""
    pace = Pace.recorded()
    accepted = created / 1000 + pace.response + pace.job_sync + pace.schedule + pace.accept
    for states in pods:
        sandbox = _time_of(states, sandbox=True)
        if sandbox is None:
            continue
        pace = replace(pace, mount=0.0, sandbox=sandbox / 1000 - accepted)
        broken = _time_of(states, reason="CreateContainerConfigError")
        started = _time_of(states, container="running") or _time_of(states, reason="StartError")
        if started is not None and broken is not None:
            pace = replace(pace, config_retry=(started - sandbox) / 1000 - pace.start)
        elif started is not None:
            # A millisecond early, so that the request that follows does not come first.
            pace = replace(pace, start=(started - sandbox) / 1000 - 0.001)
        terminated = _time_of(states, container="terminated", deleting=False)
        ended = _time_of(states, container="terminated", deleting=False, phase="Failed") or _time_of(
            states, container="terminated", deleting=False, phase="Succeeded"
        )
        if terminated is not None and started is not None:
            pace = replace(pace, notice=min(pace.notice, (terminated - started) / 1000))
        if terminated is not None and ended is not None:
            pace = replace(pace, finish=(ended - terminated) / 1000 - 0.001)
    return pace


def script_of(states: list[tuple[int, dict[str, Any]]], log: list[tuple[int, str]], pace: Pace) -> Script:
    """Return the behaviour of the recorded container, with times from its Running state."""
    failed = next((one for _, one in states if one["reason"] == "StartError"), None)
    if failed is not None:
        text = "".join(text for _, text in log).encode("utf-8", "surrogateescape")
        return Script(start_error=ContainerStartError(failed["message"], log=text))
    started = _time_of(states, container="running")
    if started is None:
        return Script()
    chunks = [(max(at - started, 0) / 1000, text.encode("utf-8", "surrogateescape")) for at, text in log]
    evicted = next(((at, one) for at, one in states if one["pod_reason"] == "Evicted"), None)
    if evicted is not None:
        at, one = evicted
        return Script(chunks, (at - started) / 1000, ContainerExit(137, "Evicted", one["pod_message"]))
    last = next((one for _, one in states if one["container"] == "terminated"), None)
    if last is None or last["exit_code"] == 143:
        return Script(chunks)
    how = ContainerExit(last["exit_code"], last["reason"])
    seen = _time_of(states, container="terminated", deleting=False)
    if seen is not None:
        return Script(chunks, (seen - started) / 1000 - pace.notice, how)
    # The pod was deleted before the kubelet had seen the end, so that came late enough for it.
    deleted = _time_of(states, deleting=True) or started
    end = max([at for at, _ in chunks] + [(deleted - started) / 1000 - pace.notice])
    return Script(chunks, end + 0.02, how)


def scripted(exchanges: Sequence[dict[str, Any]], pace: Pace) -> ScriptedRuntime:
    recorded = logs(exchanges)
    scripts = {
        job_of(name): script_of(states, recorded.get(name, []), pace)
        for name, states in pod_states(exchanges).items()
    }

    def choose(spec: ContainerSpec) -> Script:
        return scripts.get(job_of(spec.pod), Script())

    return ScriptedRuntime(choose)


class Player:
    """Plays one recording; `play` returns what was answered, in the order of the recording."""

    def __init__(self, scenario: str, *, node_labels: dict[str, str] | None = None, lead: str = "") -> None:
        self.exchanges = load(scenario)
        self._lead = load(lead)[:2] if lead else []
        self._scenario = scenario
        self._labels = {"sandbox.gke.io/runtime": "gvisor"} if node_labels is None else node_labels
        self._names: dict[str, str] = {}
        self.cluster: LocalTransport | None = None

    def _transport(self) -> LocalTransport:
        quota = Quota("none", pods=0) if self._scenario == "quota-exceeded" else None
        faults = FaultPlan()
        if self._scenario == "unauthorized":
            faults.add(Fault(Respond.unauthorized(), times=None))
        pace = pace_of(self.exchanges)
        if self._lead:
            # That pod was deleted before it started, and its kubelet took its time.
            pace = replace(pace, observe=0.5, stopped=1.2)
        started = anyio.current_time()
        # The fraction of a second affects the Job's deadline; this is the recorded one.
        begin = datetime(2026, 11, 22, 21, 20, 0, 100_000, tzinfo=timezone.utc)
        return LocalTransport(
            scripted(self.exchanges, pace),
            namespaces=[Namespace(NAMESPACE, pod_security="restricted", quota=quota)],
            pace=pace,
            faults=faults,
            caller=WITHOUT_PERMISSIONS if self._scenario == "forbidden" else RUNNER,
            node_labels=self._labels,
            now=lambda: begin + timedelta(seconds=anyio.current_time() - started),
            rng=random.Random(7),
        )

    async def play(self) -> list[Got]:
        answers = [Got() for _ in self.exchanges]
        self.cluster = self._transport()
        client = httpx.AsyncClient(transport=self.cluster, base_url=BASE, timeout=None)
        async with client, anyio.create_task_group() as tasks:
            await self._prepare(client)
            begin = anyio.current_time()
            # Nothing that was recorded comes more than some seconds after the last request.
            last = max(at for exchange in self.exchanges for at in _times(exchange))
            with anyio.move_on_after(last / 1000 + 5.0):
                async with anyio.create_task_group() as requests:
                    for exchange, got in zip(self.exchanges, answers, strict=True):
                        requests.start_soon(self._play_one, client, exchange, got, begin)
            tasks.cancel_scope.cancel()
        return answers

    async def _prepare(self, client: httpx.AsyncClient) -> None:
        for exchange in self._lead:
            request = exchange["request"]
            await client.request(request["method"], request["path"], json=self._renamed(request["body"]))
        if self._lead:
            await anyio.sleep(0.05)
            (job,) = self._state().objects("jobs")
            path = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{job['metadata']['name']}"
            await client.delete(path, params={"propagationPolicy": "Background"})
            await anyio.sleep(0.05)

    def _state(self) -> LocalTransport:
        assert self.cluster is not None
        return self.cluster

    async def _play_one(self, client: httpx.AsyncClient, exchange: dict[str, Any], got: Got, begin: float) -> None:
        await anyio.sleep(max(begin + exchange["at_ms"] / 1000 - anyio.current_time(), 0.0))
        request = exchange["request"]
        self._learn_pods()
        body = request.get("body")
        if isinstance(body, str):
            body = _body_of_size(body)
        content = None if body is None else json.dumps(self._renamed(body)).encode()
        query = {name: self._renamed(value) for name, value in request.get("query", {}).items()}
        async with client.stream(
            request["method"], self._renamed(request["path"]), params=query, content=content
        ) as response:
            got.status, got.headers = response.status_code, response.headers
            if "watch" in query and response.status_code == 200:
                await self._watch(response, got)
            else:
                async for piece in response.aiter_raw():
                    got.text += piece.decode("utf-8", "surrogateescape")
        self._learn(exchange, got)

    async def _watch(self, response: httpx.Response, got: Got) -> None:
        rest = ""
        async for piece in response.aiter_raw():
            *lines, rest = (rest + piece.decode()).split("\n")
            for line in lines:
                event = json.loads(line)
                got.pods.append(state(event))
                if event["type"] == "ADDED":
                    got.first.append(event["object"])
        assert watch_events([(0, rest)]) == []

    def _learn(self, exchange: dict[str, Any], got: Got) -> None:
        """Remember the names of the embedded cluster for the recorded names."""
        recorded = exchange["response"].get("body")
        if not isinstance(recorded, dict) or got.status not in (200, 201):
            return
        ours = got.json()
        for name in ("uid", "resourceVersion"):
            before = recorded.get("metadata", {}).get(name)
            after = ours.get("metadata", {}).get(name)
            if before and after:
                self._names[before] = after

    def _learn_pods(self) -> None:
        ours = {job_of(pod["metadata"]["name"]): pod["metadata"]["name"] for pod in self._state().objects("pods")}
        for name in pod_states(self.exchanges):
            if job_of(name) in ours:
                self._names[name] = ours[job_of(name)]

    def _renamed(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._renamed(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._renamed(one) for one in value]
        if isinstance(value, str):
            for before, after in self._names.items():
                value = after if value == before else value.replace(before, after) if "-" in before else value
        return value

    def normal(self, value: Any) -> Any:
        """Our answer with the recorded server's names, as far as they are known."""
        text = json.dumps(value)
        for before, after in self._names.items():
            if "-" in before:
                text = text.replace(after, before)
        return json.loads(text)


def _times(exchange: dict[str, Any]) -> list[int]:
    response = exchange["response"]
    streamed = [at for at, _ in response.get("pods", ())] + [at for at, _ in response.get("log", ())]
    return [exchange["at_ms"], *streamed]


def _body_of_size(text: str) -> dict[str, Any]:
    """Return a ConfigMap whose JSON has the size in the recording's ``<1048762 bytes of JSON>``."""
    size = int(text.split()[0].lstrip("<"))
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "gke-sandbox-big", "labels": {"app.kubernetes.io/managed-by": "gke-sandbox"}},
        "data": {"big": ""},
    }
    body["data"]["big"] = "x" * (size - len(json.dumps(body)))
    return body
