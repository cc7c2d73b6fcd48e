"""Scripted pods, and sandboxes on an embedded cluster that runs them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox._wire.frames import encode
from gke_sandbox.local import Namespace, Quota
from gke_sandbox.local.faults import Fault, FaultPlan
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport

INSTANT = Pace()
"""For tests that run in real time: nothing of the cluster takes time."""
START = encode("start", b'{"protocol": 1, "python": "3.11.2"}')


def out(text: str) -> bytes:
    return encode("out", text.encode())


def err(text: str) -> bytes:
    return encode("err", text.encode())


def exit_frame(code: int | None = 0, signal: int | None = None, **said: Any) -> bytes:
    body = {"code": code, "signal": signal, "timed_out": False, "seconds": 0.1, "dropped": {"out": 0, "err": 0}}
    return encode("exit", json.dumps({**body, **said}).encode())


def program(*output: bytes, code: int = 0, at: float = 0.1) -> Script:
    """Return a script that prints and ends `at` seconds after its start, with the runner's frames."""
    reason = "Completed" if code == 0 else "Error"
    return Script(
        chunks=[(0.0, START), *((at, frame) for frame in output), (at, exit_frame(code))],
        ends_at=at,
        exit=ContainerExit(code, reason),
    )


class Shared(httpx.AsyncBaseTransport):
    """A transport that is shared with another client and must not be closed."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)


class Pods:
    """A Sandbox on an embedded cluster of scripted pods, with access to that cluster."""

    def __init__(self, transport: LocalTransport, runtime: ScriptedRuntime, sandbox: AsyncSandbox) -> None:
        self.transport = transport
        self.runtime = runtime
        self.sandbox = sandbox

    @property
    def requests(self) -> list[str]:
        """The requests, one line each, without generated names."""
        return [
            f"{request.method} {self._plain(request.path)}{'?watch' if 'watch' in request.query else ''}"
            for request in self.transport.requests
        ]

    @staticmethod
    def _plain(path: str) -> str:
        parts = path.split("/")
        return "/".join(
            "*" if part.startswith("gke-sandbox-") else part for part in parts[parts.index("default") + 1 :]
        )

    async def delete_job(self) -> None:
        """Delete the only Job, as another client would."""
        (job,) = self.transport.objects("jobs")
        async with httpx.AsyncClient(transport=Shared(self.transport), base_url="https://embedded") as client:
            path = f"/apis/batch/v1/namespaces/default/jobs/{job['metadata']['name']}"
            answer = await client.delete(path, params={"propagationPolicy": "Background"})
            answer.raise_for_status()

    def left(self) -> list[str]:
        """The objects in the cluster: see `LocalTransport.leftovers`."""
        return self.transport.leftovers()


@asynccontextmanager
async def pods(
    script: Any,
    *faults: Fault,
    pace: Pace | None = None,
    quota: Quota | None = None,
    around: Callable[[LocalTransport], httpx.AsyncBaseTransport] | None = None,
    **settings: Any,
) -> AsyncIterator[Pods]:
    """Open a Sandbox and close it at the end of the block. `around` wraps the transport."""
    runtime = ScriptedRuntime(script)
    transport = LocalTransport(
        runtime,
        namespaces=[Namespace("default", quota=quota)],
        faults=FaultPlan(*faults),
        pace=pace or Pace.recorded(),
    )
    async with AsyncExitStack() as stack:
        if around is not None:
            await stack.enter_async_context(transport)
        passed = transport if around is None else around(transport)
        sandbox = await stack.enter_async_context(AsyncSandbox(Cluster.transport(passed), **settings))
        yield Pods(transport, runtime, sandbox)
