"""Run the benchmarks: ``python -m benchmarks [NAME ...] [--json] [--quick]``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

from . import footprint, imports, latency, live, local, overload, replay, requests, scale, stream
from .harness import Size, Table, environment

BENCHMARKS: dict[str, Callable[[Size], Table]] = {
    "import": imports.run,
    "footprint": footprint.run,
    "requests": requests.run,
    "latency": latency.run,
    "scale": scale.run,
    "overload": overload.run,
    "replay": replay.run,
    "stream": stream.run,
    "local": local.run,
    "live": live.run,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure gke-sandbox and the installed clients of benchmarks/requirements.txt, in turn.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", action="store_true", help="print JSON with every measurement")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller measurements, about a minute")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--kubeconfig", default="", metavar="PATH", help="a real cluster, for the benchmark live")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]}; choose from {', '.join(BENCHMARKS)}")
    size = Size(tiny=options.tiny, quick=options.quick, kubeconfig=options.kubeconfig)
    machine = environment()
    tables: list[Table] = []
    if not options.json:
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        print(
            f"Python {machine['python']}, {machine['system']}, {machine['cpus']} CPUs, load {machine['load'][0]}"
        )
        print(f"{versions}\n")
    for name in options.names or BENCHMARKS:
        start = time.monotonic()
        table = BENCHMARKS[name](size)
        tables.append(table)
        if not options.json:
            print(f"{table.text()}\n({time.monotonic() - start:.0f} s)\n", flush=True)
    if options.json:
        print(json.dumps({"environment": machine, "tables": [table.json() for table in tables]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
