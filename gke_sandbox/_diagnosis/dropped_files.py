"""Describe the output files that were dropped. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .._wire.dropped import DroppedFile, DroppedOutput, DropReason

_MAX_SHOWN = 10

_PHRASES: dict[DropReason, str] = {
    "too_many": "{files} over the limit on the number of files (max_files): {names}",
    "too_large": "{files} over the limit on the size of all files (max_file_bytes): {names}",
    "log_full": "{files} beyond the size of the pod's log, which also contains stdout and stderr: {names}",
    "unreadable": "{files} that could not be read: {names}",
    "refused_name": "{files} with an invalid name (a control or format character, a backslash, ...): {names}",
    "not_searched": "all files after 20,000 entries of directories: the search ended in {names}",
}


def describe_dropped_files(dropped: DroppedOutput) -> list[str]:
    """Return a phrase for each reason, such as ``2 output files that could not be read: 'a', 'b'``.

    They contain the names of settings: see `rename_settings`.
    """
    phrases = []
    for reason, phrase in _PHRASES.items():
        files = [file for file in dropped.named_files if file.reason == reason]
        if files:
            phrases.append(phrase.format(files=_counted(len(files)), names=_names(files)))
    unnamed = dropped.files - len(dropped.named_files)
    if unnamed > 0:
        more = "more " if phrases else ""
        phrases.append(
            f"{_counted(unnamed, more)} over a limit (max_files, max_file_bytes) or with an invalid name"
        )
    return phrases


def _counted(count: int, more: str = "") -> str:
    return f"{count:,} {more}output {'file' if count == 1 else 'files'}"


def _names(files: Sequence[DroppedFile]) -> str:
    shown = [_name_and_size(file) for file in files[:_MAX_SHOWN]]
    return ", ".join(shown) + (f" and {len(files) - len(shown):,} more" if len(files) > len(shown) else "")


def _name_and_size(file: DroppedFile) -> str:
    if file.size is None:
        return f"'{file.name}'"
    return f"'{file.name}' ({file.size:,} {'byte' if file.size == 1 else 'bytes'})"
