"""Run many programs concurrently. The results are in the order of the programs.

python examples/many.py [--local]
"""

from __future__ import annotations

import sys

from gke_sandbox import Cluster, Sandbox

PROGRAMS = [f"print(sum(range({n}000)))" for n in range(1, 21)]

cluster = Cluster.local() if "--local" in sys.argv else Cluster.auto()
with Sandbox(cluster) as sandbox:
    results = sandbox.map(PROGRAMS, max_concurrency=10, timeout=60)

for program, result in zip(PROGRAMS, results, strict=True):
    print(program, "->", result.stdout.strip() or result.summary)
