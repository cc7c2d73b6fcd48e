"""Check that type checkers accept good.py and report errors on exactly the marked lines of bad.py.

    python tests/typing/check.py [mypy] [pyright]

Runs the type checkers named (default: both) that are installed for this interpreter, against the package that is
installed for it: run it with the interpreter of an environment that contains the built wheel.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = ("good.py", "bad.py")
MARK = "  # error"

Lines = set[tuple[str, int]]


def marked_lines() -> Lines:
    lines = enumerate((HERE / "bad.py").read_text().splitlines(), start=1)
    return {("bad.py", number) for number, line in lines if line.endswith(MARK)}


def run(directory: str, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command, *PROGRAMS], cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        sys.exit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def mypy(directory: str) -> tuple[Lines, str]:
    output = run(directory, "mypy", "--strict", "--config-file=", "--no-error-summary")
    errors = [line for line in output.splitlines() if ": error: " in line]
    found = {(name, int(line)) for name, line, _ in (error.split(":", 2) for error in errors)}
    return found, "\n".join(errors)


def pyright(directory: str) -> tuple[Lines, str]:
    Path(directory, "pyrightconfig.json").write_text(json.dumps({"reportUnusedExpression": False}))
    output = run(directory, "pyright", "--pythonpath", sys.executable, "--outputjson")
    found = [each for each in json.loads(output)["generalDiagnostics"] if each["severity"] == "error"]
    text = "\n".join(f"{each['file']}:{each['range']['start']['line'] + 1}: {each['message']}" for each in found)
    return {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in found}, text


CHECKERS: dict[str, Callable[[str], tuple[Lines, str]]] = {"mypy": mypy, "pyright": pyright}


def check(name: str) -> list[str]:
    """Return the differences between the errors of a type checker and the marked lines, and its output if any."""
    with tempfile.TemporaryDirectory() as directory:
        # Copied, so that the type checker finds the installed package and not the source tree around this file.
        for program in PROGRAMS:
            shutil.copy(HERE / program, directory)
        found, output = CHECKERS[name](directory)
    expected = marked_lines()
    problems = [f"{name}: {file}:{line}: unexpected error" for file, line in sorted(found - expected)]
    problems += [f"{name}: {file}:{line}: no error" for file, line in sorted(expected - found)]
    return [*problems, output] if problems else []


def main() -> None:
    for name in sys.argv[1:] or list(CHECKERS):
        if problems := check(name):
            sys.exit("\n".join(problems))
        print(f"{name}: good.py is accepted, and {len(marked_lines())} lines of bad.py are rejected")


if __name__ == "__main__":
    main()
