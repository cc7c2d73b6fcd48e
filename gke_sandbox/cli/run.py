"""``gke-sandbox run``: run one program; what it prints is printed, what it returns is returned."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from . import exit_codes, input_files, options, parsing
from .console import Console
from .errors import logging_shown, tell

if TYPE_CHECKING:
    from .._wire.program import Program
    from ..cassette.handles import Recording
    from ..cluster import Cluster
    from ..sandbox import AsyncSandbox
    from .output_dir import OutputDirectory
    from .run_session import Session

_DESCRIPTION = """\
Run a Python program in a gVisor pod of its own and delete the pod. The program's stdout, stderr and exit
status become those of this command, as they come. The program is SCRIPT, or stdin if SCRIPT is -, or CODE;
it runs as main.py in an empty directory, beside its --file input_files. Arguments for it go after --.
"""

_EPILOG = """\
exit status:
  the program's own; 128+N if signal N ended it; 124 at its time limit; 137 if it was killed for its memory or
  its pod was taken away; 125 if the sandbox failed or the result was lost; 2 for bad usage; 130, 143 and 129
  after Ctrl-C, SIGTERM and SIGHUP, when the Job is deleted; 141 if whoever read stdout went away

examples:
  gke-sandbox run --local -c 'print(6 * 7)'
  gke-sandbox run script.py --file data.csv --output-dir out/ -- --verbose data.csv
  gke-sandbox run - --timeout 30s --memory 1Gi < script.py
  gke-sandbox run script.py --json | jq -r .stdout
  gke-sandbox run script.py --record run.yaml && gke-sandbox run script.py --replay run.yaml
"""


def add_parser(subcommands: argparse._SubParsersAction[parsing.Parser]) -> None:
    """Register ``run``."""
    parser = subcommands.add_parser(
        "run",
        help="run a Python program in a sandbox",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="gke-sandbox run [parsing] (SCRIPT | - | -c CODE) [-- ARGUMENT ...]",
    )
    _add_program(parser)
    options.add_cluster(parser)
    _add_cassette(parser)
    options.add_limits(parser)
    options.add_pod(parser)
    _add_output(parser)
    names = parsing.option_names(parser)
    parser.set_defaults(
        command=lambda given, console: command(given, console, names),
        hint_on_unrecognized="gke-sandbox run --help shows the options; arguments for the program go after --",
    )


def _add_program(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the program and what it finds")
    group.add_argument("script", nargs="?", metavar="SCRIPT", help="file with the program; - for stdin")
    group.add_argument("-c", dest="code", metavar="CODE", help="the program itself")
    group.add_argument(
        "--file",
        dest="files",
        action="append",
        default=[],
        metavar="PATH[:NAME]",
        help="put this file beside the program, as NAME if given (repeatable)",
    )
    group.add_argument("--stdin", metavar="FILE", help="the program's stdin; - passes on this command's")
    options.add_environment(group)


def _add_cassette(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("record and replay")
    group.add_argument(
        "--record", metavar="FILE", help="write what the cluster answers to this file, a cassette for --replay"
    )
    group.add_argument(
        "--replay",
        metavar="FILE",
        help="no cluster: answer from this cassette, for the recorded program",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output-dir",
        metavar="DIR",
        help="write the files that the program made under this directory, made if it is missing",
    )
    group.add_argument(
        "--json", action="store_true", help="print the result, or the error, as one JSON object when it is over"
    )
    group.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="log to stderr what happens, in the place of the progress line; -vv: every request",
    )


# -- the command -----------------------------------------------------------------------------------------------


def command(given: argparse.Namespace, console: Console, names: dict[str, str]) -> int:
    """Run the program that `given` names and return the exit exit_codes. `names` are the options of settings."""
    from ..errors import SandboxError

    try:
        with logging_shown(console, given.verbose), contextlib.ExitStack() as opened:
            return _run(given, console, opened, names)
    except SandboxError as error:
        return tell(error, given, console, names)


def _run(given: argparse.Namespace, console: Console, opened: contextlib.ExitStack, names: dict[str, str]) -> int:
    """Check everything, run, output. Raises `UsageError`, `SandboxError`, `OutputFailed`."""
    from .output_dir import OutputDirectory
    from .run_session import Session

    cluster, recording = _cluster(given)
    sandbox = _sandbox(given, cluster)
    program = _program(given)
    directory = None
    if given.output_dir is not None:
        directory = opened.enter_context(OutputDirectory(given.output_dir))
    session = Session(sandbox, program, console, quiet=given.json or given.verbose > 0, local=given.local)
    if recording is not None:
        # Half a run is nobody's recording: what the file held before stays.
        session.on_signal = recording.discard
    session.run()
    if session.signal is not None:
        console.interrupted(session.signal, sandbox.leftovers, sandbox.namespace)
        return 128 + session.signal
    if session.error is not None:
        raise session.error
    return _report(session, console, directory, names, verbose=given.verbose > 0)


def _cluster(given: argparse.Namespace) -> tuple[Cluster, Recording | None]:
    """The cluster, and the recording that it is to be, if any. Raises `UsageError`."""
    if given.replay is not None:
        named = options.cluster_options(given)
        named += [f"--{name}" for name in ("local", "isolation", "record") if getattr(given, name)]
        if named:
            raise parsing.UsageError(f"--replay excludes {' and '.join(named)}")
        from ..cluster import Cluster

        return Cluster.replay(_file("--replay", given.replay)), None
    cluster = options.cluster(given)
    if given.record is None:
        return cluster, None
    recorded = type(cluster).record(_file("--record", given.record), cluster)
    assert recorded.records is not None
    return recorded, recorded.records


def _file(option: str, path: str) -> str:
    if not path:
        raise parsing.UsageError(f"{option}: must name a file")
    return path


def _sandbox(given: argparse.Namespace, cluster: Cluster) -> AsyncSandbox:
    settings = options.settings(given)
    if given.open_sandbox is not None:
        made: AsyncSandbox = given.open_sandbox(cluster, **settings)
        return made
    from ..sandbox import AsyncSandbox

    return AsyncSandbox(cluster, **settings)


def _program(given: argparse.Namespace) -> Program:
    from .._wire.program import Program

    if given.script == "-" and given.stdin == "-":
        raise parsing.UsageError("stdin cannot be both the program and its input")
    code = input_files.read_code(given.script, given.code)
    files = input_files.read_files(given.files)
    stdin = None
    if given.stdin is not None:
        stdin = input_files.read_stdin() if given.stdin == "-" else input_files.read(given.stdin)
    return Program(code=code, files=files, args=given.program_args or (), stdin=stdin)


def _report(
    session: Session,
    console: Console,
    directory: OutputDirectory | None,
    names: dict[str, str],
    *,
    verbose: bool,
) -> int:
    """Write the files, say what there is to say, and return the exit exit_codes."""
    from . import output

    result, settings = session.result, session.sandbox.settings
    assert result is not None
    paths, problems = directory.write(result.files) if directory is not None else (None, [])
    lost = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
    if console.json:
        value = output.result_json(result, session.sandbox.namespace, paths)
        if problems:
            value["error"] = {"kind": "OutputFiles", "message": lost, "hint": ""}
        console.print_json(value)
    else:
        for note in output.notes(result):
            console.note(note)
        if verbose and directory is None and result.files:
            console.note(f"files came back ({len(result.files)}); --output-dir DIR keeps them")
        ending = output.ending(result, settings, names)
        if ending is not None:
            console.error(ending.error, ending.hint)
        if problems:
            console.error(lost)
    return exit_codes.FAILED if problems else exit_codes.of_result(result)
