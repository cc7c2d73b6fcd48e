"""Print the phases and the output of a program while it runs.

python examples/streaming.py [--local]
"""

from __future__ import annotations

import sys

import anyio

from gke_sandbox import AsyncSandbox, Cluster, ExecutionFinished, OutputChunk, PhaseChanged, PodWaiting

PROGRAM = """
import time
for n in range(5):
    print("step", n)
    time.sleep(0.2)
"""


async def main() -> None:
    cluster = Cluster.local() if "--local" in sys.argv else Cluster.auto()
    async with AsyncSandbox(cluster) as sandbox, sandbox.stream(PROGRAM, timeout=30) as events:
        async for event in events:
            if isinstance(event, PhaseChanged):
                print(f"{event.seconds:6.2f} s  {event.phase} {event.detail}")
            elif isinstance(event, PodWaiting):
                print(f"{event.seconds:6.2f} s  waiting: {event.reason}: {event.message}")
            elif isinstance(event, OutputChunk):
                print(f"{event.seconds:6.2f} s  {event.stream}: {event.text!r}")
            elif isinstance(event, ExecutionFinished):
                print("ended with", event.result.summary)


anyio.run(main)
