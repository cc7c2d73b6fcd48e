"""What every command does with the library's errors and its log records."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from . import exit_codes, parsing
from .console import Console, LogLines
from .options import cluster_options

if TYPE_CHECKING:
    from ..errors import SandboxError


def tell(
    error: SandboxError,
    given: argparse.Namespace,
    console: Console,
    names: Mapping[str, str],
    *,
    local_helps: bool = True,
) -> int:
    """Tell the error in the words of the parsing, and return the exit exit_codes. `names` are those of settings.

    `local_helps`: where no cluster is found, --local does what the command is for.
    """
    from ..errors import ConfigError, ReplayMismatch, SpecError
    from .output import error_details

    hint = parsing.in_options(error.hint, names)
    if isinstance(error, SpecError):
        message = parsing.spec_error_in_options(error.field, error.message, names)
        console.fail("SpecError", message, hint, field=error.field)
        return exit_codes.USAGE
    if local_helps and isinstance(error, ConfigError) and not (given.local or cluster_options(given)):
        hint = f"{hint} --local needs no cluster.".strip()
    message = parsing.in_options(error.message, names)
    # Where a request differs from the nearest recorded one is a list.
    in_lines = isinstance(error, ReplayMismatch)
    console.fail(type(error).__name__, message, hint, in_lines=in_lines, **error_details(error))
    return exit_codes.FAILED


@contextlib.contextmanager
def logging_shown(console: Console, verbose: int = 0) -> Iterator[None]:
    """Show the library's log records on stderr: warnings always, more as asked for."""
    levels = {"gke_sandbox": (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]}
    if verbose > 1:
        levels["httpx"] = logging.INFO
    lines = LogLines(console)
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).addHandler(lines)
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).removeHandler(lines)
            logging.getLogger(name).setLevel(level)
