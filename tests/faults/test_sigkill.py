"""A client is killed with SIGKILL at any point of a run: the cluster cleans up by itself at the deadlines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import httpx
import trio

from gke_sandbox._fakes.api_request import parse
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport
from tests.pods import START, exit_frame, out

from .served import served

REQUESTS = [
    ("list", "pods"),
    ("watch", "pods"),
    ("create", "jobs"),
    ("create", "configmaps"),
    ("get", "pods/log"),
    ("delete", "jobs"),
]
POINTS = [
    *((when, *request, 0) for request in REQUESTS for when in ("before", "after")),
    *(("piece", "watch", "pods", number) for number in (1, 2, 4, 6)),
    *(("piece", "get", "pods/log", number) for number in (1, 2, 4, 6)),
]
"""Before a request is carried out; after that, before the response is sent; after N pieces of a stream."""

PROGRAM = Script(
    [(0.0, START), *((0.02 * number, out(f"{number}\n")) for number in range(1, 6)), (0.15, exit_frame())], 0.15
)

# One process runs a program on a cluster of its own, so that it has imported everything, and forks a client for
# each point.
CLIENTS = """
import os, sys
import anyio
from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox.local import LocalTransport, Script, ScriptedRuntime

kubeconfig, count = sys.argv[1], int(sys.argv[2])

async def run(cluster, namespace):
    async with AsyncSandbox(cluster, namespace=namespace, timeout=20, startup_timeout=20) as sandbox:
        await sandbox.run("print(1)")

async def prepare():
    script = Script([(0.0, bytes.fromhex(sys.argv[3]))], ends_at=0.0)
    Cluster.kubeconfig(kubeconfig)
    await run(Cluster.transport(LocalTransport(ScriptedRuntime(script))), "default")

anyio.run(prepare)
for number in range(count):
    pid = os.fork()
    if not pid:
        anyio.run(run, Cluster.kubeconfig(kubeconfig), f"kill-{number}")
        os._exit(0)
    print(number, pid, flush=True)
for _ in range(count):
    pid, status = os.wait()
    print("ended", pid, os.waitstatus_to_exitcode(status), flush=True)
"""


@dataclass
class Killer:
    """Forwards requests to `inner`, and kills the client of each namespace when it reaches its point."""

    inner: LocalTransport
    pids: dict[str, int]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        parsed = parse(request.method, request.url.path, dict(request.url.params), b"")
        verb_and_resource = (parsed.verb, parsed.resource)
        await self._at(parsed.namespace, ("before", *verb_and_resource, 0))
        response = await self.inner.handle_async_request(request)
        await self._at(parsed.namespace, ("after", *verb_and_resource, 0))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Counting(response.stream, self, parsed.namespace, verb_and_resource)
        return response

    async def _at(self, namespace: str, point: tuple[str, str, str, int]) -> None:
        if POINTS[int(namespace.removeprefix("kill-"))] == point:
            while namespace not in self.pids:
                await trio.sleep(0.005)
            os.kill(self.pids[namespace], signal.SIGKILL)


class _Counting(httpx.AsyncByteStream):
    def __init__(
        self, inner: httpx.AsyncByteStream, killer: Killer, namespace: str, verb_and_resource: tuple[str, str]
    ) -> None:
        self._inner = inner
        self._killer = killer
        self._namespace = namespace
        self._here = verb_and_resource

    async def __aiter__(self) -> AsyncIterator[bytes]:
        number = 0
        async with aclosing(aiter(self._inner)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                yield piece
                number += 1
                await self._killer._at(self._namespace, ("piece", *self._here, number))

    async def aclose(self) -> None:
        await self._inner.aclose()


def test_a_client_killed_at_any_of_twenty_points_leaves_nothing_after_its_deadlines(
    tmp_path: os.PathLike[str],
) -> None:
    namespaces = [f"kill-{number}" for number in range(len(POINTS))]
    transport = LocalTransport(ScriptedRuntime(PROGRAM), namespaces=namespaces)
    pids: dict[str, int] = {}
    ended: dict[int, int] = {}
    with served(transport, lambda inner: Killer(inner, pids)) as cluster:
        kubeconfig = os.path.join(tmp_path, "kubeconfig")
        with open(kubeconfig, "w") as file:
            file.write(
                "{apiVersion: v1, kind: Config, current-context: c, users: [{name: u, user: {}}], clusters: "
                f"[{{name: k, cluster: {{server: 'http://127.0.0.1:{cluster.port}'}}}}], "
                "contexts: [{name: c, context: {cluster: k, user: u}}]}"
            )
        log = (START + exit_frame()).hex()
        command = [sys.executable, "-c", CLIENTS, kubeconfig, str(len(POINTS)), log]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as clients:
            assert clients.stdout is not None
            for line in clients.stdout:
                first, second, *rest = line.split()
                if first == "ended":
                    ended[int(second)] = int(rest[0])
                else:
                    pids[f"kill-{first}"] = int(second)
        assert len(POINTS) == 20
        killed = {POINTS[int(name.removeprefix("kill-"))] for name, pid in pids.items() if ended[pid] == -9}
        assert killed == set(POINTS), "each client was killed at its point"
        before = cluster.leftovers()
        assert len([left for left in before if left.startswith("jobs/")]) >= 10, "there were Jobs to clean up"
        cluster.advance(20 + 20 + 30 + 300 + 20)
        assert cluster.leftovers() == []
        print(f"\nSIGKILL at {len(killed)} points: {len(before)} objects before the deadlines, 0 after")
