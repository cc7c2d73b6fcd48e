"""Fixtures that every test may use."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each async test on both event loops."""
    return str(request.param)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of tests/scenarios; they stand here because pytest must know them before it collects."""
    group = parser.getgroup("scenarios", "the cluster that tests/scenarios run on")
    group.addoption(
        "--cluster",
        choices=("replay", "embedded", "live"),
        help="run the scenarios on this one only; by default on replay and embedded",
    )
    group.addoption("--kubeconfig", metavar="FILE", help="of the live cluster; by default as kubectl finds it")
    group.addoption("--context", metavar="NAME", help="the context in it; by default the current one")
    group.addoption("--namespace", metavar="NAME", help="of the live cluster; by default the context's")
    group.addoption(
        "--cassettes", metavar="DIR", help="the cassettes to replay, verify or record; by default fixtures/"
    )
    group.addoption(
        "--record", action="store_true", help="write the cassettes anew from the live cluster's answers"
    )
    group.addoption(
        "--verify",
        action="store_true",
        help="compare each answer's shape with its cassette, print the drift, and fail on drift",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cells of faults there were (tests/faults/test_matrix.py), and what was left of them."""
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, ())]
    left = [
        int(value)
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "leftovers"
    ]
    if left:
        terminalreporter.write_line(f"faults: {len(left)} cells, {sum(left)} leftovers after their deadlines")
