"""Run a dialogue of short programs in pods that were already waiting.

python examples/warm.py [--local]
"""

from __future__ import annotations

import sys
import time

from gke_sandbox import Cluster, Sandbox

BLOCKS = [
    "import statistics\nprint(statistics.mean([2, 4, 9]))",
    "print(sorted('warm'))",
    "import pathlib\nprint(list(pathlib.Path('/tmp').glob('left-by-another-program')))",
]

cluster = Cluster.local() if "--local" in sys.argv else Cluster.auto()
with Sandbox(cluster, warm=2, timeout=30) as sandbox:
    for block in BLOCKS:
        # A model thinks for some time between two blocks. The pods start meanwhile.
        time.sleep(1)
        started = time.perf_counter()
        result = sandbox.run(block)
        seconds = time.perf_counter() - started
        print(f"{result.start}, {seconds:.3f} s: {result.stdout.strip() or result.summary}")
        for warning in result.warnings:
            print("warning:", warning)
