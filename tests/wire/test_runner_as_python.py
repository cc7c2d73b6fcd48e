"""A program under the runner behaves as under ``python3 -u main.py``.

Each program of `runner_corpus/` runs directly and under the runner, each time in a new directory. stdout, stderr,
exit status and files must be equal. Each program runs with one of the deliveries, in turn; slow tests run those
that use their input, files or environment with the others. The first lines of a program can specify its input:
``# args: [...]``, ``# stdin: "..."``, ``# files: {"name": "content"}``.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .runner_driver import DELIVERIES, PYTHON, Delivery, Program, environment, run

USER = pwd.getpwuid(os.getuid()).pw_name
THREAD_NUMBERS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "PYTHON_CPU_COUNT",
)
USES_INPUT = re.compile(rb"# (args|stdin|files): |\bstdin\b|input\(|argv|__file__|environ|open\(")
CORPUS = sorted((Path(__file__).parent / "runner_corpus").glob("*.py"), key=lambda path: path.stem)


@dataclass(frozen=True)
class Outcome:
    """The observable outcome of a run."""

    stdout: bytes
    stderr: bytes
    status: int
    files: dict[str, bytes]


def as_it_is(program: Program, base: Path, env: Mapping[str, str] = {}) -> Outcome:
    """Run a program directly, in the same directories as those of the runner."""
    root = base / "sandbox"
    for name in ("work", "tmp", "home"):
        (root / name).mkdir(parents=True)
    inputs = {**program.files, "main.py": program.source}
    for name, data in inputs.items():
        path = root / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    runner_sets = {"USER": USER, "LOGNAME": USER, **dict.fromkeys(THREAD_NUMBERS, "1")}
    variables = {
        **runner_sets,
        **environment(base),
        **env,
        "TMPDIR": str(root / "tmp"),
        "HOME": str(root / "home"),
    }
    stdin = subprocess.DEVNULL
    if program.stdin is not None:
        (base / "stdin").write_bytes(program.stdin)
        stdin = os.open(base / "stdin", os.O_RDONLY)
    done = subprocess.run(
        [PYTHON, "-u", "main.py", *program.args],
        cwd=root / "work",
        env=variables,
        stdin=stdin,
        capture_output=True,
        timeout=50,
        start_new_session=True,
    )
    if stdin >= 0:
        os.close(stdin)
    files = {}
    for path in (root / "work").rglob("*"):
        name = str(path.relative_to(root / "work"))
        if path.is_file() and "__pycache__" not in name and name != "main.py":
            data = path.read_bytes()
            if data != inputs.get(name):
                files[name] = data
    return normal(Outcome(done.stdout, done.stderr, done.returncode, files), base)


def under_the_runner(program: Program, delivery: Delivery, base: Path, env: Mapping[str, str] = {}) -> Outcome:
    ran = run(program, delivery, base=base, env={**environment(base), **env})
    assert ran.noise == b""
    how = ran.exit
    assert how["timed_out"] is False
    assert how["dropped"] == {"out": 0, "err": 0, "files": 0}
    status = how["code"] if how["signal"] is None else -how["signal"]
    assert ran.status == (status if status >= 0 else 128 - status)
    return normal(Outcome(ran.stdout, ran.stderr, status, ran.files), base)


def normal(outcome: Outcome, base: Path) -> Outcome:
    """Remove what differs between runs: directories, addresses, and the depth of a recursion.

    The runner's frames count for that depth.
    """

    def text(data: bytes) -> bytes:
        data = data.replace(os.fsencode(base), b"<base>")
        data = re.sub(rb"\b0x[0-9a-f]{6,}\b", b"<address>", data)
        return re.sub(rb"(?<=Previous line repeated )\d+", b"<n>", data)

    return Outcome(text(outcome.stdout), text(outcome.stderr), outcome.status, outcome.files)


def program_of(path: Path) -> Program:
    source = path.read_bytes()
    asked: dict[str, Any] = {}
    for line in source.splitlines():
        found = re.fullmatch(rb"# (args|stdin|files): (.*)", line)
        if not found:
            break
        asked[found[1].decode()] = eval(found[2])
    for name, text in asked.get("files", {}).items():
        asked["files"][name] = text.encode()
    if isinstance(asked.get("stdin"), str):
        asked["stdin"] = asked["stdin"].encode()
    return Program(source, **asked)


def in_turn(number: int, of: Any, *, others: bool = True) -> Iterator[Any]:
    """Yield the parameters of a test: one delivery, and the others for a slow test."""
    first = DELIVERIES[number % len(DELIVERIES)]
    rest = tuple(delivery for delivery in DELIVERIES if delivery != first)
    name = of.stem if isinstance(of, Path) else of
    yield pytest.param(of, (first,), id=f"{name} {first}")
    if others:
        yield pytest.param(of, rest, id=f"{name} {' '.join(rest)}", marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("path", "deliveries"),
    [
        each
        for number, path in enumerate(CORPUS)
        for each in in_turn(number, path, others=bool(USES_INPUT.search(path.read_bytes())))
    ],
)
def test_a_program_behaves_as_under_plain_python(
    path: Path, deliveries: tuple[Delivery, ...], tmp_path: Path
) -> None:
    program = program_of(path)
    bases = {name: tmp_path / name for name in ("plain", *deliveries)}
    for base in bases.values():
        base.mkdir()
    with ThreadPoolExecutor(3) as pool:
        plain = pool.submit(as_it_is, program, bases["plain"])
        ours = [pool.submit(under_the_runner, program, delivery, bases[delivery]) for delivery in deliveries]
    for outcome in ours:
        assert outcome.result() == plain.result()


LOOKS_AROUND = """
import sys
print(sys.path, sys.flags, sys.stdout.encoding, sys.warnoptions, __debug__)
print("h\u00e9llo".encode(sys.stdout.encoding, "replace"), sys.getfilesystemencoding())
open("left open.txt", "w").write("x")
assert False, "an assertion"
"""


# Every third runs with the delivery attach, for which the runner opens stdin again: those that set an encoding.
VARIABLES = [
    "PYTHONSAFEPATH=1",
    "PYTHONWARNINGS=error",
    "PYTHONIOENCODING=latin-1:replace",
    "PYTHONDEVMODE=1",
    "PYTHONOPTIMIZE=2",
    "PYTHONUTF8=0",
    "PYTHONPATH=/usr/share:/nowhere",
    "PYTHONDONTWRITEBYTECODE=1",
    "LC_ALL=POSIX",
    "PYTHONHASHSEED=1",
    "PYTHONNOUSERSITE=1",
    "PYTHONFAULTHANDLER=1",
]


@pytest.mark.parametrize(
    ("variable", "deliveries"),
    [each for number, variable in enumerate(VARIABLES) for each in in_turn(number, variable)],
)
def test_the_image_configures_its_python(variable: str, deliveries: tuple[Delivery, ...], tmp_path: Path) -> None:
    """The runner is started without -I, -E and -S, because the environment configures the program's Python."""
    env = dict([variable.split("=")])
    for name in ("plain", *deliveries):
        (tmp_path / name).mkdir()
    plain = as_it_is(Program(LOOKS_AROUND), tmp_path / "plain", env)
    for delivery in deliveries:
        assert under_the_runner(Program(LOOKS_AROUND), delivery, tmp_path / delivery, env) == plain
