"""A client with warm pods is killed with SIGKILL: its containers end, and nothing is left after their TTL."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gke_sandbox.local import choose_runtime
from gke_sandbox.local.runtimes.base import Runtime
from gke_sandbox.local.runtimes.scripted import ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport
from gke_sandbox.settings import Settings
from tests.http_cluster import HttpCluster
from tests.warm_runner import WaitingRunner

from .served import served

pytestmark = pytest.mark.slow

TTL, IDLE_TIMEOUT = Settings().ttl_seconds_after_finished, 600
CLIENT = """
import sys
import anyio
from gke_sandbox import AsyncSandbox, Cluster

async def main():
    async with AsyncSandbox(Cluster.kubeconfig(sys.argv[1]), warm=3) as sandbox:
        pool = sandbox._opened().pool
        while pool.ready < int(sys.argv[2]):
            await anyio.sleep(0.01)
        print(pool.ready, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def kill_client(transport: LocalTransport, directory: Path, ready: int) -> tuple[int, list[str]]:
    """Kill a client when it has `ready` warm pods; wait until all of its containers have ended.

    Return the number of pods that there were, and the objects that are left after their TTL.
    """
    with served(transport) as cluster:
        kubeconfig = HttpCluster(cluster.port, transport).kubeconfig(directory)
        command = [sys.executable, "-c", CLIENT, kubeconfig, str(ready)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert int(client.stdout.readline()) >= ready
            client.send_signal(signal.SIGKILL)
            assert client.wait() == -signal.SIGKILL
        pods = len(transport.objects("pods"))

        def ended() -> bool:
            return sum(pod["status"]["phase"] == "Succeeded" for pod in transport.objects("pods")) >= ready

        cluster.until(ended)
        # The runner of a pod that was not connected yet ends after its idle time.
        cluster.advance(TTL + 30 if pods == ready else TTL + IDLE_TIMEOUT + 30)
        return pods, cluster.leftovers()


@pytest.mark.parametrize("ready", [1, 3])
def test_the_pods_of_a_killed_client_end_with_its_connections(tmp_path: Path, ready: int) -> None:
    runner = WaitingRunner()
    pods, left = kill_client(LocalTransport(ScriptedRuntime(runner.script)), tmp_path, ready)
    assert pods >= ready
    assert left == []
    assert runner.idle >= ready


def test_real_runners_end_with_the_connections_of_a_killed_client(tmp_path: Path) -> None:
    runtime: Runtime = choose_runtime("process")
    pods, left = kill_client(LocalTransport(runtime), tmp_path, 3)
    assert pods == 3
    assert left == []
