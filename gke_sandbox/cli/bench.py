"""``gke-sandbox bench``: measure how long runs take on a cluster, started cold, by attach, and warm."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from .._checks import MAX_WARM
from . import options, parsing
from .console import Console, aligned, print_text

if TYPE_CHECKING:
    from .bench_session import Bench

MAX_RUNS = 10_000

HELP = "measure how long runs take, cold and warm"
DESCRIPTION = """\
Measure how long a short program takes on your cluster, from the call to the
result: in a new pod (cold), in a new pod that gets its program over a connection
(attach), and in a pod that was already waiting (warm). The kinds run in turn, so
that load on the cluster affects all of them. Each run starts when all warm pods
wait again. The first run of each kind is not counted.
"""

EPILOG = """\
exit code:
  0 on success; 125 if a run failed or the cluster could not be used; 2 for
  invalid usage; 130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP, when the Jobs
  are deleted

examples:
  gke-sandbox bench --local
  gke-sandbox bench -n 50 --warm 2 --namespace agent-sandbox
  gke-sandbox bench --json | jq .results.warm.seconds.p50
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``bench``."""
    group = parser.add_argument_group("measurement")
    group.add_argument(
        "-n",
        "--runs",
        type=_runs,
        default=20,
        metavar="N",
        help="measure this number of runs of each kind (default: 20)",
    )
    group.add_argument(
        "--warm", type=parsing.number, default=4, metavar="N", help="keep this number of pods warm (default: 4)"
    )
    # -n is the number of runs.
    options.add_cluster(parser, short=False)
    # Each kind of run has its delivery.
    options.add_limits_and_pod(parser, delivery=False)
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the result or the error as one JSON object")


def _runs(value: str) -> int:
    try:
        runs = parsing.number(value)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error} (--namespace NAME sets the namespace)") from None
    if not 1 <= runs <= MAX_RUNS:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MAX_RUNS}, got {runs}")
    return runs


def command(args: argparse.Namespace, console: Console) -> int:
    """Measure, print the tables, and return the exit code. Raises `UsageError` and `SandboxError`."""
    from .bench_session import Bench
    from .interrupts import Interrupts

    if not 1 <= args.warm <= MAX_WARM:
        raise parsing.UsageError(f"--warm: must be between 1 and {MAX_WARM}, got {args.warm}")
    sandbox = options.new_sandbox(args, options.cluster(args), warm=args.warm)
    show = console.show_status if console.can_show_status and not console.json else lambda _: None
    bench = Bench(sandbox, args.runs, show)
    deleting = partial(show, "deleting the Jobs (press Ctrl-C again to exit without waiting)")

    def report() -> None:
        if not console.json:
            _print_tables(bench, sandbox.namespace, console)

    code = Interrupts(sandbox, console, local=args.local, on_signal=deleting).run(bench.run, report)
    if code is not None:
        return code
    if console.json:
        console.print_json(_json(bench, sandbox.namespace, args))
    return 0


def _json(bench: Bench, namespace: str, args: argparse.Namespace) -> dict[str, Any]:
    from .bench_session import PROGRAM

    return {
        "namespace": namespace,
        "program": PROGRAM,
        "runs": args.runs,
        "warm": args.warm,
        "results": {kind: samples.to_json() for kind, samples in bench.samples.items()},
        "cold_starts": bench.cold_starts,
    }


def _print_tables(bench: Bench, namespace: str, console: Console) -> None:
    """Print what was measured. Raises `OutputFailed`."""
    from .bench_session import PROGRAM

    measured = {kind: samples for kind, samples in bench.samples.items() if samples.seconds}
    if not measured:
        return
    counts = ", ".join(f"{len(samples.seconds)} {kind}" for kind, samples in measured.items())
    statistics = {kind: samples.statistics() for kind, samples in measured.items()}
    phases = {kind: samples.phases() for kind, samples in measured.items()}
    text = f"runs of {PROGRAM} in namespace {namespace}: {counts}\n"
    text += f"\n{_table('seconds', statistics)}\n{_table('median of phase', phases)}"
    print_text(text)
    if bench.cold_starts:
        count = "1 run that was" if bench.cold_starts == 1 else f"{bench.cold_starts} runs that were"
        verb = "is" if bench.cold_starts == 1 else "are"
        console.print_note(f"{count} meant to be warm started in a new pod and {verb} not counted")


def _table(title: str, rows: dict[str, Any]) -> str:
    """Return seconds in aligned columns, one line for each kind of run."""
    cells = [[title, *(name.replace("_", " ") for name in next(iter(rows.values())))]]
    for kind, values in rows.items():
        cells.append([kind, *("" if value is None else f"{value:.3f}" for value in values.values())])
    return aligned(cells, numbers=True)
