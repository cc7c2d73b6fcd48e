"""CPU time of recording programs with ``map``, and of replaying the recording.

Recording includes the embedded cluster and writing the file; replaying includes reading it.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from gke_sandbox import Cluster, Sandbox
from gke_sandbox._wire.frames import encode
from gke_sandbox.local import LocalTransport, ScriptedRuntime
from gke_sandbox.local.runtimes.base import ContainerExit, ContainerSpec
from gke_sandbox.local.runtimes.scripted import Script

from .harness import Samples, Size, Table
from .server import EXIT


def run(size: Size) -> Table:
    sizes, rounds = size.choose(((1, 10, 100, 1000), 3), ((1, 10, 100), 1), ((1, 3), 1))
    table = Table("replay", ["programs", "record, ms CPU", "replay, ms CPU", "replay / record"])
    with tempfile.TemporaryDirectory() as folder:
        for number in sizes:
            recorded, replayed = [], []
            programs = [f"print({number})" for number in range(number)]
            for round_ in range(rounds):
                path = Path(folder, f"{number}-{round_}.yaml")
                cluster = Cluster.transport(LocalTransport(ScriptedRuntime(_script)))
                recorded.append(_measure(Cluster.record(path, cluster), programs))
                replayed.append(_measure(Cluster.replay(path), programs))
            ratio = Samples(replayed).median / Samples(recorded).median
            table.add("gke-sandbox", number, Samples(recorded), Samples(replayed), ratio)
    return table


def _script(spec: ContainerSpec) -> Script:
    """Return a pod that prints its program."""
    frames = [
        encode("start", b'{"protocol": 1, "python": "3.11.2"}'),
        encode("out", spec.env["GKE_SANDBOX_CODE_0"].encode()),
        encode("exit", json.dumps(EXIT).encode()),
    ]
    return Script([(0.0, frame) for frame in frames], 0.0, ContainerExit(0, "Completed"))


def _measure(cluster: Cluster, programs: list[str]) -> float:
    start = time.process_time()
    with Sandbox(cluster) as sandbox:
        results = sandbox.map(programs)
    seconds = time.process_time() - start
    if [result.stdout for result in results] != programs:
        raise RuntimeError("a program has the output of another one")
    return seconds * 1000
