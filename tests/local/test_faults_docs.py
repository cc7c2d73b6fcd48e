"""docs/faults.md agrees with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gke_sandbox.local import faults

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"
TEXT = DOCS.read_text()
CLASSES = [one for one in vars(faults).values() if isinstance(one, type) and issubclass(one, faults.Action)]
ACTIONS = {one for one in CLASSES if not one.__subclasses__()}
EXAMPLES = re.findall(r"^\| `(Fault\(.*?)` \|", TEXT, re.MULTILINE)


def evaluate(example: str) -> faults.Fault:
    fault = eval(example, dict(vars(faults)))
    assert isinstance(fault, faults.Fault)
    return fault


def test_the_first_example_prints_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    match = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert match is not None
    exec(match[1], {})
    assert "ErrImagePull" in capsys.readouterr().out


def test_there_is_an_example_for_each_action() -> None:
    assert {type(evaluate(example).action) for example in EXAMPLES} == ACTIONS


def test_each_constructor_of_an_action_is_mentioned() -> None:
    names = [name for action in ACTIONS for name, value in vars(action).items() if isinstance(value, classmethod)]
    assert [name for name in names if f"{name}(" not in TEXT] == []
