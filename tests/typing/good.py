"""Correct uses of the public interface. Only type-checked, never run: see check.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from typing_extensions import assert_type

from gke_sandbox import (
    AsyncSandbox,
    Cluster,
    ExecutionEvent,
    ExecutionFailed,
    ExecutionFinished,
    ExecutionResult,
    OutputChunk,
    PhaseChanged,
    PodWaiting,
    Program,
    Sandbox,
    SandboxError,
)
from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.settings import Settings, SettingsDict, Toleration

settings: SettingsDict = {"timeout": 30, "env": {"A": "1"}}


def synchronous(names: Sequence[str], env: Mapping[str, str]) -> None:
    Sandbox()
    Sandbox(None)
    Sandbox(Cluster.local("process"), timeout=5)
    Sandbox(**settings)
    with Sandbox(
        Cluster.kubeconfig("config", "context"),
        namespace="agent-sandbox",
        image="python:3.12-slim",
        timeout=30,
        startup_timeout=60.5,
        cpu_request="100m",
        memory_request="64Mi",
        cpu_limit="1",
        memory_limit="1Gi",
        ephemeral_storage_request="64Mi",
        ephemeral_storage_limit="1Gi",
        tmp_size="64Mi",
        delivery="mount",
        runtime_class_name=None,
        node_selector={"pool": "sandbox"},
        tolerations=[Toleration(operator="Exists"), {"key": "a", "operator": "Exists"}],
        env=env,
        image_pull_secrets=names,
        image_pull_policy="Always",
        priority_class_name="low",
        service_account_name="runner",
        labels={"team": "data"},
        annotations={"note": "x"},
        run_as_user=1002,
        run_as_group=1002,
        ttl_seconds_after_finished=10,
        max_output_bytes=1000,
        max_file_bytes=1000,
        max_files=1,
    ) as sandbox:
        result = sandbox.run("print(1)", files={"a": b"1", "b": "2"}, args=["x"], stdin="y", **settings)
        assert_type(result, ExecutionResult)
        assert_type(result.check(), ExecutionResult)
        assert_type(result.ok, bool)
        assert_type(result.stdout, str)
        assert_type(result.exit_code, int | None)
        sandbox.run(Program(code=b"", files={"a": "1"}, args=("b",), stdin=b"c"), memory_limit="64Mi")
        sandbox.run(Path("script.py"), files={"data.csv": Path("data.csv"), "note": "text"})
        sandbox.run(Program(code=Path("script.py"), files={"data.csv": Path("data.csv")}))
        assert_type(sandbox.map(["a", b"b", Path("c.py"), Program(code="d")]), list[ExecutionResult])
        assert_type(sandbox.map(names, return_exceptions=False), list[ExecutionResult])
        assert_type(
            sandbox.map(names, max_concurrency=3, return_exceptions=True, timeout=1),
            list[ExecutionResult | SandboxError],
        )
        with sandbox.stream("print(1)", args=("a",), env=env) as events:
            for event in events:
                assert_type(event, ExecutionEvent)
                handle(event)
        assert_type(sandbox.settings, Settings)
        assert_type(sandbox.settings.override(cpu_limit="2"), Settings)
        assert_type(sandbox.jobs + sandbox.leftovers, list[str])
        assert_type(sandbox.namespace + sandbox.session, str)


async def asynchronous(names: Sequence[str]) -> None:
    async with AsyncSandbox(Cluster.gke("project", "europe-west4", "name"), **settings) as sandbox:
        assert_type(await sandbox.run("print(1)", timeout=5), ExecutionResult)
        assert_type(await sandbox.map(names), list[ExecutionResult])
        assert_type(await sandbox.map(names, return_exceptions=True), list[ExecutionResult | SandboxError])
        async with sandbox.stream(Program(code="print(1)"), delivery="env") as events:
            async for event in events:
                handle(event)


def handle(event: ExecutionEvent) -> None:
    if isinstance(event, OutputChunk):
        assert_type(event.data, bytes)
        assert_type(event.text, str)
    elif isinstance(event, ExecutionFinished):
        try:
            event.result.check()
        except ExecutionFailed as error:
            assert_type(error.result, ExecutionResult)
    else:
        assert_type(event, PhaseChanged | PodWaiting)
        assert_type(event.seconds, float)


def executor() -> None:
    GkeCodeExecutor()
    GkeCodeExecutor("path", "context", namespace="agent-sandbox", mem_limit="1Gi", settings={"max_files": 3})
    GkeCodeExecutor(settings=settings).close()
