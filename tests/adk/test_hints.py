"""Hints for a model whose code failed for a reason that the traceback does not contain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gke_sandbox import ExecutionResult
from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.adk.hints import failure_hint
from tests.adk.kit import QUIET, agent, block, converse, local

pytestmark = QUIET

FRESH = "Hint: An earlier code block assigned rows, but each block runs in a fresh process"


@pytest.fixture(scope="module")
def executor() -> Iterator[GkeCodeExecutor]:
    with local(timeout_seconds=20) as made:
        yield made


def failed(last_line: str, status: str = "failed") -> ExecutionResult:
    stderr = f'Traceback (most recent call last):\n  File "main.py", line 1, in <module>\n{last_line}\n'
    return ExecutionResult(status=status, exit_code=1, stderr_bytes=stderr.encode())  # type: ignore[arg-type]


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
    assert failure_hint(result, ["x = 1", code]).startswith(FRESH)


@pytest.mark.parametrize(
    "code",
    ["print(rows)", "rows == 1", "f(rows=1)", "x = rows", "x.rows = 1", "more_rows = 1", "rows2 = 1", "# rows"],
)
def test_code_that_does_not_assign_the_name_is_ignored(code: str) -> None:
    assert failure_hint(failed("NameError: name 'rows' is not defined"), [code]) == ""


def test_only_the_error_that_ended_the_program_has_a_hint() -> None:
    earlier = ["rows = 1"]
    assert failure_hint(failed("NameError: name 'rows' is not defined\nValueError: x"), earlier) == ""
    assert failure_hint(failed("NameError: name 'rows' is not defined", "timed_out"), earlier) == ""


def test_large_code_is_searched_in_linear_time() -> None:
    for unit in ("rows, ", "import a, ", "for a, ", "(", "rows:", "a, " * 20, " "):
        assert (
            failure_hint(failed("NameError: name 'rows' is not defined"), [unit * (1_000_000 // len(unit))]) == ""
        )
