"""The Dockerfile and its lock file agree with the package. .ci/run lints and resolves them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gke_sandbox.settings import Settings

DIRECTORY = Path(__file__).parent.parent / "images" / "python"
pytestmark = pytest.mark.skipif(not DIRECTORY.is_dir(), reason="needs the source tree")


def pinned() -> dict[str, str]:
    """Return each distribution of the lock file, with its entry."""
    entries = re.split(r"\n(?=[a-z])", (DIRECTORY / "requirements.txt").read_text())[1:]
    return {canonicalize_name(entry.partition("==")[0]): entry for entry in entries}


def test_the_lock_contains_the_required_libraries_with_versions_and_hashes() -> None:
    lines = (DIRECTORY / "requirements.in").read_text().splitlines()
    wanted = {canonicalize_name(Requirement(line).name) for line in lines if line and not line.startswith("#")}
    assert {"matplotlib", "numpy", "openpyxl", "pandas", "pillow", "scikit-learn", "scipy"} <= wanted
    assert wanted <= pinned().keys()
    for name, entry in pinned().items():
        assert re.match(r"[\w.-]+==[\w.]+ \\\n    --hash=sha256:[0-9a-f]{64}", entry), name


def test_the_lock_names_no_index() -> None:
    text = (DIRECTORY / "requirements.txt").read_text()
    assert "://" not in text
    assert "index-url" not in text.replace("--no-emit-index-url", "")


def test_the_image_has_the_user_of_the_job() -> None:
    text = (DIRECTORY / "Dockerfile").read_text()
    settings = Settings()
    ids = f"{settings.run_as_user}:{settings.run_as_group}"
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == [ids]
    assert f"--gid {settings.run_as_group} sandbox" in text
    assert f"--uid {settings.run_as_user} --gid {settings.run_as_group}" in text


def test_the_image_and_its_lock_are_for_the_same_python() -> None:
    base = re.search(r"^FROM python:([\d.]+)-slim$", (DIRECTORY / "Dockerfile").read_text(), re.MULTILINE)
    assert base
    assert f"--python-version {base[1]} " in (DIRECTORY / "requirements.txt").read_text().splitlines()[1]
    assert f"--python-version {base[1]} " in (DIRECTORY / "requirements.in").read_text()
    assert set(re.findall(r"python(\d+\.\d+)/?\b", (DIRECTORY / "Dockerfile").read_text())) == {base[1]}
