"""Run programs as one client process and print measurements as JSON: ``python -m benchmarks.load``.

Each measurement has its own process, so that memory, threads and CPU time are those of one client.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PROGRAM = "print('hello')\n"


class Threads:
    """The highest number of threads, sampled while the block runs, without the one that samples."""

    def __enter__(self) -> Threads:
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while True:
            # Also the threads that are not Python's.
            status = Path("/proc/self/status")
            lines = status.read_text().splitlines() if status.exists() else []
            counts = [int(line.split()[1]) for line in lines if line.startswith("Threads:")]
            self.most = max(self.most, (counts or [threading.active_count()])[0] - 1)
            if self._stop.wait(0.1):
                return

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def peak_memory() -> int:
    """Return the peak memory of this process in KiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # The other value includes that of the process which started this one.
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    from gke_sandbox import Cluster, Sandbox

    warm = arguments.in_flight if arguments.warm else 0
    with Sandbox(Cluster.kubeconfig(arguments.kubeconfig), warm=warm) as sandbox:
        sandbox.run(PROGRAM)
        if warm:
            # Only a real cluster needs more than a moment.
            time.sleep(0.5 if arguments.server else arguments.settle)

        def run_one() -> str:
            result = sandbox.run(PROGRAM)
            check(result.stdout)
            return result.job

        def run_all() -> list[str]:
            results = sandbox.map(
                [PROGRAM] * arguments.runs,
                max_concurrency=arguments.in_flight,
                return_exceptions=True,
                startup_timeout=600.0,
            )
            failures = [result for result in results if isinstance(result, Exception)]
            for result in results:
                if not isinstance(result, Exception):
                    check(result.stdout)
            return [f"{type(error).__name__}: {error}" for error in failures]

        return measured(arguments, run_one, run_all)


def run_httpx(arguments: argparse.Namespace) -> dict[str, Any]:
    """Follow a log for each run with httpx, and nothing else: what every client that is built on it needs."""
    import anyio
    import httpx

    # It deletes nothing.
    arguments.settle = 0.0
    server = f"http://{arguments.server}"
    metadata = {"name": "job"}
    pod_spec = {"containers": [{"name": "main", "image": "image"}]}
    job = {"metadata": metadata, "spec": {"template": {"spec": pod_spec}}}

    async def follow(client: httpx.AsyncClient) -> None:
        log = f"{server}/api/v1/namespaces/default/pods/job-x/log"
        async with client.stream("GET", log, params={"follow": "true"}) as response:
            async for _ in response.aiter_raw():
                pass

    async def follow_all(count: int) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=None, limits=limits) as client:
            await client.post(f"{server}/apis/batch/v1/namespaces/default/jobs", json=job)
            await client.post(f"{server}/api/v1/namespaces/default/configmaps", json={"metadata": metadata})
            async with anyio.create_task_group() as tasks:
                for _ in range(count):
                    tasks.start_soon(follow, client)

    def run_all() -> list[str]:
        anyio.run(follow_all, arguments.runs)
        return []

    anyio.run(follow_all, 1)
    return measured(arguments, lambda: "", run_all)


def run_adk(arguments: argparse.Namespace) -> dict[str, Any]:
    """Use google-adk's executor: a thread for each program in flight, as an agent framework does."""
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    from types import SimpleNamespace

    from google.adk.code_executors.code_execution_utils import CodeExecutionInput
    from google.adk.code_executors.gke_code_executor import GkeCodeExecutor

    # It deletes nothing.
    arguments.settle = 0.0
    executor = GkeCodeExecutor(kubeconfig_path=arguments.kubeconfig)
    context: Any = SimpleNamespace(invocation_id="benchmark")

    def run_one() -> str:
        result = executor.execute_code(context, CodeExecutionInput(code=PROGRAM))
        check(result.stdout or result.stderr)
        return ""

    def run_all() -> list[str]:
        def attempt(_: int) -> str | None:
            try:
                run_one()
            except Exception as error:  # noqa: BLE001 - counted
                return f"{type(error).__name__}: {error}"
            return None

        with ThreadPoolExecutor(arguments.in_flight) as threads:
            return [error for error in threads.map(attempt, range(arguments.runs)) if error is not None]

    run_one()
    return measured(arguments, run_one, run_all)


def run_agent_sandbox(arguments: argparse.Namespace) -> dict[str, Any]:
    """Use Agent Sandbox: a claim for each program, from the warm pool that the cluster has."""
    import kubernetes
    from k8s_agent_sandbox import SandboxClient

    # Its connections to pods are those of ``kubectl port-forward``.
    os.environ["KUBECONFIG"] = arguments.kubeconfig
    api = kubernetes.config.new_client_from_config(arguments.kubeconfig)
    objects = kubernetes.client.CustomObjectsApi(api)
    group = "extensions.agents.x-k8s.io"
    versions = kubernetes.client.ApisApi(api).get_api_versions().groups
    version = next((each.preferred_version.version for each in versions if each.name == group), None)
    if version is None:
        raise RuntimeError("the cluster has no Agent Sandbox")
    pools = objects.list_cluster_custom_object(group, version, "sandboxwarmpools")["items"]
    if not pools:
        raise RuntimeError("the cluster has no SandboxWarmPool")
    pool = pools[0]["metadata"]
    # Without the first argument it would use the cluster of the pod that it runs in.
    client: Any = SandboxClient(api_client=api)

    def run_one() -> str:
        sandbox = client.create_sandbox(pool["name"], namespace=pool["namespace"])
        try:
            sandbox.files.write("main.py", PROGRAM)
            check(sandbox.commands.run("python3 main.py").stdout)
        finally:
            client.delete_sandbox(sandbox.claim_name, namespace=pool["namespace"])
        return ""

    def run_all() -> list[str]:
        with ThreadPoolExecutor(arguments.in_flight) as threads:
            for _ in threads.map(lambda _: run_one(), range(arguments.runs)):
                pass
        return []

    run_one()
    return measured(arguments, run_one, run_all)


def check(output: str) -> None:
    if output.strip() not in ("hello", PROGRAM.strip()):
        raise RuntimeError(f"the program printed {output!r}")


def measured(
    arguments: argparse.Namespace, run_one: Callable[[], str], run_all: Callable[[], list[str]]
) -> dict[str, Any]:
    """Return what the runs took: in some threads, one after the other in each, or all together."""
    if arguments.server:
        wait_for_cleanup(arguments)
        ask(arguments.server, "POST", json.loads(arguments.options))
    memory, start, cpu_start = peak_memory(), time.monotonic(), time.process_time()
    returned: list[tuple[str, float, float]] = []
    failures: list[str] = []
    with Threads() as threads:
        if arguments.threads:

            def timed(number: int) -> None:
                # The threads start at different times, so that their runs do not end together.
                time.sleep(0.15 * number if number < arguments.threads else 0.0)
                called = time.monotonic()
                job = run_one()
                returned.append((job, called, time.monotonic()))
                time.sleep(arguments.pause)

            with ThreadPoolExecutor(arguments.threads) as pool:
                list(pool.map(timed, range(arguments.runs)))
        else:
            failures = run_all()
    seconds, used = time.monotonic() - start, time.process_time() - cpu_start
    if arguments.server:
        # Deletions follow the result.
        wait_for_cleanup(arguments)
        used = time.process_time() - cpu_start
    report = ask(arguments.server, "GET") if arguments.server else {}
    return {
        "seconds": seconds,
        "cpu": used,
        "memory": peak_memory() - memory,
        "peak": peak_memory(),
        "threads": threads.most,
        "failures": failures,
        "returned": returned,
        "server": report,
    }


def wait_for_cleanup(arguments: argparse.Namespace) -> None:
    """Wait until only the Jobs of warm pods are left, and at most for `settle` seconds."""
    until = time.monotonic() + arguments.settle
    expected = arguments.in_flight if arguments.warm else 0
    while time.monotonic() < until and ask(arguments.server, "GET")["jobs_left"] != expected:
        time.sleep(0.1)
    time.sleep(0.1)


def ask(server: str, method: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Get or reset the counts of the test server."""
    from http.client import HTTPConnection

    connection = HTTPConnection(server)
    connection.request(method, "/bench", json.dumps(options or {}))
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


CLIENTS = {"ours": run_ours, "httpx": run_httpx, "google-adk": run_adk, "agent-sandbox": run_agent_sandbox}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--server", default="")
    parser.add_argument("--options", default="{}")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="each starts its runs in turn; 0: all at once")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--settle", type=float, default=10.0)
    arguments = parser.parse_args()
    print(json.dumps(CLIENTS[arguments.client](arguments)))


if __name__ == "__main__":
    main()
