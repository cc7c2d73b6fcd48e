"""The inputs of a run: code, files, stdin, arguments, environment and settings."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from gke_sandbox import Cluster
from gke_sandbox.settings import Settings, Toleration

from .fake import FakeSandbox, command, finished

DONE = [finished()]


def opened(*arguments: str) -> FakeSandbox:
    done = command(DONE, *arguments)
    assert done.status == 0
    assert done.sandbox is not None
    return done.sandbox


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def on_stdin(content: bytes, *arguments: str) -> FakeSandbox:
    """Run with `content` on descriptor 0 of this process."""
    reading, writing = os.pipe()
    before = os.dup(0)
    try:
        os.dup2(reading, 0)
        os.close(reading)
        os.write(writing, content)
        os.close(writing)
        return opened(*arguments)
    finally:
        os.dup2(before, 0)
        os.close(before)


def test_code_from_a_file_is_passed_on_byte_for_byte() -> None:
    Path("script.py").write_bytes(b"print('\xff')\r\n")
    assert opened("script.py").program["code"] == b"print('\xff')\r\n"


def test_code_can_be_on_the_command_line() -> None:
    assert opened("-c", "print('é')").program["code"] == "print('é')".encode()


def test_code_on_the_command_line_may_be_invalid_utf8() -> None:
    assert opened("-c", os.fsdecode(b"print('\xff')")).program["code"] == b"print('\xff')"


def test_code_can_be_on_stdin() -> None:
    assert on_stdin(b"print(1)\n", "-").program["code"] == b"print(1)\n"


def test_code_can_be_in_a_fifo() -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_bytes, args=(b"print(2)",))
    writer.start()
    assert opened("pipe").program["code"] == b"print(2)"
    writer.join()


def test_files_are_named_by_their_base_name_or_by_the_given_name() -> None:
    Path("below").mkdir()
    Path("below/data.csv").write_bytes(b"1,2\n")
    sandbox = opened("-c", "", "--file", "below/data.csv", "--file", "below/data.csv:in/other.csv")
    assert sandbox.program["files"] == {"data.csv": b"1,2\n", "in/other.csv": b"1,2\n"}


def test_the_longest_existing_prefix_is_the_path() -> None:
    Path("aa").write_bytes(b"aa")
    Path("aa:b").write_bytes(b"aa:b")
    assert opened("-c", "", "--file", "aa:b").program["files"] == {"aa:b": b"aa:b"}
    assert opened("-c", "", "--file", "aa:b:c").program["files"] == {"c": b"aa:b"}
    assert opened("-c", "", "--file", "aa:cc:d").program["files"] == {"cc:d": b"aa"}


def test_stdin_is_a_file_or_the_stdin_of_the_command() -> None:
    Path("input").write_bytes(b"\x00\xff")
    assert opened("-c", "").program["stdin"] is None
    assert opened("-c", "", "--stdin", "input").program["stdin"] == b"\x00\xff"
    assert on_stdin(b"piped", "-c", "", "--stdin", "-").program["stdin"] == b"piped"


def test_arguments_after_the_first_double_dash_are_for_the_program() -> None:
    assert opened("-c", "", "--", "-c", "--", "--json", "ü").program["args"] == ["-c", "--", "--json", "ü"]
    assert opened("-c", "", "--").program["args"] == []
    Path("script.py").write_text("")
    assert opened("script.py", "--cpu", "1", "--", "x").program["args"] == ["x"]


def test_a_variable_without_a_value_is_copied_from_the_environment_if_it_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HERE", "from here")
    monkeypatch.delenv("NOT_HERE", raising=False)
    sandbox = opened("-c", "", "-e", "HERE", "--env", "NOT_HERE", "--env", "A=b=c", "--env", "EMPTY=")
    assert sandbox.settings.env == {"HERE": "from here", "A": "b=c", "EMPTY": ""}


def test_without_options_every_setting_has_its_default() -> None:
    assert opened("-c", "").settings == Settings()


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
    (
        ("--accept-admission-change", "hostPID", "--accept-admission-change", "parallelism"),
        {"accept_admission_changes": ("hostPID", "parallelism")},
    ),
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
def test_an_option_sets_one_setting(arguments: tuple[str, ...], settings: dict[str, Any]) -> None:
    assert opened("-c", "", *arguments).settings == Settings(**settings)


def test_every_setting_has_an_option() -> None:
    assert {name for _, settings in SETTINGS for name in settings} == {
        field.name for field in dataclasses.fields(Settings)
    }


def test_a_limit_below_the_default_request_lowers_the_request() -> None:
    settings = opened("-c", "", "--cpu", "100m", "--memory", "64Mi").settings
    assert (settings.cpu_request, settings.memory_request) == ("100m", "64Mi")
    settings = opened("-c", "", "--cpu", "2", "--memory", "1Gi").settings
    assert (settings.cpu_request, settings.memory_request) == ("200m", "256Mi")


def test_options_choose_the_cluster() -> None:
    def cluster(*arguments: str) -> Cluster:
        chosen: Cluster = opened("-c", "", *arguments).cluster
        return chosen

    assert cluster() == Cluster.auto()
    assert cluster("--context", "prod") == Cluster.kubeconfig(context="prod")
    assert cluster("--kubeconfig", "here") == Cluster.kubeconfig("here")
    assert cluster("--local") == Cluster.local()
    assert cluster("--local", "--isolation", "process") == Cluster.local("process")
