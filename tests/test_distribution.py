"""The wheel and the sdist contain the files that they should, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import gke_sandbox
from gke_sandbox import __version__

ROOT = Path(__file__).parent.parent
STEM = f"gke_sandbox-{__version__}"
IN_SDIST = ("gke_sandbox", "tests", "docs", "examples", "benchmarks", "fixtures", "images")
"""The directories of the sdist."""
NOT_PYTHON = {"gke_sandbox/py.typed", "gke_sandbox/rbac.yaml"}
"""The data files of the package."""

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the source tree")


def build(target: str, source: Path, directory: Path) -> Path:
    """Build a distribution with the build backend of pyproject.toml, without a network. Return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(directory)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = directory.iterdir()
    return built


def in_wheel(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as wheel:
        return set(wheel.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


def files_of(*directories: str) -> set[str]:
    """Return the files of directories of the source tree: those git would add, or all in an unpacked sdist."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *directories]
    try:
        done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        found = (path for directory in directories for path in (ROOT / directory).rglob("*") if path.is_file())
        return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


def test_the_wheel_contains_the_package_with_its_data_files_and_no_other_module(wheel: Path) -> None:
    info = f"{STEM}.dist-info"
    metadata = {
        f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert wheel.name == f"{STEM}-py3-none-any.whl"
    assert in_wheel(wheel) == files_of("gke_sandbox") | metadata


def test_the_wheel_has_the_extra_that_warm_pods_need(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{STEM}.dist-info/METADATA").decode().splitlines()
    assert "Provides-Extra: warm" in metadata
    (required,) = (line for line in metadata if line.endswith("extra == 'warm'"))
    assert required.startswith("Requires-Dist: wsproto")


def test_the_package_contains_python_and_the_listed_data_files_only() -> None:
    assert {name for name in files_of("gke_sandbox") if not name.endswith(".py")} == NOT_PYTHON


def test_the_rbac_manifest_is_read_next_to_the_installed_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert (
            archive.read("gke_sandbox/rbac.yaml") == Path(gke_sandbox.__file__).with_name("rbac.yaml").read_bytes()
        )


def test_the_sdist_contains_the_source_the_tests_and_the_documents(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.removeprefix(f"{STEM}/") for member in archive.getmembers() if member.isfile()}
    beside = {name for name in names if "/" not in name}
    assert beside == {
        ".gitignore",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "PKG-INFO",
        "README.es.md",
        "README.md",
        "SECURITY.md",
        "pyproject.toml",
    }
    assert names - beside == files_of(*IN_SDIST)


def test_the_wheel_built_from_the_sdist_has_the_same_files(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    assert in_wheel(build("wheel", tmp_path / STEM, tmp_path / "dist")) == in_wheel(wheel)
