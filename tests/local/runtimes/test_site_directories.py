"""The packages that a program can import: those of the Python that runs the client, and no other files of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from gke_sandbox.local.runtimes.bundle import Interpreter, write_bundle
from gke_sandbox.local.runtimes.gvisor import GVisorRuntime, GVisorUnavailable

from .containers import python

REPORT = """
import importlib.util, json, os, subprocess, sys
names = ("in_venv", "by_pth", "outside", "of_user", "httpx")
found = [name for name in names if importlib.util.find_spec(name)]
child = subprocess.run(["python3", "-c", "import in_venv; print(in_venv.VALUE)"], capture_output=True, text=True)
in_venv = sys.prefix != sys.base_prefix
print(json.dumps([found, child.stdout + child.stderr, in_venv, sorted(os.listdir(sys.prefix))]))
"""


BUNDLE = """
import sys
from gke_sandbox.local.runtimes.bundle import Interpreter, write_bundle
from tests.local.runtimes.containers import python
write_bundle(python(""), sys.argv[1], Interpreter.running())
"""


@pytest.fixture(scope="module")
def gvisor() -> str:
    try:
        GVisorRuntime().kill_all()
    except GVisorUnavailable as why:
        pytest.skip(str(why))
    return "gvisor"


@pytest.fixture(params=["gvisor", "process"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("gvisor") if request.param == "gvisor" else request.param)


def make_venv(path: Path, *, system_site_packages: bool = False) -> Path:
    """Create a virtual environment with a module, and a .pth file for directories inside and outside of it."""
    venv.create(path, symlinks=True, with_pip=False, system_site_packages=system_site_packages)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = path / "lib" / version / "site-packages"
    (packages / "in_venv.py").write_text("VALUE = 42\n")
    outside = path.parent / "outside of the environment"
    for folder, name in ((packages / "below", "by_pth"), (outside, "outside")):
        folder.mkdir()
        (folder / f"{name}.py").touch()
    (packages / "some.pth").write_text(f"below\n{outside}\n")
    return packages


def run_in(environment: Path, isolation: str, **variables: str) -> list[object]:
    """Return the report of a program that runs on the embedded cluster of a client in this environment."""
    command = [environment / "bin/python", "-m", "gke_sandbox", "run", "--local", f"--isolation={isolation}"]
    # The packages that the client needs. The program does not get this variable.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:]), **variables}
    ran = subprocess.run(
        [*command, "-c", REPORT], env=env, capture_output=True, text=True, timeout=50, check=False
    )
    assert ran.returncode == 0, ran.stderr
    report: list[object] = json.loads(ran.stdout)
    return report


def test_a_program_imports_the_packages_of_the_virtual_environment(tmp_path: Path, isolation: str) -> None:
    packages = make_venv(tmp_path / "venv")
    (tmp_path / "venv" / "secret").touch()
    found, child, in_venv, files = run_in(tmp_path / "venv", isolation)
    assert (child, in_venv) == ("42\n", True)
    if isolation == "gvisor":
        assert (found, files) == (["in_venv", "by_pth"], ["bin", "lib", "pyvenv.cfg"])
        assert not list(packages.glob("**/*.pyc"))
    else:
        assert found == ["in_venv", "by_pth", "outside"]


def make_user_site(path: Path, environment: Path, packages: Path) -> Path:
    """Create a module in a site directory of the user, and return the base directory."""
    user = path / packages.relative_to(environment)
    user.mkdir(parents=True)
    (user / "of_user.py").touch()
    return path


def imports_of_user(tmp_path: Path, isolation: str) -> list[bool]:
    """Return whether a program can import the module of the user, with and without PYTHONNOUSERSITE."""
    packages = make_venv(tmp_path / "venv", system_site_packages=True)
    base = str(make_user_site(tmp_path / "base", tmp_path / "venv", packages))
    found = []
    for more in ({}, {"PYTHONNOUSERSITE": "1"}):
        names, *_ = run_in(tmp_path / "venv", isolation, PYTHONUSERBASE=base, **more)
        assert isinstance(names, list)
        assert "in_venv" in names
        found.append("of_user" in names)
    return found


def test_a_program_imports_the_packages_of_the_user_if_they_are_enabled(tmp_path: Path) -> None:
    assert imports_of_user(tmp_path, "process") == [True, False]


@pytest.mark.slow
def test_a_program_under_gvisor_imports_the_packages_of_the_user_if_they_are_enabled(
    tmp_path: Path, gvisor: str
) -> None:
    assert imports_of_user(tmp_path, gvisor) == [True, False]


def config_in(environment: Path, directory: Path, **variables: str) -> dict[str, Any]:
    """Return the configuration of a container for a client in this environment."""
    directory.mkdir()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    subprocess.run([environment / "bin/python", "-c", BUNDLE, directory], env=env, check=True)
    config: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return config


def check_mount(config: dict[str, Any], at: str, source: Path) -> None:
    (mount,) = (each for each in config["mounts"] if each["destination"] == at)
    assert (mount["source"], mount["type"]) == (os.path.realpath(source), "bind")
    assert {"ro", "nosuid", "nodev"} <= set(mount["options"])


def test_site_directories_are_mounted_read_only(tmp_path: Path) -> None:
    """Without runsc: the configuration of the container."""
    packages = make_venv(tmp_path / "venv", system_site_packages=True)
    base = make_user_site(tmp_path / "base", tmp_path / "venv", packages)
    site = packages.relative_to(tmp_path / "venv")
    config = config_in(tmp_path / "venv", tmp_path / "bundle", PYTHONUSERBASE=str(base))
    check_mount(config, f"/venv/{site}", packages)
    check_mount(config, f"/user/{site}", base / site)
    assert config["process"]["args"][0] == "/venv/bin/python3"
    assert "PYTHONUSERBASE=/user" in config["process"]["env"]


def test_a_site_directory_of_the_user_that_is_not_enabled_is_not_mounted(tmp_path: Path) -> None:
    packages = make_venv(tmp_path / "venv")
    base = make_user_site(tmp_path / "base", tmp_path / "venv", packages)
    config = config_in(tmp_path / "venv", tmp_path / "bundle", PYTHONUSERBASE=str(base))
    check_mount(config, "/venv/" + str(packages.relative_to(tmp_path / "venv")), packages)
    assert [each for each in config["mounts"] if each["destination"].startswith("/user")] == []
    assert not any(each.startswith("PYTHONUSERBASE=") for each in config["process"]["env"])


def test_without_a_virtual_environment_the_base_interpreter_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    interpreter = Interpreter.running()
    write_bundle(python(""), str(tmp_path), interpreter)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["process"]["args"][0] == interpreter.command == interpreter.executable
    assert not (tmp_path / "rootfs/venv").exists()
