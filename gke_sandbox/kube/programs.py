"""Find programs on PATH, but not through an empty or relative entry."""

from __future__ import annotations

import os

from ..errors import ConfigError
from .status import plain

__all__ = ["find_program"]


def find_program(name: str, path: str, *, fix: str = "") -> str | None:
    """Return the absolute path of the program `name`, or None if no directory in `path` (PATH) contains it.

    As in Go, use the first entry with an executable file of this name. If that entry is empty or relative, raise
    `ConfigError`: the file depends on the current directory, which an attacker may control. `fix` is added to its
    hint.
    """
    # https://pkg.go.dev/os/exec#hdr-Executables_in_the_current_directory
    for entry in path.split(os.pathsep) if path else ():
        file = os.path.join(entry or os.curdir, name)
        if os.path.isdir(file) or not os.access(file, os.X_OK):
            continue
        if os.path.isabs(entry):
            return file
        what = f"the relative entry '{plain(entry, 200)}'" if entry else "an empty entry"
        raise ConfigError(
            f"{name}: found through {what} of PATH, as {plain(os.path.abspath(file), 500)}; programs found "
            "relative to the current directory are not run",
            hint=f"Remove empty and relative entries from PATH{f', or {fix}' if fix else ''}.",
        )
    return None
