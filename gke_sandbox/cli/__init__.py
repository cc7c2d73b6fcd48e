"""The command ``gke-sandbox``: one module a subcommand; what they share is in the small modules beside them.

A subcommand's module has ``add_parser(subcommands)``, which registers it and sets ``command`` on what is
parsed (a function from the parsed options to the exit status) and ``hint_on_unrecognized``. Nothing heavy is
imported before `command` is called.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .console import Console, OutputFailed, open_closed_streams
from .exit_codes import BROKEN_PIPE, FAILED, USAGE
from .parsing import Parser, UsageError

if TYPE_CHECKING:
    from ..sandbox import AsyncSandbox

__all__ = ["build_parser", "main"]

_EPILOG = """\
examples:
  gke-sandbox run --local -c 'print(6 * 7)'      no cluster needed: the embedded one
  gke-sandbox run script.py --file data.csv      on the cluster that kubectl would use
  gke-sandbox cluster                            which cluster that is
  gke-sandbox clean --dry-run                    what was left behind there

gke-sandbox run --help shows what a run can be given.
"""


def build_parser() -> Parser:
    """The whole command line."""
    from .. import __version__
    from . import clean, cluster_info, run

    parser = Parser(
        prog="gke-sandbox",
        description="Run untrusted Python on Kubernetes, each program in a gVisor pod of its own.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--version", action="version", version=f"gke-sandbox {__version__}", help="show the version and exit"
    )
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run.add_parser(subcommands)
    cluster_info.add_parser(subcommands)
    clean.add_parser(subcommands)
    return parser


def main(argv: Sequence[str] | None = None, *, open_sandbox: Callable[..., AsyncSandbox] | None = None) -> int:
    """Run the command and return its exit status. `argv` is without the program's name.

    `open_sandbox` is called in the place of `AsyncSandbox`, with the same arguments.
    """
    open_closed_streams()
    ours, theirs = _split(list(sys.argv[1:] if argv is None else argv))
    console = Console(json="--json" in ours)
    given = argparse.Namespace(program_args=theirs, open_sandbox=open_sandbox)
    return console.leave(_run(ours, given, console))


def _run(arguments: list[str], given: argparse.Namespace, console: Console) -> int:
    """Run the command; every error ends here, as words and a status."""
    try:
        options = _parse(arguments, given)
        return int(options.command(options, console))
    except UsageError as error:
        console.fail("UsageError", str(error), error.hint)
        return USAGE
    except SystemExit:  # how argparse ends after --help and --version
        return 0
    except OutputFailed as error:
        return _output_failed(console, error)
    except KeyboardInterrupt:
        console.fail("Interrupted", "interrupted")
        return 128 + signal.SIGINT
    except Exception:  # noqa: BLE001 - the outermost edge: told in full, and answered with a status
        console.text(traceback.format_exc())
        console.fail("Bug", "this is a bug in gke-sandbox", "please report it, with the traceback")
        return FAILED


def _parse(arguments: list[str], given: argparse.Namespace) -> argparse.Namespace:
    options, unknown = build_parser().parse_known_args(arguments, given)
    if unknown:
        raise UsageError(f"unrecognized arguments: {' '.join(unknown)}", options.hint_on_unrecognized)
    return options


def _split(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """Ours and, behind the first ``--``, the program's. argparse's own ways with ``--`` vary by version."""
    if "--" not in arguments:
        return arguments, None
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _output_failed(console: Console, error: OutputFailed) -> int:
    """The exit status when stdout or stderr took no more. A reader that went away is told nothing."""
    if error.reader_gone:
        return BROKEN_PIPE
    console.error(str(error))
    return FAILED
