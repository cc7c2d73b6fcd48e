"""Read the exception that ended a program from its stderr. Pure."""

from __future__ import annotations

import re

__all__ = ["missing_module", "undefined_name"]

_MODULE = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")
_NAME = re.compile(r"NameError: name '([^']+)' is not defined")


def missing_module(stderr: str) -> str | None:
    """Return the module that could not be found. Return None if the program ended in another way."""
    return _search(_MODULE, stderr)


def undefined_name(stderr: str) -> str | None:
    """Return the name that is not defined. Return None if the program ended in another way."""
    return _search(_NAME, stderr)


def _search(pattern: re.Pattern[str], stderr: str) -> str | None:
    last = stderr.rstrip().rpartition("\n")[2]
    found = pattern.match(last)
    return found[1] if found is not None else None
