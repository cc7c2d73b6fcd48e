"""``gke-sandbox doctor``: check that programs can run, and how to fix what prevents it."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from .._setting_names import OPTIONS, rename_settings
from ..errors import SandboxError
from . import options
from .console import Console, one_line, print_text

if TYPE_CHECKING:
    from .._engine.preflight import Check
    from ..result import ExecutionResult

PROBE_TIMEOUT = 60.0
"""The time limit of the program of ``--run``, in seconds."""

HELP = "check that programs can run, and how to fix it"
DESCRIPTION = """\
Check everything that decides whether a program can run with these options: the
cluster, its version, your identity and permissions, the namespace, gVisor, the
nodes, quotas, and the Job itself with a server-side dry run. Nothing is created,
except with --run. What you may not read is skipped: docs/permissions.md lists
what each check needs.
"""

EPILOG = """\
exit code:
  0 if there is no failure; 1 if there is one; 125 if no cluster is configured;
  2 for invalid usage; 130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP

examples:
  gke-sandbox doctor --namespace agent-sandbox
  gke-sandbox doctor --namespace agent-sandbox --run
  gke-sandbox doctor --json | jq '.checks[] | select(.status == "failure")'
"""

_COLOURS = {"ok": "32", "warning": "33", "failure": "31", "skipped": "2"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``doctor``."""
    group = parser.add_argument_group("checks")
    group.add_argument(
        "--run", action="store_true", help="also run a program that checks the isolation from inside the sandbox"
    )
    group.add_argument("--warm", action="store_true", help="also check what warm pods need: to attach to pods")
    options.add_cluster(parser)
    options.add_limits_and_pod(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the checks or the error as one JSON object")


def command(args: argparse.Namespace, console: Console) -> int:
    """Run the checks, print them, and return the exit code. Raises `UsageError` and `SandboxError`."""
    from .._engine.doctor import Doctor, inside_checks
    from .._open_sandbox import new_job_name
    from .._wire.payload import probe_text
    from .interrupts import Interrupts

    sandbox = options.new_sandbox(args, options.cluster(args))
    checks: list[Check] = []

    async def work(_: object) -> None:
        async with sandbox:
            assert sandbox._open is not None
            doctor = Doctor(
                sandbox._open.client,
                sandbox.settings,
                session=sandbox.session,
                name=new_job_name(),
                warm=args.warm,
                now=lambda: datetime.now(timezone.utc),
            )
            await doctor.run()
            checks.extend(doctor.checks)
            # Without a response of the cluster, a run would only report the same error after a while.
            if args.run and not any(check.name == "cluster" and check.status == "failure" for check in checks):
                outcome: ExecutionResult | SandboxError
                try:
                    outcome = await sandbox.run(probe_text(), timeout=min(sandbox.settings.timeout, PROBE_TIMEOUT))
                except SandboxError as error:
                    outcome = error
                checks.extend(inside_checks(outcome, sandbox.settings))

    if (code := Interrupts(sandbox, console, local=args.local).run(work)) is not None:
        return code
    failed = any(check.status == "failure" for check in checks)
    shown = [
        dataclasses.replace(
            check, message=rename_settings(check.message, OPTIONS), hint=rename_settings(check.hint, OPTIONS)
        )
        for check in checks
    ]
    if console.json:
        listed = [_json(check) for check in shown]
        console.print_json({"namespace": sandbox.namespace, "ok": not failed, "checks": listed})
    else:
        print_text(as_text(shown, colour=_wants_colour()))
    return 1 if failed else 0


def _json(check: Check) -> dict[str, Any]:
    return {"name": check.name, "status": check.status, "message": check.message, "hint": check.hint}


def _wants_colour() -> bool:
    # https://no-color.org
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def as_text(checks: Sequence[Check], *, colour: bool) -> str:
    """Return one line for each check, with its hint below unless it is ok, and a summary."""
    shown = _grouped(checks)
    width = max(len(name) for name, _, _, _ in shown)
    lines = []
    for name, status, message, hint in shown:
        label = f"{status:<8}"
        if colour:
            label = f"\x1b[{_COLOURS[status]}m{label}\x1b[0m"
        lines.append(f"{label} {name:<{width}}  {one_line(message)}".rstrip())
        if hint and status in ("warning", "failure"):
            lines.append(f"{'':8} {'':<{width}}  fix: {one_line(hint)}")
    counts = {status: sum(each[1] == status for each in shown) for status in _COLOURS}
    lines.append(", ".join(_count(count, status) for status, count in counts.items()))
    return "\n".join(lines) + "\n"


def _count(number: int, status: str) -> str:
    return f"{number} {status}{'s' * (number != 1 and status in ('warning', 'failure'))}"


def _grouped(checks: Sequence[Check]) -> list[tuple[str, str, str, str]]:
    """Return name, status, message and hint of each check; the permissions that exist are one line."""
    rows: list[tuple[str, str, str, str]] = []
    granted = [check for check in checks if check.name.startswith("permission to ") and check.status == "ok"]
    for check in checks:
        if check not in granted:
            rows.append((check.name, check.status, check.message, check.hint))
        elif check is granted[0]:
            listed = ", ".join(each.name.removeprefix("permission to ") for each in granted)
            rows.append(("permissions", "ok", listed, ""))
    return rows
