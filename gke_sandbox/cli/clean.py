"""``gke-sandbox clean``: remove the Jobs that were left behind."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from . import exit_codes, options, parsing
from .console import Console, one_line, print_text
from .errors import logging_shown, tell

if TYPE_CHECKING:
    from .._engine.orphans import Leftover
    from ..errors import SandboxError
    from ..kube.client import KubeClient

DEFAULT_AGE = 3600.0

_DESCRIPTION = """\
Delete Jobs of gke-sandbox in a namespace, with their pods and ConfigMaps. There should be none that is old: a
run deletes its Job, and a Job whose client was killed ends by itself at its deadline. By default only Jobs that
were made more than an hour ago are deleted, and of those only what has ended or is beyond its deadline. With
--older-than or --all, runs that are in flight are ended too.
"""

_EPILOG = """\
exit status:
  0 if nothing is left that should not be; 125 if a Job could not be deleted, or the cluster not be asked;
  2 for bad usage

examples:
  gke-sandbox clean --dry-run
  gke-sandbox clean --older-than 10m --namespace agent-sandbox
"""


def add_parser(subcommands: argparse._SubParsersAction[parsing.Parser]) -> None:
    """Register ``clean``."""
    parser = subcommands.add_parser(
        "clean", help="delete Jobs that were left behind", description=_DESCRIPTION, epilog=_EPILOG
    )
    group = parser.add_argument_group("what to delete")
    group.add_argument(
        "--older-than",
        type=parsing.seconds,
        metavar="TIME",
        help="every Job that was made longer ago than this: 90s, 10m, 1h, 2d "
        "(default: 1h, and not before its own deadline)",
    )
    group.add_argument("--all", action="store_true", help="every Job, also those of runs in flight")
    group.add_argument("--dry-run", action="store_true", help="delete nothing; show what would be deleted")
    options.add_cluster(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print what was done, or the error, as one JSON object")
    names = parsing.option_names(parser)
    parser.set_defaults(
        command=lambda given, console: command(given, console, names),
        hint_on_unrecognized="gke-sandbox clean --help shows the options",
    )


@dataclass
class Cleaning:
    """What is to be done in a namespace, and what was."""

    namespace: str
    dry_run: bool
    older_than: float
    spare_runs: bool = False
    """Leave alone what somebody may still wait for."""
    doomed: list[Leftover] = field(default_factory=list)
    spared: int = 0
    deleted: list[Leftover] = field(default_factory=list)
    failed: list[tuple[Leftover, SandboxError]] = field(default_factory=list)

    async def carry_out(self, client: KubeClient, now: datetime) -> None:
        """Find the Jobs and, but for a dry run, delete them."""
        from .._engine import orphans

        found = await orphans.find(client, self.namespace, now)
        self.doomed = [
            each
            for each in found
            if each.age >= self.older_than and not (self.spare_runs and each.may_be_in_flight)
        ]
        self.spared = len(found) - len(self.doomed)
        if not self.dry_run:
            await orphans.remove(client, self.namespace, self.doomed, self._told)

    def _told(self, leftover: Leftover, error: SandboxError | None) -> None:
        if error is None:
            self.deleted.append(leftover)
        else:
            self.failed.append((leftover, error))


def command(
    given: argparse.Namespace, console: Console, names: dict[str, str], *, now: datetime | None = None
) -> int:
    """Do what `given` asks for, tell it, and return the exit exit_codes. `now` is the time of day."""
    from ..errors import SandboxError

    if given.program_args is not None:
        raise parsing.UsageError("arguments after -- are for the program of gke-sandbox run")
    if given.local:
        raise parsing.UsageError("--local: the embedded cluster ends with its command, and leaves nothing")
    if given.all and given.older_than is not None:
        raise parsing.UsageError("--all excludes --older-than")
    try:
        with logging_shown(console):
            cleaning = _clean(given, console, datetime.now(timezone.utc) if now is None else now)
    except SandboxError as error:
        return tell(error, given, console, names, local_helps=False)
    if console.json:
        console.print_json(_json(cleaning))
    else:
        _tell_people(cleaning, console)
    return exit_codes.FAILED if cleaning.failed else 0


def _clean(given: argparse.Namespace, console: Console, now: datetime) -> Cleaning:
    """Raises `UsageError`, `SandboxError`."""
    import anyio

    from ..settings import Settings

    cluster, settings = options.cluster(given), options.settings(given)
    namespace = Settings(**settings).namespace if "namespace" in settings else None
    connection = cluster.connect(namespace)
    older_than = DEFAULT_AGE if given.older_than is None else given.older_than
    cleaning = Cleaning(
        namespace or connection.namespace or Settings().namespace,
        dry_run=given.dry_run,
        older_than=0.0 if given.all else older_than,
        spare_runs=not given.all and given.older_than is None,
    )

    async def main() -> None:
        async with connection.client as client:
            await cleaning.carry_out(client, now)

    try:
        anyio.run(main)
    except KeyboardInterrupt:
        if not console.json:
            _tell_people(cleaning, console)
        raise
    return cleaning


def _json(cleaning: Cleaning) -> dict[str, Any]:
    found: dict[str, Any] = {
        "namespace": cleaning.namespace,
        "dry_run": cleaning.dry_run,
        "deleted": [_job_json(each) for each in cleaning.deleted],
        "failed": [
            {
                **_job_json(each),
                "error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint},
            }
            for each, error in cleaning.failed
        ],
        "spared": cleaning.spared,
    }
    if cleaning.dry_run:
        found["would_delete"] = [_job_json(each) for each in cleaning.doomed]
    return found


def _job_json(leftover: Leftover) -> dict[str, Any]:
    return {
        "job": leftover.job,
        "session": leftover.session,
        "age": leftover.age,
        "finished": leftover.finished,
    }


def _tell_people(cleaning: Cleaning, console: Console) -> None:
    verb = "would delete" if cleaning.dry_run else "deleted"
    told = cleaning.doomed if cleaning.dry_run else cleaning.deleted
    lines = [f"{verb} {_words(each)}\n" for each in told]
    spared = ""
    if cleaning.spared:
        spared = f"; {_jobs(cleaning.spared)} younger than {_age(cleaning.older_than)}"
        spared += ", or within their deadline" if cleaning.spare_runs else ""
    lines.append(f"{verb} {_jobs(len(told))} in namespace {cleaning.namespace}{spared}\n")
    print_text("".join(lines))
    hints = []
    for leftover, error in cleaning.failed:
        console.error(f"{leftover.job} could not be deleted: {error.message}")
        hints += [error.hint] if error.hint and error.hint not in hints else []
    for hint in hints:
        console.line(f"hint: {hint}")


def _words(leftover: Leftover) -> str:
    state = "finished" if leftover.finished else "not finished"
    return one_line(f"{leftover.job} ({_age(leftover.age)} old, {state}, session {leftover.session or 'unknown'})")


def _jobs(count: int) -> str:
    return "1 Job" if count == 1 else f"{count or 'no'} Jobs"


def _age(seconds: float) -> str:
    """``2d3h``, ``1h5m``, ``12m``, ``40s``."""
    rest = int(seconds)
    for (name, size), (next_name, next_size) in (
        (("d", 86400), ("h", 3600)),
        (("h", 3600), ("m", 60)),
        (("m", 60), ("s", 1)),
    ):
        if rest >= size:
            more = rest % size // next_size
            return f"{rest // size}{name}" + (f"{more}{next_name}" if more else "")
    return f"{rest}s"
