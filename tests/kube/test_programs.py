"""Programs on PATH: the first entry that has the program decides, and it must be absolute."""

from __future__ import annotations

from pathlib import Path

import pytest

from gke_sandbox.errors import ConfigError
from gke_sandbox.kube.programs import find_program


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the program in it, in `bin` and in `other`; `empty` has none."""
    for folder in (tmp_path, tmp_path / "bin", tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        (folder / "tool").write_text("#!/bin/sh\n")
        (folder / "tool").chmod(0o755)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "entry", "file"),
    [
        ("{here}/empty:", "an empty entry", "tool"),
        (":{here}/other", "an empty entry", "tool"),
        ("{here}/empty::{here}/other", "an empty entry", "tool"),
        (".", "the relative entry '.'", "tool"),
        (".:{here}/other", "the relative entry '.'", "tool"),
        ("bin", "the relative entry 'bin'", "bin/tool"),
        ("bin:{here}/other", "the relative entry 'bin'", "bin/tool"),
        ("empty:bin", "the relative entry 'bin'", "bin/tool"),
        ("empty/../bin", "the relative entry 'empty/../bin'", "bin/tool"),
    ],
)
def test_a_program_in_an_empty_or_relative_entry_is_refused(here: Path, path: str, entry: str, file: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_program("tool", path.format(here=here), fix="do something else")
    assert caught.value.message == (
        f"tool: found through {entry} of PATH, as {here / file}; programs found relative to the current directory "
        "are not run"
    )
    assert caught.value.hint == "Remove empty and relative entries from PATH, or do something else."


@pytest.mark.parametrize("after", ["", ":", ":.", ":bin", ":{here}"])
@pytest.mark.parametrize("before", ["", "empty:", "{here}/empty:", "no-such-folder:"])
def test_an_absolute_entry_that_comes_first_decides(here: Path, before: str, after: str) -> None:
    assert find_program("tool", f"{before}{{here}}/other{after}".format(here=here)) == f"{here}/other/tool"


@pytest.mark.parametrize("path", ["", "empty", "{here}/empty", "no-such-folder", "{here}/empty/tool"])
def test_a_program_that_no_entry_has_is_not_found(here: Path, path: str) -> None:
    assert find_program("tool", path.format(here=here)) is None


def test_files_that_cannot_be_run_and_directories_are_passed_over(here: Path) -> None:
    (here / "tool").chmod(0o644)
    (here / "empty" / "tool").mkdir()
    assert find_program("tool", f".:empty:{here}/other") == f"{here}/other/tool"
