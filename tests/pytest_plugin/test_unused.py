"""Cassettes that no test uses are named, where all tests were collected that may use them."""

from __future__ import annotations

import pytest

from .kit import TEST, run

HEADING = "*unused cassettes*"
PASSES = "def test_other(): pass"
USES = "import pytest\n@pytest.mark.skip\ndef test_it(gke_sandbox_cassette): pass"
ASKS = """
def test_it(request):
    request.getfixturevalue("gke_sandbox_cassette")
"""


def put(project: pytest.Pytester, *paths: str, text: str = "gke_sandbox_cassette: 1\n") -> None:
    for each in paths:
        path = project.path / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def unused(result: pytest.RunResult) -> list[str]:
    """Return the cassettes below the heading."""
    lines = result.outlines
    places = [number for number, line in enumerate(lines) if "unused cassettes" in line]
    return [line for line in lines[places[0] + 1 :] if line.endswith(".yaml")] if places else []


def test_unused_cassettes_are_listed_or_fail_the_run_or_are_ignored(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=USES, test_b=PASSES)
    put(project, "cassettes/old.yaml", "cassettes/test_a.test_it.yaml")
    result = run(project)
    assert (result.ret, unused(result)) == (0, ["cassettes/old.yaml"])
    assert run(project, "--gke-sandbox-unused=fail").ret == 1
    result = run(project, "--gke-sandbox-unused=ignore")
    assert (result.ret, unused(result)) == (0, [])


def test_a_cassette_that_one_worker_uses_is_used(project: pytest.Pytester) -> None:
    asks = TEST.replace("gke_sandbox_cassette)", "request)", 1).replace(
        "    with", "    gke_sandbox_cassette = request.getfixturevalue('gke_sandbox_cassette')\n    with", 1
    )
    project.makepyfile(test_a=asks, test_b=asks, test_c=USES, test_d=PASSES)
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=3, skipped=1)
    # Used in one worker only; used in none, and the test of that name has passed in one.
    put(project, "cassettes/test_c.test_it.yaml", "cassettes/test_d.test_other.yaml", "cassettes/old.yaml")
    result = run(project, "-n2", "--gke-sandbox-unused=fail")
    result.assert_outcomes(passed=3, skipped=1)
    assert result.ret == 1
    assert unused(result) == ["cassettes/old.yaml", "cassettes/test_d.test_other.yaml"]


def test_a_crashed_worker_may_have_used_the_cassettes_of_its_tests(project: pytest.Pytester) -> None:
    project.makepyfile(test_a="import os\ndef test_it(request): os._exit(1)", test_b=PASSES)
    put(project, "cassettes/test_a.test_it.yaml", "cassettes/old.yaml")
    assert unused(run(project, "-n1")) == ["cassettes/old.yaml"]


@pytest.mark.parametrize("name", ["cassettes/deep/er/old.yaml", "gone/cassettes/old.yaml"])
def test_unused_cassettes_are_found_in_subdirectories(project: pytest.Pytester, name: str) -> None:
    project.makepyfile(test_a="import pytest\n@pytest.mark.gke_sandbox_cassette('deep/it')" + USES[13:])
    put(project, "cassettes/deep/it.yaml", name)
    assert unused(run(project)) == [name]


def test_files_of_other_tools_are_ignored(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=PASSES)
    project.makeini("[pytest]\nnorecursedirs = vendored .*\n")
    put(project, "cassettes/vcr.yaml", text="interactions:\n- request: {body: 'gke_sandbox_cassette: 1'}\n")
    put(project, "vendored/cassettes/c.yaml", ".tox/cassettes/c.yaml", "fixtures/c.yaml", "venv/cassettes/c.yaml")
    put(project, "venv/pyvenv.cfg", "venv/bin/activate", text="")
    result = run(project, "-p", "no:cacheprovider", "--gke-sandbox-unused=fail")
    assert (result.ret, unused(result)) == (0, [])


def test_a_comment_or_a_byte_order_mark_may_precede_the_first_line(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(test_a=PASSES)
    put(project, "cassettes/a.yaml", text="# by hand\ngke_sandbox_cassette: 1\n")
    put(project, "cassettes/b.yaml", text="\ufeffgke_sandbox_cassette: 1\n")
    assert unused(run(project)) == ["cassettes/a.yaml", "cassettes/b.yaml"]


@pytest.mark.parametrize(
    "arguments",
    [
        "test_b.py",
        "test_a.py::test_it",
        "-k other",
        "-m skip",
        "--deselect test_b.py::test_other",
        "--ignore=test_b.py",
        "--ignore-glob=*_b.py",
        "cassettes",
    ],
)
def test_nothing_is_listed_if_tests_were_skipped(project: pytest.Pytester, arguments: str) -> None:
    project.makepyfile(test_a=USES, test_b=PASSES)
    put(project, "cassettes/old.yaml")
    assert unused(run(project, *arguments.split(), "--gke-sandbox-unused=fail")) == []


def test_unused_cassettes_of_a_completely_collected_directory_are_listed(project: pytest.Pytester) -> None:
    for name in ("one", "two", "three"):
        put(project, f"{name}/test_{name}.py", text=PASSES)
        put(project, f"{name}/cassettes/old.yaml")
    result = run(project, "one", "two", "--ignore=two/test_two.py")
    assert unused(result) == ["one/cassettes/old.yaml"]


@pytest.mark.parametrize(("option", "silent"), [("--lf", True), ("--sw", True), ("--ff", False), ("--nf", False)])
def test_last_failed_tests_are_not_all_tests(project: pytest.Pytester, option: str, silent: bool) -> None:
    project.makeini("[pytest]\n")
    project.makepyfile(test_a=PASSES, test_b="def test_it(): assert 0", test_c=USES)
    put(project, "cassettes/old.yaml")
    for _ in range(2):
        run(project, option)  # --sw remembers only failures of runs with --sw
    assert unused(run(project, option)) == ([] if silent else ["cassettes/old.yaml"])


@pytest.mark.parametrize("skip", ["pytest.importorskip('no_such_module')", "pytest.skip(allow_module_level=True)"])
def test_a_module_that_is_skipped_completely_may_use_cassettes(project: pytest.Pytester, skip: str) -> None:
    project.makepyfile(test_a=PASSES, test_c=f"import pytest\n{skip}\n" + USES)
    put(project, "cassettes/test_c.test_it.yaml", "other/cassettes/old.yaml")
    assert unused(run(project)) == ["other/cassettes/old.yaml"]


def test_a_module_that_cannot_be_imported_may_use_cassettes(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=PASSES, test_c="import no_such_module")
    put(project, "cassettes/test_c.test_it.yaml")
    for more in ([], ["--continue-on-collection-errors"]):
        assert unused(run(project, *more)) == []


def test_files_that_a_conftest_ignores_were_not_collected(project: pytest.Pytester) -> None:
    project.makeconftest("def pytest_collection_modifyitems(items): del items[-1]")
    project.makepyfile(test_a=PASSES, test_b=USES)
    put(project, "cassettes/test_b.test_it.yaml")
    assert unused(run(project)) == []


@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        ("import pytest\n@pytest.mark.skip" + ASKS, ""),
        ("import pytest\n@pytest.mark.xfail" + ASKS.replace("    ", "    assert 0\n    "), ""),
        (ASKS.replace("    ", "    assert 0\n    "), ""),
        ("def test_fails(): assert 0" + ASKS, "-x"),
        (ASKS, "--collect-only"),
        (ASKS, "--setup-plan"),
    ],
)
def test_a_test_that_did_not_pass_may_use_its_cassette(
    project: pytest.Pytester, test: str, arguments: str
) -> None:
    project.makepyfile(test_a=test)
    put(project, "cassettes/test_a.test_it.yaml", "cassettes/old.yaml")
    assert unused(run(project, *arguments.split())) == ["cassettes/old.yaml"]


def test_a_test_that_passed_without_the_fixture_does_not_use_its_cassette(project: pytest.Pytester) -> None:
    project.makepyfile(test_b=PASSES)
    put(project, "cassettes/test_b.test_other.yaml")
    assert unused(run(project)) == ["cassettes/test_b.test_other.yaml"]


def test_unused_cassettes_are_listed_relative_to_the_start_of_pytest(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(project, "tests/test_a.py", text="import os\ndef test_it(tmp_path): os.chdir(tmp_path)")
    put(project, "tests/cassettes/old.yaml")
    assert unused(run(project)) == ["tests/cassettes/old.yaml"]
    (project.path / "elsewhere").mkdir()
    monkeypatch.chdir(project.path / "elsewhere")
    assert unused(run(project, "../tests")) == ["../tests/cassettes/old.yaml"]


def test_unused_cassettes_are_found_through_a_symbolic_link(project: pytest.Pytester) -> None:
    put(project, "tests/test_a.py", text=PASSES)
    put(project, "tests/cassettes/old.yaml")
    (project.path / "link").symlink_to("tests")
    assert unused(run(project, "link")) == ["link/cassettes/old.yaml"]
