"""The embedded cluster: an httpx transport that behaves like a Kubernetes API server and runs the pods.

`Cluster.local()` uses it. In tests you can use it with scripted containers and faults::

    from gke_sandbox.local import Fault, LocalTransport, Match, FaultPlan, Refuse, Script, ScriptedRuntime

    runtime = ScriptedRuntime(Script(chunks=[(0.0, b"hello\n")], ends_at=0.1))
    transport = LocalTransport(runtime, faults=FaultPlan(Fault(Refuse(), Match("create", "jobs"))))

A script can also be an async function that reads stdin and writes output (`Script.program`)::

    async def program(process: ScriptedProcess) -> None:
        request = await process.readline()
        await process.write(b"got " + request)

`gke_sandbox.local.faults` has all kinds of faults; docs/faults.md explains them.
"""

from __future__ import annotations

from .apiserver.rbac import Caller, Rule
from .cluster import Namespace, Quota
from .fault_plan import Fault, FaultPlan, Match
from .latency import Pace
from .runtimes.base import ContainerExit, ContainerSpec, ContainerStartError, RunningContainer, Runtime
from .runtimes.scripted import Script, ScriptedProcess, ScriptedRuntime
from .runtimes.select import choose_runtime
from .transport import LocalTransport, SentRequest

__all__ = [
    "Caller",
    "ContainerExit",
    "ContainerSpec",
    "ContainerStartError",
    "Fault",
    "FaultPlan",
    "LocalTransport",
    "Match",
    "Namespace",
    "Pace",
    "Quota",
    "Rule",
    "RunningContainer",
    "Runtime",
    "Script",
    "ScriptedProcess",
    "ScriptedRuntime",
    "SentRequest",
    "choose_runtime",
]
