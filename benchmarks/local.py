"""What the whole path adds to a program: a run on the embedded cluster, against plain ``python3 -u main.py``.

    python benchmarks/local.py [gvisor|process]

Both in turns, in one process, so that a busy machine slows both. Prints medians and their ratio; then how long 100
runs at once take against 100 plain ones, four at a time.
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
    began = time.perf_counter()
    call(*args)  # type: ignore[operator]
    return time.perf_counter() - began


isolation = sys.argv[1] if len(sys.argv) > 1 else "process"
with tempfile.TemporaryDirectory() as folder, Sandbox(Cluster.local(isolation)) as sandbox:  # type: ignore[arg-type]
    main = Path(folder, "main.py")
    main.write_text(PROGRAM)
    sandbox.run(PROGRAM)
    ours, theirs = [], []
    for _ in range(RUNS):
        ours.append(timed(sandbox.run, PROGRAM))
        theirs.append(timed(plain, main))
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"one run:   embedded ({isolation}) {a:.3f} s, plain {b:.3f} s, ratio {a / b:.1f}")
    a = timed(lambda: sandbox.map([PROGRAM] * MANY, limit=MANY))
    with ThreadPoolExecutor(4) as threads:
        b = timed(lambda: list(threads.map(plain, [main] * MANY)))
    print(f"{MANY} runs:  embedded ({isolation}) {a:.3f} s, plain {b:.3f} s, ratio {a / b:.1f}")
