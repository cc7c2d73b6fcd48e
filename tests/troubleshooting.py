"""Write the tables of docs/troubleshooting.md from the causes: ``python -m tests.troubleshooting``."""

from __future__ import annotations

from pathlib import Path

from gke_sandbox._diagnosis import CAUSES, FailureCause
from gke_sandbox._diagnosis.causes import Source

PAGE = Path(__file__).resolve().parent.parent / "docs" / "troubleshooting.md"
_RAN = {True: "yes", False: "no", None: "depends"}
BEGIN, END = "<!-- tables -->\n", "<!-- end of tables -->\n"

SECTIONS: dict[str, tuple[Source, ...]] = {
    "Image and container": ("waiting", "start", "init container"),
    "Node and volumes": ("scheduling", "pod event"),
    "Refused by the API server": ("admission",),
    "Ended from outside": ("pod status", "terminated"),
    "What the client concludes": (),
}


def tables() -> str:
    """All causes, by where Kubernetes says them."""
    return "\n".join(_section(title, places) for title, places in SECTIONS.items())


def _section(title: str, places: tuple[Source, ...]) -> str:
    waited_for = "terminated" not in places
    head = ["cause", "what it means", "what to do", "program ran", *(["wait ends"] if waited_for else [])]
    found = [each for each in CAUSES if (each.patterns[0].source in places if each.patterns else not places)]
    rows = [_row(each)[: len(head)] for each in found]
    lines = [f"| {' | '.join(row)} |" for row in [head, *rows]]
    return "\n".join([f"### {title}", "", lines[0], "|---" * len(head) + "|", *lines[1:], ""])


def _row(cause: FailureCause) -> list[str]:
    summary, hint = (text.replace("|", "\\|") for text in (cause.summary, cause.hint))
    wait = "at once" if cause.permanent else "at `startup_timeout`"
    return [f"`{cause.name}`", summary, hint, _RAN[cause.ran], wait]


def written(page: str) -> str:
    """The page with its tables as they must be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
