"""A copy of the package inside of another project, with httpx and pyyaml only. docs/vendoring.md is about it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import gke_sandbox

from .http_cluster import http_cluster

PACKAGE = Path(gke_sandbox.__file__).parent
DOCS = Path(__file__).parents[1] / "docs" / "vendoring.md"
VENDORED = "other_project._vendor.gke_sandbox"
OPTIONAL = {
    "adk": ["adk"],
    "cassette": ["cassette", "pytest_plugin.py"],
    "cli": ["cli", "__main__.py", "rbac.yaml"],
    "local": ["local"],
    "all": ["adk", "cassette", "pytest_plugin.py", "cli", "__main__.py", "rbac.yaml", "local", "_fakes"],
}
"""Parts that can be left out together."""

RECORD_AND_REPLAY = f"""
from {VENDORED} import Cluster, Sandbox

for cluster in (Cluster.record("run.yaml", Cluster.local("process")), Cluster.replay("run.yaml")):
    with Sandbox(cluster) as sandbox:
        result = sandbox.run("print(6 * 7); open('out.txt', 'w').write('made')")
        print(result.stdout.strip(), result.files)
"""
RUN_ON_A_CLUSTER = f"""
from {VENDORED} import Cluster, Sandbox

with Sandbox(Cluster.kubeconfig("kubeconfig")) as sandbox:
    print(sandbox.run("print(6 * 7)").stdout.strip())
"""


def closure(*names: str) -> list[Distribution]:
    """Return the distributions `names`, and those that they require without extras."""
    found: dict[str, Distribution] = {}
    pending = list(names)
    while pending:
        name = pending.pop()
        if name.lower() in found:
            continue
        found[name.lower()] = distribution(name)
        for text in found[name.lower()].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.append(requirement.name)
    return list(found.values())


@pytest.fixture(scope="module")
def site_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with links to httpx, pyyaml and what they require, as an environment with only these has."""
    directory = tmp_path_factory.mktemp("site-packages")
    for each in closure("httpx", "pyyaml"):
        for top in {
            file.parts[0] for file in each.files or () if not file.parts[0].startswith((".", "__pycache__"))
        }:
            target = Path(str(each.locate_file(top)))
            if target.exists():
                (directory / top).symlink_to(target)
    return directory


class Project:
    """Another project that has a copy of the package in `other_project/_vendor`."""

    def __init__(self, directory: Path, site_packages: Path) -> None:
        self.directory = directory
        self.copy = directory / "other_project" / "_vendor" / "gke_sandbox"
        shutil.copytree(PACKAGE, self.copy)
        for package in (directory / "other_project", directory / "other_project" / "_vendor"):
            (package / "__init__.py").touch()
        self._path = os.pathsep.join([str(directory), str(site_packages)])

    def python(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run Python without this environment's site-packages."""
        return subprocess.run(
            [sys.executable, "-S", *arguments],
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory), "PYTHONPATH": self._path, **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    def leave_out(self, *names: str) -> None:
        for name in names:
            path = self.copy / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


@pytest.fixture
def project(tmp_path: Path, site_packages: Path) -> Project:
    return Project(tmp_path, site_packages)


def test_the_environment_has_only_httpx_and_pyyaml(project: Project) -> None:
    code = (
        "import importlib.util, httpx, yaml\n"
        "print([n for n in ('google', 'gke_sandbox', 'pytest', 'wsproto') if importlib.util.find_spec(n)])"
    )
    done = project.python("-c", code)
    assert done.stdout == "[]\n", done.stderr


def test_the_command_of_a_vendored_copy_works(project: Project) -> None:
    done = project.python("-m", VENDORED, "run", "--local", "--isolation", "process", "-c", "print(6 * 7)")
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_a_vendored_sandbox_records_and_replays(project: Project) -> None:
    done = project.python("-c", RECORD_AND_REPLAY)
    assert done.stdout == "42 {'out.txt': b'made'}\n" * 2, done.stderr


def test_google_credentials_without_google_auth_are_one_clear_error(project: Project) -> None:
    key = project.directory / "key.json"
    key.write_text(
        json.dumps({"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "t"})
    )
    command = ("-m", VENDORED, "run", "--gke", "p/europe-west4/c", "-c", "1")
    done = project.python(*command, GOOGLE_APPLICATION_CREDENTIALS=str(key))
    assert done.returncode == 125
    assert f"GOOGLE_APPLICATION_CREDENTIALS ({key}) needs google-auth" in done.stderr
    assert "Run pip install google-auth." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("names", OPTIONAL.values(), ids=OPTIONAL)
def test_a_copy_without_optional_parts_runs_programs_on_a_cluster(project: Project, names: list[str]) -> None:
    project.leave_out(*names)
    with http_cluster() as cluster:
        cluster.kubeconfig(project.directory)
        done = project.python("-c", RUN_ON_A_CLUSTER)
    assert done.stdout == "42\n", done.stderr


@pytest.mark.parametrize("left", ["adk", "cassette", "local"])
def test_the_command_works_without_the_parts_that_its_options_do_not_use(project: Project, left: str) -> None:
    project.leave_out(*OPTIONAL[left])
    with http_cluster() as cluster:
        path = cluster.kubeconfig(project.directory)
        done = project.python("-m", VENDORED, "run", "--kubeconfig", path, "-c", "print(6 * 7)")
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def size(path: Path) -> int:
    """Return the size of a module or a package in KB."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.suffix != ".pyc"]
    return sum(each.stat().st_size for each in files if each.is_file()) // 1000


def test_the_documented_parts_can_be_left_out_and_have_about_the_documented_sizes() -> None:
    rows = re.findall(r"^\| (`[^|]+) \| (\d+) KB \|", DOCS.read_text(), re.MULTILINE)
    parts = {tuple(re.findall(r"`([^`]+)`", names)): int(documented) for names, documented in rows}
    assert {tuple(name.rstrip("/") for name in names) for names in parts} == {
        ("gke_sandbox",),
        *(tuple(names) for name, names in OPTIONAL.items() if name != "all"),
        ("_fakes",),
    }
    for names, documented in parts.items():
        bases = [PACKAGE if name == "gke_sandbox/" else PACKAGE / name for name in names]
        actual = sum(size(base) for base in bases)
        assert abs(documented - actual) <= actual / 10, f"{names}: {actual} KB"
