"""Report the errors and log records of the library in the terms of the command line."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator

from .._exit_codes import FAILED, USAGE
from .._setting_names import OPTIONS, rename_settings
from ..errors import ConfigError, ReplayMismatch, SandboxError, SpecError
from .console import Console, LogHandler
from .options import cluster_options

_PROGRAM_FIELDS = {
    "code": "the program",
    "files": "--file",
    "stdin": "--stdin",
    "args": "the arguments after --",
    "warm": "--warm",
}
"""How the command line names the fields of `Program`, and arguments of `AsyncSandbox`."""

_HINTS = {
    "runtime_class_name": "--no-runtime-class uses the default runtime of the cluster.",
    "priority_class_name": "",
    "service_account_name": "",
}
"""Hints for settings whose hint is only correct in Python."""

_PACKAGE = __name__.partition(".cli.")[0]
"""The name of the package, and the logger above all of its loggers."""


def report_error(error: SandboxError, args: argparse.Namespace, console: Console) -> int:
    """Print the error, with options in place of the names of settings. Return the exit code."""
    from ..cluster import LOCAL_HINT
    from .output import error_details

    if isinstance(error, SpecError):
        renamed = error.renamed(OPTIONS, _option_path(error.field))
        hint = _HINTS.get(error.field, renamed.hint)
        console.print_failure("SpecError", renamed.message, hint, field=error.field)
        return USAGE
    hint = rename_settings(error.hint, OPTIONS).replace(LOCAL_HINT, "").strip()
    if isinstance(error, ConfigError) and args.suggest_local and not (args.local or cluster_options(args)):
        hint = f"{hint} --local needs no cluster.".strip()
    console.print_failure(
        type(error).__name__,
        rename_settings(error.message, OPTIONS),
        hint,
        # The message lists how the request differs from the nearest recorded one, one difference per line.
        keep_lines=isinstance(error, ReplayMismatch),
        **error_details(error),
    )
    return FAILED


def _option_path(field: str) -> str:
    """Return the path of a `SpecError` for the command line: ``--env 'A B'`` for ``env['A B']``."""
    setting, bracket, entry = field.partition("[")
    option = _PROGRAM_FIELDS.get(setting) or OPTIONS.get(setting, setting)
    if not bracket:
        return option
    key, _, rest = entry.rpartition("]")
    if not key.isdecimal():
        return f"{option} {key}{rest}"
    if setting == "args":
        return f"argument {int(key) + 1} after --"
    # The index counts default entries too, so it would mislead. The message contains the value.
    return f"{option} ({rest.removeprefix('.')})" if rest else option


@contextlib.contextmanager
def log_to_console(console: Console, verbose: int = 0) -> Iterator[None]:
    """Print log records to stderr: warnings, with `verbose` 1 more, with 2 everything and every request."""
    levels = {_PACKAGE: (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]}
    if verbose > 1:
        levels["httpx"] = logging.INFO
    handler = LogHandler(console)
    previous = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in previous.items():
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).setLevel(level)
