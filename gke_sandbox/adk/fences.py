"""The fences of code blocks that models write, as delimiters for google-adk, which extracts the code. Pure."""

from __future__ import annotations

import itertools
import re

from .compat import DELIMITERS_ARE_PATTERNS

__all__ = ["code_block_delimiters", "remove_indentation"]

_END = "\n```"
_FIRST = [("```tool_code\n", _END), ("```python\n", _END)]
"""The default of google-adk. With the first pair, code is sent back to the model."""

_LANGUAGES = ("python", "python3", "py", "Python", "Python3", "PYTHON", "ipython", "tool_code")
_INDENTS = ("\t", *(" " * width for width in range(8, 0, -1)), "")
"""The indentation of a fence, as in a list."""

_ANY_LANGUAGE = rf" *(?:{'|'.join(_LANGUAGES)}) *\r?\n"
_PATTERNS = [(f"```{_ANY_LANGUAGE}", _END), (rf"(?P<indent>[ \t]+)```{_ANY_LANGUAGE}", r"\n(?P=indent)```")]
"""All other fences, as regular expressions."""


def code_block_delimiters() -> list[tuple[str, str]]:
    """Return google-adk's default pairs, followed by those for other spellings of a fence.

    google-adk runs the block that starts first. A pair for an indented fence starts with its indentation, so it
    takes precedence over the pair for the same fence without it.
    """
    if DELIMITERS_ARE_PATTERNS:
        return [*_FIRST, *_PATTERNS]
    pairs = [
        (f"{indent}```{before}{language}{after}{newline}", f"\n{indent}```")
        for indent, language, before, after, newline in itertools.product(
            _INDENTS, _LANGUAGES, ("", " "), ("", " "), ("\n", "\r\n")
        )
    ]
    return list(dict.fromkeys([*_FIRST, *pairs]))


def remove_indentation(code: str) -> str:
    """Remove the indentation of the first statement from every line: that of the code block.

    Python code that starts with an indented statement is invalid, so valid code is not changed.
    """
    first = re.search(r"^([ \t]*)[^\s#]", code, re.MULTILINE)
    if first is None or not first[1]:
        return code
    return re.sub(rf"^[ \t]{{1,{len(first[1])}}}", "", code, flags=re.MULTILINE)
