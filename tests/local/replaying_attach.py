"""Play a recording of attach against the embedded cluster: the recorded requests and messages at their times.

The container follows a program made from the recording: it reads what the client sent, and prints what the server
delivered or what only the log has, at the recorded times.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpcore
import httpx
from wsproto.events import CloseConnection

from gke_sandbox.local import (
    Caller,
    ContainerExit,
    Fault,
    FaultPlan,
    LocalTransport,
    Match,
    Pace,
    Rule,
    Script,
    ScriptedProcess,
    ScriptedRuntime,
)
from gke_sandbox.local.faults import BadImage, NoNode, Respond

from .attaching import UPGRADE, WebSocket
from .kit import job

RECORDED = Path(__file__).with_name("recorded_attach")
NAMESPACE = "attach"
# From the pod to the recorder, in milliseconds.
TRANSIT = 5

_NOBODY = Caller.service_account(NAMESPACE, "nobody", [Rule(("create",), ("batch",), ("jobs",))])
_GET = Caller.service_account(NAMESPACE, "nobody", [*_NOBODY.rules, Rule(("get",), ("",), ("pods/attach",))])
# The callers of a recording that describes them in notes.
CALLERS = {"as a service account without rights": _NOBODY, "with get on pods/attach, without create": _GET}


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
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    close: int | None = None

    def channel(self, number: int) -> bytes:
        return b"".join(data for channel, data in self.messages if channel == number)


def content(value: str | int) -> bytes:
    """The data of a recorded message; of large ones only the size was recorded."""
    return b"y" * value if isinstance(value, int) else value.encode()


async def sleep_until(begin: float, at: int) -> None:
    """Sleep until a recorded time in milliseconds."""
    await anyio.sleep(max(begin + at / 1000 - anyio.current_time(), 0.0))


Step = tuple[int, str, Any]
"""Time in milliseconds; ``read``, ``read to the end``, ``write``, ``write error`` or ``exit``; and the data."""


def steps_of(exchanges: list[dict[str, Any]]) -> list[Step]:
    """Return the steps of the recorded container, in the order of their times."""
    connections = [exchange for exchange in exchanges if "frames" in exchange]
    steps: list[Step] = []
    for number, exchange in enumerate(connections):
        for at, sender, channel, value in exchange["frames"]:
            if sender == "client" and number == 0:
                # The container never read what a second connection sent.
                steps.append((at, "read", len(content(value))) if channel == 0 else (at, "read to the end", None))
            elif channel in (1, 2) and value and not _also_in(connections[:number], at, value):
                steps.append((at, "write" if channel == 1 else "write error", content(value)))
            elif channel == 3:
                steps.append((at, "exit", _exit(exchanges)))
        if "cut_ms" in exchange:
            steps.append((exchange["cut_ms"], "read to the end", None))
    steps.sort(key=lambda step: step[0])
    return _with_log(steps, exchanges)


def _also_in(connections: list[dict[str, Any]], at: int, value: Any) -> bool:
    """Whether an earlier connection, which still existed, received the same output."""
    return any(
        abs(frame[0] - at) < TRANSIT and frame[3] == value for one in connections for frame in one["frames"]
    )


def _exit(exchanges: list[dict[str, Any]]) -> ContainerExit:
    for exchange in exchanges:
        state = exchange.get("response", {}).get("pod", {}).get("state", {})
        if "terminated" in state:
            return ContainerExit(state["terminated"]["exitCode"], state["terminated"]["reason"])
    return ContainerExit(0, "Completed")


def _with_log(steps: list[Step], exchanges: list[dict[str, Any]]) -> list[Step]:
    """Add the output that no connection received, before the next output that one did."""
    texts = [
        one["response"]["body"] for one in exchanges if one.get("request", {}).get("path", "").endswith("/log")
    ]
    if not texts:
        return steps
    log, at = texts[0].encode(), 0
    for _, kind, data in steps:
        if kind == "write error":
            log = log.replace(data, b"")
    complete: list[Step] = []
    for step in steps:
        _, kind, data = step
        if kind == "write":
            found = log.index(data, at)
            if found > at:
                _add_unseen(complete, log[at:found])
            at = found + len(data)
        complete.append(step)
    if at < len(log):
        # No connection was there at the end. The first line was printed before there was one.
        first = log.index(b"\n") + 1
        _add_unseen(complete, log[at:first], at_the_start=True)
        _add_unseen(complete, log[max(at, first) :])
        complete.append((complete[-1][0], "exit", _exit(exchanges)))
    return complete


def _add_unseen(steps: list[Step], data: bytes, at_the_start: bool = False) -> None:
    """Print this as soon as the last connection has ended, or at the start if there was none."""
    ends = [time for time, kind, _ in steps if kind == "read to the end"]
    if ends and not at_the_start:
        steps.append((ends[-1], "write", data))
    else:
        steps.insert(0, (0, "write", data))


async def follow(steps: list[Step], begin: float, process: ScriptedProcess) -> ContainerExit:
    """Carry out the steps as the program of a container."""
    for at, kind, data in steps:
        await sleep_until(begin, at if kind.startswith("read") else at - TRANSIT)
        if kind == "read":
            assert len(await process.read(data)) == data
        elif kind == "read to the end":
            while await process.read(1 << 16):
                pass
        elif kind == "write":
            await process.write(data)
        elif kind == "write error":
            await process.write_error(data)
        else:
            assert isinstance(data, ContainerExit)
            return data
    await anyio.sleep_forever()
    raise AssertionError("unreachable")


def pace_of(exchanges: list[dict[str, Any]], end: int) -> Pace:
    """The time from the end of the container to the states that were recorded afterwards."""
    notice = finish = 0.0
    for exchange in exchanges:
        if (pod := exchange.get("response", {}).get("pod")) is None or exchange["at_ms"] < end:
            continue
        since = (exchange["at_ms"] - end) / 1000
        if "running" in pod["state"]:
            notice = since + 0.5
        elif pod["phase"] == "Running":
            finish = since + 0.5
    return Pace(notice=notice, finish=finish)


class Player:
    """Plays one recording; `play` returns the responses in the order of the recording."""

    def __init__(self, scenario: str, exchanges: list[dict[str, Any]], note: str = "") -> None:
        self._exchanges = exchanges
        self._steps = steps_of(exchanges)
        deleted = next((one["at_ms"] for one in exchanges if one.get("note", "").startswith("DELETE")), None)
        self._end = next((at for at, kind, _ in self._steps if kind == "exit"), 0)
        if deleted is not None:
            # It is the deletion that ends this container.
            self._steps = [step for step in self._steps if step[1] != "exit"]
        self._stops_after = None if deleted is None else (self._end - deleted) / 1000
        self._caller = CALLERS.get(note)
        self._faults = FaultPlan()
        if note == "with a wrong token":
            self._faults.add(Fault(Respond.unauthorized(), Match("get", "pods/attach")))
        if scenario == "attach-not-running":
            self._faults.add(Fault(BadImage(), times=None))
        if scenario == "attach-without-a-node":
            self._faults.add(Fault(NoNode()))

    async def play(self) -> list[Got]:
        begin = anyio.current_time()
        script = Script(program=partial(follow, self._steps, begin), stops_after=self._stops_after)
        cluster = LocalTransport(
            ScriptedRuntime(script),
            namespaces=[NAMESPACE],
            pace=pace_of(self._exchanges, self._end),
            faults=self._faults,
            caller=self._caller,
        )
        answers = [Got() for _ in self._exchanges]
        async with httpx.AsyncClient(
            transport=cluster, base_url="https://embedded.invalid", timeout=None
        ) as client:
            body = job(container={"stdin": True, "stdinOnce": True})
            created = await client.post(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", json=body)
            assert created.status_code == 201, created.text
            await cluster.until(lambda: cluster.objects("pods"))
            (pod,) = cluster.objects("pods")
            async with anyio.create_task_group() as tasks:
                for exchange, got in zip(self._exchanges, answers, strict=True):
                    tasks.start_soon(self._exchange, client, exchange, got, begin, pod["metadata"]["name"])
        return answers

    async def _exchange(
        self, client: httpx.AsyncClient, exchange: dict[str, Any], got: Got, begin: float, pod: str
    ) -> None:
        took = exchange.get("response", {}).get("took_ms", 0)
        await sleep_until(begin, exchange["at_ms"] + took)
        note = exchange.get("note", "")
        if note.startswith("DELETE"):
            of_job = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/job"
            path = of_job if "Job" in note else f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}"
            await client.delete(path, params={"propagationPolicy": "Background"})
        if "request" not in exchange:
            return
        recorded = exchange["request"]
        headers = {**UPGRADE, **recorded["headers"]} if "headers" in recorded else {}
        name = recorded["path"].split("/")[6]
        path = recorded["path"].replace(name, pod) if name != "nosuch" else recorded["path"]
        request = client.build_request(recorded["method"], path, params=recorded["query"], headers=headers)
        response = await client.send(request, stream=True)
        got.status, got.headers = response.status_code, response.headers
        if got.status == 101:
            await self._connection(WebSocket(response), exchange, got, begin)
        else:
            got.text = (await response.aread()).decode().replace(pod, name)
        await response.aclose()

    async def _connection(self, websocket: WebSocket, exchange: dict[str, Any], got: Got, begin: float) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send, websocket, exchange, begin)
            try:
                while True:
                    event = await websocket.event()
                    if isinstance(event, CloseConnection):
                        got.close = int(event.code)
                        break
                    got.messages.append(await websocket.message(event))
            except httpcore.ReadError:
                got.close = 1006

    async def _send(self, websocket: WebSocket, exchange: dict[str, Any], begin: float) -> None:
        for at, sender, channel, value in exchange["frames"]:
            if sender == "client":
                await sleep_until(begin, at)
                data = content(value)
                for start in range(0, len(data), 1 << 16):
                    await websocket.send(data[start : start + (1 << 16)], channel=channel)
        if "cut_ms" in exchange:
            await sleep_until(begin, exchange["cut_ms"])
            await websocket.cut()
