"""docs/settings.md agrees with the code, and every public field is documented in the source."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from gke_sandbox import result
from gke_sandbox._setting_names import SETTING_NAMES
from gke_sandbox.settings import Settings, Toleration

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"


def attribute_docstrings(cls: type) -> dict[str, str]:
    """Return the strings below the attributes of a class, by attribute."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = tree.body[0].body  # type: ignore[attr-defined]
    return {
        each.target.id: inspect.cleandoc(below.value.value)
        for each, below in itertools.pairwise(body)
        if isinstance(each, ast.AnnAssign)
        and isinstance(each.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def table() -> str:
    """Return the table of names for docs/settings.md."""
    lines = ["| Python | command line | ADK field | unit | default | |", "|---|---|---|---|---|---|"]
    descriptions = attribute_docstrings(Settings)
    for field in dataclasses.fields(Settings):
        names = SETTING_NAMES[field.name]
        text = " ".join(descriptions[field.name].split()).replace("``", "`")
        description, _, default = text.partition(" Default: ")
        adk = names.adk or f'settings["{field.name}"]'
        cells = (f"`{field.name}`", f"`{names.option}`", f"`{adk}`", names.unit, default.rstrip("."), description)
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"


def test_the_table_of_names_agrees_with_the_code() -> None:
    found = re.search(r"<!-- settings -->\n(.*)<!-- end of settings -->", PAGE.read_text(), re.DOTALL)
    assert found is not None
    assert found[1] == table()


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_the_documented_default_is_the_default(field: dataclasses.Field[Any]) -> None:
    documented = attribute_docstrings(Settings)[field.name].partition("Default:")[2]
    value = field.default_factory() if callable(field.default_factory) else field.default
    if field.name == "tolerations":
        assert "gVisor" in documented
    elif value in ({}, ()):
        assert documented.startswith(" none")
    else:
        assert (f"{value:g}" if isinstance(value, float) else str(value)) in documented


DOCUMENTED = [
    Settings,
    Toleration,
    result.ExecutionResult,
    result.Timings,
    result.DroppedFile,
    result.DroppedOutput,
    result.PhaseChanged,
    result.PodWaiting,
    result.OutputChunk,
    result.ExecutionFinished,
]


@pytest.mark.parametrize("cls", DOCUMENTED)
def test_every_field_has_a_docstring_with_its_default_and_its_unit(cls: type) -> None:
    docstrings = attribute_docstrings(cls)
    for field in dataclasses.fields(cls):
        text = docstrings[field.name]
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        assert ("Default:" in text) == has_default, field.name
        unit = {"seconds": "econds", "bytes": "ytes", "cores": "cores"}.get(unit_of(cls, field.name), "")
        assert unit in text, field.name


def unit_of(cls: type, name: str) -> str:
    if cls is Settings:
        return SETTING_NAMES[name].unit
    return "seconds" if cls is result.Timings or name == "seconds" else ""
