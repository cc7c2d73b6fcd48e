"""The documents form one structure: links lead somewhere, and the architecture names every module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..test_package import LAYERS
from .blocks import DOCUMENTS, ROOT


def without_code(document: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub derives them."""
    headings = re.findall(r"^#+ (.*)$", without_code(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_to_files_and_headings(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(document)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path) if path else document
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_every_document_is_linked_from_another() -> None:
    linked = {
        (document.parent / target.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)\s:]+)\)", without_code(document))
        if target[0] != "#"
    }
    assert [path.name for path in DOCUMENTS if path not in linked and path.name != "README.md"] == []


def test_the_architecture_names_every_module() -> None:
    table = (ROOT / "docs" / "design.md").read_text().partition("## Modules")[2].partition("\n\n## ")[0]
    assert [name for name in LAYERS if f"`{name}/`" not in table and f"`{name}.py`" not in table] == []
