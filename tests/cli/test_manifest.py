"""``gke-sandbox manifest`` prints what ``run`` sends."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox._wire.program import Program
from gke_sandbox.cli import main
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.resources import CONFIG_MAPS, JOBS
from gke_sandbox.local import LocalTransport, ScriptedRuntime
from tests.clock import run_on_mock_clock
from tests.pods import out, program


def manifest(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, list[dict[str, Any]]]:
    assert main(["manifest", *arguments]) == 0
    text = capfd.readouterr().out
    return text, list(yaml.safe_load_all(text))


class Captured(httpx.AsyncBaseTransport):
    """Keep the bodies of the POST requests."""

    def __init__(self, inner: LocalTransport) -> None:
        self._inner = inner
        self.bodies: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.bodies.append(json.loads(await request.aread()))
        return await self._inner.handle_async_request(request)

    async def __aenter__(self) -> Captured:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._inner.__aexit__(*raised)


def sent_by_run(code: Program, **settings: Any) -> list[dict[str, Any]]:
    transport = Captured(LocalTransport(ScriptedRuntime(program(out("x")))))

    async def run() -> None:
        async with AsyncSandbox(Cluster.transport(transport), **settings) as sandbox:
            await sandbox.run(code)

    run_on_mock_clock(run)
    return transport.bodies


def comparable(objects: list[dict[str, Any]], name: str, session: str) -> str:
    """Return the objects as JSON, sorted by kind, without the names that differ from run to run."""
    for each in objects:
        each["metadata"].pop("ownerReferences", None)
    text = json.dumps(sorted(objects, key=lambda each: str(each["kind"])), sort_keys=True)
    return text.replace(name, "NAME").replace(session, "SESSION")


@pytest.mark.parametrize("delivery", ["env", "mount"])
def test_the_manifests_are_the_objects_that_run_sends(delivery: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--delivery", delivery, "--memory", "1Gi", "--label", "y=n", "--env", "A=1e3"]
    _, printed = manifest(capfd, "-c", "print(1)\n", *options, "--", "--rows", "10")
    code = Program(code="print(1)\n", args=["--rows", "10"])
    sent = sent_by_run(code, delivery=delivery, memory_limit="1Gi", labels={"y": "n"}, env={"A": "1e3"})
    names = [(each[0]["metadata"]["name"], each[0]["metadata"]["labels"]) for each in (printed, sent)]
    ours, theirs = (
        comparable(each, name, labels["gke-sandbox/session"])
        for each, (name, labels) in zip((printed, sent), names, strict=True)
    )
    assert ours == theirs


def test_the_objects_can_be_created_in_the_order_of_the_output(capfd: pytest.CaptureFixture[str]) -> None:
    _, objects = manifest(capfd, "-c", "print(1)", "-n", "agents")
    assert [each["kind"] for each in objects] == ["ConfigMap", "Job"]

    async def create() -> None:
        transport = LocalTransport(ScriptedRuntime(program(out("x"))), namespaces=["agents"])
        config = ClusterConfig(server="https://embedded.invalid")
        async with KubeClient(config, transport=transport) as client:
            for each, resource in zip(objects, (CONFIG_MAPS, JOBS), strict=True):
                await client.create(resource, "agents", each, field_validation="Strict")
            await transport.until(
                lambda: [each["status"]["phase"] for each in transport.objects("pods")] == ["Succeeded"]
            )

    run_on_mock_clock(create)


def test_the_namespace_is_only_set_if_it_was_given(capfd: pytest.CaptureFixture[str]) -> None:
    text, objects = manifest(capfd, "-c", "1")
    assert [each["metadata"].get("namespace") for each in objects] == [None, None]
    name = objects[0]["metadata"]["name"]
    assert f"#   kubectl delete job,configmap {name}\n" in text
    text, objects = manifest(capfd, "-c", "1", "-n", "agents")
    assert [each["metadata"]["namespace"] for each in objects] == ["agents", "agents"]
    assert "#   kubectl --namespace agents delete job,configmap" in text


def test_attach_has_no_config_map(capfd: pytest.CaptureFixture[str]) -> None:
    text, objects = manifest(capfd, "-c", "1", "--delivery", "attach")
    assert [each["kind"] for each in objects] == ["Job"]
    assert "# The runner waits on its stdin" in text


def test_values_that_other_yaml_parsers_read_as_numbers_or_booleans_are_quoted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = [
        "1e3",
        "y",
        "NO",
        "null",
        "0x1F",
        "1_000",
        "12:30",
        "~",
        "",
        "2026-11-27",
        "=",
        ".5",
        "a: b",
        "é\t\x1b",
    ]
    script = tmp_path / "script.py"
    script.write_text("print('''\ttab   \n - #''')\n")
    options = [part for number, value in enumerate(values) for part in ("--env", f"V{number}={value}")]
    text, (_, job) = manifest(capfd, str(script), *options)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each.get("value", "") for each in container["env"]}
    assert [given[f"V{number}"] for number in range(len(values))] == values
    # In a plain scalar, only such words keep their meaning in YAML 1.1, in YAML 1.2 and in kubectl.
    for value in re.findall(r"^ +value: (.*)$", text, re.MULTILINE):
        assert value == "gvisor" or value[0] in "\"'", value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no program given"),
        (["-c", "1", "--memory", "many"], "--memory"),
        (["-c", "1", "--context", "prod"], "unknown option --context"),
    ],
    ids=["no program", "a setting", "an option of the cluster"],
)
def test_invalid_usage_is_reported(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", *arguments]) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("stdout", [None, io.TextIOWrapper(io.BytesIO(), encoding="ascii")])
def test_text_is_printed_without_an_encoding_and_in_any_encoding(
    stdout: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", stdout)
    assert main(["manifest", "-c", "print('\N{EURO SIGN}')"]) == 0
    assert ("\\u20ac" if stdout else "\N{EURO SIGN}") in capfd.readouterr().out
