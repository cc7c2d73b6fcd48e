"""``gke-sandbox clean``: delete orphaned Jobs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from .._exit_codes import FAILED
from . import options, parsing
from .console import Console, age_text, one_line, print_text

if TYPE_CHECKING:
    from .._engine.orphans import Leftover
    from ..errors import SandboxError
    from ..kube.client import KubeClient

DEFAULT_AGE = 3600.0
"""Age in seconds from which a Job is deleted."""

HELP = "delete Jobs that were left behind"
DESCRIPTION = """\
Delete Jobs that gke-sandbox left in a namespace, with their pods and
ConfigMaps. Normally nothing needs cleaning: each run deletes its own Job, and a
Job whose client died stops at its deadline. By default only Jobs older than one
hour are deleted, and only if they are finished or past their deadline. With
--older-than or --all, Jobs of active runs are deleted too.
"""

EPILOG = """\
exit code:
  0 on success; 125 if a Job could not be deleted or the cluster could not be
  reached; 2 for invalid usage

examples:
  gke-sandbox clean --dry-run
  gke-sandbox clean --older-than 10m --namespace agent-sandbox
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``clean``."""
    group = parser.add_argument_group("selection")
    group.add_argument(
        "--older-than",
        type=parsing.seconds,
        metavar="TIME",
        help="delete every Job older than this (90s, 10m, 1h, 2d), also of active runs "
        "(default: 1h, without active runs)",
    )
    group.add_argument("--all", action="store_true", help="delete every Job, also of active runs")
    group.add_argument("--dry-run", action="store_true", help="show what would be deleted, and delete nothing")
    options.add_cluster(parser, embedded=False)
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the result or the error as one JSON object")


@dataclass
class Cleaning:
    """Find orphaned Jobs in a namespace and delete them. The fields below `skip_active` are the outcome."""

    namespace: str
    dry_run: bool
    older_than: float
    skip_active: bool = False
    """Skip Jobs whose client may still wait for the result."""
    to_delete: list[Leftover] = field(default_factory=list)
    skipped: int = 0
    deleted: list[Leftover] = field(default_factory=list)
    failed: list[tuple[Leftover, SandboxError]] = field(default_factory=list)

    async def run(self, client: KubeClient, now: datetime) -> None:
        """Find the Jobs and, except in a dry run, delete them. `now` is the time of day of this machine."""
        from .._engine import orphans

        found = await orphans.find(client, self.namespace, now)
        self.to_delete = [
            job for job in found if job.age >= self.older_than and not (self.skip_active and job.may_be_in_flight)
        ]
        self.skipped = len(found) - len(self.to_delete)
        if not self.dry_run:
            await orphans.remove(client, self.namespace, self.to_delete, self._record)

    def _record(self, job: Leftover, error: SandboxError | None) -> None:
        if error is None:
            self.deleted.append(job)
        else:
            self.failed.append((job, error))


def command(args: argparse.Namespace, console: Console) -> int:
    """Delete Jobs, print what was done, and return the exit code. Raises `UsageError` and `SandboxError`."""
    import anyio

    options.reject_local(args, "clean")
    if args.all and args.older_than is not None:
        raise parsing.UsageError("--all cannot be combined with --older-than")
    client, namespace = options.connect(args)
    default_age = 0.0 if args.all else DEFAULT_AGE
    cleaning = Cleaning(
        namespace,
        dry_run=args.dry_run,
        older_than=default_age if args.older_than is None else args.older_than,
        skip_active=not args.all and args.older_than is None,
    )

    async def main() -> None:
        async with client:
            await cleaning.run(client, datetime.now(timezone.utc))

    try:
        anyio.run(main)
    except KeyboardInterrupt:
        if not console.json:
            _print_summary(cleaning, console)
        raise
    if console.json:
        console.print_json(_json(cleaning))
    else:
        _print_summary(cleaning, console)
    return FAILED if cleaning.failed else 0


def _json(cleaning: Cleaning) -> dict[str, Any]:
    value: dict[str, Any] = {
        "namespace": cleaning.namespace,
        "dry_run": cleaning.dry_run,
        "deleted": [_job_json(job) for job in cleaning.deleted],
        "failed": [
            {
                **_job_json(job),
                "error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint},
            }
            for job, error in cleaning.failed
        ],
        "spared": cleaning.skipped,
    }
    if cleaning.dry_run:
        value["would_delete"] = [_job_json(job) for job in cleaning.to_delete]
    return value


def _job_json(job: Leftover) -> dict[str, Any]:
    return {"job": job.job, "session": job.session, "age": job.age, "finished": job.finished}


def _print_summary(cleaning: Cleaning, console: Console) -> None:
    verb = "would delete" if cleaning.dry_run else "deleted"
    jobs = cleaning.to_delete if cleaning.dry_run else cleaning.deleted
    lines = [f"{verb} {_describe(job)}\n" for job in jobs]
    skipped = ""
    if cleaning.skipped:
        skipped = f"; skipped {_count(cleaning.skipped)} younger than {age_text(cleaning.older_than)}"
        skipped += " or not past the deadline" if cleaning.skip_active else ""
    lines.append(f"{verb} {_count(len(jobs))} in namespace {cleaning.namespace}{skipped}\n")
    print_text("".join(lines))
    hints = []
    for job, error in cleaning.failed:
        console.print_error(f"cannot delete the Job {job.job}: {error.message}")
        if error.hint and error.hint not in hints:
            hints.append(error.hint)
    for hint in hints:
        console.print_line(f"hint: {hint}")


def _describe(job: Leftover) -> str:
    state = "finished" if job.finished else "not finished"
    return one_line(f"{job.job} ({age_text(job.age)} old, {state}, session {job.session or 'unknown'})")


def _count(jobs: int) -> str:
    return "1 Job" if jobs == 1 else f"{jobs or 'no'} Jobs"
