"""Measure the overhead of a run on the embedded cluster, compared with plain ``python3 -u main.py``.

    python benchmarks/local.py [gvisor|process]

Both run alternately in one process, so that load on the machine affects both. Prints medians and their ratio, then
the time of 100 concurrent runs and of 100 plain ones, four at a time.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gke_sandbox import Cluster, Sandbox

PROGRAM = "print('hola')"
RUNS = 20
MANY = 100


def plain(main: Path) -> None:
    subprocess.run([sys.executable, "-u", str(main)], check=True, stdout=subprocess.DEVNULL)


def timed(call: object, *args: object) -> float:
    start = time.perf_counter()
    call(*args)  # type: ignore[operator]
    return time.perf_counter() - start


isolation = sys.argv[1] if len(sys.argv) > 1 else "process"
with tempfile.TemporaryDirectory() as folder, Sandbox(Cluster.local(isolation)) as sandbox:  # type: ignore[arg-type]
    main = Path(folder, "main.py")
    main.write_text(PROGRAM)
    sandbox.run(PROGRAM)
    sandboxed, unsandboxed = [], []
    for _ in range(RUNS):
        sandboxed.append(timed(sandbox.run, PROGRAM))
        unsandboxed.append(timed(plain, main))
    a, b = statistics.median(sandboxed), statistics.median(unsandboxed)
    print(f"one run:   embedded ({isolation}) {a:.3f} s, plain {b:.3f} s, ratio {a / b:.1f}")
    a = timed(lambda: sandbox.map([PROGRAM] * MANY, max_concurrency=MANY))
    with ThreadPoolExecutor(4) as threads:
        b = timed(lambda: list(threads.map(plain, [main] * MANY)))
    print(f"{MANY} runs:  embedded ({isolation}) {a:.3f} s, plain {b:.3f} s, ratio {a / b:.1f}")
