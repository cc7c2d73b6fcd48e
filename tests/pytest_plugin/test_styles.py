"""The fixture in the ways that people write tests and start pytest."""

from __future__ import annotations

import pytest

from .kit import TEST, cassettes, run

UNITTEST = """
import unittest
import pytest
from gke_sandbox import AsyncSandbox, Sandbox

class TestIt(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def take_cluster(self, gke_sandbox_cassette):
        self.cluster = gke_sandbox_cassette

    def test_it(self):
        with Sandbox(self.cluster) as sandbox:
            for each in (1, 2):
                with self.subTest(each=each):
                    self.assertEqual(sandbox.run(f"print({each})").stdout, f"ran print({each})")

class TestAsync(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def take_cluster(self, gke_sandbox_cassette):
        self.cluster = gke_sandbox_cassette

    async def test_it(self):
        async with AsyncSandbox(self.cluster) as sandbox:
            self.assertEqual((await sandbox.run("print(1)")).stdout, "ran print(1)")
"""
ASYNC = """
import pytest
from gke_sandbox import AsyncSandbox

pytestmark = pytest.mark.anyio

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.fixture
async def sandbox(gke_sandbox_cassette):
    async with AsyncSandbox(gke_sandbox_cassette) as sandbox:
        yield sandbox

async def test_it(sandbox):
    assert (await sandbox.run("print(1)")).stdout == "ran print(1)"
"""
ASKS = """
from gke_sandbox import Sandbox

def test_it(request):
    with Sandbox(request.getfixturevalue("gke_sandbox_cassette")) as sandbox:
        sandbox.run("print(1)")
"""
DOCTEST = """
>>> from gke_sandbox import Sandbox
>>> with Sandbox(getfixture("gke_sandbox_cassette")) as sandbox:
...     print(sandbox.run("print(1)").stdout)
ran print(1)
"""

PYTEST_ASYNCIO = """
import pytest
import pytest_asyncio
from gke_sandbox import AsyncSandbox

@pytest_asyncio.fixture
async def sandbox(gke_sandbox_cassette):
    async with AsyncSandbox(gke_sandbox_cassette) as sandbox:
        yield sandbox

@pytest.mark.asyncio
async def test_it(sandbox):
    assert (await sandbox.run("print(1)")).stdout == "ran print(1)"
"""
PYTEST_ASYNCIO_OPTION = "-oasyncio_default_fixture_loop_scope=function"


@pytest.mark.parametrize(("test", "count"), [(UNITTEST, 2), (ASYNC, 2), (ASKS, 1)])
def test_a_test_of_any_kind_is_recorded_and_replayed(project: pytest.Pytester, test: str, count: int) -> None:
    project.makepyfile(test_a=test)
    recorded = run(project, "--gke-sandbox-record=once").parseoutcomes()
    assert recorded.pop("passed") == count
    assert not recorded.keys() & {"failed", "errors", "error"}
    project.makeconftest("")
    assert run(project, "--gke-sandbox-unused=fail").ret == 0
    assert len(cassettes(project)) == count


def test_a_fixture_of_pytest_asyncio_may_open_the_sandbox(project: pytest.Pytester) -> None:
    """It is opened, used and closed in three tasks."""
    pytest.importorskip("pytest_asyncio")
    project.makepyfile(test_a=PYTEST_ASYNCIO)
    run(project, "--gke-sandbox-record=once", PYTEST_ASYNCIO_OPTION).assert_outcomes(passed=1)
    run(project, "--gke-sandbox-unused=fail", PYTEST_ASYNCIO_OPTION).assert_outcomes(passed=1)


def test_a_doctest_is_recorded_and_replayed(project: pytest.Pytester) -> None:
    project.maketxtfile(test_a=DOCTEST)
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    run(project, "--gke-sandbox-unused=fail").assert_outcomes(passed=1)


def test_nothing_is_recorded_if_a_subtest_failed(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=UNITTEST.replace('f"ran print({each})"', '"ran print(2)"'))
    assert run(project, "--gke-sandbox-record=once", "-k", "TestIt").ret == 1
    assert cassettes(project) == []


def test_a_failed_subtest_does_not_also_fail_for_missing_requests(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=UNITTEST)
    run(project, "--gke-sandbox-record=once", "-k", "TestIt")
    early = UNITTEST.replace(
        "                    self", "                    assert each == 2\n                    self"
    )
    project.makepyfile(test_a=early)
    run(project, "-k", "TestIt").stdout.no_fnmatch_line("*were not sent*")


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_cassettes_are_next_to_the_test_for_every_import_mode_and_working_directory(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    for name in ("one", "two"):
        directory = project.mkdir(name)
        (directory / ("test_it.py" if mode == "importlib" else f"test_{name}.py")).write_text(TEST)
    monkeypatch.chdir(project.mkdir("elsewhere"))
    arguments = [f"--import-mode={mode}", "../one", "../two"]
    run(project, *arguments, "--gke-sandbox-record=once").assert_outcomes(passed=2)
    assert len(list(project.path.glob("*/cassettes/*.yaml"))) == 2
    run(project, *arguments, "--gke-sandbox-unused=fail").assert_outcomes(passed=2)


def test_the_xdist_group_of_a_test_is_not_part_of_the_name(project: pytest.Pytester) -> None:
    project.makepyfile(test_a="import pytest\n" + TEST.replace("def ", "@pytest.mark.xdist_group('g')\ndef "))
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    run(project, "-n1", "--dist=loadgroup").assert_outcomes(passed=1)


def test_a_directory_that_cannot_be_written_is_reported_before_the_test_runs(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=TEST)
    (project.path / "cassettes").write_text("")
    result = run(project, "--gke-sandbox-record=once")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["the cassette */cassettes/test_a.test_it.yaml cannot be written: File exists"])
    result.stdout.no_fnmatch_line("*another exception*")


def test_a_replay_does_not_need_a_writable_directory(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=TEST)
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    directory = project.path / "cassettes"
    before = directory.stat().st_mtime_ns
    directory.chmod(0o555)
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    assert directory.stat().st_mtime_ns == before


def test_messages_contain_the_path_relative_to_the_start_of_pytest(project: pytest.Pytester) -> None:
    chdir = "\n    import os; os.chdir('/')"
    project.makepyfile(test_a=ASKS.replace("\n    with", chdir + "\n    with"))
    run(project).stdout.fnmatch_lines(["the cassette cassettes/test_a.test_it.yaml does not exist;*"])


def test_a_sandbox_that_is_closed_after_its_test_leaves_no_file(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_a="""
        import pytest
        from gke_sandbox import Sandbox

        @pytest.fixture(scope="module")
        def opened():
            sandboxes = []
            yield sandboxes
            for sandbox in sandboxes:
                sandbox.close()

        def test_it(opened, gke_sandbox_cassette):
            opened.append(Sandbox(gke_sandbox_cassette).__enter__())
            opened[0].run("print(1)")
        """
    )
    result = run(project, "--gke-sandbox-record=once")
    result.stdout.fnmatch_lines(["nothing was recorded for cassettes/test_a.test_it.yaml: open * and close it*"])
    assert cassettes(project) == []
