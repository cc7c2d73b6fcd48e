"""``gke-sandbox run``: run a program, and pass on its output and its exit code."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from .._exit_codes import FAILED, exit_code_of
from . import options, parsing
from .console import Console

if TYPE_CHECKING:
    from ..cassette.handles import RecordHandle
    from ..cluster import Cluster
    from .output_dir import OutputDirectory
    from .run_session import RunSession

HELP = "run a Python program in a sandbox"
DESCRIPTION = """\
Run a Python program in a new gVisor pod, and delete the pod. This command
passes on the output of the program while it runs, and exits with its exit code.
The program is main.py in a directory that contains only the files of --file.
Arguments for the program go after --.
"""

EPILOG = """\
exit code:
  the exit code of the program; 128+N if signal N ended it; 124 if it reached
  its time limit; 137 if it exceeded its memory limit or its pod was terminated;
  125 if the sandbox failed, the result was lost or the output could not be
  written; 2 for invalid usage; 130, 143 and 129 after Ctrl-C, SIGTERM and
  SIGHUP; 141 if the reader of stdout closed the pipe

examples:
  gke-sandbox run --local -c 'print(6 * 7)'
  gke-sandbox run script.py --file data.csv --output-dir out/ -- --rows 10
  gke-sandbox run - --timeout 30s --memory 1Gi < script.py
  gke-sandbox run script.py --json | jq -r .stdout
  gke-sandbox run script.py --record run.yaml
  gke-sandbox run script.py --replay run.yaml
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run``."""
    options.add_program(parser)
    options.add_cluster(parser)
    group = parser.add_argument_group("record and replay")
    group.add_argument(
        "--record", metavar="FILE", help="write the responses of the cluster to this file, for --replay"
    )
    group.add_argument(
        "--replay",
        metavar="FILE",
        help="replay this file instead of using a cluster; the program must be the same",
    )
    options.add_limits_and_pod(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output-dir",
        metavar="DIR",
        help="write the output files of the program to this directory; create it if necessary",
    )
    group.add_argument(
        "--json", action="store_true", help="print the result or the error as one JSON object, at the end"
    )
    group.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="log to stderr instead of showing the progress line; -vv also logs every request",
    )


def command(args: argparse.Namespace, console: Console) -> int:
    """Run the program and return the exit code. Raises `UsageError`, `SandboxError`, `OutputFailed`."""
    from .output_dir import OutputDirectory
    from .run_session import RunSession

    cluster, recording = _cluster(args)
    sandbox = options.new_sandbox(args, cluster)
    program = options.read_program(args)
    with contextlib.ExitStack() as opened:
        directory = None
        if args.output_dir is not None:
            directory = opened.enter_context(OutputDirectory(args.output_dir))
        session = RunSession(sandbox, program, console, quiet=args.json or args.verbose > 0, local=args.local)
        if recording is not None:
            # Do not record an interrupted run: the file keeps its previous content.
            session.before_deletion = recording.discard
        if (code := session.run()) is not None:
            return code
        return _report(session, console, directory, local=args.local)


def _cluster(args: argparse.Namespace) -> tuple[Cluster, RecordHandle | None]:
    """Return the cluster, and its recording with ``--record``."""
    from ..cluster import Cluster, _Record

    for option, path in (("--record", args.record), ("--replay", args.replay)):
        if path == "":
            raise parsing.UsageError(f"{option}: must not be empty")
    if args.replay is not None:
        used = options.cluster_options(args)
        used += [f"--{name}" for name in ("local", "isolation", "record") if getattr(args, name)]
        if used:
            raise parsing.UsageError(f"--replay cannot be combined with {' and '.join(used)}")
        return Cluster.replay(args.replay), None
    cluster = options.cluster(args)
    if args.record is None:
        return cluster, None
    recorded = Cluster.record(args.record, cluster)
    assert isinstance(recorded, _Record)
    return recorded, recorded.cassette


def _report(session: RunSession, console: Console, directory: OutputDirectory | None, *, local: bool) -> int:
    """Write the output files, print the JSON object or the messages, and return the exit code."""
    from . import output

    result = session.result
    assert result is not None
    paths, errors, notes = None, [], output.dropped_files(result)
    if directory is not None:
        paths, unwritten = directory.write(result.files)
        more = [f"and {len(unwritten) - 3} more"] if len(unwritten) > 3 else []
        errors, notes = [*notes, *unwritten[:3], *more], []
    elif result.files:
        notes.append(output.unwritten_files(result.files))
    message = "; ".join(errors)
    if console.json:
        value = output.result_json(result, session.sandbox.namespace, paths)
        if errors:
            value["error"] = {"kind": "OutputFiles", "message": message, "hint": ""}
        console.print_json(value)
    else:
        for note in (*output.notes(result, session.sandbox.settings, local=local), *notes):
            console.print_note(note)
        error = output.error_text(result, session.sandbox.settings)
        if error is not None:
            console.print_error(*error)
        if errors:
            console.print_error(message)
    return FAILED if errors else exit_code_of(result)
