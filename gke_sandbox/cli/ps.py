"""``gke-sandbox ps``: list the runs in a namespace."""

from __future__ import annotations

import argparse
import dataclasses
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from . import options, parsing
from .console import Console, age_text, aligned, print_text

if TYPE_CHECKING:
    from .._engine.runs import Run

HELP = "list the runs in a namespace"
DESCRIPTION = """\
List the runs and the warm pods of gke-sandbox in a namespace, the oldest first.
The CPU and the memory are what the pod requests. The status is starting, running,
warm (a warm pod: it waits for a program or runs one), finished, suspended (by a
queue), or leftover: the Job is past its deadline, and "gke-sandbox clean" deletes
it.
"""

EPILOG = """\
exit code:
  0 on success; 125 if the cluster could not be reached or a permission is
  missing; 2 for invalid usage

examples:
  gke-sandbox ps --namespace agent-sandbox
  gke-sandbox ps --all-namespaces --json | jq '.runs | length'
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``ps``."""
    group = parser.add_argument_group("selection")
    group.add_argument("-A", "--all-namespaces", action="store_true", help="list the runs of all namespaces")
    options.add_cluster(parser, embedded=False)
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the runs or the error as one JSON object")


def command(args: argparse.Namespace, console: Console) -> int:
    """List the runs, print them, and return the exit code. Raises `UsageError` and `SandboxError`."""
    import anyio

    from .._engine import runs

    options.reject_local(args, "list")
    if args.all_namespaces and options.namespace(args) is not None:
        raise parsing.UsageError("--all-namespaces cannot be combined with --namespace")
    client, namespace = options.connect(args)
    where = None if args.all_namespaces else namespace

    async def main() -> list[Run]:
        async with client:
            return await runs.find(client, where, datetime.now(timezone.utc))

    found = anyio.run(main)
    if console.json:
        console.print_json({"namespace": where, "runs": [dataclasses.asdict(run) for run in found]})
    else:
        print_text(_as_text(found, where))
    return 0


def _as_text(found: list[Run], namespace: str | None) -> str:
    if not found:
        return f"no runs in {'any namespace' if namespace is None else f'namespace {namespace}'}\n"
    header = ["JOB", "AGE", "SESSION", "STATUS", "NODE", "CPU", "MEMORY"]
    rows = [[run.job, age_text(run.age), run.session, run.status, run.node, run.cpu, run.memory] for run in found]
    if namespace is None:
        header.insert(0, "NAMESPACE")
        for row, run in zip(rows, found, strict=True):
            row.insert(0, run.namespace)
    return aligned([header, *rows])
