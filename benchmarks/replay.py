"""Measure the CPU time of recording programs and of replaying the recording.

    python -m benchmarks.replay [SIZE ...]

The programs run on the embedded cluster with scripted pods: no Kubernetes, no network, no processes. Recording
includes the embedded cluster and writing the file; replaying includes reading it. Prints the CPU seconds of both
for each number of programs, and their ratio.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from gke_sandbox import Cluster, Sandbox
from gke_sandbox._wire.frames import encode
from gke_sandbox.local import LocalTransport, ScriptedRuntime
from gke_sandbox.local.runtimes.base import ContainerExit, ContainerSpec
from gke_sandbox.local.runtimes.scripted import Script

SIZES = (1, 10, 100, 1000)
EXIT = {"code": 0, "signal": None, "timed_out": False, "seconds": 0.0, "dropped": {"out": 0, "err": 0}}


def script(spec: ContainerSpec) -> Script:
    """Return a pod that prints its program."""
    frames = [
        encode("start", b'{"protocol": 1, "python": "3.11.2"}'),
        encode("out", spec.env["GKE_SANDBOX_CODE_0"].encode()),
        encode("exit", json.dumps(EXIT).encode()),
    ]
    return Script([(0.0, frame) for frame in frames], 0.0, ContainerExit(0, "Completed"))


def measure(cluster: Cluster, programs: list[str]) -> float:
    """Run the programs and return the CPU time in seconds."""
    start = time.process_time()
    with Sandbox(cluster) as sandbox:
        results = sandbox.map(programs)
    seconds = time.process_time() - start
    if [result.stdout for result in results] != programs:
        raise RuntimeError("a program has the output of another one")
    return seconds


def main(sizes: list[int]) -> None:
    """Print a line for each number of programs."""
    print(f"{'programs':>8} {'record':>10} {'replay':>10} {'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            programs = [f"print({number})" for number in range(size)]
            path = Path(folder, f"{size}.yaml")
            recorded = measure(
                Cluster.record(path, Cluster.transport(LocalTransport(ScriptedRuntime(script)))), programs
            )
            replayed = measure(Cluster.replay(path), programs)
            print(f"{size:8} {recorded:8.2f} s {replayed:8.2f} s {replayed / recorded:7.2f}")


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or list(SIZES))
