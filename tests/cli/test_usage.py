"""What cannot be asked for is told in one line and a hint, before anything is sent, with exit status 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gke_sandbox.cli import main
from gke_sandbox.cli.parsing import in_options, seconds, size, toleration

from .fake import command

CODE = ("-c", "print(1)")

MISTAKES: list[tuple[tuple[str, ...], str]] = [
    ((), "no program given"),
    (("--", "script.py"), "no program given"),
    (("script.py", *CODE), "two programs given"),
    ((*CODE, "more"), "two programs given: 'more' and -c"),
    (("a-file", "more", "and more"), "unrecognized arguments: more and more"),
    ((*CODE, "--timeot", "3"), "unrecognized arguments: --timeot"),
    ((*CODE, "--time", "3"), "unrecognized arguments: --time"),
    (("missing.py",), "cannot read 'missing.py': No such file or directory"),
    (("a-directory",), "cannot read 'a-directory': Is a directory"),
    (("missing/script.py",), "No such file or directory"),
    (("a-file/script.py",), "Not a directory"),
    (("nul\0.py",), "cannot read 'nul\\x00.py'"),
    (("/proc/self/mem",), "cannot read '/proc/self/mem': Input/output error"),
    (("x" * 300,), "File name too long"),
    ((*CODE, "--file", "missing.csv"), "cannot read 'missing.csv'"),
    ((*CODE, "--file", "missing.csv:name"), "cannot read 'missing.csv:name'"),
    ((*CODE, "--file", "a-directory"), "--file: 'a-directory' is a directory"),
    ((*CODE, "--file", "a-directory/"), "--file: 'a-directory/' is a directory"),
    ((*CODE, "--file", "a-directory:name"), "--file: 'a-directory' is a directory"),
    ((*CODE, "--file", ""), "cannot read ''"),
    ((*CODE, "--file", "a-file:"), "--file ''"),
    ((*CODE, "--file", "a-file:../up"), "--file '../up': the name"),
    ((*CODE, "--file", "a-file:/absolute"), "--file '/absolute': the name"),
    ((*CODE, "--file", "a-file:main.py"), "--file 'main.py': the program itself is main.py"),
    ((*CODE, "--file", "a-file", "--file", "a-file"), "--file: two files would be called 'a-file'"),
    ((*CODE, "--stdin", "missing.txt"), "cannot read 'missing.txt'"),
    (("-", "--stdin", "-"), "stdin cannot be both the program and its input"),
    ((*CODE, "--timeout", "soon"), "--timeout: 'soon' is not a length of time"),
    ((*CODE, "--timeout", "-5"), "--timeout: '-5' is not a length of time"),
    ((*CODE, "--timeout", "nan"), "--timeout: 'nan' is not a length of time"),
    ((*CODE, "--timeout", "1e9"), "--timeout: '1e9' is not a length of time"),
    ((*CODE, "--timeout", "0"), "--timeout: must be more than 0"),
    ((*CODE, "--timeout", "9999h"), "--timeout: must be more than 0 and at most"),
    ((*CODE, "--timeout"), "--timeout: expected one argument"),
    ((*CODE, "--startup-timeout", "0s"), "--startup-timeout: must be more than 0"),
    ((*CODE, "--ttl", "1.5"), "--ttl: '1.5' is not a whole number of seconds"),
    ((*CODE, "--cpu", "abc"), "--cpu: 'abc' is not a quantity"),
    ((*CODE, "--cpu", ""), "--cpu: '' is not a quantity"),
    ((*CODE, "--memory", "12"), "--memory: must be at least 1Mi, got '12'"),
    ((*CODE, "--memory", "1GB"), "--memory: '1GB' is not a quantity"),
    ((*CODE, "--cpu-request", "2"), "--cpu-request: '2' is above --cpu, '500m'"),
    ((*CODE, "--memory-request", "9Gi", "--memory", "1Gi"), "--memory-request: '9Gi' is above --memory, '1Gi'"),
    ((*CODE, "--tmp-size", "1Gi"), "--tmp-size: '1Gi' and --ephemeral-storage-request"),
    ((*CODE, "--max-output", "1GiB"), "--max-output: '1GiB' is not a number of bytes"),
    ((*CODE, "--max-output", "1Gi"), "--max-output: must be between 0 and"),
    ((*CODE, "--max-files", "some"), "--max-files: 'some' is not a whole number"),
    ((*CODE, "--max-files", "-1"), "--max-files: must be between 0 and"),
    ((*CODE, "--image", ""), "--image: must not be empty"),
    ((*CODE, "--image", "a b"), "--image: 'a b' must not contain white space"),
    ((*CODE, "-n", "No_Such"), "--namespace: 'No_Such' is not valid"),
    ((*CODE, "--namespace", ""), "--namespace: '' is not valid"),
    ((*CODE, "--env", "=x"), "--env: '=x' is not of the form"),
    ((*CODE, "--env", "A B=x"), "--env 'A B': the name 'A B' is not valid"),
    ((*CODE, "--env", "GKE_SANDBOX_X=1"), "--env 'GKE_SANDBOX_X'"),
    ((*CODE, "--node-selector", "pool"), "--node-selector: 'pool' is not of the form K=V"),
    ((*CODE, "--label", "a b=c"), "--label 'a b'"),
    ((*CODE, "--annotation", "=c"), "--annotation: '=c' is not of the form K=V"),
    ((*CODE, "--toleration", ":NoSchedule"), "--toleration: ':NoSchedule' is not of the form"),
    ((*CODE, "--toleration", "a=b:Never"), "--toleration[1].effect: must be one of"),
    ((*CODE, "--runtime-class", ""), "--runtime-class: '' is not valid"),
    ((*CODE, "--run-as-user", "0"), "--run-as-user: must be between 1 and"),
    ((*CODE, "--run-as-group", "root"), "--run-as-group: 'root' is not a whole number"),
    ((*CODE, "--delivery", "pigeon"), "--delivery: invalid choice: 'pigeon'"),
    ((*CODE, "--isolation", "gvisor"), "--isolation goes with --local only"),
    ((*CODE, "--local", "--isolation", "none"), "--isolation: invalid choice: 'none'"),
    ((*CODE, "--local", "--context", "prod"), "--local excludes --context"),
    ((*CODE, "--local", "--kubeconfig", "f", "--as", "me"), "--local excludes --kubeconfig and --as"),
    ((*CODE, "--local", "--gke", "p/l/n"), "--local excludes --gke"),
    ((*CODE, "--local", "--server", "https://h"), "--local excludes --server"),
    ((*CODE, "--local", "--token", "t"), "--local excludes --token"),
    ((*CODE, "--local", "--as-group", "g"), "--local excludes --as-group"),
    ((*CODE, "--gke", "my-project/europe-west1/c", "--context", "prod"), "--gke excludes --context"),
    ((*CODE, "--gke", "my-project/europe-west1/c", "--server", "https://h"), "--gke excludes --server"),
    ((*CODE, "--gke", "my-project/europe-west1/c", "--kubeconfig", "f"), "--gke excludes --kubeconfig"),
    ((*CODE, "--gke", "c"), "--gke: "),
    ((*CODE, "--gke-endpoint", "dns"), "--gke-endpoint goes with --gke only"),
    ((*CODE, "--gke", "p/l/n", "--gke-endpoint", "vpn"), "invalid choice: 'vpn'"),
    ((*CODE, "--gke", "my-project//c"), "--gke: "),
    ((*CODE, "--gke", "my-project/europe-west1/c/../d"), "--gke: "),
    ((*CODE, "--gke", ""), "--gke: "),
    ((*CODE, "--server", ""), "--server: must not be empty"),
    ((*CODE, "--token", ""), "--token: must not be empty"),
    ((*CODE, "--as", ""), "--as: must not be empty"),
    ((*CODE, "--token", "\udcff"), "--token: is not UTF-8"),
    ((*CODE, "--output-dir", "a-file"), "--output-dir: 'a-file': File exists"),
    ((*CODE, "--output-dir", "a-file/below"), "--output-dir: 'a-file/below': Not a directory"),
    ((*CODE, "--output-dir", "/proc/none"), "--output-dir: '/proc/none': No such file or directory"),
    ((*CODE, "--output-dir", ""), "--output-dir: ''"),
    ((*CODE, "--output-dir", "nul\0"), "--output-dir: 'nul\\x00'"),
    ((*CODE, "--", "nul\0"), "the arguments after --[0]: must not contain a NUL"),
    ((*CODE, "--", "\udcff"), "the arguments after --[0]: cannot be encoded as UTF-8"),
    ((*CODE, "--env", "A=\udcff"), "--env: is not UTF-8"),
    ((*CODE, "--image", "\udcff"), "--image: is not UTF-8"),
    ((*CODE, "--file", "a-file:\udcff"), "--file: the name '\\udcff' is not UTF-8"),
]


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").write_text("content")
    (tmp_path / "a-directory").mkdir()
    return tmp_path


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[ascii(words) for _, words in MISTAKES])
def test_a_mistake_is_told_in_one_line(
    arguments: tuple[str, ...], words: str, somewhere: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = command([], *arguments)
    stdout, stderr = capfd.readouterr()
    error, *hints = stderr.splitlines()
    assert (done.status, stdout) == (2, "")
    assert error.startswith("gke-sandbox: error: ")
    assert words in error
    assert len(hints) <= 1
    assert all(line.startswith("hint: ") for line in hints)


def test_an_endless_input_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert command([], "-c", "1", "--stdin", "/dev/zero").status == 2
    assert "'/dev/zero' is larger than 64 MiB" in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["walk"], ["--run"], ["run"]], ids=str)
def test_without_a_command_or_its_program_nothing_runs(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capfd.readouterr().err.startswith("gke-sandbox: error: ")


def test_a_mistake_is_json_where_json_was_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    assert command([], "--json", "-c", "1", "--cpu", "abc").status == 2
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    error = json.loads(stdout)["error"]
    assert error["kind"] == "SpecError"
    assert error["field"] == "cpu_limit"
    assert error["message"].startswith("--cpu: 'abc' is not a quantity")


def test_lengths_of_time_have_units() -> None:
    assert [seconds(given) for given in ("90", "1.5", ".5", "90s", "5m", "2h", "1.5m")] == [
        90.0, 1.5, 0.5, 90.0, 300.0, 7200.0, 90.0,
    ]  # fmt: skip


def test_sizes_have_units() -> None:
    assert [size(given) for given in ("0", "65536", "64k", "1M", "1Ki", "2Mi", "1Gi")] == [
        0, 65536, 64000, 10**6, 1024, 2 << 20, 1 << 30,
    ]  # fmt: skip


def test_tolerations_are_written_as_taints() -> None:
    assert toleration("a.b/c=d:NoSchedule") == {
        "key": "a.b/c",
        "operator": "Equal",
        "value": "d",
        "effect": "NoSchedule",
    }
    assert toleration("spot:NoExecute") == {"key": "spot", "operator": "Exists", "effect": "NoExecute"}
    assert toleration("spot") == {"key": "spot", "operator": "Exists"}
    assert toleration("spot=") == {"key": "spot", "operator": "Equal", "value": ""}


def test_what_the_library_says_of_its_keywords_is_said_of_the_options() -> None:
    names = {"endpoint": "--gke-endpoint", "delivery": "--delivery", "cpu_limit": "--cpu"}
    assert in_options('Use endpoint="dns".', names) == "Use --gke-endpoint dns."
    assert in_options('off with delivery="mount"', names) == "off with --delivery mount"
    assert in_options('the endpoint; cpu_limit, other="x"', names) == 'the endpoint; --cpu, other="x"'
