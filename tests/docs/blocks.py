"""Find the code blocks of the documents.

A comment directly above a block is the reason why the tests of the documents do not execute it: ``<!-- live -->``
(it needs a cluster, Google Cloud or a package index) or ``<!-- ci -->`` (`.ci/run` or another test executes it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
_BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>live|ci) -->\n)?(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    document: Path
    line: int
    language: str
    text: str
    marker: str
    """``live``, ``ci`` or "" if the tests execute it."""

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def source(self) -> str:
        """The text with empty lines above it, so that tracebacks have the line numbers of the document."""
        return "\n" * self.line + self.text


class Command(NamedTuple):
    line: str
    """The command, without its prompt; continuation lines are joined."""
    output: str
    """The output that the document shows below it."""


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    return [
        Block(
            document,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
            found["marker"] or "",
        )
        for found in _BLOCK.finditer(text)
    ]


def commands(block: Block) -> Iterator[Command]:
    """Return the commands of a console block. A line that ends with a backslash continues on the next one."""
    joined = block.text.replace("\\\n", "")
    for part in re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]:
        line, _, output = part.partition("\n")
        yield Command(line, output)
