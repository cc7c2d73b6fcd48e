"""Helpers for tests of the embedded cluster: a cluster with a client, and short functions for requests."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import datetime, timedelta, timezone
from functools import wraps
from typing import Any, cast

import anyio
import httpx
import pytest

from gke_sandbox.local import ContainerSpec, Fault, FaultPlan, LocalTransport, Pace, Script, ScriptedRuntime
from tests.clock import run_on_mock_clock

JOBS = "/apis/batch/v1/namespaces/default/jobs"
PODS = "/api/v1/namespaces/default/pods"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
EVENTS = "/api/v1/namespaces/default/events"

BACKGROUND = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
HELLO = Script(chunks=[(0.0, b"hello\n")], ends_at=0.0)
SLEEPS = Script()


def job(
    name: str = "job", *, container: dict[str, Any] | None = None, pod: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """Return a Job that Pod Security `restricted` admits."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            **spec,
            "template": {
                "metadata": {"labels": {"test": "yes"}},
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 1,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 1001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "code-runner",
                            "image": "python:3.11-slim",
                            "command": ["python3"],
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            **(container or {}),
                        }
                    ],
                    **(pod or {}),
                },
            },
        },
    }


def config_map(name: str = "config", *, owner: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if owner is not None:
        metadata["ownerReferences"] = [
            {"apiVersion": "batch/v1", "kind": "Job", "name": owner["name"], "uid": owner["uid"]}
        ]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **fields}


def env_from(config: str, key: str, **more: Any) -> dict[str, Any]:
    return {"name": "VALUE", "valueFrom": {"configMapKeyRef": {"name": config, "key": key, **more}}}


on_both_loops = pytest.mark.anyio
"""Runs an async test on asyncio and on trio, without latency."""


def on_a_jumping_clock(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """For tests about time."""

    @wraps(test)
    def run() -> None:
        run_on_mock_clock(test)

    del run.__wrapped__  # type: ignore[attr-defined]  # pytest would take it for an async test
    return run


class Kit:
    """A cluster, its client, its runtime."""

    def __init__(self, cluster: LocalTransport, client: httpx.AsyncClient, runtime: ScriptedRuntime) -> None:
        self.cluster = cluster
        self.client = client
        self.runtime = runtime

    async def create(self, path: str, body: dict[str, Any], **query: str) -> dict[str, Any]:
        response = await self.client.post(path, json=body, params=query)
        assert response.status_code == 201, response.text
        created: dict[str, Any] = response.json()
        return created

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        response = await self.client.get(path, params=query)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def delete(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.request("DELETE", path, json={**BACKGROUND, **options})

    async def until(self, what: Callable[[], Any], seconds: float = 5.0) -> Any:
        """Wait until `what` returns a true value, and return it."""
        return await self.cluster.until(what, seconds)

    def pods(self) -> list[dict[str, Any]]:
        return self.cluster.objects("pods")

    def pod(self) -> dict[str, Any]:
        (pod,) = self.pods()
        return pod

    def state(self) -> tuple[str, str, dict[str, Any]]:
        """Return the phase of the only pod, and the kind and content of its container's state."""
        status = self.pod()["status"]
        ((kind, container),) = status["containerStatuses"][0]["state"].items()
        return status["phase"], kind, container

    async def waiting(self, reason: str, seconds: float = 5.0) -> dict[str, Any]:
        """Wait until the only pod's container waits for this reason."""

        def found() -> Any:
            statuses = self.pods() and self.pod()["status"].get("containerStatuses")
            return statuses and statuses[0]["state"].get("waiting", {}).get("reason") == reason

        await self.until(found, seconds)
        return self.state()[2]

    async def phase(self, phase: str, seconds: float = 5.0) -> dict[str, Any]:
        """Wait until the only pod is in this phase."""
        await self.until(lambda: self.pods() and self.pod()["status"]["phase"] == phase, seconds)
        return self.pod()

    async def condition(self, kind: str, seconds: float = 5.0) -> dict[str, Any]:
        """Wait until the only Job has this condition."""

        def found() -> Any:
            (one,) = self.cluster.objects("jobs")
            return [each for each in one["status"].get("conditions", ()) if each["type"] == kind]

        (condition,) = await self.until(found, seconds)
        return dict(condition)

    def job_status(self) -> dict[str, Any]:
        (one,) = self.cluster.objects("jobs")
        return dict(one["status"])

    def events(self) -> list[tuple[str, str]]:
        return [(event["reason"], event["message"]) for event in self.cluster.objects("events")]

    @asynccontextmanager
    async def stream(self, path: str, **query: Any) -> AsyncIterator[Stream]:
        """Yield a streamed response. It can be closed at any time."""
        async with (
            self.client.stream("GET", path, params=query) as response,
            # Not aiter_raw: it does not close the generator inside of httpx that it reads.
            aclosing(cast("AsyncGenerator[bytes, None]", response.stream.__aiter__())) as pieces,
        ):
            yield Stream(response, pieces)

    def watch(self, path: str = PODS, **query: Any) -> AbstractAsyncContextManager[Stream]:
        return self.stream(path, watch="true", **query)

    def log(self, **query: Any) -> AbstractAsyncContextManager[Stream]:
        """The log of the only pod."""
        return self.stream(f"{PODS}/{self.pod()['metadata']['name']}/log", **query)


class Stream:
    """A streamed response, as chunks or as the events of a watch."""

    def __init__(self, response: httpx.Response, pieces: AsyncIterator[bytes]) -> None:
        self.response = response
        self.pieces = pieces
        self._rest = b""

    async def event(self) -> dict[str, Any]:
        """The next event. Raises StopAsyncIteration at the end."""
        while b"\n" not in self._rest:
            self._rest += await anext(self.pieces)
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    async def events(self, count: int | None = None) -> list[dict[str, Any]]:
        """Return this number of events, or all until the end."""
        found = []
        while count is None or len(found) < count:
            try:
                found.append(await self.event())
            except StopAsyncIteration:
                break
        return found

    async def all(self) -> bytes:
        """Read the rest."""
        return b"".join([piece async for piece in self.pieces])


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    """Return code, reason and message of a Status; the code must be that of the response."""
    body = response.json()
    assert (body["kind"], body["code"]) == ("Status", response.status_code)
    return response.status_code, body["reason"], body["message"]


@asynccontextmanager
async def running(
    script: Script | Callable[[ContainerSpec], Script] = HELLO,
    faults: Sequence[Fault] = (),
    *,
    pace: Pace | None = None,
    timeout: httpx.Timeout | None = None,
    **settings: Any,
) -> AsyncIterator[Kit]:
    """Yield a cluster. After it is closed, no container may run."""
    runtime = ScriptedRuntime(script)
    begin, started = datetime(2026, 11, 22, tzinfo=timezone.utc), anyio.current_time()
    cluster = LocalTransport(
        runtime,
        faults=FaultPlan(*faults),
        pace=pace,
        now=lambda: begin + timedelta(seconds=anyio.current_time() - started),
        **settings,
    )
    client = httpx.AsyncClient(transport=cluster, base_url="https://embedded.invalid", timeout=timeout)
    async with client:
        yield Kit(cluster, client, runtime)
    assert runtime.running == 0
