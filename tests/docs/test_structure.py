"""The documents form one structure: links lead somewhere, and the architecture names every module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..test_package import LAYERS
from .blocks import DOCUMENTS, ROOT, blocks


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


def test_the_spanish_readme_has_the_blocks_the_links_and_the_sections_of_the_english_one() -> None:
    english, spanish = ROOT / "README.md", ROOT / "README.es.md"
    assert [each[2:] for each in blocks(spanish)] == [each[2:] for each in blocks(english)]
    links, headings, rows = (
        [re.findall(pattern, without_code(each), re.MULTILINE) for each in (english, spanish)]
        for pattern in (r"\]\(([^)\s]+)\)", r"^#+(?= )", r"^\|")
    )
    other = {"README.md": "README.es.md"}
    assert links[0] == [other.get(link, link) for link in links[1]]
    assert headings[0] == headings[1]
    assert len(rows[0]) == len(rows[1])


def test_the_architecture_names_every_module() -> None:
    table = (ROOT / "docs" / "design.md").read_text().partition("## Modules")[2].partition("\n\n## ")[0]
    assert [name for name in LAYERS if f"`{name}/`" not in table and f"`{name}.py`" not in table] == []
