"""A run on this machine: the embedded cluster, plain Python, and `Sandbox.exec` of the package gvisor."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from gke_sandbox import Cluster, Sandbox

from .harness import Samples, Size, Table, is_installed

PROGRAM = "print('hello')"


def run(size: Size) -> Table:
    rounds, many = size.choose((20, 50), (3, 4), (1, 2))
    gvisor = shutil.which("runsc") is not None and not size.tiny
    has_peer = gvisor and is_installed("gvisor")
    table = Table("local", ["one run, ms", "runs per second, 4 at a time"])
    with ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {"plain Python": _plain}
        sandboxes: dict[str, Sandbox] = {}
        for isolation in ("process", *(("gvisor",) if gvisor else ())):
            cold = stack.enter_context(Sandbox(Cluster.local(isolation)))  # type: ignore[arg-type]
            warm = stack.enter_context(Sandbox(Cluster.local(isolation), warm=2))  # type: ignore[arg-type]
            sandboxes[f"gke-sandbox, {isolation}"] = cold
            calls[f"gke-sandbox, {isolation}"] = lambda cold=cold: cold.run(PROGRAM)  # type: ignore[misc]
            calls[f"gke-sandbox, {isolation}, warm"] = lambda warm=warm: warm.run(PROGRAM)  # type: ignore[misc]
        if has_peer:
            calls |= _peer(stack)
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(rounds):
            for name, call in calls.items():
                if "warm" in name:
                    # A pod is created in the place of the one that was taken.
                    time.sleep(size.choose(1.5, 1.0, 0.3))
                start = time.perf_counter()
                call()
                samples[name].append((time.perf_counter() - start) * 1000)
        for name, values in samples.items():
            rate = None
            if name in sandboxes:
                start = time.perf_counter()
                sandboxes[name].map([PROGRAM] * many, max_concurrency=4)
                rate = many / (time.perf_counter() - start)
            table.add(name, Samples(values), rate)
    if not has_peer:
        table.add_missing("gvisor")
    if not gvisor:
        table.notes.append("runsc is not installed: no isolation by gVisor.")
    return table


def _plain() -> None:
    subprocess.run([sys.executable, "-u", "-c", PROGRAM], check=True, stdout=subprocess.DEVNULL)


def _peer(stack: ExitStack) -> dict[str, Callable[[], object]]:
    from gvisor import Mount
    from gvisor import Sandbox as Gvisor

    python = str(Path(sys.executable).resolve())
    # It has /usr and /lib, but not this interpreter if that is elsewhere.
    mounts = [] if sys.base_prefix.startswith("/usr") else [Mount.bind(sys.base_prefix, sys.base_prefix)]
    opened = stack.enter_context(Gvisor(mounts=mounts))

    def cold() -> None:
        # Closed at the end: a result does not wait for the cleanup.
        stack.enter_context(Gvisor(mounts=mounts)).exec(python, "-c", PROGRAM)

    return {"gvisor": cold, "gvisor, warm": lambda: opened.exec(python, "-c", PROGRAM)}
