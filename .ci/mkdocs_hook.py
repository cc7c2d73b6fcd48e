"""A hook of mkdocs: add the documents of the root directory, and the files that documents link to, to the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
ROOT_DOCUMENTS = ("README.md", "README.es.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
_LINK = re.compile(r"\]\((?![a-z]+://|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the documents of the root directory, and the files outside of docs/ that documents link to."""
    for name in ROOT_DOCUMENTS:
        files.append(File.generated(config, _page(name), abs_src_path=str(ROOT / name)))
    linked = {
        _from_root(file.src_uri, link)
        for file in list(files.documentation_pages())
        for link, _ in _LINK.findall(file.content_string)
    }
    for target in sorted(linked):
        if not _is_page(target):
            files.append(File.generated(config, _asset(target), abs_src_path=str(_file(target))))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite relative links for the layout of the site."""

    def rewritten(link: re.Match[str]) -> str:
        target = _from_root(page.file.src_uri, link[1])
        return f"]({_page(target) if _is_page(target) else _asset(target)}{link[2] or ''})"

    return _LINK.sub(rewritten, markdown)


def _from_root(page: str, target: str) -> str:
    """Return the path of a link in the repository."""
    in_root = page == "index.md" or page in ROOT_DOCUMENTS
    return posixpath.normpath(target if in_root else posixpath.join("docs", target))


def _is_page(path: str) -> bool:
    return path in ROOT_DOCUMENTS or path.startswith("docs/")


def _page(path: str) -> str:
    """Return the place of a document in the site, which has one directory."""
    return "index.md" if path == "README.md" else posixpath.basename(path)


def _asset(path: str) -> str:
    return f"files/{_file(path).relative_to(ROOT)}.txt"


def _file(path: str) -> Path:
    """Return the file of a link; that of an example in a directory is its main module."""
    found = ROOT / path
    if not found.is_dir():
        return found
    return next(
        each for name in ("agent.py", "test_*.py", "README.md", "*.py") for each in sorted(found.glob(name))
    )
