"""The pytest plugin: tests that replay a recording, and that record it on request. See docs/replay.md.

pytest loads this module in every run of every project that has the package, so it imports nothing but pytest.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from .cluster import Cluster

T = TypeVar("T")

FIXTURE = "gke_sandbox_cassette"
DIRECTORY = "cassettes"
MAX_NAME = 120

_calls = pytest.StashKey["list[str]"]()
_collected = pytest.StashKey["_Collected"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gke-sandbox", "recorded clusters")
    group.addoption(
        "--gke-sandbox-record",
        choices=("none", "once", "all"),
        default="none",
        help="none: replay only (the default); once: record missing cassettes; all: record all cassettes again",
    )
    group.addoption(
        "--gke-sandbox-unused",
        choices=("ignore", "warn", "fail"),
        default="warn",
        help="how to report cassettes that no test uses, if whole directories were run (default: warn)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{FIXTURE}(name): the name of the cassette for the fixture {FIXTURE}, in the directory {DIRECTORY} next "
        "to the test (default: the name of the test)",
    )
    config.stash[_collected] = _Collected()


@pytest.fixture
def gke_sandbox_cluster() -> Cluster:
    """The cluster to record, by default that of `gke-sandbox run`. Override it to record another one."""
    from .cluster import Cluster

    return Cluster.auto()


@pytest.fixture
def gke_sandbox_cassette(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster for `Sandbox(...)` or `GkeCodeExecutor(cluster=...)`: the cassette of this test.

    The test fails at its end if its requests differ from the recorded ones, even if it caught the errors.
    """
    item = request.node
    path = cassette_path(item)
    item.config.stash[_collected].used.add(path)
    mode = item.config.getoption("--gke-sandbox-record")
    if mode == "all" or (mode == "once" and not path.exists()):
        yield from _recorded(request, path)
        return
    if not path.exists():
        pytest.fail(
            f"the cassette {_shown(path, item.config)} does not exist; to record it, run this test with "
            "--gke-sandbox-record=once where it can reach a cluster",
            pytrace=False,
        )
    yield from _replayed(item, path)


def _replayed(item: pytest.Item, path: Path) -> Iterator[Cluster]:
    from .cassette.handles import ReplayHandle
    from .cluster import _Replay

    replaying = ReplayHandle(str(path), scenario=path.stem, shared=True)
    player = _check(replaying.load)
    yield _Replay(replaying)
    if not _passed(item):
        return
    if not replaying.used:
        pytest.fail(f"{FIXTURE} was requested, but no Sandbox used {_shown(path, item.config)}", pytrace=False)
    _check(player.finish)


def _check(check: Callable[[], T]) -> T:
    """Return the result of `check`. Fail the test with the message of a `CassetteError`, without a traceback."""
    from .errors import CassetteError

    try:
        return check()
    except CassetteError as error:
        message = f"{error.message}\n{error.hint}" if error.hint else error.message
    # Outside of the handler, because pytest would show both errors.
    pytest.fail(message, pytrace=False)


def _recorded(request: pytest.FixtureRequest, path: Path) -> Iterator[Cluster]:
    from .cassette.format import check_writable
    from .cassette.handles import RecordHandle
    from .cluster import _Record

    _check(lambda: check_writable(path))
    # The old file stays until the test has passed.
    recording = RecordHandle(str(path), scenario=path.stem, deferred=True)
    yield _Record(recording, request.getfixturevalue("gke_sandbox_cluster"))
    if _passed(request.node) and not _check(recording.save):
        pytest.fail(
            f"nothing was recorded for {_shown(path, request.config)}: open a Sandbox with {FIXTURE} and "
            "close it in the test",
            pytrace=False,
        )


def _passed(item: pytest.Item) -> bool:
    """Return whether the test and all of its subtests passed."""
    calls = item.stash.get(_calls, [])
    return calls[-1:] == ["passed"] and "failed" not in calls


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "setup":
        # If a test is run again, only the last run counts.
        item.stash[_calls] = []
    elif report.when == "call":
        item.stash.setdefault(_calls, []).append(report.outcome)
    return report


# -- names -----------------------------------------------------------------------------------------------------


def cassette_path(item: pytest.Item) -> Path:
    """Return the path of a test's cassette: ``cassettes/test_module.TestClass.test_name-parameters.yaml``."""
    marker = item.get_closest_marker(FIXTURE)
    if marker is None:
        name = _default_name(item)
    else:
        if len(marker.args) != 1 or marker.kwargs or not marker.args[0] or not isinstance(marker.args[0], str):
            pytest.fail(f"the marker {FIXTURE} needs exactly one name", pytrace=False)
        name = marker.args[0].removesuffix(".yaml")
    # Without "..", as pytest finds it.
    return Path(os.path.normpath(item.path.parent / DIRECTORY / f"{name}.yaml"))


def _default_name(item: pytest.Item) -> str:
    # Not the nodeid: pytest-xdist appends the group of a test to it.
    within = itertools.takewhile(lambda node: not isinstance(node, pytest.File), reversed(item.listchain()))
    name = ".".join([item.path.stem, *reversed([node.name for node in within])])
    # Brackets contain the parameters; the name of a function has no hyphen.
    plain = re.sub(r"\[(.*)\]$", r"-\1", name)
    safe = re.sub(r"[^A-Za-z0-9_.=,-]", "-", plain)[:MAX_NAME]
    if safe != plain:
        import hashlib

        safe += f"-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return safe


def _shown(path: Path | str, config: pytest.Config) -> str:
    try:
        # Relative to the directory where pytest was started: a test may have changed the working directory.
        return os.path.relpath(path, config.invocation_params.dir)
    except ValueError:
        return str(path)


# -- unused cassettes ------------------------------------------------------------------------------------------
# pytest finds the files while it collects tests. Directories that it does not enter (norecursedirs, --ignore,
# virtual environments) are not checked.


@dataclass
class _Collected:
    """The files, tests and cassettes that this process has seen."""

    found: set[Path] = field(default_factory=set)
    used: set[Path] = field(default_factory=set)
    items: int = 0
    whole: list[Path] = field(default_factory=list)
    """Directories that were collected completely."""
    incomplete: set[Path] = field(default_factory=set)
    """Directories with a file that was not collected."""
    findings: list[dict[str, bool]] = field(default_factory=list)
    """The findings of each worker of pytest-xdist: see `_found_unused`."""
    unused: list[str] = field(default_factory=list)
    """The cassettes to report at the end."""

    def can_check(self, path: Path) -> bool:
        """Return whether all tests that may use this cassette were collected."""
        parents = {parent.parent for parent in path.parents if parent.name == DIRECTORY}
        whole = any(each.is_relative_to(directory) for each in parents for directory in self.whole)
        return whole and not parents & self.incomplete


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> None:
    if file_path.suffix == ".yaml" and DIRECTORY in file_path.parts:
        parent.config.stash[_collected].found.add(file_path)


@pytest.hookimpl(wrapper=True)
def pytest_ignore_collect(
    collection_path: Path, config: pytest.Config
) -> Generator[None, bool | None, bool | None]:
    ignored = yield
    if ignored and not collection_path.is_dir():
        config.stash[_collected].incomplete.add(collection_path.parent)
    return ignored


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if not report.passed:
        # A module that is skipped completely, with importorskip for instance.
        collector.config.stash[_collected].incomplete.add(collector.path.parent)
    return report


def pytest_itemcollected(item: pytest.Item) -> None:
    item.config.stash[_collected].items += 1


def pytest_collection_finish(session: pytest.Session) -> None:
    """Find the cassettes that the collected tests use, and the directories that were collected completely."""
    config = session.config
    collected = config.stash[_collected]
    collected.used.update(
        _paths(
            item
            for item in session.items
            if FIXTURE in getattr(item, "fixturenames", ()) or item.get_closest_marker(FIXTURE) is not None
        )
    )
    # --lf skips whole files silently; -k, -m, --deselect and others skip tests.
    partial = session.testsfailed or config.getoption("lf", False) or collected.items != len(session.items)
    if config.getoption("--gke-sandbox-unused") != "ignore" and not partial:
        start = config.invocation_params.dir
        named = [Path(os.path.normpath(start / argument)) for argument in config.args if "::" not in argument]
        collected.whole = [path for path in named if path.is_dir()]


def _found_unused(session: pytest.Session) -> dict[str, bool]:
    """Return the cassettes that were not used here, each with whether a test that did not pass here may use it.

    A test may request the fixture by its name while it runs.
    """
    collected = session.config.stash[_collected]
    found = [path for path in collected.found - collected.used if collected.can_check(path) and _is_ours(path)]
    if not found:
        return {}
    possible = set(_paths(item for item in session.items if not _passed(item)))
    return {str(path): path in possible for path in found}


def _paths(items: Iterable[pytest.Item]) -> Iterator[Path]:
    for item in items:
        # A marker without a name is reported where its test requests the fixture.
        with contextlib.suppress(pytest.fail.Exception):
            yield cassette_path(item)


def _is_ours(path: Path) -> bool:
    """Return whether a file is a cassette of this package: VCR.py has directories of the same name."""
    try:
        with path.open("rb") as file:
            return re.search(rb"^(\xef\xbb\xbf)?gke_sandbox_cassette:", file.read(4096), re.MULTILINE) is not None
    except OSError:
        return False


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Store the findings of a worker of pytest-xdist; a worker that crashed has none."""
    found = getattr(node, "workeroutput", {}).get("gke_sandbox_unused")
    if found is not None:
        node.config.stash[_collected].findings.append(found)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["gke_sandbox_unused"] = _found_unused(session)
        return
    # Each worker has collected all tests and run some of them.
    collected = config.stash[_collected]
    findings = collected.findings or [_found_unused(session)]
    collected.unused = [
        path
        for path in sorted(findings[0])
        if all(path in found for found in findings) and not all(found[path] for found in findings)
    ]
    if collected.unused and config.getoption("--gke-sandbox-unused") == "fail" and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    unused = config.stash[_collected].unused
    if unused:
        terminalreporter.section("unused cassettes")
        for path in unused:
            terminalreporter.line(_shown(path, config))
