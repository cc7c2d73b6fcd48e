"""Fixtures and options for all tests."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

# The time that an example takes depends on the load of the machine. In CI, the parent has more options.
settings.register_profile("suite", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are CPUs, because many tests wait for processes."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each async test on both event loops."""
    return str(request.param)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests/scenarios, which pytest must know before it collects tests."""
    group = parser.getgroup("scenarios", "the cluster that tests/scenarios run on")
    group.addoption(
        "--cluster",
        choices=("replay", "embedded", "live"),
        help="run the scenarios only on this cluster; the default is replay and embedded",
    )
    group.addoption(
        "--kubeconfig", metavar="FILE", help="kubeconfig of the live cluster; the default is that of kubectl"
    )
    group.addoption("--context", metavar="NAME", help="context in the kubeconfig; the default is the current one")
    group.addoption(
        "--namespace", metavar="NAME", help="namespace in the live cluster; the default is that of the context"
    )
    group.addoption(
        "--cassettes",
        metavar="DIR",
        help="directory of the cassettes to replay, verify or record; the default is fixtures/",
    )
    group.addoption(
        "--record", action="store_true", help="write the cassettes again from the responses of the live cluster"
    )
    group.addoption(
        "--verify",
        action="store_true",
        help="compare the shape of each response with its cassette, print the drift, and fail on drift",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Reject combinations of options that have no effect or do damage."""
    chosen = config.getoption("cluster")
    if chosen != "live":
        for name in ("record", "kubeconfig", "context", "namespace"):
            if config.getoption(name):
                raise pytest.UsageError(f"--{name} is for a live cluster: add --cluster=live")
    if chosen == "replay" and config.getoption("verify"):
        raise pytest.UsageError(
            "--verify compares responses with the cassettes, and a replay returns those of the cassettes"
        )
    if config.getoption("record") and config.getoption("numprocesses", None):
        # One process writes a cassette while another reads all of them for the table in their README.
        raise pytest.UsageError("--record writes what other workers read: add -n0")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what tests passed to record_property, from all workers."""
    left = [int(value) for value in _recorded_properties(terminalreporter, "leftovers")]
    if left:
        # tests/faults/test_matrix.py
        terminalreporter.write_line(f"faults: {len(left)} cells, {sum(left)} leftovers after their deadlines")
    if config.getoption("verify"):
        # Ordered by scenario, and within one by recorded step.
        lines = sorted(_recorded_properties(terminalreporter, "drift"), key=lambda line: line.partition(" on ")[0])
        terminalreporter.section(f"drift: {len(lines)} differences from the cassettes")
        for line in lines:
            terminalreporter.write_line(line)


def _recorded_properties(terminalreporter: pytest.TerminalReporter, name: str) -> list[Any]:
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, ())]
    return [
        value
        for report in reports
        if getattr(report, "when", "") == "call"
        for property_name, value in report.user_properties
        if property_name == name
    ]
