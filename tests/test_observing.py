"""`on_event` of run and map, and what the log contains."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gke_sandbox import (
    Cluster,
    ExecutionEvent,
    ExecutionFinished,
    OutputChunk,
    PhaseChanged,
    Sandbox,
    SandboxError,
    SpecError,
)
from gke_sandbox.local import LocalTransport, ScriptedRuntime

from .clock import mock_clock
from .http_cluster import http_cluster
from .pods import out, pods, program
from .warm_runner import WaitingRunner


def kinds(events: list[ExecutionEvent]) -> list[str]:
    return [event.phase if isinstance(event, PhaseChanged) else type(event).__name__ for event in events]


PHASES = ["created", "scheduled", "started", "first_output", "OutputChunk", "finished", "ExecutionFinished"]


@mock_clock
async def test_run_passes_each_event_to_on_event() -> None:
    events: list[ExecutionEvent] = []
    async with pods(program(out("hello"))) as cluster:
        result = await cluster.sandbox.run("pass", on_event=events.append)
    assert kinds(events) == PHASES
    assert events[-1] == ExecutionFinished(result)
    assert [event.data for event in events if isinstance(event, OutputChunk)] == [b"hello"]


@mock_clock
async def test_an_on_event_that_cannot_be_called_is_refused_before_any_request() -> None:
    async with pods(program()) as cluster:
        with pytest.raises(SpecError, match=r"on_event: must be a function, got 3 \(int\)"):
            await cluster.sandbox.run("pass", on_event=3)  # type: ignore[arg-type]
        with pytest.raises(SpecError, match="on_event: must be a function, got str"):
            await cluster.sandbox.map(["a", "b"], on_event="no")  # type: ignore[call-overload]
        assert not cluster.transport.requests


@pytest.mark.parametrize(
    "use", [lambda sandbox: sandbox.run("pass"), Sandbox.close, Sandbox.check], ids=["run", "close", "check"]
)
def test_a_sandbox_that_on_event_uses_is_one_clear_error(use: Callable[[Sandbox], object]) -> None:
    contexts: list[BaseException | None] = []

    def on_event(_: ExecutionEvent) -> None:
        try:
            use(sandbox)
        except SandboxError as error:
            contexts.append(error.__context__)
            raise

    with Sandbox(Cluster.transport(LocalTransport(ScriptedRuntime(program())))) as sandbox:
        with pytest.raises(SandboxError, match="the Sandbox is used in the thread of its event loop"):
            sandbox.run("pass", on_event=on_event)
        assert contexts == [None]
        assert sandbox.run("pass").ok


@mock_clock
async def test_map_passes_the_index_of_the_program_too() -> None:
    events: dict[int, list[ExecutionEvent]] = {0: [], 1: []}
    async with pods(program(out("hello"))) as cluster:
        await cluster.sandbox.map(["a", "b"], on_event=lambda index, event: events[index].append(event))
    assert kinds(events[0]) == kinds(events[1]) == PHASES


def test_the_synchronous_sandbox_has_on_event() -> None:
    events: list[ExecutionEvent] = []
    indices = []
    with Sandbox(Cluster.local("process")) as sandbox:
        sandbox.run("print(1)", on_event=events.append)
        sandbox.map(["pass", "pass"], on_event=lambda index, _: indices.append(index))
    assert isinstance(events[-1], ExecutionFinished)
    assert set(indices) == {0, 1}


@mock_clock
async def test_an_exception_of_on_event_ends_the_run_and_leaves_nothing() -> None:
    def fail(event: ExecutionEvent) -> None:
        if isinstance(event, OutputChunk):
            raise RuntimeError("stop")

    async with pods(program(out("hello"))) as cluster:
        with pytest.raises(RuntimeError, match="stop"):
            await cluster.sandbox.run("pass", on_event=fail)
    assert cluster.transport.objects("jobs") == []


SECRETS = {
    "code": "print('c0de-is-secret')",
    "files": {"name": "f1le-is-secret"},
    "args": ["arg-1s-secret"],
    "stdin": "std1n-is-secret",
    "env": {"TOKEN": "env-1s-secret"},
}
HIDDEN = ["c0de-is-", "f1le-is-", "arg-1s-", "std1n-is-", "env-1s-", "t0ken-is-"]


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.DEBUG)
    yield caplog
    records = caplog.get_records("call")
    assert any(record.name.startswith("gke_sandbox.") for record in records)
    for record in records:
        for secret in HIDDEN:
            assert secret not in f"{record.getMessage()} {record.exc_text}", record.name


@pytest.mark.parametrize("delivery", ["env", "mount", "attach"])
@mock_clock
async def test_the_log_at_debug_level_contains_no_program_and_no_input(
    everything: pytest.LogCaptureFixture, delivery: str
) -> None:
    script = WaitingRunner().script if delivery == "attach" else program(out("o0tput"), code=1)
    async with pods(script) as cluster:
        await cluster.sandbox.run(**SECRETS, delivery=delivery)  # type: ignore[arg-type]
    names = {record.name for record in everything.records}
    assert "gke_sandbox._run_log" in names


def test_the_log_at_debug_level_contains_no_token(everything: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with http_cluster() as served:
        path = Path(served.kubeconfig(tmp_path))
        path.write_text(path.read_text().replace('"user": {}', '"user": {"token": "t0ken-is-secret"}'))
        with Sandbox(Cluster.kubeconfig(path)) as sandbox:
            assert sandbox.run(**SECRETS).ok  # type: ignore[arg-type]
            with pytest.raises(SandboxError):
                sandbox.run("pass", labels={"a": "b"}, image="no image")
