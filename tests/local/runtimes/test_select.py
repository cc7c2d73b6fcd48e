"""The selection of the runtime, and its warning."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from gke_sandbox.errors import ConfigError
from gke_sandbox.local.runtimes import select
from gke_sandbox.local.runtimes.select import choose_runtime

CHOICES = """
import sys
from gke_sandbox.local.runtimes.select import choose_runtime
print([choose_runtime(isolation).name for isolation in sys.argv[1:]])
"""


def choose(path: Path, *isolation: str) -> tuple[str, str]:
    """Return the selected runtimes and the stderr of a new Python process."""
    command = [sys.executable, "-W", "error", "-c", CHOICES, *isolation]
    done = subprocess.run(
        command, env={**os.environ, "PATH": str(path)}, capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


def test_auto_uses_processes_without_runsc_and_warns_once(tmp_path: Path) -> None:
    chosen, said = choose(tmp_path, "auto", "auto", "process")
    assert chosen == "['process', 'process', 'process']\n"
    assert said == (
        "gke-sandbox: warning: runsc is not on PATH: the embedded cluster runs code as plain processes on this "
        "machine, without isolation\n"
    )


def test_a_broken_runsc_is_reported_as_the_reason(tmp_path: Path) -> None:
    runsc = tmp_path / "runsc"
    runsc.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    runsc.chmod(0o755)
    chosen, said = choose(tmp_path, "auto")
    assert chosen == "['process']\n"
    assert "runsc does not work here: with platform systrap: no such luck; with platform ptrace:" in said
    assert said.count("\n") == 1


def test_selecting_processes_also_causes_the_warning(tmp_path: Path) -> None:
    assert choose(tmp_path, "process")[1] == (
        "gke-sandbox: warning: isolation is 'process': the embedded cluster runs code as plain processes "
        "on this machine, without isolation\n"
    )


def test_required_gvisor_fails_without_runsc_and_the_hint_has_both_solutions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="cannot run code under gVisor: runsc is not on PATH") as caught:
        choose_runtime("gvisor")
    assert "Install runsc" in caught.value.hint
    assert "'process'" in caught.value.hint


@pytest.mark.parametrize("isolation", ["auto", "gvisor"])
@pytest.mark.parametrize("path", ["/no/such/folder:", ":{good}", ".", "bin", ".:{good}"])
def test_a_runsc_in_an_empty_or_relative_entry_of_path_is_an_error_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, isolation: Literal["auto", "gvisor"]
) -> None:
    for folder in (tmp_path, tmp_path / "bin", tmp_path / "good"):
        folder.mkdir(exist_ok=True)
        (folder / "runsc").write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
        (folder / "runsc").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path.format(good=tmp_path / "good"))
    with pytest.raises(ConfigError, match=r"runsc: found through .* of PATH, as .*/runsc; programs") as caught:
        choose_runtime(isolation)
    assert caught.value.hint == "Remove empty and relative entries from PATH."
    assert not (tmp_path / "was-run").exists()


def test_an_unknown_isolation_is_rejected() -> None:
    with pytest.raises(ConfigError, match="must be auto, gvisor or process"):
        choose_runtime("docker")  # type: ignore[arg-type]


def test_a_full_stderr_does_not_prevent_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_warned", False)
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        assert choose_runtime("process").name == "process"
