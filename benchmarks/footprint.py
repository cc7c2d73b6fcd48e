"""Distributions and bytes that an installation brings, with its dependencies."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from .harness import PEERS, ROOT, Size, Table, is_installed

OURS = "gke-sandbox"
CLIENTS = (OURS, *PEERS)
EXCLUDED = re.compile(r"extra *==")


def run(size: Size) -> Table:
    table = Table("footprint", ["distributions", "MB installed"])
    for name in size.choose(CLIENTS, CLIENTS, CLIENTS[:1]):
        if is_installed(name):
            found = _closure(name)
            table.add(name, len(found), sum(map(_bytes, found)) / 1e6)
        else:
            table.add_missing(name)
    rows = [name for name, _ in table.rows]
    if is_installed("kubernetes") and "kubernetes" in rows:
        table.add_ratio(f"{OURS} / kubernetes", 0, rows.index("kubernetes"))
    table.notes.append("With all dependencies that are not extras, without compiled modules.")
    return table


def _closure(name: str) -> set[str]:
    """Return the distributions that one needs, with itself."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found and is_installed(name):
            found.add(name)
            for requirement in importlib.metadata.requires(name) or ():
                if not EXCLUDED.search(requirement):
                    waiting.append(re.split(r"[ ;<>=!~\[(]", requirement, maxsplit=1)[0])
    return found


def _bytes(name: str) -> int:
    if name == OURS:
        files = [path for path in (ROOT / "gke_sandbox").rglob("*") if path.is_file()]
    else:
        files = [Path(str(each.locate())) for each in importlib.metadata.files(name) or ()]
    return sum(path.stat().st_size for path in files if path.suffix != ".pyc" and path.exists())
