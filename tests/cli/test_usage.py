"""Invalid usage is reported in one line and a hint before any request, with exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gke_sandbox.cli import main
from gke_sandbox.cli.parsing import seconds, size, toleration

from .fake import command

CODE = ("-c", "print(1)")

MISTAKES: list[tuple[tuple[str, ...], str]] = [
    ((), "no program given"),
    (("--", "script.py"), "no program given"),
    (("script.py", *CODE), "two programs given"),
    ((*CODE, "more"), "two programs given: 'more' and -c"),
    (("a-file", "more", "and more"), "unexpected argument 'more'"),
    ((*CODE, "--timeot", "3"), "unknown option --timeot; did you mean --timeout?"),
    ((*CODE, "--time", "3"), "unknown option --time; did you mean --timeout?"),
    (("missing.py",), "cannot read 'missing.py': No such file or directory"),
    (("a-directory",), "cannot read 'a-directory': Is a directory"),
    (("missing/script.py",), "No such file or directory"),
    (("a-file/script.py",), "Not a directory"),
    (("nul\0.py",), "cannot read 'nul\\x00.py'"),
    (("/proc/self/mem",), "cannot read '/proc/self/mem': Input/output error"),
    (("x" * 300,), "File name too long"),
    ((*CODE, "--file", "missing.csv"), "--file: cannot read 'missing.csv'"),
    ((*CODE, "--file", "missing.csv:name"), "--file: cannot read 'missing.csv:name'"),
    ((*CODE, "--file", "a-directory"), "--file: 'a-directory' is a directory"),
    ((*CODE, "--file", "a-directory/"), "--file: 'a-directory/' is a directory"),
    ((*CODE, "--file", "a-directory:name"), "--file: 'a-directory' is a directory"),
    ((*CODE, "--file", ""), "--file: cannot read ''"),
    ((*CODE, "--file", "a-file:"), "--file ''"),
    ((*CODE, "--file", "a-file:../up"), "--file '../up': the name"),
    ((*CODE, "--file", "a-file:/absolute"), "--file '/absolute': the name"),
    ((*CODE, "--file", "a-file:main.py"), "--file 'main.py': main.py is the name of the program"),
    ((*CODE, "--file", "a-file", "--file", "a-file"), "--file: two files have the name 'a-file'"),
    ((*CODE, "--stdin", "missing.txt"), "--stdin: cannot read 'missing.txt'"),
    (("-", "--stdin", "-"), "stdin cannot be both the program and its input"),
    ((*CODE, "--timeout", "soon"), "--timeout: must be a time such as 90, 1.5, 90s, 5m, 1h30m or 1d, got 'soon'"),
    ((*CODE, "--timeout", "-5"), "--timeout: must be a time such as 90, 1.5, 90s, 5m, 1h30m or 1d, got '-5'"),
    ((*CODE, "--timeout", "nan"), "--timeout: must be a time such as 90, 1.5, 90s, 5m, 1h30m or 1d, got 'nan'"),
    ((*CODE, "--timeout", "1e9"), "--timeout: must be a time such as 90, 1.5, 90s, 5m, 1h30m or 1d, got '1e9'"),
    ((*CODE, "--timeout", "0"), "--timeout: must be more than 0"),
    (
        (*CODE, "--timeout", f"{'9' * 400}h1m"),
        "--timeout: must be a time such as 90, 1.5, 90s, 5m, 1h30m or 1d, got",
    ),
    ((*CODE, "--timeout", "9999h"), "--timeout: must be more than 0 and at most"),
    ((*CODE, "--timeout"), "--timeout: requires a value"),
    ((*CODE, "--local=yes"), "--local: takes no value, got 'yes'"),
    ((*CODE, "--startup-timeout", "0s"), "--startup-timeout: must be more than 0"),
    ((*CODE, "--ttl", "1.5"), "--ttl: must be a whole number of seconds, got '1.5'"),
    ((*CODE, "--cpu", "abc"), "--cpu: 'abc' is not a quantity"),
    ((*CODE, "--cpu", ""), "--cpu: '' is not a quantity"),
    ((*CODE, "--memory", "12"), "--memory: must be at least 1Mi, got '12'"),
    ((*CODE, "--memory", "1GB"), "--memory: '1GB' is not a quantity"),
    ((*CODE, "--max-output", "1MB"), "64k or 1Mi, got '1MB'. Did you mean 1M or 1Mi?"),
    (
        (*CODE, "--timeout", "30m1h"),
        "--timeout: must be a time such as 90, 1.5, 90s, 5m, 1h30m or 1d, got '30m1h'",
    ),
    ((*CODE, "--timeout", "1h30"), "--timeout: must be a time such as 90, 1.5, 90s, 5m, 1h30m or 1d, got '1h30'"),
    ((*CODE, "--cpu-request", "2"), "--cpu-request: '2' is above --cpu, '500m'"),
    ((*CODE, "--memory-request", "9Gi", "--memory", "1Gi"), "--memory-request: '9Gi' is above --memory, '1Gi'"),
    ((*CODE, "--tmp-size", "1Gi"), "--tmp-size: '1Gi' and --ephemeral-storage-request"),
    (
        (*CODE, "--max-output", "1GiB"),
        "--max-output: must be a number of bytes such as 65536, 64k or 1Mi, got '1GiB'",
    ),
    ((*CODE, "--max-output", "1Gi"), "--max-output: must be between 0 and"),
    ((*CODE, "--max-files", "some"), "--max-files: must be an integer, got 'some'"),
    ((*CODE, "--max-files", "-1"), "--max-files: must be between 0 and"),
    ((*CODE, "--image", ""), "--image: must not be empty"),
    ((*CODE, "--image", "a b"), "--image: 'a b' must not contain white space"),
    ((*CODE, "-n", "No_Such"), "--namespace: 'No_Such' is not valid"),
    ((*CODE, "--namespace", ""), "--namespace: '' is not valid"),
    ((*CODE, "--env", "=x"), "error: --env: must have the form K=V or K, got '=x'"),
    ((*CODE, "--env", "A B=x"), "--env 'A B': the name 'A B' is not valid"),
    ((*CODE, "--env", "GKE_SANDBOX_X=1"), "--env 'GKE_SANDBOX_X'"),
    ((*CODE, "--node-selector", "pool"), "--node-selector: must have the form K=V, got 'pool'"),
    ((*CODE, "--label", "a b=c"), "--label 'a b'"),
    ((*CODE, "--annotation", "=c"), "--annotation: must have the form K=V, got '=c'"),
    (
        (*CODE, "--toleration", ":NoSchedule"),
        "--toleration: must have the form KEY[=VALUE][:EFFECT], got ':NoSchedule'",
    ),
    ((*CODE, "--toleration", "a=b:Never"), "--toleration (effect): must be one of"),
    ((*CODE, "--runtime-class", ""), "--runtime-class: '' is not valid"),
    ((*CODE, "--run-as-user", "0"), "--run-as-user: must be between 1 and"),
    ((*CODE, "--run-as-group", "root"), "--run-as-group: must be an integer, got 'root'"),
    ((*CODE, "--delivery", "pigeon"), "--delivery: must be one of auto, env, mount, attach, got 'pigeon'"),
    ((*CODE, "--isolation", "gvisor"), "--isolation requires --local"),
    ((*CODE, "--local", "--isolation", "none"), "--isolation: must be one of auto, gvisor, process, got 'none'"),
    ((*CODE, "--local", "--context", "prod"), "--local cannot be combined with --context"),
    (
        (*CODE, "--local", "--kubeconfig", "f", "--as", "me"),
        "--local cannot be combined with --kubeconfig and --as",
    ),
    ((*CODE, "--local", "--gke", "p/l/n"), "--local cannot be combined with --gke"),
    ((*CODE, "--local", "--server", "https://h"), "--local cannot be combined with --server"),
    ((*CODE, "--local", "--token", "t"), "--local cannot be combined with --token"),
    ((*CODE, "--local", "--as-group", "g"), "--local cannot be combined with --as-group"),
    (
        (*CODE, "--gke", "my-project/europe-west1/c", "--context", "prod"),
        "--gke cannot be combined with --context",
    ),
    (
        (*CODE, "--gke", "my-project/europe-west1/c", "--server", "https://h"),
        "--gke cannot be combined with --server",
    ),
    (
        (*CODE, "--gke", "my-project/europe-west1/c", "--kubeconfig", "f"),
        "--gke cannot be combined with --kubeconfig",
    ),
    ((*CODE, "--gke", "c"), "--gke: "),
    ((*CODE, "--gke-endpoint", "dns"), "--gke-endpoint requires --gke"),
    (
        (*CODE, "--gke", "p/l/n", "--gke-endpoint", "vpn"),
        "--gke-endpoint: must be one of auto, ip, private, dns, got 'vpn'",
    ),
    ((*CODE, "--gke", "my-project//c"), "--gke: "),
    ((*CODE, "--gke", "my-project/europe-west1/c/../d"), "--gke: "),
    ((*CODE, "--gke", ""), "--gke: "),
    ((*CODE, "--server", ""), "--server: must not be empty"),
    ((*CODE, "--token", ""), "--token: must not be empty"),
    ((*CODE, "--as", ""), "--as: must not be empty"),
    ((*CODE, "--token", "\udcff"), "--token: must be valid UTF-8"),
    ((*CODE, "--output-dir", "a-file"), "--output-dir: 'a-file': Not a directory"),
    ((*CODE, "--output-dir", "a-file/below"), "--output-dir: 'a-file/below': Not a directory"),
    ((*CODE, "--output-dir", "/proc/none"), "--output-dir: '/proc/none': No such file or directory"),
    ((*CODE, "--output-dir", ""), "--output-dir: ''"),
    ((*CODE, "--output-dir", "nul\0"), "--output-dir: 'nul\\x00'"),
    ((*CODE, "--", "nul\0"), "argument 1 after --: must not contain a NUL"),
    ((*CODE, "--", "ok", "\udcff"), "argument 2 after --: cannot be encoded as UTF-8"),
    ((*CODE, "--env", "A=\udcff"), "--env: must be valid UTF-8"),
    ((*CODE, "--image", "\udcff"), "--image: must be valid UTF-8"),
    ((*CODE, "--file", "a-file:\udcff"), "--file: the name '\\udcff' is not valid UTF-8"),
]


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").write_text("content")
    (tmp_path / "a-directory").mkdir()
    return tmp_path


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[ascii(message) for _, message in MISTAKES])
def test_invalid_usage_is_reported_in_one_line(
    arguments: tuple[str, ...], message: str, somewhere: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = command([], *arguments)
    stdout, stderr = capfd.readouterr()
    error, *hints = stderr.splitlines()
    assert (done.status, stdout) == (2, "")
    assert error.startswith("gke-sandbox: error: ")
    assert message in error
    assert len(hints) <= 1
    assert all(line.startswith("hint: ") for line in hints)


def test_an_endless_input_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert command([], "-c", "1", "--stdin", "/dev/zero").status == 2
    assert "--stdin: '/dev/zero' is too large; the maximum is 64 MiB" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command given"),
        (["--json"], "unknown option --json"),
        (["--run"], "unknown option --run"),
        (["walk"], "unknown command 'walk'"),
        (["cluster"], "unknown command 'cluster'; did you mean cluster-info?"),
        (["run"], "no program given"),
        (["--", "run"], "no command given"),
        (["-v", "run", *CODE], "-v must come after the command"),
        (["--json", "run", *CODE], "--json must come after the command"),
        (["--context", "prod", "run"], "Options go after the command."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_missing_or_unknown_command_is_reported(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capfd.readouterr()
    assert message in captured.out + captured.err


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("--memory-limit", "--memory"),
        ("--memory_limit", "--memory"),
        ("--mem-limit", "--memory"),
        ("--cpu-limit=1", "--cpu"),
        ("--timeout-seconds", "--timeout"),
        ("--max-output-bytes", "--max-output"),
        ("--ttl-seconds-after-finished", "--ttl"),
        ("--runtime-class-name", "--runtime-class"),
        ("--labels", "--label"),
        ("--no-runtime", "--no-runtime-class"),
        ("--verbos", "--verbose"),
        ("-json", "--json"),
        ("--as-groups", "--as-group"),
    ],
)
def test_an_unknown_option_is_answered_with_the_right_one(
    wrong: str, right: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command([], *CODE, wrong).status == 2
    error, hint = capfd.readouterr().err.splitlines()
    assert error == f"gke-sandbox: error: unknown option {wrong.partition('=')[0]}; did you mean {right}?"
    assert hint == "hint: gke-sandbox run --help lists the options. Arguments for the program go after --."


@pytest.mark.parametrize(
    "arguments", [["clean", "--memory", "1Gi"], ["run", *CODE, "--rows", "10"], ["run", *CODE, "-i"]], ids=" ".join
)
def test_an_option_without_a_similar_one_has_no_suggestion(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error, _ = capfd.readouterr().err.splitlines()
    assert error.startswith("gke-sandbox: error: unknown option -")
    assert "did you mean" not in error


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (
            ("--cpu-request", "2"),
            "--cpu-request: '2' is above --cpu, '500m'",
            "Set --cpu-request and --cpu together.",
        ),
        (
            ("--ephemeral-storage", "100Mi"),
            "--tmp-size: '64Mi' and --ephemeral-storage-request, '64Mi', are together above "
            "--ephemeral-storage, '100Mi'",
            "Raise --ephemeral-storage or lower --tmp-size.",
        ),
        (
            ("--toleration", "a:Never"),
            "--toleration (effect): must be one of NoSchedule, PreferNoSchedule, NoExecute, got 'Never'",
            None,
        ),
        (("--image-pull-secret", "A"), "--image-pull-secret: 'A' is not valid: ", None),
        (
            ("--runtime-class", "A"),
            "--runtime-class: 'A' is not valid: ",
            "--no-runtime-class uses the default runtime of the cluster.",
        ),
        (("--priority-class", "A"), "--priority-class: 'A' is not valid: ", None),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_an_invalid_setting_is_reported_with_the_names_of_options(
    arguments: tuple[str, ...], error: str, hint: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command([], *CODE, *arguments).status == 2
    first, *hints = capfd.readouterr().err.splitlines()
    assert first.startswith(f"gke-sandbox: error: {error}")
    assert hints == ([f"hint: {hint}"] if hint else [])


def test_with_json_invalid_usage_is_a_json_object(capfd: pytest.CaptureFixture[str]) -> None:
    assert command([], "--json", "-c", "1", "--cpu", "abc").status == 2
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    error = json.loads(stdout)["error"]
    assert error["kind"] == "SpecError"
    assert error["field"] == "cpu_limit"
    assert error["message"].startswith("--cpu: 'abc' is not a quantity")


def test_times_have_units() -> None:
    assert [seconds(value) for value in ("90", "1.5", ".5", "90s", "5m", "2h", "1.5m")] == [
        90.0, 1.5, 0.5, 90.0, 300.0, 7200.0, 90.0,
    ]  # fmt: skip


def test_a_time_can_combine_units() -> None:
    assert [seconds(value) for value in ("1h30m", "1d12h", "2m5s", "1d0h1m1s")] == [
        5400.0,
        129600.0,
        125.0,
        86461.0,
    ]


def test_sizes_have_units() -> None:
    assert [size(value) for value in ("0", "65536", "64k", "1M", "1Ki", "2Mi", "1Gi")] == [
        0, 65536, 64000, 10**6, 1024, 2 << 20, 1 << 30,
    ]  # fmt: skip


def test_a_toleration_has_the_form_of_a_taint() -> None:
    assert toleration("a.b/c=d:NoSchedule") == {
        "key": "a.b/c",
        "operator": "Equal",
        "value": "d",
        "effect": "NoSchedule",
    }
    assert toleration("spot:NoExecute") == {"key": "spot", "operator": "Exists", "effect": "NoExecute"}
    assert toleration("spot") == {"key": "spot", "operator": "Exists"}
    assert toleration("spot=") == {"key": "spot", "operator": "Equal", "value": ""}
