"""Parse the stdout of scripts of google-adk's SkillToolset. Pure.

The toolset lets a shell script print its streams and its exit code as one line of JSON, and every script its files
as another line, with contents in base64. Both lines are at the end of stdout, so a limit on output removes them
first.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

__all__ = ["SkillScript", "parse_script", "without_files"]

_ENVELOPE = re.compile(r'^\{"__shell_result__".*', re.MULTILINE)
_FILES = re.compile(r"__ADK_SKILL_GENERATED_FILES__:(?:\w*:)?(.*)\n?")


@dataclass(frozen=True)
class SkillScript:
    """The script whose stdout was truncated. `exit_code` is None if it is lost; the streams may be truncated."""

    stdout: str
    stderr: str
    exit_code: int | None
    in_shell: bool


def parse_script(stdout: str) -> SkillScript | None:
    """Return the script if google-adk cannot parse its truncated stdout. Return None otherwise."""
    found, files = _ENVELOPE.search(stdout), _FILES.search(stdout)
    cut = files is not None and not _is_json(files[1])
    if found is None:
        return SkillScript(without_files(stdout), "", 0, in_shell=False) if cut else None
    read = _envelope(found[0])
    # The line of the files may be truncated to its first letters.
    cut = cut or (files is None and stdout[found.end() :].strip() != "")
    return read if read.exit_code is None or cut else None


def without_files(stdout: str) -> str:
    """Return `stdout` without the line of the files, which may have megabytes."""
    return _FILES.sub("", stdout)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _envelope(line: str) -> SkillScript:
    try:
        whole = json.loads(line)
    except ValueError:
        stdout, end = _string(line, '"stdout": ', 0)
        stderr, _ = _string(line, '"stderr": ', end)
        return SkillScript(stdout, stderr, None, in_shell=True)
    return SkillScript(whole.get("stdout", ""), whole.get("stderr", ""), whole.get("returncode"), in_shell=True)


def _string(line: str, name: str, start: int) -> tuple[str, int]:
    """Return the JSON string after `name`, which may be truncated, and the position of its end."""
    position = line.find(name, start)
    if position < 0:
        return "", start
    # Truncated text may end within an escape sequence, of at most six characters.
    for last in range(len(line), len(line) - 6, -1):
        try:
            value, end = json.JSONDecoder().raw_decode(f'{line[:last]}"', position + len(name))
        except ValueError:
            continue
        return str(value).encode("utf-8", "replace").decode(), end  # Half of a surrogate pair cannot be encoded.
    return "", start
