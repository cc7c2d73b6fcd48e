"""The table in fixtures/README.md: every cassette and its source, from its header."""

from __future__ import annotations

from pathlib import Path

from gke_sandbox.cassette import load

__all__ = ["table", "write_table"]

_BEGIN = "<!-- the cassettes: written by tests/scenarios/readme.py -->\n"
_END = "<!-- end of the cassettes -->\n"


def table(fixtures: Path) -> str:
    """Return the table of all cassettes in a directory."""
    lines = ["| cassette | server | recorded | notes |", "|---|---|---|---|"]
    for path in sorted(fixtures.glob("*.yaml")):
        header = load(path).header
        notes = " ".join(header.notes.split()).replace("|", "\\|")
        lines.append(f"| `{path.name}` | {header.server} | {header.recorded_at} | {notes} |")
    return "\n".join(lines) + "\n"


def write_table(fixtures: Path) -> None:
    """Update the table in the README of a directory. A README without the markers is not changed."""
    readme = fixtures / "README.md"
    if not readme.exists():
        return
    before, begin, rest = readme.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if begin and end:
        readme.write_text(f"{before}{begin}{table(fixtures)}{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    write_table(Path("fixtures"))
