"""The embedded cluster in the state that a scenario needs, with pods that behave as in its cassette."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import anyio

from gke_sandbox.cassette import Cassette
from gke_sandbox.cassette.model import Step
from gke_sandbox.cassette.stdin_request import readable_stdin, request_length
from gke_sandbox.local import (
    Caller,
    ContainerExit,
    ContainerSpec,
    Fault,
    FaultPlan,
    LocalTransport,
    Match,
    Namespace,
    Pace,
    Quota,
    Rule,
    Script,
    ScriptedProcess,
    ScriptedRuntime,
)
from gke_sandbox.local.faults import Drop, EndJob, HideConfigMap, RefusePod, Respond, StopKubelet
from tests.local.replaying import RUNNER, WITHOUT_PERMISSIONS, pace_for, script_of
from tests.local.trim_recordings import state

__all__ = ["STARTED_AT", "embedded"]

# The recordings started at this fraction of a second, which affects the deadline of a Job.
STARTED_AT = datetime(2026, 11, 22, 21, 20, 0, 100_000, tzinfo=timezone.utc)


@dataclass(frozen=True)
class _State:
    """Deviations from the default state."""

    faults: tuple[Fault, ...] = ()
    caller: Caller = RUNNER
    quota: Quota | None = None
    labelled: bool = True


# The recorder of attached clients had another Role.
_ATTACHING = replace(RUNNER, rules=(*RUNNER.rules, Rule(("get", "create"), ("",), ("pods/attach",))))
_TOO_LARGE = Respond(422, "Invalid", "Too long: may not be more than 1048576 bytes")
_INVALID = Respond(422, "Invalid", 'Invalid value: "64Mi": must be less than or equal to memory limit of 1Mi')
_STARTING = Respond(400, "BadRequest", "the container is waiting to start: ContainerCreating")
_POD = Match(resource="pods")

_STATES = {
    "already-exists": _State((Fault(Drop(carried_out=True), Match("create", "jobs")),)),
    "configmap-too-large": _State((Fault(_TOO_LARGE, Match("create", "configmaps")),)),
    "deadline-exceeded": _State((Fault(EndJob(3), Match(resource="jobs")),)),
    "forbidden": _State(caller=WITHOUT_PERMISSIONS),
    "invalid-job": _State((Fault(_INVALID, Match("create", "jobs")),)),
    "kubelet-restart": _State((Fault(StopKubelet(5.45, 2.5, starting=0.6), _POD),)),
    "late-configmap": _State((Fault(HideConfigMap(0.6), Match(resource="configmaps")),)),
    "log-errors": _State((Fault(_STARTING, Match("get", "pods/log")),)),
    "pod-security-violation": _State((Fault(RefusePod.pod_security(), _POD, times=None),)),
    "quota-exceeded": _State(quota=Quota("none", pods=0)),
    "unauthorized": _State((Fault(Respond.unauthorized(), times=None),)),
    "unschedulable": _State(labelled=False),
}


def embedded(scenario: str, cassette: Cassette) -> LocalTransport:
    """Return a cluster for one run of a scenario. Its clock is that of the event loop, starting at 0."""
    found = _STATES.get(scenario, _State())
    states = _states(cassette)
    created = next((step.at for step in cassette.steps if step.name == "create-jobs-1"), 0)
    pace = pace_for(created, list(states.values()))
    labels = {"sandbox.gke.io/runtime": "gvisor"} if found.labelled else {}
    return LocalTransport(
        ScriptedRuntime(_chooser(cassette, states, pace)),
        namespaces=[Namespace("agent-sandbox", pod_security="restricted", quota=found.quota)],
        faults=FaultPlan(*found.faults),
        pace=pace,
        caller=_ATTACHING if scenario.startswith("attach-") else found.caller,
        node_labels=labels,
        now=lambda: STARTED_AT + timedelta(seconds=anyio.current_time()),
    )


def _states(cassette: Cassette) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Return the states of the pod of each Job in the watches, by placeholder, with times in milliseconds."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for step in cassette.steps:
        for chunk in step.response.chunks or ():
            if chunk.event is not None and chunk.event["type"] not in ("BOOKMARK", "ERROR"):
                shown = state({"type": chunk.event["type"], "object": chunk.event["object"]})
                found.setdefault(shown["pod"].rpartition("-")[0], []).append((chunk.at, shown))
    return found


def _chooser(
    cassette: Cassette, states: dict[str, list[tuple[int, dict[str, Any]]]], pace: Pace
) -> Callable[[ContainerSpec], Script]:
    sent = {step.body["code"]: step for step in cassette.steps if step.sends_request}
    if sent:
        script = Script(program=partial(_respond, cassette, sent, states))
        return lambda _: script
    scripts = {job: script_of(shown, _log(cassette, job), pace) for job, shown in states.items()}
    by_code = {_code(step): step.job for step in cassette.steps if step.name.startswith("create-configmaps")}

    def choose(spec: ContainerSpec) -> Script:
        job = next(iter(scripts), "") if len(scripts) < 2 else by_code[spec.env["GKE_SANDBOX_CODE_0"]]
        return scripts.get(job, Script())

    return choose


async def _respond(
    cassette: Cassette,
    sent: dict[str, Step],
    states: dict[str, list[tuple[int, dict[str, Any]]]],
    process: ScriptedProcess,
) -> ContainerExit | None:
    """Read a request from stdin, and print what the recorded client received after the same program."""
    data = await process.readline()
    if not data:
        return None
    data += await process.read((request_length(data) or 0) - len(data))
    step = sent[readable_stdin(data)["code"]]
    began = anyio.current_time()
    attach = next(each for each in cassette.steps if each.job == step.job and each.response.status == 101)
    for chunk in attach.response.chunks or ():
        if chunk.at >= step.at:
            await anyio.sleep(began + (chunk.at - step.at) / 1000 - anyio.current_time())
            await process.write(chunk.data if chunk.channel == "stdout" else b"")
    if attach.response.ended_by == "client":
        await process.read(1)
        return None
    last = next(one for _, one in states[step.job] if one["container"] == "terminated")
    return ContainerExit(last["exit_code"], last["reason"])


def _code(step: Step) -> str:
    return str(step.body["data"].get("code_0", ""))


def _log(cassette: Cassette, job: str) -> list[tuple[int, str]]:
    """Return the output of the container with its times. A log that is opened again starts at its beginning."""
    found: list[tuple[int, bytes]] = []
    for step in cassette.steps:
        if step.job == job and step.path.endswith("/log"):
            known = sum(len(data) for _, data in found)
            for chunk in step.response.chunks or ():
                found += [(chunk.at, chunk.data[known:])] if len(chunk.data) > known else []
                known = max(known - len(chunk.data), 0)
    return [(at, data.decode("utf-8", "surrogateescape")) for at, data in found]
