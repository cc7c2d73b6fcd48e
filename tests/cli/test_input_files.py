"""What the program is given: its code, files, stdin, arguments, environment and settings."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from gke_sandbox.settings import Settings, Toleration

from .fake import FakeSandbox, command, finished

DONE = [finished()]


def given(*arguments: str) -> FakeSandbox:
    done = command(DONE, *arguments)
    assert done.status == 0
    assert done.sandbox is not None
    return done.sandbox


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def on_stdin(content: bytes, *arguments: str) -> FakeSandbox:
    """Run with `content` on this process's descriptor 0."""
    reading, writing = os.pipe()
    before = os.dup(0)
    try:
        os.dup2(reading, 0)
        os.close(reading)
        os.write(writing, content)
        os.close(writing)
        return given(*arguments)
    finally:
        os.dup2(before, 0)
        os.close(before)


def test_code_comes_from_a_file_byte_for_byte() -> None:
    Path("script.py").write_bytes(b"print('\xff')\r\n")
    assert given("script.py").given["code"] == b"print('\xff')\r\n"


def test_code_comes_from_the_command_line() -> None:
    assert given("-c", "print('é')").given["code"] == "print('é')".encode()


def test_code_on_the_command_line_that_is_not_utf8_is_left_to_the_pods_python() -> None:
    assert given("-c", os.fsdecode(b"print('\xff')")).given["code"] == b"print('\xff')"


def test_code_comes_from_stdin() -> None:
    assert on_stdin(b"print(1)\n", "-").given["code"] == b"print(1)\n"


def test_code_comes_from_a_fifo() -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_bytes, args=(b"print(2)",))
    writer.start()
    assert given("pipe").given["code"] == b"print(2)"
    writer.join()


def test_files_are_called_by_their_last_name_or_as_told() -> None:
    Path("below").mkdir()
    Path("below/data.csv").write_bytes(b"1,2\n")
    sandbox = given("-c", "", "--file", "below/data.csv", "--file", "below/data.csv:in/other.csv")
    assert sandbox.given["files"] == {"data.csv": b"1,2\n", "in/other.csv": b"1,2\n"}


def test_a_path_with_a_colon_that_exists_is_a_path() -> None:
    Path("aa").write_bytes(b"aa")
    Path("aa:b").write_bytes(b"aa:b")
    assert given("-c", "", "--file", "aa:b").given["files"] == {"aa:b": b"aa:b"}
    assert given("-c", "", "--file", "aa:b:c").given["files"] == {"c": b"aa:b"}
    assert given("-c", "", "--file", "aa:cc:d").given["files"] == {"cc:d": b"aa"}


def test_stdin_comes_from_a_file_or_is_passed_on() -> None:
    Path("input").write_bytes(b"\x00\xff")
    assert given("-c", "").given["stdin"] is None
    assert given("-c", "", "--stdin", "input").given["stdin"] == b"\x00\xff"
    assert on_stdin(b"piped", "-c", "", "--stdin", "-").given["stdin"] == b"piped"


def test_arguments_after_the_first_double_dash_are_the_programs() -> None:
    assert given("-c", "", "--", "-c", "--", "--json", "ü").given["args"] == ["-c", "--", "--json", "ü"]
    assert given("-c", "", "--").given["args"] == []
    Path("script.py").write_text("")
    assert given("script.py", "--cpu", "1", "--", "x").given["args"] == ["x"]


def test_a_variable_without_a_value_is_taken_from_the_environment_if_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HERE", "from here")
    monkeypatch.delenv("NOT_HERE", raising=False)
    sandbox = given("-c", "", "-e", "HERE", "--env", "NOT_HERE", "--env", "A=b=c", "--env", "EMPTY=")
    assert sandbox.settings.env == {"HERE": "from here", "A": "b=c", "EMPTY": ""}


def test_without_options_every_setting_has_its_default() -> None:
    assert given("-c", "").settings == Settings()


SETTINGS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("-n", "agents"), {"namespace": "agents"}),
    (("--image", "python:3.13"), {"image": "python:3.13"}),
    (("--timeout", "5m"), {"timeout": 300.0}),
    (("--startup-timeout", "90s"), {"startup_timeout": 90.0}),
    (("--cpu", "2", "--cpu-request", "1"), {"cpu_limit": "2", "cpu_request": "1"}),
    (("--memory", "2Gi", "--memory-request", "1Gi"), {"memory_limit": "2Gi", "memory_request": "1Gi"}),
    (
        ("--ephemeral-storage", "2Gi", "--ephemeral-storage-request", "1Gi", "--tmp-size", "1Gi"),
        {"ephemeral_storage_limit": "2Gi", "ephemeral_storage_request": "1Gi", "tmp_size": "1Gi"},
    ),
    (("--delivery", "mount"), {"delivery": "mount"}),
    (("--runtime-class", "kata"), {"runtime_class_name": "kata"}),
    (("--no-runtime-class",), {"runtime_class_name": None}),
    (("--node-selector", "a=b", "--node-selector", "c="), {"node_selector": {"a": "b", "c": ""}}),
    (("--env", "A=1"), {"env": {"A": "1"}}),
    (("--image-pull-secret", "one", "--image-pull-secret", "two"), {"image_pull_secrets": ("one", "two")}),
    (("--image-pull-policy", "Always"), {"image_pull_policy": "Always"}),
    (("--priority-class", "low"), {"priority_class_name": "low"}),
    (("--service-account", "agent"), {"service_account_name": "agent"}),
    (("--label", "team=a"), {"labels": {"team": "a"}}),
    (("--annotation", "note=a = b"), {"annotations": {"note": "a = b"}}),
    (("--run-as-user", "2000", "--run-as-group", "3000"), {"run_as_user": 2000, "run_as_group": 3000}),
    (("--ttl", "2m"), {"ttl_seconds_after_finished": 120}),
    (
        ("--max-output", "64Ki", "--max-file-bytes", "1M", "--max-files", "3"),
        {"max_output_bytes": 65536, "max_file_bytes": 10**6, "max_files": 3},
    ),
    (
        ("--toleration", "spot:NoSchedule"),
        {
            "tolerations": (
                *Settings().tolerations,
                Toleration(key="spot", operator="Exists", effect="NoSchedule"),
            )
        },
    ),
]


@pytest.mark.parametrize(("arguments", "settings"), SETTINGS, ids=lambda value: "".join(value)[:30])
def test_an_option_sets_its_setting_and_no_other(arguments: tuple[str, ...], settings: dict[str, Any]) -> None:
    assert given("-c", "", *arguments).settings == Settings(**settings)


def test_every_setting_has_an_option() -> None:
    assert {name for _, settings in SETTINGS for name in settings} == {
        field.name for field in dataclasses.fields(Settings)
    }


def test_a_limit_below_the_default_request_takes_the_request_down() -> None:
    settings = given("-c", "", "--cpu", "100m", "--memory", "64Mi").settings
    assert (settings.cpu_request, settings.memory_request) == ("100m", "64Mi")
    settings = given("-c", "", "--cpu", "2", "--memory", "1Gi").settings
    assert (settings.cpu_request, settings.memory_request) == ("200m", "256Mi")


def test_options_choose_the_cluster() -> None:
    def cluster(*arguments: str) -> tuple[Any, ...]:
        made = given("-c", "", *arguments).cluster
        return made.kind, made.path, made.context, made.isolation

    assert cluster() == ("auto", None, None, "auto")
    assert cluster("--context", "prod") == ("kubeconfig", None, "prod", "auto")
    assert cluster("--kubeconfig", "here") == ("kubeconfig", "here", None, "auto")
    assert cluster("--local") == ("local", None, None, "auto")
    assert cluster("--local", "--isolation", "process") == ("local", None, None, "process")
