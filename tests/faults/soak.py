"""Thousands of executions with random faults: nothing grows, and nothing is left.

::

    python -m tests.faults.soak --executions 2000
    python -m tests.faults.soak --executions 1000 --warm 8

Runs programs through one `Sandbox` from many threads, over real connections to an embedded cluster in another
process, where every few requests a fault is injected. Threads, tasks, open files and memory are compared after a
warm-up and at the end. Exits with 1 and prints the reasons if anything grew or was left.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import gke_sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from gke_sandbox import Sandbox
    from gke_sandbox.local.transport import LocalTransport

WORKERS = 16
WARM_UP = 0.25
"""Fraction of the executions after which everything that is created once exists."""
MAX_BYTES_PER_EXECUTION = 1000
"""Maximum growth of memory. The state of the watch and the connections vary by some hundred KB."""
MAX_OWN_BYTES_PER_EXECUTION = 50
"""Maximum growth of memory allocated by this package: the name of the Job, if it could not be deleted."""
SLOW = ("silent", "handshake: no response", "handshake: a response that is too late")
"""Faults of attached connections that take longer than the runs."""
FAULT_PROBABILITY = 0.15
"""Fraction of the requests before which a fault is injected; an execution sends four or more requests."""


# -- the cluster, in a separate process -----------------------------------------------------------------------


def serve(seed: int) -> None:
    """Print the port, and serve until the end of stdin."""
    from gke_sandbox.local.runtimes.scripted import ScriptedRuntime
    from gke_sandbox.local.transport import LocalTransport
    from tests.pods import exit_frame, out
    from tests.warm_runner import WaitingRunner

    from .served import served

    faults = RandomFaults(random.Random(seed))
    runner = WaitingRunner(frames=[out("the output"), exit_frame(0)], pause=0.005)
    transport = LocalTransport(ScriptedRuntime(runner.script), faults=faults.plan)

    def around(inner: LocalTransport) -> RandomFaults:
        faults.inner = inner
        return faults

    with served(transport, around) as cluster:
        print(cluster.port, flush=True)
        for line in sys.stdin:
            faults.plan.clear()
            faults.paused = not line.startswith("resume")
            if line.startswith("forward"):
                cluster.advance(float(line.split()[1]))
            print(json.dumps({"left": cluster.leftovers(), "faults": faults.count}), flush=True)


class RandomFaults:
    """Forwards requests to `inner`, and sometimes injects a fault into one of the next requests."""

    def __init__(self, chance: random.Random) -> None:
        from gke_sandbox.local.faults import FaultPlan

        self.plan = FaultPlan()
        self.inner: LocalTransport | None = None
        self.count = 0
        self.paused = False
        self._chance = chance

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        from gke_sandbox.local.faults import Fault

        from .attach_cells import ATTACH, HANDSHAKE_FAULTS, OUTPUT_FAULTS
        from .cells import EVENTS, REQUESTS, RESPONSES

        if not self.paused and self._chance.random() < FAULT_PROBABILITY:
            self.count += 1
            # The matrix tests stalls, on a mock clock: here they would only take time.
            responses = [fault for fault in RESPONSES if not fault.startswith("stall")]
            attach = {**HANDSHAKE_FAULTS, **OUTPUT_FAULTS}
            if request.url.path.endswith("/attach"):
                name = self._chance.choice([fault for fault in attach if not fault.startswith(SLOW)])
                action, match = attach[name], ATTACH
            else:
                name = self._chance.choice([*responses, *EVENTS])
                where = "watch pods" if name in EVENTS else self._chance.choice(list(REQUESTS))
                action, match = {**RESPONSES, **EVENTS}[name], REQUESTS[where]
            self.plan.clear()
            self.plan.add(Fault(action, match))
        assert self.inner is not None
        return await self.inner.handle_async_request(request)


# -- the client ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """The resources that this process uses."""

    threads: int
    tasks: int
    files: int
    memory: int
    own: int
    """Bytes allocated by the code of this package; `memory` is the total."""

    @classmethod
    def now(cls) -> Use:
        for _ in range(3):
            gc.collect()
        tasks = sum(isinstance(one, asyncio.Task) and not one.done() for one in gc.get_objects())
        memory, _ = tracemalloc.get_traced_memory()
        files = len(os.listdir("/proc/self/fd"))
        package = tracemalloc.Filter(inclusive=True, filename_pattern=f"{os.path.dirname(gke_sandbox.__file__)}/*")
        own = tracemalloc.take_snapshot().filter_traces([package])
        size = sum(each.size for each in own.statistics("filename"))
        return cls(threading.active_count(), tasks, files, memory, size)


@contextmanager
def cluster(seed: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.faults.soak", "--serve", str(seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def send(process: subprocess.Popen[str], command: str) -> dict[str, object]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(command + "\n")
    process.stdin.flush()
    reply: dict[str, object] = json.loads(process.stdout.readline())
    return reply


def wait_until_full(sandbox: Sandbox, process: subprocess.Popen[str]) -> None:
    """Inject no faults until all warm pods are ready, so that the same tasks exist each time."""
    pool = sandbox._open().sandbox._opened().pool
    send(process, "pause")
    deadline = time.monotonic() + 90
    while pool is not None and pool.ready < pool.size and time.monotonic() < deadline:
        time.sleep(0.1)


def soak(executions: int, seed: int, warm: int) -> list[str]:
    """Run the executions, print a summary, and return the problems."""
    from gke_sandbox import Cluster, ResultLost, Sandbox, SandboxError, StartError
    from gke_sandbox.errors import Forbidden, Unauthorized

    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    with cluster(seed) as process, TemporaryDirectory() as directory:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        path = os.path.join(directory, "kubeconfig")
        with open(path, "w") as file:
            file.write(KUBECONFIG.replace("PORT", str(port)))

        def run(_: int) -> str:
            try:
                result = sandbox.run("print('the output')", timeout=20, startup_timeout=20)
            except (StartError, ResultLost) as error:
                # A fault of one request should cause these errors only if it is a refusal, so print the others.
                if isinstance(error.__cause__, (Forbidden, Unauthorized)):
                    return f"{type(error).__name__} from {type(error.__cause__).__name__}"
                print(f"{type(error).__name__}: {error}")
                return type(error).__name__
            except SandboxError as error:
                return type(error).__name__
            if not result.output_truncated and result.stdout != "the output":
                return f"wrong output {result.stdout!r}"
            return f"{result.status}, warm" if result.start == "warm" else result.status

        tracemalloc.start()
        started_at = time.perf_counter()
        first = round(executions * WARM_UP)
        with (
            Sandbox(Cluster.kubeconfig(path), namespace="default", warm=warm) as sandbox,
            ThreadPoolExecutor(WORKERS) as pool,
        ):
            outcomes.update(pool.map(run, range(first)))
            wait_until_full(sandbox, process)
            before = Use.now()
            send(process, "resume")
            outcomes.update(pool.map(run, range(executions - first)))
            wait_until_full(sandbox, process)
            # Jobs are deleted in the background, with retries.
            deadline = time.monotonic() + 15
            while (after := Use.now()).tasks > before.tasks and time.monotonic() < deadline:
                time.sleep(0.1)
        seconds = time.perf_counter() - started_at
        at_close = send(process, "look")
        at_end = send(process, "forward 1400" if warm else "forward 400")
    grown = (after.memory - before.memory) / (executions - first)
    own_grown = (after.own - before.own) / (executions - first)
    print(f"{executions} executions, {at_close['faults']} faults, {seconds:.1f} s, {dict(outcomes.most_common())}")
    print(f"after {first}: {before}\nafter {executions}: {after}")
    print(f"{grown:.0f} bytes per execution, {own_grown:.0f} of them allocated by the package")
    print(f"left at close: {len(at_close['left'])}, after the deadlines: {len(at_end['left'])}")  # type: ignore[arg-type]
    for name in ("threads", "tasks"):
        if getattr(after, name) > getattr(before, name):
            wrong.append(f"{name} grew from {getattr(before, name)} to {getattr(after, name)}")
    if after.files > before.files + WORKERS:
        wrong.append(f"open files grew from {before.files} to {after.files}")
    if grown > MAX_BYTES_PER_EXECUTION:
        wrong.append(f"memory grew by {grown:.0f} bytes per execution; the maximum is {MAX_BYTES_PER_EXECUTION}")
    if own_grown > MAX_OWN_BYTES_PER_EXECUTION:
        wrong.append(
            f"the memory of the package grew by {own_grown:.0f} bytes per execution; "
            f"the maximum is {MAX_OWN_BYTES_PER_EXECUTION}"
        )
    if at_end["left"]:
        wrong.append(f"left in the cluster: {at_end['left']}")
    wrong += [outcome for outcome in outcomes if outcome.startswith("wrong")]
    succeeded = outcomes["succeeded"] + outcomes["succeeded, warm"]
    if succeeded < executions * 0.7:
        wrong.append(f"only {succeeded} of {executions} succeeded")
    if warm and outcomes["succeeded, warm"] < executions * 0.05:
        wrong.append(f"only {outcomes['succeeded, warm']} of {executions} started in warm pods")
    return wrong


KUBECONFIG = (
    "{apiVersion: v1, kind: Config, current-context: c, users: [{name: u, user: {}}], "
    "clusters: [{name: k, cluster: {server: 'http://127.0.0.1:PORT'}}], "
    "contexts: [{name: c, context: {cluster: k, user: u}}]}"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=2000)
    parser.add_argument("--warm", type=int, default=0)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--serve", type=int, metavar="SEED", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve)
        return 0
    import logging

    logging.getLogger("gke_sandbox").setLevel(logging.CRITICAL)
    wrong = soak(given.executions, given.seed, given.warm)
    for each in wrong:
        print(f"wrong: {each}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
