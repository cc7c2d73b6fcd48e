"""``gke-sandbox doctor``: output, exit codes, and a run inside of a sandbox."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox._engine.preflight import Check
from gke_sandbox.cli import main
from gke_sandbox.cli.doctor import as_text
from gke_sandbox.local import (
    Fault,
    FaultPlan,
    LocalTransport,
    Namespace,
    Quota,
    Script,
    ScriptedProcess,
    ScriptedRuntime,
)
from gke_sandbox.local.faults import NoNode
from tests.http_cluster import http_cluster
from tests.pods import out, program

REPORT = json.dumps(
    {
        "version": "Linux version 4.4.0",
        "is_gvisor": True,
        "tested": ["DNS"],
        "reachable": [],
        "token": False,
        "writable": ["/dev/shm", "/tmp"],
        "uid": 1001,
        "gid": 1001,
        "capabilities": 0,
        "memory": 512 << 20,
        "cpus": 1,
        "home": "/tmp/home",
        "home_writable": True,
        "directory_writable": True,
    }
)


def doctor(*arguments: str, printed: str = REPORT, **namespace: Any) -> int:
    def open_sandbox(_: Cluster, **settings: Any) -> AsyncSandbox:
        runtime = ScriptedRuntime(program(out(printed)))
        transport = LocalTransport(runtime, namespaces=[Namespace("default", network_policy=True, **namespace)])
        return AsyncSandbox(Cluster.transport(transport), **settings)

    return main(["doctor", *arguments], open_sandbox=open_sandbox)


def test_a_good_cluster_is_one_line_for_each_check(capfd: pytest.CaptureFixture[str]) -> None:
    assert doctor("--run", "--warm") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "22 ok, 0 warnings, 0 failures, 0 skipped"
    assert all(line.startswith("ok       ") for line in lines[:-1])
    (permissions,) = (line for line in lines if "permissions" in line)
    assert "create jobs, list pods, get pods/log" in permissions
    assert "create pods/attach" in permissions


def test_a_failure_has_a_fix_and_exit_code_1(capfd: pytest.CaptureFixture[str]) -> None:
    assert doctor("--memory", "2Gi", quota=Quota("q", pods=0)) == 1
    stdout = capfd.readouterr().out
    assert "\nfailure  quota                     pods of q: the quota is 0, and one run needs 1\n" in stdout
    assert "fix: Raise it: kubectl --namespace default edit resourcequota q.\n" in stdout
    assert stdout.splitlines()[-1].endswith("1 failure, 0 skipped")


def test_a_weakness_that_the_program_sees_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    weak = {**json.loads(REPORT), "reachable": ["the metadata server"]}
    assert doctor("--run", printed=json.dumps(weak)) == 1
    assert "inside: network           reachable: the metadata server" in capfd.readouterr().out


def test_hints_name_the_options(capfd: pytest.CaptureFixture[str]) -> None:
    assert doctor("--no-runtime-class") == 0
    assert "fix: Use --runtime-class gvisor." in capfd.readouterr().out


def test_json_lists_every_check(capfd: pytest.CaptureFixture[str]) -> None:
    assert doctor("--json", quota=Quota("q", pods=0)) == 1
    printed = json.loads(capfd.readouterr().out)
    assert (printed["namespace"], printed["ok"]) == ("default", False)
    by_name = {each["name"]: each for each in printed["checks"]}
    assert by_name["permission to watch pods"]["status"] == "ok"
    assert by_name["quota"] == {
        "name": "quota",
        "status": "failure",
        "message": "pods of q: the quota is 0, and one run needs 1",
        "hint": "Raise it: kubectl --namespace default edit resourcequota q.",
    }


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_messages_name_the_options(arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    def open_sandbox(_: Cluster, **settings: Any) -> AsyncSandbox:
        faults = FaultPlan(Fault(NoNode()))
        return AsyncSandbox(
            Cluster.transport(LocalTransport(ScriptedRuntime(Script()), faults=faults)), **settings
        )

    assert main(["doctor", "--run", "--startup-timeout", "0.2", *arguments], open_sandbox=open_sandbox) == 1
    stdout = capfd.readouterr().out
    assert "within 0.2 s (--startup-timeout)" in stdout
    assert "startup_timeout" not in stdout
    if arguments:
        run = next(each for each in json.loads(stdout)["checks"] if each["name"] == "run")
        assert "(--startup-timeout)" in run["message"]


def test_an_unreachable_cluster_is_a_failure_and_no_cluster_an_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["doctor", "--run", "--server", "http://127.0.0.1:9"]) == 1
    assert capfd.readouterr().out.startswith("failure  cluster  GET /version: cannot reach http://127.0.0.1:9")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["doctor", "--json"]) == 125
    assert "no cluster was found" in json.loads(capfd.readouterr().out)["error"]["message"]


def test_over_a_network_the_connection_is_described(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with http_cluster("agents") as served:
        assert main(["doctor", "--kubeconfig", served.kubeconfig(tmp_path, "agents")]) == 0
    stdout = capfd.readouterr().out
    assert f'context "c" in {tmp_path}/kubeconfig: http://127.0.0.1:{served.port}/prefix\n' in stdout
    assert "warning  connection                no TLS, so no credentials are sent; round trip " in stdout


def test_a_signal_during_the_run_deletes_its_job(capfd: pytest.CaptureFixture[str]) -> None:
    transports: list[LocalTransport] = []

    async def interrupt(process: ScriptedProcess) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await anyio.sleep_forever()

    def open_sandbox(_: Cluster, **settings: Any) -> AsyncSandbox:
        transports.append(LocalTransport(ScriptedRuntime(Script(program=interrupt))))
        return AsyncSandbox(Cluster.transport(transports[0]), **settings)

    assert main(["doctor", "--run"], open_sandbox=open_sandbox) == 143
    assert "interrupted by SIGTERM; no Job is left in the cluster" in capfd.readouterr().err
    assert [each for each in transports[0].leftovers() if each.startswith("jobs/")] == []


CHECKS = [Check("one", "ok", "fine"), Check("two", "failure", "a\x1b[31m", "Do\nthis.")]


def test_colours_are_only_around_the_status_and_control_characters_are_escaped() -> None:
    assert as_text(CHECKS, colour=True).splitlines()[:3] == [
        "\x1b[32mok      \x1b[0m one  fine",
        "\x1b[31mfailure \x1b[0m two  a\\x1b[31m",
        "              fix: Do this.",
    ]
    assert "\x1b" not in as_text(CHECKS, colour=False)


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["terminal", "NO_COLOR", "dumb"],
)
def test_colours_are_used_on_a_terminal_only(
    variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert doctor(quota=Quota("q", pods=0)) == 1
    assert "\x1b" not in capfd.readouterr().out
    controller, terminal = pty.openpty()
    with os.fdopen(controller, "rb"), os.fdopen(terminal, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert doctor(quota=Quota("q", pods=0)) == 1
    assert ("\x1b[31mfailure" in capfd.readouterr().out) is coloured


@pytest.mark.skipif(shutil.which("runsc") is None, reason="runsc is not installed")
def test_a_real_sandbox_is_isolated(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--local", "--isolation", "gvisor", "--run"]) == 0
    stdout = capfd.readouterr().out
    assert "\nok       inside: kernel            gVisor (" in stdout
    assert "\nok       inside: user              uid 1001, gid 1001, no capabilities\n" in stdout
