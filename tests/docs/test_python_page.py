"""docs/python.md lists every argument, field, event and error of the public API."""

from __future__ import annotations

import inspect
import re

import pytest

import gke_sandbox
from gke_sandbox import AsyncSandbox, Sandbox

from . import python_page

PAGE = python_page.PAGE.read_text()
ARGUMENTS = dict(
    re.findall(r"^\| `(?:\*\*)?(\w+)` \| (?:`(.*?)`)? *\|", PAGE.partition("## Results")[0], re.MULTILINE)
)
"""Name and default of each argument in the tables."""


def test_the_tables_agree_with_the_code() -> None:
    """``python -m tests.docs.python_page`` updates the page."""
    assert python_page.written(PAGE) == PAGE


@pytest.mark.parametrize("cls", [Sandbox, AsyncSandbox])
@pytest.mark.parametrize("method", ["__init__", "run", "map", "stream"])
def test_every_argument_is_documented_with_its_default(cls: type, method: str) -> None:
    for parameter in inspect.signature(getattr(cls, method)).parameters.values():
        if parameter.name != "self":
            has_default = parameter.default is not inspect.Parameter.empty
            assert ARGUMENTS[parameter.name] == (repr(parameter.default) if has_default else "")


def test_every_public_name_is_on_the_page() -> None:
    assert [name for name in gke_sandbox.__all__ if name[0] != "_" and f"{name}" not in PAGE] == []


@pytest.mark.parametrize("cls", [Sandbox, AsyncSandbox, gke_sandbox.Cluster, gke_sandbox.ExecutionResult])
def test_every_public_method_and_attribute_is_on_the_page(cls: type) -> None:
    assert [name for name in vars(cls) if name[0] != "_" and not re.search(rf"\b{name}\b", PAGE)] == []
