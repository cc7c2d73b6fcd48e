"""The command ``gke-sandbox``. Each subcommand is a module; the other modules are shared by them.

The module of a subcommand has the texts of its help, ``add_options(parser)``, and ``command``, a function from the
parsed arguments and the console to the exit code. Slow imports wait until `command` is called, so that ``--help``
is fast.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .._exit_codes import BROKEN_PIPE, FAILED, USAGE
from ..errors import SandboxError
from .console import Console, OutputFailed, open_closed_streams
from .errors import log_to_console, report_error
from .parsing import Parser, UsageError, unknown_argument

if TYPE_CHECKING:
    from ..sandbox import AsyncSandbox

__all__ = ["build_parser", "main"]

_EPILOG = """\
examples:
  gke-sandbox run --local -c 'print(6 * 7)'      run on this machine, without a cluster
  gke-sandbox run script.py --file data.csv      run on the cluster that kubectl would use
  gke-sandbox doctor                             check that programs can run there
  gke-sandbox clean --dry-run                    show which Jobs were left there

Run "gke-sandbox COMMAND --help" for the options of a command.
"""


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    from .. import __version__
    from . import bench, clean, cluster_info, doctor, manifest, ps, rbac, run

    parser = Parser(
        prog="gke-sandbox",
        description="Run untrusted Python on Kubernetes, each program in a new gVisor pod.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--version", action="version", version=f"gke-sandbox {__version__}", help="show the version and exit"
    )
    parser.set_defaults(command=None, parser=parser, verbose=0, suggest_local=False)
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in (run, doctor, bench, cluster_info, ps, clean, manifest, rbac):
        name = module.__name__.rpartition(".")[2].replace("_", "-")
        subparser = subcommands.add_parser(
            name,
            help=module.HELP,
            description=module.DESCRIPTION,
            epilog=module.EPILOG,
            usage=f"gke-sandbox {name} [options]",
        )
        module.add_options(subparser)
        subparser.set_defaults(command=module.command, parser=subparser)
    return parser


def main(argv: Sequence[str] | None = None, *, open_sandbox: Callable[..., AsyncSandbox] | None = None) -> int:
    """Run the command and return its exit code. `argv` does not include the name of the program.

    `open_sandbox` replaces `AsyncSandbox` and is called with the same arguments.
    """
    open_closed_streams()
    own, program_args = list(sys.argv[1:] if argv is None else argv), None
    if "--" in own:  # Not left to argparse, which treats it differently in different versions of Python.
        at = own.index("--")
        own, program_args = own[:at], own[at + 1 :]
    console = Console(json="--json" in own)
    args = argparse.Namespace(program_args=program_args, open_sandbox=open_sandbox)
    return console.finish(_run(own, args, console))


def _run(arguments: list[str], args: argparse.Namespace, console: Console) -> int:
    """Parse the arguments into `args` and run the command. Every error becomes a message and an exit code."""
    try:
        _parse(arguments, args)
        with log_to_console(console, args.verbose):
            return int(args.command(args, console))
    except UsageError as error:
        console.print_failure("UsageError", str(error), error.hint)
        return USAGE
    except SandboxError as error:
        return report_error(error, args, console)
    except SystemExit:  # argparse exits after --help and --version.
        return 0
    except OutputFailed as error:
        if error.reader_gone:
            return BROKEN_PIPE
        console.print_error(str(error))
        return FAILED
    except KeyboardInterrupt:
        console.print_failure("Interrupted", "interrupted")
        return 128 + signal.SIGINT
    except Exception:  # noqa: BLE001 - the last handler: report an unexpected error in full
        console.print_lines(traceback.format_exc())
        console.print_failure("Bug", "this is a bug in gke-sandbox", "Please report it, with the traceback.")
        return FAILED


def _parse(arguments: list[str], args: argparse.Namespace) -> None:
    _, unknown = build_parser().parse_known_args(arguments, args)
    if unknown:
        raise unknown_argument(unknown, args.parser, takes_program_args="script" in args)
    if args.command is None:
        raise UsageError("no command given", "gke-sandbox --help lists the commands.")
    if args.program_args is not None and "script" not in args:
        raise UsageError("arguments after -- are only allowed with gke-sandbox run")
