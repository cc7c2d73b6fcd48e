"""Hints for a model whose code failed for a reason that the traceback does not contain. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..result import ExecutionResult

__all__ = ["failure_hint"]

# The code is not trusted, so it is not parsed, and every repetition that could backtrack is bounded.
_ASSIGNMENTS = (
    r"^[ \t(]*(?:\w+[ \t]*,[ \t*]*){{0,20}}{name}[ \t]*(?:[:,)][^=\n]{{0,200}})?=(?!=)",
    r"\b{name}[ \t]*:=",
    r"\b(?:def|class|as)[ \t]+{name}\b",
    r"\bfor[ \t]+(?:\w+[ \t]*,[ \t]*){{0,20}}{name}\b",
    r"\bimport[ \t(]+(?:\w+(?:[ \t]+as[ \t]+\w+)?[ \t]*,[ \t]*){{0,20}}{name}\b",
)


def failure_hint(result: ExecutionResult, earlier: Iterable[str], *, image: str, local: bool) -> str:
    """Return the hint for a program that failed, or "" if there is none.

    `earlier`: the other code blocks of the conversation. `image`: the image of the pod. `local`: whether the
    program ran with the Python of this process instead.
    """
    if result.status != "failed":
        return ""
    from .._diagnosis.tracebacks import missing_module, undefined_name

    module = missing_module(result.stderr)
    if module is not None:
        where = (
            "the Python of this agent, which the embedded cluster uses" if local else f"the image {image} (image)"
        )
        return (
            f"Hint: Only the operator can add the module {module} to {where}. "
            "Use the standard library, or modules that are installed there."
        )
    name = undefined_name(result.stderr)
    if name is not None and any(_assigns(code, name) for code in earlier):
        return (
            f"Hint: An earlier code block assigned {name}, but each block runs in a fresh process: variables, "
            f"imports and files of earlier blocks do not exist. Repeat the code that assigns {name} in this block."
        )
    return ""


def _assigns(code: str, name: str) -> bool:
    """Return whether a statement of `code` seems to assign `name`."""
    escaped = re.escape(name)
    return any(re.search(each.format(name=escaped), code, re.MULTILINE) for each in _ASSIGNMENTS)
