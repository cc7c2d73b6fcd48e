"""Write the tables of docs/python.md from the code: ``python -m tests.docs.python_page``."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from functools import cached_property
from typing import Any, ForwardRef

from gke_sandbox import errors, result
from gke_sandbox._wire import dropped

from ..test_settings_docs import attribute_docstrings
from .blocks import ROOT

PAGE = ROOT / "docs" / "python.md"
_PART = re.compile(r"(<!-- (table|properties|errors)(?:: (\w+))? -->\n).*?(?=<!-- end -->)", re.DOTALL)
_WORDS = {"Status": result, "DropReason": dropped}


def written(page: str) -> str:
    """Return the page with its tables as they must be."""
    return _PART.sub(lambda found: found[1] + _part(found[2], found[3]), page)


def _part(kind: str, name: str | None) -> str:
    if kind == "errors":
        return _errors()
    assert name is not None
    if name in _WORDS:
        return _words(name)
    cls = getattr(result, name)
    return _fields(cls) if kind == "table" else _properties(cls)


def _cell(text: str) -> str:
    """Return text for a table, with links to the documents that it names."""
    joined = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
    return re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", joined)


def _table(head: str, rows: list[list[str]]) -> str:
    lines = [head, "|---" * head.count(" | ") + "|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)]) + "\n"


def _fields(cls: type) -> str:
    """Return the fields of a dataclass: type, default, description."""
    texts = attribute_docstrings(cls)
    rows = []
    for field in dataclasses.fields(cls):
        description, _, default = _cell(texts[field.name]).partition(" Default: ")
        default, _, more = default.partition(". ")
        rows.append(
            [f"`{field.name}`", f"`{_type(field.type)}`", default.rstrip("."), f"{description} {more}".strip()]
        )
    return _table("| field | type | default | |", rows)


def _type(annotation: Any) -> str:
    text = annotation.__forward_arg__ if isinstance(annotation, ForwardRef) else str(annotation)
    return text.replace("|", "\\|")


def _properties(cls: type) -> str:
    rows = []
    for name, value in vars(cls).items():
        function = value.fget if isinstance(value, property) else getattr(value, "func", None)
        if isinstance(value, property | cached_property) and function is not None:
            rows.append([f"`{name}`", f"`{_type(function.__annotations__['return'])}`", _cell(function.__doc__)])
    return _table("| property | type | |", rows)


def _words(name: str) -> str:
    """Return the words of a Literal, from the string below it: a word in double backticks, then its meaning."""
    body = ast.parse(inspect.getsource(_WORDS[name])).body
    index = next(i for i, node in enumerate(body) if isinstance(node, ast.Assign) and _names(node) == [name])
    below = body[index + 1]
    assert isinstance(below, ast.Expr)
    assert isinstance(below.value, ast.Constant)
    found = re.findall(r"^``(\w+)`` +(.*?)(?=^``|\Z)", str(below.value.value), re.DOTALL | re.MULTILINE)
    return _table(
        f"| {'status' if name == 'Status' else 'reason'} | |", [[f"`{word}`", _cell(text)] for word, text in found]
    )


def _names(node: ast.Assign) -> list[str]:
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def _errors() -> str:
    classes = [getattr(errors, name) for name in errors.__all__]
    found = [each for each in [*classes, result.ExecutionFailed] if issubclass(each, errors.SandboxError)]
    rows = []
    # In the order of the tree: a class follows its base.
    for cls in sorted(found, key=lambda each: [base.__name__ for base in reversed(each.__mro__)]):
        base = cls.__bases__[0].__name__
        assert cls.__doc__ is not None
        rows.append([f"`{cls.__name__}`", f"`{base}`", _may_have_run(cls), _cell(cls.__doc__)])
    return _table("| error | subclass of | `may_have_run` | |", rows)


def _may_have_run(cls: type[errors.SandboxError]) -> str:
    """Return the value of all errors of a class; the engine sets it for the errors of requests."""
    if cls in (errors.ResultLost, result.ExecutionFailed):
        return "True"
    is_parameter = "may_have_run" in inspect.signature(cls).parameters
    return "depends" if cls.may_have_run or is_parameter else "False"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
