"""The pytest plugin: tests that run on a recording, and make it when they are told to. docs/replay.md shows it.

pytest loads this in every run of every project that has the package: nothing but pytest is imported here.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .cassette.ways import Replaying
    from .cluster import Cluster

FIXTURE = "gke_sandbox_cassette"
DIRECTORY = "cassettes"
_LONGEST_NAME = 120

_reports = pytest.StashKey[dict[str, pytest.TestReport]]()
_expected = pytest.StashKey["set[Path]"]()
_partly = pytest.StashKey[bool]()
_unused = pytest.StashKey["list[Path]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gke-sandbox", "cassettes that stand for a cluster")
    group.addoption(
        "--gke-sandbox-record",
        choices=("none", "once", "all"),
        default="none",
        help="none: replay only (the default); once: record the cassettes that are missing; all: record anew",
    )
    group.addoption(
        "--gke-sandbox-unused",
        choices=("ignore", "warn", "fail"),
        default="warn",
        help="what to do about cassettes that no test uses, when whole directories were run (default: warn)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{FIXTURE}(name): the cassette that the fixture {FIXTURE} uses, in the directory {DIRECTORY} beside the "
        "test; by default it has the test's name",
    )
    config.stash[_expected] = set()
    config.stash[_partly] = False
    config.stash[_unused] = []


@pytest.fixture
def gke_sandbox_cluster() -> Cluster:
    """The cluster that is recorded: where `gke-sandbox run` would go. Override it to record another."""
    from .cluster import Cluster

    return Cluster.auto()


@pytest.fixture
def gke_sandbox_cassette(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster for `Sandbox(...)` or `GkeCodeExecutor(cluster=...)`: this test's cassette.

    The test fails in the end if what it did is not what was recorded, whatever became of the errors.
    """
    item = request.node
    path = cassette_path(item)
    item.config.stash[_expected].add(path)
    mode = item.config.getoption("--gke-sandbox-record")
    if mode == "all" or (mode == "once" and not path.exists()):
        yield from _recorded(request, path)
        return
    if not path.exists():
        pytest.fail(
            f"there is no cassette {_shown(path)}; to record it, run this test with --gke-sandbox-record=once "
            "where it can reach a cluster",
            pytrace=False,
        )
    yield from _replayed(item, path)


def _replayed(item: pytest.Item, path: Path) -> Iterator[Cluster]:
    from .cassette.ways import Replaying
    from .cluster import Cluster
    from .errors import CassetteError

    replaying = Replaying(str(path), scenario=path.stem, once=True)
    yield Cluster("replay", cassette=replaying)
    if not _passed(item):
        return
    try:
        _check(replaying, path)
    except CassetteError as error:
        pytest.fail(f"{error}\n{error.hint}" if error.hint else str(error), pytrace=False)


def _check(replaying: Replaying, path: Path) -> None:
    if not replaying.used:
        pytest.fail(f"{FIXTURE} was asked for, and no Sandbox used {_shown(path)}", pytrace=False)
    replaying.finish()


def _recorded(request: pytest.FixtureRequest, path: Path) -> Iterator[Cluster]:
    from .cluster import Cluster

    # Until the test has passed, what was there before stays.
    written = path.with_name(f".{path.name}.recording")
    yield Cluster.recording(written, request.getfixturevalue("gke_sandbox_cluster"), scenario=path.stem)
    passed = _passed(request.node)
    try:
        if passed and not written.exists():
            pytest.fail(
                f"nothing was recorded for {_shown(path)}: was a Sandbox opened with {FIXTURE}, and closed?",
                pytrace=False,
            )
        if passed:
            written.replace(path)
    finally:
        written.unlink(missing_ok=True)


def _passed(item: pytest.Item) -> bool:
    report = item.stash.get(_reports, {}).get("call")
    return report is not None and report.passed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash.setdefault(_reports, {})[report.when or ""] = report
    return report


# -- names -----------------------------------------------------------------------------------------------------


def cassette_path(item: pytest.Item) -> Path:
    """Where a test's cassette is: ``cassettes/test_module.TestClass.test_name-parameters.yaml`` beside it."""
    marker = item.get_closest_marker(FIXTURE)
    if marker is None:
        name = _default_name(item)
    else:
        if len(marker.args) != 1 or marker.kwargs or not isinstance(marker.args[0], str):
            raise pytest.UsageError(f"{item.nodeid}: the marker {FIXTURE} takes one name")
        name = marker.args[0].removesuffix(".yaml")
    return item.path.parent / DIRECTORY / f"{name}.yaml"


def _default_name(item: pytest.Item) -> str:
    within = item.nodeid.partition("::")[2] or item.name
    name = f"{item.path.stem}.{within.replace('::', '.')}"
    # What stands in brackets names the parameters; no function's name has a hyphen.
    plain = re.sub(r"\[(.*)\]$", r"-\1", name)
    safe = re.sub(r"[^A-Za-z0-9_.=,-]", "-", plain)[:_LONGEST_NAME]
    if safe != plain:
        safe += f"-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return safe


def _shown(path: Path) -> str:
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path)


# -- cassettes that nobody uses --------------------------------------------------------------------------------


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        items[0].config.stash[_partly] = True


def pytest_collection_finish(session: pytest.Session) -> None:
    """Learn which cassettes the collected tests use, and which there are besides where all were collected."""
    config = session.config
    if config.getoption("--gke-sandbox-unused") == "ignore" or config.stash[_partly] or session.testsfailed:
        return
    expected = config.stash[_expected]
    directories = {item.path.parent for item in session.items}
    expected |= {cassette_path(item) for item in session.items if FIXTURE in getattr(item, "fixturenames", ())}
    whole = [Path(config.invocation_params.dir, argument) for argument in config.args if "::" not in argument]
    for directory in directories:
        if any(each.is_dir() and directory.is_relative_to(each.resolve()) for each in whole):
            config.stash[_unused] += sorted((directory / DIRECTORY).glob("*.yaml"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    # A test may have asked for the fixture by its name while it ran.
    unused = [path for path in config.stash[_unused] if path not in config.stash[_expected]]
    config.stash[_unused] = unused
    if unused and config.getoption("--gke-sandbox-unused") == "fail" and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    unused = config.stash[_unused]
    if unused:
        terminalreporter.section("cassettes that no test uses")
        for path in unused:
            terminalreporter.line(_shown(path))
