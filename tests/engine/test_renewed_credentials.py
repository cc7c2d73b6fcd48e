"""A token that expires in the middle of a run is read again, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import anyio
import httpx

from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox.cluster import _Connection
from gke_sandbox.kube.auth.static import TokenFile
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.local.faults import CutBody, EndWatch, Fault, FaultPlan, Match
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport

from ..clock import run_on_mock_clock
from ..pods import START, exit_frame, out


class Guarded(httpx.AsyncBaseTransport):
    """A cluster that accepts one token at a time."""

    def __init__(self, cluster: LocalTransport) -> None:
        self._cluster = cluster
        self.token = "first"
        self.refused: list[str] = []

    async def __aenter__(self) -> Guarded:
        await self._cluster.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._cluster.__aexit__(None, None, None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.headers.get("Authorization") == f"Bearer {self.token}":
            return await self._cluster.handle_async_request(request)
        self.refused.append(request.url.path.rpartition("/")[2])
        said = {"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "Unauthorized"}
        return httpx.Response(401, json=said, request=request)


class WithToken(Cluster):
    """A cluster behind `transport`, with the token in a file."""

    _connects_at_once = True

    def __init__(self, transport: Guarded, file: Path, clock: Callable[[], float]) -> None:
        self._transport = transport
        self._auth = TokenFile(file, source="the test", clock=clock)

    def _connect(self, namespace: str | None = None) -> _Connection:
        config = ClusterConfig(server="https://embedded.invalid", auth=self._auth)
        return _Connection(KubeClient(config, transport=self._transport), None, lambda *_: None)


def test_a_token_that_is_renewed_in_the_middle_of_a_run(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    chunks = [(0.0, START), (0.1, out("a")), (4.0, out("b")), (8.0, out("c")), (8.0, exit_frame())]
    # The log and the watch are opened again after the token has changed.
    cut = Fault(CutBody(after=sum(len(chunk) for _, chunk in chunks[:3])), Match("get", "pods/log"))
    ended = Fault(EndWatch(after=6), Match("watch", "pods"))

    async def main() -> None:
        runtime = ScriptedRuntime(Script(chunks, ends_at=8.0))
        cluster = LocalTransport(runtime, faults=FaultPlan(cut, ended), pace=Pace.recorded())
        guarded = Guarded(cluster)

        async def renew() -> None:
            await anyio.sleep(2)
            guarded.token = "second"
            file.write_text("second")

        at = cast("Cluster", WithToken(guarded, file, anyio.current_time))
        async with AsyncSandbox(at) as sandbox, anyio.create_task_group() as beside:
            beside.start_soon(renew)
            result = await sandbox.run("pass")
            assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "abc", False)
            await anyio.sleep(10)
            assert cluster.leftovers() == []
            assert sandbox.leftovers == []
        assert guarded.refused == ["log"], "each token is refused once at most"

    run_on_mock_clock(main)
