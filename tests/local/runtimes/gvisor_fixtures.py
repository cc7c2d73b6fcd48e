"""The fixtures for tests of gVisor: a runtime, whose files and processes are checked after each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gke_sandbox.local.runtimes.gvisor import GVisorRuntime, GVisorUnavailable


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: a start takes a third of a second, and what is below it is tested with processes on both."""
    return "trio"


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GVisorRuntime, Path]]:
    """A runtime whose trial run worked, and the directory in which all of its files are."""
    folder = tmp_path_factory.mktemp("gvisor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        try:
            runtime = GVisorRuntime()
        except GVisorUnavailable as why:
            pytest.skip(str(why))
        assert os.listdir(folder) == [], "the trial run has left something"
        yield runtime, folder
        runtime.kill_all()
        assert os.listdir(folder) == []


@pytest.fixture
def runtime(tried: tuple[GVisorRuntime, Path]) -> Iterator[GVisorRuntime]:
    runtime, temporary = tried
    yield runtime
    assert list(temporary.glob("*/*")) == []
    assert sandboxes(temporary) == {}


def sandboxes(temporary: Path) -> dict[int, str]:
    """The processes of runsc that are about something below this directory: pid, command line."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(temporary) in line and "process_supervisor.py" not in line:
            found[int(file.parent.name)] = line
    return found
