"""Run programs as one client process and print measurements as JSON: ``python -m benchmarks.load``.

Each measurement has its own process, so that memory, threads and CPU time are those of one client.
"""

from __future__ import annotations

import argparse
import json
import logging
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


def cpu() -> float:
    return time.process_time()


def peak_memory() -> int:
    """Return the peak memory of this process in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    from gke_sandbox import Cluster, Sandbox

    warm = arguments.in_flight if arguments.warm else 0
    with Sandbox(Cluster.kubeconfig(arguments.kubeconfig), warm=warm, image=arguments.image) as sandbox:
        sandbox.run(PROGRAM)
        if warm:
            time.sleep(arguments.settle)

        def run_one() -> str:
            result = sandbox.run(PROGRAM)
            check(result.stdout)
            return result.job

        def run_all() -> list[str]:
            results = sandbox.map(
                [PROGRAM] * arguments.runs,
                max_concurrency=arguments.in_flight,
                return_exceptions=True,
                startup_timeout=arguments.startup_timeout,
            )
            failures = [result for result in results if isinstance(result, Exception)]
            for result in results:
                if not isinstance(result, Exception):
                    check(result.stdout)
            return [f"{type(error).__name__}: {error}" for error in failures]

        return measured(arguments, run_one, run_all)


def run_adk(arguments: argparse.Namespace) -> dict[str, Any]:
    """Use google-adk's executor: a thread for each program in flight, as an agent framework does."""
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    from types import SimpleNamespace

    from google.adk.code_executors.code_execution_utils import CodeExecutionInput
    from google.adk.code_executors.gke_code_executor import GkeCodeExecutor

    executor = GkeCodeExecutor(kubeconfig_path=arguments.kubeconfig, image=arguments.image)
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


def check(output: str) -> None:
    if output.strip() not in ("hello", PROGRAM.strip()):
        raise RuntimeError(f"the program printed {output!r}")


def measured(
    arguments: argparse.Namespace, run_one: Callable[[], str], run_all: Callable[[], list[str]]
) -> dict[str, Any]:
    """Return what the runs took: one after the other, or all together."""
    if arguments.server:
        ask(arguments.server, "POST", json.loads(arguments.options))
    memory, start, cpu_start = peak_memory(), time.monotonic(), cpu()
    returned: list[tuple[str, float, float]] = []
    failures: list[str] = []
    with Threads() as threads:
        if arguments.sequential:
            for _ in range(arguments.runs):
                called = time.monotonic()
                job = run_one()
                returned.append((job, called, time.monotonic()))
                time.sleep(arguments.pause)
        else:
            failures = run_all()
    seconds, used = time.monotonic() - start, cpu() - cpu_start
    if arguments.server:
        # Deletions follow the result.
        time.sleep(arguments.settle)
        used = cpu() - cpu_start
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


def ask(server: str, method: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Get or reset the counts of the test server."""
    from http.client import HTTPConnection

    connection = HTTPConnection(server)
    connection.request(method, "/bench", json.dumps(options or {}))
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


CLIENTS = {"ours": run_ours, "google-adk": run_adk}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--server", default="")
    parser.add_argument("--options", default="{}")
    parser.add_argument("--image", default="python:3.11-slim")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--startup-timeout", type=float, default=600.0)
    parser.add_argument("--sequential", action="store_true")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--settle", type=float, default=0.5)
    arguments = parser.parse_args()
    print(json.dumps(CLIENTS[arguments.client](arguments)))


if __name__ == "__main__":
    main()
