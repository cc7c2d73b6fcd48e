"""Measure the time and memory to import the client, compared with the kubernetes package.

    pip install kubernetes && python benchmarks/imports.py

Prints medians of new interpreters and their ratios. Without the kubernetes package, only those of this package are
printed.
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys

RUNS = 15
MEASURE = """
import resource, sys, time
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
{statement}
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
OURS = "from gke_sandbox import AsyncSandbox; import gke_sandbox.kube.client"
PEER = "from kubernetes import client, config, watch"


def measure(statement: str) -> tuple[float, float]:
    """Return the median seconds and MiB of an import in new interpreters."""
    samples = []
    for _ in range(RUNS):
        process = subprocess.run(
            [sys.executable, "-c", MEASURE.format(statement=statement)], capture_output=True, text=True, check=True
        )
        seconds, kibibytes = process.stdout.split()
        samples.append((float(seconds), float(kibibytes) / 1024))
    return statistics.median(s for s, _ in samples), statistics.median(m for _, m in samples)


seconds, mebibytes = measure(OURS)
print(f"gke_sandbox   {seconds:6.3f} s  {mebibytes:6.1f} MiB")
if importlib.util.find_spec("kubernetes") is None:
    print("kubernetes is not installed: no ratio")
else:
    peer_seconds, peer_mebibytes = measure(PEER)
    print(f"kubernetes    {peer_seconds:6.3f} s  {peer_mebibytes:6.1f} MiB")
    print(f"ratio         {peer_seconds / seconds:6.1f}    {peer_mebibytes / mebibytes:6.1f}")
