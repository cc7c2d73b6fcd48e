"""Hints for a model whose code failed for a reason that the traceback does not contain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gke_sandbox import Cluster, ExecutionResult
from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.adk.hints import failure_hint
from tests.adk.kit import QUIET, agent, block, converse, execute, local, on, scripted
from tests.pods import err, program

pytestmark = QUIET

FRESH = "Hint: An earlier code block assigned rows, but each block runs in a fresh process"


@pytest.fixture(scope="module")
def executor() -> Iterator[GkeCodeExecutor]:
    with local(timeout_seconds=20) as made:
        yield made


def hint(result: ExecutionResult, *earlier: str, local: bool = False) -> str:
    return failure_hint(result, earlier, image="python:3.11-slim", local=local)


def failed(last_line: str, status: str = "failed") -> ExecutionResult:
    stderr = f'Traceback (most recent call last):\n  File "main.py", line 1, in <module>\n{last_line}\n'
    return ExecutionResult(status=status, exit_code=1, stderr_bytes=stderr.encode())  # type: ignore[arg-type]


# -- modules ----------------------------------------------------------------------------------------------------


def test_the_image_must_contain_a_module_that_is_not_found() -> None:
    assert hint(failed("ModuleNotFoundError: No module named 'pandas'")) == (
        "Hint: Only the operator can add the module pandas to the image python:3.11-slim (image). "
        "Use the standard library, or modules that are installed there."
    )


def test_the_embedded_cluster_uses_the_modules_of_this_python(executor: GkeCodeExecutor) -> None:
    talk = converse(agent(executor, block("import no_such_module"), "Done."))
    assert (
        "\nHint: Only the operator can add the module no_such_module to the Python of this agent" in talk.asked[1]
    )


def test_a_recorded_embedded_cluster_uses_the_modules_of_this_python(tmp_path: Path) -> None:
    with GkeCodeExecutor(cluster=Cluster.record(tmp_path / "run.yaml", Cluster.local("process"))) as executor:
        result = execute(executor, "import no_such_module")
    assert "to the Python of this agent" in result.stderr


def test_on_a_cluster_the_hint_names_the_image_of_the_executor() -> None:
    traceback = err("ModuleNotFoundError: No module named 'pandas'\n")
    with on(scripted(program(traceback, code=1)), image="example.com/python:3.12") as executor:
        result = execute(executor, "import pandas")
    assert "the module pandas to the image example.com/python:3.12 (image)" in result.stderr


# -- names of earlier code blocks ------------------------------------------------------------------------------


def test_the_model_is_reminded_that_each_block_runs_in_a_fresh_process(executor: GkeCodeExecutor) -> None:
    talk = converse(agent(executor, block("rows = [1, 2]"), block("print(len(rows))"), "Done."))
    assert "NameError: name 'rows' is not defined" in talk.asked[2]
    assert FRESH in talk.asked[2]


def test_a_name_that_no_earlier_block_assigned_has_no_hint(executor: GkeCodeExecutor) -> None:
    talk = converse(agent(executor, block("lines = [1, 2]"), block("print(rows)\nrows = 1"), "Done."))
    assert "NameError: name 'rows' is not defined" in talk.asked[2]
    assert "Hint" not in talk.asked[2]


@pytest.mark.parametrize(
    "code",
    [
        "rows = 1",
        "if True:\n    rows = 1",
        "lines, rows = 1, 2",
        "(lines, *rows) = 1, 2",
        "rows, lines = 1, 2",
        "rows: list[int] = []",
        "print(rows := 1)",
        "def rows(): pass",
        "async def rows(): pass",
        "class rows: pass",
        "for rows in range(3): pass",
        "for number, rows in enumerate('ab'): pass",
        "with open('a') as rows: pass",
        "import rows",
        "import csv as rows",
        "from csv import reader, rows",
        "from csv import (reader as r, rows)",
    ],
)
@pytest.mark.parametrize("more", ["", ". Did you mean: 'row'?"])
def test_every_kind_of_assignment_is_recognized(code: str, more: str) -> None:
    result = failed(f"NameError: name 'rows' is not defined{more}")
    assert hint(result, "x = 1", code).startswith(FRESH)


@pytest.mark.parametrize(
    "code",
    ["print(rows)", "rows == 1", "f(rows=1)", "x = rows", "x.rows = 1", "more_rows = 1", "rows2 = 1", "# rows"],
)
def test_code_that_does_not_assign_the_name_is_ignored(code: str) -> None:
    assert hint(failed("NameError: name 'rows' is not defined"), code) == ""


def test_only_the_error_that_ended_the_program_has_a_hint() -> None:
    assert hint(failed("NameError: name 'rows' is not defined\nValueError: x"), "rows = 1") == ""
    assert hint(failed("NameError: name 'rows' is not defined", "timed_out"), "rows = 1") == ""


def test_large_code_is_searched_in_linear_time() -> None:
    for unit in ("rows, ", "import a, ", "for a, ", "(", "rows:", "a, " * 20, " "):
        assert hint(failed("NameError: name 'rows' is not defined"), unit * (200_000 // len(unit))) == ""
