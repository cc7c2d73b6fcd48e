"""Relative paths of input and output files. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

MAX_NAME = 1024
"""The maximum length of a path, in bytes of UTF-8: a quarter of Linux's PATH_MAX, to leave room for its
directory.

https://man7.org/linux/man-pages/man0/limits.h.0p.html
"""

_MAX_COMPONENT = 255
"""Linux's NAME_MAX, in bytes."""

# They are invisible or change the direction of text, so that a name looks like another one.
_DECEPTIVE = ("Cf", "Zl", "Zp")
# The spelling of Persian, of Indian languages and of some emoji needs these two format characters (ZWNJ and ZWJ).
# https://www.unicode.org/reports/tr31/#Layout_and_Format_Control_Characters
_JOINERS = "\u200c\u200d"


class FileTree:
    """The relative paths of the files in one directory, each as returned by `safe_name`."""

    def __init__(self) -> None:
        # A tree {component: subtree, or None for a file}. Its size is linear in the names, at any depth.
        self._tree: dict[str, Any] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def check(self, name: str) -> None:
        """Raise `ValueError` if `name` exists, is the directory of another file, or passes through a file."""
        node: dict[str, Any] | None = self._tree
        for part in name.split("/"):
            if node is None:
                raise ValueError("would be in a directory that is also the name of a file")
            if part not in node:
                return
            node = node[part]
        raise ValueError("is used twice" if node is None else "is the directory of another file")

    def add(self, name: str) -> None:
        """Add a name that passed `check`."""
        *parents, last = name.split("/")
        node = self._tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = None
        self._count += 1


def safe_name(name: str) -> str:
    """Return `name` as a relative path inside its directory, without ``.`` and ``//``.

    Raises `ValueError` with the reason if the name is empty, names a directory, is absolute, contains a component
    ``..``, a backslash or a drive letter (which leave the directory on Windows), a NUL or another control
    character, cannot be encoded as UTF-8, or is longer than 255 bytes in a component or 1024 bytes in total.
    `safe_output_name` rejects more.
    """
    if not name:
        raise ValueError("is empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError("cannot be encoded as UTF-8 (it contains a lone surrogate)") from None
    if size > MAX_NAME:
        raise ValueError(f"is {size} bytes long; the maximum is {MAX_NAME}")
    if "\0" in name:
        raise ValueError("contains a NUL")
    if any(unicodedata.category(char) == "Cc" for char in name):
        raise ValueError("contains a control character")
    if "\\" in name:
        raise ValueError("contains a backslash, which leaves the directory on Windows; use /")
    if name.startswith("/"):
        raise ValueError("is absolute; it must be relative to the working directory")
    if re.match("[A-Za-z]:", name):
        raise ValueError("starts with a drive letter, which leaves the directory on Windows")
    if name.endswith("/"):
        raise ValueError("ends with /, so it names a directory, not a file")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("contains a component '..', which may leave the directory")
    if not parts or name.endswith("/."):
        raise ValueError("names a directory, not a file")
    longest = max(len(part.encode()) for part in parts)
    if longest > _MAX_COMPONENT:
        raise ValueError(f"contains a component of {longest} bytes; the maximum is {_MAX_COMPONENT}")
    return "/".join(parts)


def safe_output_name(name: str) -> str:
    """Return the name of an output file, which the program chose, as `safe_name`.

    Raises `ValueError` also for format characters (bidirectional controls, zero width space, ...) and for line and
    paragraph separators, because a terminal or a file manager would show another name.
    """
    if any(unicodedata.category(char) in _DECEPTIVE and char not in _JOINERS for char in name):
        raise ValueError(
            "contains a format character or a line separator, which can make it look like another name"
        )
    return safe_name(name)


def printable_name(name: str) -> str:
    """Return any name as text for a terminal: a backslash and unprintable characters are escaped as in Python."""
    return "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode() for char in name
    )
