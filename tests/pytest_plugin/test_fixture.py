"""The pytest plugin, as a project sees it that has the package installed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .kit import CONFTEST, TEST, cassettes, run


def test_the_plugin_imports_only_pytest() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import gke_sandbox.pytest_plugin; "
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('gke_sandbox')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_test_is_recorded_once_and_then_replayed(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=TEST)
    missing = run(project)
    missing.assert_outcomes(errors=1)
    missing.stdout.fnmatch_lines(
        ["*the cassette cassettes/test_a.test_it.yaml does not exist*--gke-sandbox-record=once*"]
    )
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    assert cassettes(project) == ["test_a.test_it.yaml"]
    before = (project.path / "cassettes/test_a.test_it.yaml").stat().st_mtime_ns
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    assert (project.path / "cassettes/test_a.test_it.yaml").stat().st_mtime_ns == before
    project.makeconftest("")
    run(project).assert_outcomes(passed=1)


def test_all_records_again_and_a_failing_test_changes_nothing(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=TEST)
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    path = project.path / "cassettes/test_a.test_it.yaml"
    before = path.read_text()
    project.makepyfile(test_a=TEST.replace('print(1)"', 'print(2)"', 1))
    run(project, "--gke-sandbox-record=all").assert_outcomes(failed=1)
    assert path.read_text() == before
    assert cassettes(project) == ["test_a.test_it.yaml"]
    project.makepyfile(test_a=TEST.replace("print(1)", "print(2)"))
    run(project, "--gke-sandbox-record=all").assert_outcomes(passed=1)
    assert "print(2)" in path.read_text()


def test_another_program_fails_even_if_the_test_catches_the_error(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=TEST)
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    project.makepyfile(
        test_a="""
        import contextlib
        from gke_sandbox import Sandbox, SandboxError

        def test_it(gke_sandbox_cassette):
            with Sandbox(gke_sandbox_cassette) as sandbox, contextlib.suppress(SandboxError):
                sandbox.run("print(2)")
        """
    )
    result = run(project)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*code: recorded 'print(1)', got 'print(2)'"])


def test_steps_that_are_not_replayed_and_cassettes_that_are_not_opened_fail(project: pytest.Pytester) -> None:
    twice = TEST + "        assert sandbox.run('print(2)').stdout == 'ran print(2)'\n"
    project.makepyfile(test_a=twice)
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    project.makepyfile(test_a=TEST)
    result = run(project)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*4 of 10 recorded requests were not sent*"])
    project.makepyfile(test_a="def test_it(gke_sandbox_cassette): pass")
    result = run(project)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*no Sandbox used cassettes/test_a.test_it.yaml"])
    result = run(project, "--gke-sandbox-record=all")
    result.stdout.fnmatch_lines(["*nothing was recorded for cassettes/test_a.test_it.yaml*"])
    assert cassettes(project) == ["test_a.test_it.yaml"]


def test_several_sandboxes_one_after_the_other_are_one_recording(project: pytest.Pytester) -> None:
    project.makeconftest(
        CONFTEST.replace("return Cluster.transport", "return Cluster.local('process')\n    Cluster.transport")
    )
    project.makepyfile(
        test_a="""
        import anyio
        from gke_sandbox import AsyncSandbox, Sandbox

        def test_it(gke_sandbox_cassette, capfd):
            with Sandbox(gke_sandbox_cassette) as sandbox:
                assert sandbox.run("print(1)").stdout == "1\\n"
            async def main():
                async with AsyncSandbox(gke_sandbox_cassette) as sandbox:
                    assert (await sandbox.run("print(2)")).stdout == "2\\n"
            for backend in ("asyncio", "trio"):
                anyio.run(main, backend=backend)
        """
    )
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    run(project).assert_outcomes(passed=1)


def test_a_second_sandbox_in_another_thread_is_refused(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=TEST)
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    project.makepyfile(
        test_a="""
        import pytest
        from gke_sandbox import Sandbox
        from gke_sandbox.errors import CassetteError

        def test_it(gke_sandbox_cassette):
            with Sandbox(gke_sandbox_cassette) as one:
                one.run("print(1)")
                with pytest.raises(CassetteError, match="is being re(played|corded) in another thread"):
                    with Sandbox(gke_sandbox_cassette) as other:
                        other.run("print(1)")
        """
    )
    run(project).assert_outcomes(passed=1)
    run(project, "--gke-sandbox-record=all").assert_outcomes(passed=1)


def test_names_contain_classes_and_parameters_and_are_valid_on_every_file_system(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_a="""
        import pytest
        from gke_sandbox import Sandbox

        def go(cluster):
            with Sandbox(cluster) as sandbox:
                sandbox.run("x")

        class TestA:
            @pytest.mark.parametrize("one", ["a-1", "../b", "c d", "c/d", "e::f", "e.f"])
            def test_it(self, one, gke_sandbox_cassette):
                go(gke_sandbox_cassette)

        @pytest.mark.gke_sandbox_cassette("named")
        def test_it(gke_sandbox_cassette):
            go(gke_sandbox_cassette)
        """
    )
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=7)
    names = cassettes(project)
    assert len(names) == 7
    assert {"named.yaml", "test_a.TestA.test_it-a-1.yaml"} <= set(names)
    run(project).assert_outcomes(passed=7)


def test_a_cassette_for_another_test_is_refused(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=TEST)
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    (project.path / "cassettes/test_a.test_it.yaml").rename(project.path / "cassettes/other.yaml")
    project.makepyfile(
        test_a="import pytest\n" + TEST.replace("def ", "@pytest.mark.gke_sandbox_cassette('other')\ndef ")
    )
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "* ERROR at setup of test_it *",
            "*/cassettes/other.yaml, line 2, the header: scenario: must be 'other', got 'test_a.test_it'",
            "Use the right file, or record it again.",
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "workers"),
    [("", "-n0"), ("", "-n1"), ("('')", "-n0"), ("('a', 'b')", "-n0"), ("(1)", "-n0"), ("(name='a')", "-n0")],
)
def test_a_marker_without_exactly_one_name_fails_its_test(
    project: pytest.Pytester, arguments: str, workers: str
) -> None:
    marked = f"import pytest\n@pytest.mark.gke_sandbox_cassette{arguments}\n{TEST[TEST.index('def') :]}"
    project.makepyfile(test_a=marked)
    result = run(project, workers)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["the marker gke_sandbox_cassette needs exactly one name"])


def test_concurrent_recordings_of_one_cassette_do_not_interfere(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = [sys.executable, "-m", "pytest", "-pgke_sandbox.pytest_plugin", "--gke-sandbox-record=all"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.delenv("INNER", raising=False)
    project.makepyfile(
        test_a=f"""
        import os
        import subprocess
        from gke_sandbox import Sandbox

        def test_it(gke_sandbox_cassette):
            with Sandbox(gke_sandbox_cassette) as sandbox:
                sandbox.run("print(1)")
            # This one's recording is there and not yet in its place while another process makes the same.
            if "INNER" not in os.environ:
                subprocess.run({inner!r}, env={{**os.environ, "INNER": "1"}}, check=True)
        """
    )
    run(project, "--gke-sandbox-record=all").assert_outcomes(passed=1)
    assert cassettes(project) == ["test_a.test_it.yaml"]


def test_a_secret_is_an_error_with_the_name_of_the_cassette(project: pytest.Pytester) -> None:
    project.makepyfile(test_a=TEST.replace("print(1)", "print('ghp_" + "a" * 36 + "')"))
    result = run(project, "--gke-sandbox-record=once")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*CassetteError: */cassettes/test_a.test_it.yaml is not written: *GitHub token*"])
    assert cassettes(project) == []


def test_a_deep_copy_of_the_cluster_replays_the_same_cassette(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_a=TEST.replace("Sandbox(gke", "Sandbox(__import__('copy').deepcopy(gke").replace("te) as", "te)) as")
    )
    run(project, "--gke-sandbox-record=once").assert_outcomes(passed=1)
    run(project).assert_outcomes(passed=1)
