"""End-to-end tests over real sockets: the embedded cluster behind an HTTP server, found with a kubeconfig."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gke_sandbox import AsyncSandbox, Cluster, NetworkError, OutputChunk, Sandbox
from gke_sandbox.errors import Forbidden, NotFound

from .http_cluster import HttpCluster, http_cluster

ROOT = Path(__file__).parent.parent


@pytest.fixture
def cluster() -> Iterator[HttpCluster]:
    with http_cluster("default", "agent-sandbox") as served:
        yield served


def gone(cluster: HttpCluster) -> bool:
    """Return whether the cluster becomes empty within ten seconds."""
    deadline = time.monotonic() + 10
    while cluster.transport.leftovers() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not cluster.transport.leftovers()


def test_a_run_over_a_network_uses_the_namespace_of_the_context(cluster: HttpCluster, tmp_path: Path) -> None:
    config = cluster.kubeconfig(tmp_path, namespace="agent-sandbox")
    with Sandbox(Cluster.kubeconfig(config)) as sandbox:
        result = sandbox.run("print(open('a').read())", files={"a": "hola"})
        assert sandbox.namespace == "agent-sandbox"
        assert gone(cluster)
    assert (result.status, result.stdout) == ("succeeded", "hola\n")
    asked = [(request.method, request.resource, request.namespace) for request in cluster.transport.requests]
    assert sorted(asked) == sorted(
        [
            ("GET", "pods", "agent-sandbox"),
            ("GET", "pods", "agent-sandbox"),
            ("POST", "jobs", "agent-sandbox"),
            ("POST", "configmaps", "agent-sandbox"),
            ("GET", "pods/log", "agent-sandbox"),
            ("DELETE", "jobs", "agent-sandbox"),
        ]
    )


@pytest.mark.anyio
async def test_output_arrives_while_the_program_runs_and_many_runs_share_the_connections(
    cluster: HttpCluster, tmp_path: Path
) -> None:
    async with AsyncSandbox(Cluster.kubeconfig(cluster.kubeconfig(tmp_path))) as sandbox:
        async with sandbox.stream("import os, time\nos.write(1, b'first')\ntime.sleep(60)") as events:
            async for event in events:
                if isinstance(event, OutputChunk):
                    assert event.data == b"first"
                    break
        results = await sandbox.map([f"print({n})" for n in range(30)], max_concurrency=30)
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(30)]
    assert gone(cluster)


def test_a_missing_namespace_is_reported(cluster: HttpCluster, tmp_path: Path) -> None:
    config = cluster.kubeconfig(tmp_path)
    with Sandbox(Cluster.kubeconfig(config), namespace="elsewhere") as sandbox:
        with pytest.raises((NotFound, Forbidden), match="elsewhere"):
            sandbox.run("pass")
        assert sandbox.leftovers == []


def test_an_unreachable_server_is_reported_with_its_address(tmp_path: Path) -> None:
    with http_cluster() as served:
        config = served.kubeconfig(tmp_path)
    with Sandbox(Cluster.kubeconfig(config)) as sandbox, pytest.raises(NetworkError, match=r"127\.0\.0\.1"):
        sandbox.run("pass")


def test_interpreter_exit_without_close_deletes_the_job_over_the_network(
    cluster: HttpCluster, tmp_path: Path
) -> None:
    code = """
import sys, threading
from gke_sandbox import *
sandbox = Sandbox(Cluster.kubeconfig(sys.argv[1]))
ready = threading.Event()
def run():
    with sandbox.stream("import os, time; os.write(1, b'up'); time.sleep(60)") as events:
        for event in events:
            if isinstance(event, OutputChunk):
                ready.set()
threading.Thread(target=run, daemon=True).start()
print(ready.wait(30))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, cluster.kubeconfig(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=50,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "True\n"), ran.stderr
    assert "Traceback" not in ran.stderr
    assert gone(cluster)


def test_the_command_over_the_network(cluster: HttpCluster, tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "gke_sandbox",
            "run",
            "--kubeconfig",
            cluster.kubeconfig(tmp_path),
            "-c",
            "print(6*7)",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "42\n", "")
    assert gone(cluster)
