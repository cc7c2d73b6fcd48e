"""Run the command in a new process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def start(scenario: str, journal: Path, *arguments: str, **how: Any) -> subprocess.Popen[bytes]:
    """Start ``gke-sandbox run -c x`` with a fake Sandbox, see `fake`."""
    line = [sys.executable, "-m", "tests.cli.fake", scenario, str(journal), "-c", "x", *arguments]
    return _start(line, how)


def start_real(arguments: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
    """Start ``gke-sandbox``."""
    return _start([sys.executable, "-m", "gke_sandbox", *arguments], how)


_STARTED: list[subprocess.Popen[bytes]] = []


def end_all() -> None:
    """Kill the processes that a test left running, and close their pipes."""
    while _STARTED:
        process = _STARTED.pop()
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _start(line: list[str], how: dict[str, Any]) -> subprocess.Popen[bytes]:
    how.setdefault("stdin", subprocess.DEVNULL)
    how.setdefault("stdout", subprocess.PIPE)
    how.setdefault("stderr", subprocess.PIPE)
    process = subprocess.Popen(line, cwd=ROOT, **how)
    _STARTED.append(process)
    return process


def until(journal: Path, word: str) -> None:
    """Wait until the fake has written `word`."""
    end = time.monotonic() + 20
    while word not in read(journal):
        assert time.monotonic() < end, f"no {word!r} in {read(journal)}"
        time.sleep(0.01)


def read(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []
