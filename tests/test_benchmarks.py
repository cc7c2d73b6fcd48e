"""Every benchmark runs at its smallest size, and its table has the expected shape. The values are not checked."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmarks import load
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.harness import Samples, Table


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_prints_a_table_as_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--tiny", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (table,) = printed["tables"]
    assert table["name"] == name
    assert printed["environment"]["versions"]["gke-sandbox"]
    for row in table["rows"]:
        assert len(row["cells"]) == len(table["columns"]) or row["cells"] == ["not installed"]
    assert table["rows"] or table["notes"] == ["Skipped: no --kubeconfig."]


def test_an_unknown_benchmark_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["speed"])
    assert raised.value.code == 2
    assert "unknown benchmark speed; choose from import, footprint" in capsys.readouterr().err


def test_a_table_shows_median_spread_and_ratio_and_missing_clients() -> None:
    table = Table("example", ["ms", "count"])
    table.add("ours", Samples([3.0, 1.0, 2.0]), 4)
    table.add("theirs", Samples([8.0]), None)
    table.add_missing("another")
    table.add_ratio("ours / theirs")
    lines = [line.split() for line in table.text().splitlines()]
    assert lines[3:7] == [
        ["ours", "2", "(1-3)", "4"],
        ["theirs", "8", "(8-8)", "-"],
        ["another", "not", "installed"],
        ["ours", "/", "theirs", "0.25", "-"],
    ]


class AgentSandbox:
    """The part of the package k8s_agent_sandbox that a benchmark uses."""

    last: AgentSandbox

    def __init__(self, *, api_client: object) -> None:
        assert api_client == "client of kubeconfig"
        self.sandboxes: list[str] = []
        self.deleted: list[str] = []
        AgentSandbox.last = self

    def create_sandbox(self, warmpool: str, namespace: str = "default") -> SimpleNamespace:
        assert (warmpool, namespace) == ("pool", "agents")
        self.sandboxes.append(f"claim-{len(self.sandboxes)}")
        written: dict[str, str] = {}
        return SimpleNamespace(
            claim_name=self.sandboxes[-1],
            files=SimpleNamespace(write=written.__setitem__),
            commands=SimpleNamespace(
                run=lambda command: SimpleNamespace(stdout=written[command.split()[1]].split("'")[1] + "\n")
            ),
        )

    def delete_sandbox(self, claim_name: str, namespace: str = "default") -> None:
        assert namespace == "agents"
        self.deleted.append(claim_name)


def test_each_run_of_agent_sandbox_has_its_own_claim_in_the_cluster_of_the_kubeconfig(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = SimpleNamespace(
        name="extensions.agents.x-k8s.io", preferred_version=SimpleNamespace(version="v1beta1")
    )
    pool = {"metadata": {"name": "pool", "namespace": "agents"}}
    kubernetes: Any = ModuleType("kubernetes")
    kubernetes.config = SimpleNamespace(new_client_from_config=lambda path: f"client of {path}")
    kubernetes.client = SimpleNamespace(
        CustomObjectsApi=lambda _: SimpleNamespace(list_cluster_custom_object=lambda *_: {"items": [pool]}),
        ApisApi=lambda _: SimpleNamespace(get_api_versions=lambda: SimpleNamespace(groups=[group])),
    )
    package: Any = ModuleType("k8s_agent_sandbox")
    package.SandboxClient = AgentSandbox
    monkeypatch.setitem(sys.modules, "kubernetes", kubernetes)
    monkeypatch.setitem(sys.modules, "k8s_agent_sandbox", package)
    monkeypatch.setenv("KUBECONFIG", "")
    arguments = argparse.Namespace(
        kubeconfig="kubeconfig", server="", runs=3, in_flight=1, threads=2, pause=0.0, settle=0.0
    )
    measured = load.run_agent_sandbox(arguments)
    assert len(measured["returned"]) == 3
    assert len(AgentSandbox.last.sandboxes) == 4
    assert sorted(AgentSandbox.last.deleted) == sorted(AgentSandbox.last.sandboxes)


def test_the_package_of_agent_sandbox_has_what_its_benchmark_uses() -> None:
    package = pytest.importorskip("k8s_agent_sandbox")
    commands = pytest.importorskip("k8s_agent_sandbox.commands.command_executor").CommandExecutor
    files = pytest.importorskip("k8s_agent_sandbox.files.filesystem").Filesystem
    sandbox = inspect.signature(pytest.importorskip("k8s_agent_sandbox.sandbox").Sandbox)
    assert "claim_name" in sandbox.parameters
    client = package.SandboxClient
    inspect.signature(client).bind(api_client=None)
    inspect.signature(client.create_sandbox).bind(None, "pool", namespace="agents")
    inspect.signature(client.delete_sandbox).bind(None, "claim", namespace="agents")
    inspect.signature(files.write).bind(None, "main.py", "print()")
    inspect.signature(commands.run).bind(None, "python3 main.py")
    kubernetes = pytest.importorskip("kubernetes")
    objects = kubernetes.client.CustomObjectsApi
    inspect.signature(kubernetes.config.new_client_from_config).bind("kubeconfig")
    inspect.signature(objects.list_cluster_custom_object).bind(None, "group", "version", "sandboxwarmpools")
