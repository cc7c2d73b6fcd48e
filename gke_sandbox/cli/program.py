"""The options for the program and its settings, shared by several commands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import input_files, options, parsing

if TYPE_CHECKING:
    from .._wire.program import Program


def add_program(parser: argparse.ArgumentParser) -> None:
    """Add the options for the program and its input."""
    parser.usage = f"{parser.usage} (SCRIPT | - | -c CODE) [-- ARGUMENT ...]"
    group = parser.add_argument_group("program")
    group.add_argument("script", nargs="?", metavar="SCRIPT", help="run this file; - is stdin")
    group.add_argument("-c", dest="code", metavar="CODE", help="run this Python code")
    group.add_argument(
        "--file",
        dest="files",
        action="append",
        default=[],
        metavar="PATH[:NAME]",
        help="copy this file into the program's directory, as NAME if it is given (repeatable)",
    )
    group.add_argument("--stdin", metavar="FILE", help="use this file as stdin of the program; - is stdin")
    options.add_settings(group, options.ENVIRONMENT)


def add_limits_and_pod(parser: argparse.ArgumentParser, *, delivery: bool = True) -> None:
    """Add the options for the limits of the program and for its pod, with or without ``--delivery``."""
    group = parser.add_argument_group("limits", "Times: 90, 90s, 5m, 1h30m, 1d. CPU: 2, 500m. Sizes: 512Mi, 1Gi.")
    options.add_settings(group, options.LIMITS)
    pod = {name: about for name, about in options.POD.items() if delivery or name != "delivery"}
    options.add_settings(parser.add_argument_group("pod"), pod)


def read_program(args: argparse.Namespace) -> Program:
    """Return the program that the options choose. Raises `UsageError` and `SpecError`."""
    from .._wire.program import Program

    if args.script == "-" and args.stdin == "-":
        raise parsing.UsageError("stdin cannot be both the program and its input")
    code = input_files.read_code(args.script, args.code)
    files = input_files.read_files(args.files)
    stdin = None
    if args.stdin is not None:
        stdin = input_files.read_stdin() if args.stdin == "-" else input_files.read(args.stdin, "--stdin")
    return Program(code=code, files=files, args=args.program_args or (), stdin=stdin)
