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


class FileTree:
    """The names of files that are to stand side by side in one directory, each as `safe_name` returns it."""

    def __init__(self) -> None:
        # A tree, {component: subtree, or None for a file}: its size is that of the names, however deep they go.
        self._tree: dict[str, Any] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def check(self, name: str) -> None:
        """Raise `ValueError` if `name` is there, is a directory of another's, or goes through a file."""
        node: dict[str, Any] | None = self._tree
        for part in name.split("/"):
            if node is None:
                raise ValueError("would lie in a directory that is itself a file")
            if part not in node:
                return
            node = node[part]
        raise ValueError("is there twice" if node is None else "is the directory of another file")

    def add(self, name: str) -> None:
        """Take in a name that `check` lets pass."""
        *parents, last = name.split("/")
        node = self._tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = None
        self._count += 1


def safe_name(name: str) -> str:
    """`name` as a relative path that stays inside the directory it is put into, without ``.`` and ``//``.

    Inputs and outputs pass the same rules. Raises `ValueError`, whose message says why `name` is none: it is
    empty, names a directory, is absolute, has a component ``..``, a backslash or a drive letter (another place
    on Windows), a NUL or another control character, cannot be encoded as UTF-8, or is longer than 255 bytes in
    a component or 1024 bytes in all.
    """
    if not name:
        raise ValueError("is empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError("is not encodable as UTF-8 (it holds a lone surrogate)") from None
    if size > MAX_NAME:
        raise ValueError(f"is {size} bytes long; {MAX_NAME} are the most")
    if "\0" in name:
        raise ValueError("holds a NUL")
    if any(unicodedata.category(char) == "Cc" for char in name):
        raise ValueError("holds a control character")
    if "\\" in name:
        raise ValueError("holds a backslash, which leaves the directory on Windows; use /")
    if name.startswith("/"):
        raise ValueError("is absolute; it must be relative to the working directory")
    if re.match("[A-Za-z]:", name):
        raise ValueError("begins with a drive letter, which leaves the directory on Windows")
    if name.endswith("/"):
        raise ValueError("ends with /: it names a directory, not a file")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("has a component '..', which may leave the directory")
    if not parts or name.endswith("/."):
        raise ValueError("names a directory, not a file")
    longest = max(len(part.encode()) for part in parts)
    if longest > _MAX_COMPONENT:
        raise ValueError(f"has a component of {longest} bytes; {_MAX_COMPONENT} are the most")
    return "/".join(parts)
