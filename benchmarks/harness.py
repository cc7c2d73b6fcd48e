"""Tables, the test server, and clients in processes of their own: shared by all benchmarks."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .load import ask

ROOT = Path(__file__).resolve().parent.parent
PEERS = tuple(re.findall(r"(?m)^[\w-]+$", (ROOT / "benchmarks" / "requirements.txt").read_text()))
"""The distributions that gke-sandbox is compared with."""
DISTRIBUTIONS = ("gke-sandbox", "httpx", "httpcore", "anyio", *PEERS)
NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class Size:
    """How much to measure. `tiny` is for tests, `quick` for a look."""

    tiny: bool = False
    quick: bool = False
    kubeconfig: str = ""
    """The kubeconfig of a real cluster, for the benchmark ``live``."""

    def choose(self, full: Any, quick: Any, tiny: Any) -> Any:
        return tiny if self.tiny else quick if self.quick else full


@dataclass(frozen=True)
class Samples:
    """Several measurements of one value."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def quantile(self, q: float) -> float:
        """Return the value below which the share `q` of the measurements is."""
        ordered = sorted(self.values)
        return ordered[min(int(q * len(ordered)), len(ordered) - 1)]

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


Cell = str | float | Samples | None


@dataclass
class Table:
    """The rows of one benchmark. A row has the name of a client and a cell for each column."""

    name: str
    columns: Sequence[str]
    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, client: str, *cells: Cell) -> None:
        self.rows.append((client, list(cells)))

    def add_missing(self, client: str) -> None:
        self.rows.append((client, [NOT_INSTALLED]))

    def add_ratio(self, label: str, first: int = 0, second: int = 1) -> None:
        """Add a row with the cells of the first row divided by those of the second."""
        ratios: list[Cell] = []
        for a, b in zip(self.rows[first][1], self.rows[second][1], strict=False):
            x, y = _number(a), _number(b)
            ratios.append(f"{x / y:.2f}" if x is not None and y else None)
        self.rows.append((label, ratios))

    def text(self) -> str:
        """Return the table as aligned text."""
        lines = [["", *self.columns]]
        lines += [[client, *map(_cell_text, cells)] for client, cells in self.rows]
        widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(self.columns) + 1)]
        shown = [
            "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))  # noqa: B905
            for line in lines
        ]
        return "\n".join([f"## {self.name}", "", *(line.rstrip() for line in shown), "", *self.notes])

    def json(self) -> dict[str, Any]:
        """Return the table as JSON, with every sample."""

        def value(cell: Cell) -> Any:
            return {"median": cell.median, **asdict(cell)} if isinstance(cell, Samples) else cell

        rows = [{"client": client, "cells": [value(cell) for cell in cells]} for client, cells in self.rows]
        return {"name": self.name, "columns": list(self.columns), "rows": rows, "notes": self.notes}


def _number(cell: Cell) -> float | None:
    if isinstance(cell, Samples):
        return cell.median
    return cell if isinstance(cell, (int, float)) else None


def _cell_text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Samples):
        low, high = cell.spread
        return f"{_short(cell.median)} ({_short(low)}-{_short(high)})"
    return _short(cell)


def _short(value: float) -> str:
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value)}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def has_adk() -> bool:
    """Whether google-adk's executor can be measured: it needs the package kubernetes, an extra."""
    return is_installed("google-adk") and is_installed("kubernetes")


def environment() -> dict[str, Any]:
    """Return the machine and the versions."""
    versions = {name: importlib.metadata.version(name) for name in DISTRIBUTIONS if is_installed(name)}
    if "gke-sandbox" not in versions:
        from gke_sandbox import __version__

        versions = {"gke-sandbox": __version__, **versions}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "versions": versions,
    }


@contextmanager
def test_server() -> Iterator[str]:
    """Run the test server in a process; return its address."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()
            server.wait()


@contextmanager
def kubeconfig(server: str) -> Iterator[str]:
    """Write a kubeconfig for the test server; return its path."""
    cluster = {"name": "k", "cluster": {"server": f"http://{server}"}}
    context = {"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "default"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [cluster],
        "users": [{"name": "u", "user": {}}],
        "contexts": [context],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kubeconfig")
        path.write_text(json.dumps(config))
        yield str(path)


def measure(client: str, server: str, options: dict[str, float] | None = None, **flags: Any) -> dict[str, Any]:
    """Run a client process against the test server, and return its measurements: see `load`."""
    arguments = ["--server", server, "--options", json.dumps(options or {})]
    # Jobs of an earlier client that leaves them.
    ask(server, "DELETE")
    with kubeconfig(server) as path:
        return run_client(client, *arguments, kubeconfig=path, **flags)


def run_client(client: str, *arguments: str, **flags: Any) -> dict[str, Any]:
    """Run a client process and return its measurements."""
    command = [sys.executable, "-m", "benchmarks.load", client, *arguments]
    for name, value in flags.items():
        if value is not False:
            command.append("--" + name.replace("_", "-"))
            if value is not True:
                command.append(str(value))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
