"""Programs in warm pods that leave marks wherever they can write, and look for the marks of others.

::

    python -m tests.faults.marks --runs 1000 --warm 8 --isolation process
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from functools import partial

import anyio

from gke_sandbox import AsyncSandbox, Cluster, ExecutionResult
from gke_sandbox.cluster import Isolation

PROGRAM = """
import builtins, glob, json, os, subprocess, sys, tempfile, threading, time

me, shared = sys.argv[1], sys.argv[2] == "gvisor"
places = {os.getcwd(), os.path.expanduser("~"), tempfile.gettempdir()}
if shared:
    places |= {"/tmp", "/dev/shm", "/var/tmp", "/run", "/"}
places = [each for each in sorted(places) if os.access(each, os.R_OK)]
found = [path for place in places for path in glob.glob(glob.escape(place) + "/*mark-*")]
found += [name for name in os.environ if name.startswith("MARK_") and name != "MARK_" + me]
found += [name for name in sys.modules if name.startswith("mark_")]
found += [name for name in vars(builtins) if name.startswith("mark_")]
found += [each.name for each in threading.enumerate() if each is not threading.main_thread()]
found += [] if sorted(os.listdir()) == ["given-" + me, "main.py"] else os.listdir()
found += [] if open("given-" + me).read() == me else ["given"]
found += [] if sys.stdin.read() == me else ["stdin"]
mask = os.umask(0o077)
found += [] if mask == int(os.environ.get("UMASK", "18")) else ["umask %o" % mask]
if shared:
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                command = file.read()
        except OSError:
            continue
        found += [path] if b"sleep 1234" in command.replace(b"\\0", b" ") else []
marked = 0
for place in places:
    try:
        with open(place + "/mark-" + me, "w") as file:
            file.write(me)
        marked += place != os.getcwd()
    except OSError:
        pass
os.environ["MARK_of_" + me] = "1"
builtins.mark_of_me = sys.modules["mark_of_" + me] = me
subprocess.Popen(["sleep", "1234"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(json.dumps({"found": found, "marked": marked}))
"""


async def leave_marks(isolation: Isolation, *, runs: int, warm: int) -> list[ExecutionResult]:
    """Run the program `runs` times in warm pods, `warm` at a time, and return the results."""
    results: list[ExecutionResult] = []
    numbers = iter(range(runs))
    async with AsyncSandbox(Cluster.local(isolation), warm=warm) as sandbox:
        pool = sandbox._opened().pool
        assert pool is not None

        async def work() -> None:
            for number in numbers:
                me = f"{number}_of_{runs}"
                await pool.wait_until_ready()
                # Nothing is awaited before it takes the pod.
                result = await sandbox.run(
                    PROGRAM,
                    files={f"given-{me}": me},
                    args=[me, isolation],
                    stdin=me,
                    env={f"MARK_{me}": "1"},
                )
                results.append(result)

        async with anyio.create_task_group() as group:
            for _ in range(warm):
                group.start_soon(work)
    return results


def problems(results: list[ExecutionResult]) -> list[str]:
    """Return what is wrong: marks of other programs, cold starts, pods that ran two programs."""
    wrong = [f"{result.status}: {result.stderr}{result.message}" for result in results if not result.ok]
    reports = [json.loads(result.stdout) for result in results if result.ok]
    wrong += [f"found {report['found']}" for report in reports if report["found"]]
    wrong += ["no mark was left outside of the working directory" for report in reports if not report["marked"]]
    wrong += [f"a program started {result.start}" for result in results if result.start != "warm"]
    pods = Counter(result.pod for result in results)
    return wrong + [f"pod {pod} ran {count} programs" for pod, count in pods.items() if count > 1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--warm", type=int, default=8)
    parser.add_argument("--isolation", choices=("gvisor", "process"), default="process")
    given = parser.parse_args()
    started_at = time.perf_counter()
    results = anyio.run(partial(leave_marks, given.isolation, runs=given.runs, warm=given.warm))
    seconds = time.perf_counter() - started_at
    print(f"{len(results)} programs in warm pods ({given.isolation}), {seconds:.1f} s")
    wrong = problems(results)
    for each in wrong[:20]:
        print(f"wrong: {each}", file=sys.stderr)
    return 1 if wrong or len(results) < given.runs else 0


if __name__ == "__main__":
    sys.exit(main())
