"""What google-adk's SkillToolset lets its scripts print, for itself to read. Pure.

A shell script's streams and exit code come as one line of JSON, the files that any script made as another, with
their contents in base64. Both stand at the end of stdout: what is over a limit is lost from them first.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

__all__ = ["Script", "script", "without_files"]

_ENVELOPE = re.compile(r'^\{"__shell_result__".*', re.MULTILINE)
_FILES = re.compile(r"__ADK_SKILL_GENERATED_FILES__:(?:\w*:)?(.*)\n?")


@dataclass(frozen=True)
class Script:
    """What a cut stdout says of a script. `exit_code` is None if that is lost, and the streams may be cut, too."""

    stdout: str
    stderr: str
    exit_code: int | None
    in_shell: bool


def script(stdout: str) -> Script | None:
    """The script whose stdout this is, if google-adk cannot read what was printed for it. Else None."""
    found, files = _ENVELOPE.search(stdout), _FILES.search(stdout)
    cut = files is not None and not _is_json(files[1])
    if found is None:
        return Script(without_files(stdout), "", 0, in_shell=False) if cut else None
    read = _envelope(found[0])
    # Of the files' line there may be only the first letters.
    cut = cut or (files is None and stdout[found.end() :].strip() != "")
    return read if read.exit_code is None or cut else None


def without_files(stdout: str) -> str:
    """`stdout` without the line of files: megabytes that say nothing."""
    return _FILES.sub("", stdout)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _envelope(line: str) -> Script:
    try:
        whole = json.loads(line)
    except ValueError:
        stdout, end = _string(line, '"stdout": ', 0)
        stderr, _ = _string(line, '"stderr": ', end)
        return Script(stdout, stderr, None, in_shell=True)
    return Script(whole.get("stdout", ""), whole.get("stderr", ""), whole.get("returncode"), in_shell=True)


def _string(line: str, name: str, start: int) -> tuple[str, int]:
    """The string after `name`, which may be cut, and where it ends."""
    begin = line.find(name, start)
    if begin < 0:
        return "", start
    # What is cut may end within an escape, of six characters at most.
    for last in range(len(line), len(line) - 6, -1):
        try:
            value, end = json.JSONDecoder().raw_decode(f'{line[:last]}"', begin + len(name))
        except ValueError:
            continue
        return str(value).encode("utf-8", "replace").decode(), end  # Half of a pair of surrogates is no text.
    return "", start
