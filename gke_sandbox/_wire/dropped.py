"""Output that the runner or the decoder dropped, and why. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .paths import MAX_NAME, printable_name

MAX_NAMED = 100
"""The maximum number of dropped files that are named."""
MAX_COUNT = 1 << 53
"""The maximum of a count, a size or a duration in an exit frame; a larger one is forged."""

DropReason = Literal["too_many", "too_large", "log_full", "unreadable", "refused_name", "not_searched"]
"""Why a file was dropped.

``too_many``      there were already `max_files` files
``too_large``     it does not fit into the rest of `max_file_bytes`
``log_full``      it does not fit into the rest of the pod's log
``unreadable``    the file or directory cannot be read, or its content arrived damaged
``refused_name``  its name contains a control or format character or a backslash, or is otherwise not allowed
``not_searched``  the search for files ended in this directory, after 20,000 directory entries
"""
_REASONS = get_args(DropReason)


@dataclass(frozen=True)
class DroppedFile:
    """A file that was dropped, or a directory (see `reason`). Its name is not trusted."""

    name: str
    """Relative path, at most 1024 characters; a backslash and unprintable characters are escaped as in Python."""
    reason: DropReason
    """Why it was dropped: see `DropReason`."""
    size: int | None = None
    """Size in bytes. Default: None, if it is unknown."""


@dataclass(frozen=True)
class DroppedOutput:
    """Output that exceeded a limit and was dropped."""

    stdout: int = 0
    """Bytes of stdout. Default: 0."""
    stderr: int = 0
    """Bytes of stderr. Default: 0."""
    files: int = 0
    """Number of files, named or not. Default: 0."""
    named_files: tuple[DroppedFile, ...] = ()
    """The dropped files with their reasons, at most 100. The others are only counted. Default: none."""


def dropped_file(name: str, reason: DropReason, size: int | None = None) -> DroppedFile:
    """Return a dropped file; its name may contain any characters."""
    return DroppedFile(printable_name(name[:MAX_NAME]), reason, size)


def named_files(value: object) -> tuple[DroppedFile, ...] | None:
    """Return the files in an exit frame, a list of [name, reason, size]. Return None if the list is invalid."""
    if not isinstance(value, list) or len(value) > MAX_NAMED:
        return None
    files: list[DroppedFile] = []
    for entry in value:
        match entry:
            case [str(name), reason, None | int() as size] if reason in _REASONS:
                if isinstance(size, bool) or not 0 <= (size or 0) <= MAX_COUNT:
                    return None
                files.append(dropped_file(name, reason, size))
            case _:
                return None
    return tuple(files)
