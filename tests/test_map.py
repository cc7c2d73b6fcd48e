"""Sandbox.map: several programs, with limited concurrency."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from gke_sandbox import AsyncSandbox, Cluster, ExecutionResult, Program, Sandbox, SpecError
from gke_sandbox.errors import Forbidden
from gke_sandbox.local.faults import Fault, Match, Respond

from .pods import INSTANT, out, pods, program

pytestmark = pytest.mark.anyio

LOCAL = Cluster.local("process")


async def test_map_runs_sources_and_programs_in_order() -> None:
    code = "import sys; print(input(), sys.argv[1:])"
    programs = [code, Program(code=code, args=["own"], stdin="typed"), code.encode()]
    async with AsyncSandbox(LOCAL) as sandbox:
        with pytest.raises(SpecError, match=r"programs\[1\].stdin: cannot be combined with a Program"):
            await sandbox.map(programs, stdin="same")
        results = await sandbox.map([programs[0], programs[2]], stdin="same", args=["a"])
        results += await sandbox.map(programs[1:2])
    assert [result.stdout for result in results] == ["same ['a']\n", "same ['a']\n", "typed ['own']\n"]


@pytest.mark.parametrize(
    "programs", ["print(1)", b"print(1)", Program(code="print(1)"), {"code": "print(1)"}, 5, None]
)
async def test_map_refuses_anything_but_a_list_of_programs(programs: Any) -> None:
    async with pods(program()) as cluster:
        with pytest.raises(SpecError, match="programs: must be a list of programs") as caught:
            await cluster.sandbox.map(programs)
        assert caught.value.hint == "Use run() for a single program."


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "3", True])
async def test_max_concurrency_is_a_positive_integer(wrong: Any) -> None:
    async with pods(program()) as cluster:
        with pytest.raises(SpecError, match="max_concurrency: must be"):
            await cluster.sandbox.map([], max_concurrency=wrong)


async def test_map_checks_every_program_before_it_starts_one() -> None:
    async with pods(program()) as cluster:
        with pytest.raises(SpecError, match=r"programs\[1\].code: must be text or bytes, got 5"):
            await cluster.sandbox.map(["pass", 5], return_exceptions=True)  # type: ignore[list-item]
        assert cluster.requests == []


def fail_second_job() -> Fault:
    return Fault(Respond(403, "Forbidden", "a policy refuses it"), Match("create", "jobs"), skip=1)


async def test_the_first_error_of_map_contains_the_results_so_far() -> None:
    async with pods(program(out("done")), fail_second_job(), pace=INSTANT) as cluster:
        with pytest.raises(Forbidden) as caught:
            await cluster.sandbox.map(["a", "b", "c"], max_concurrency=1)
    first, *others = caught.value.results
    assert first.stdout == "done"
    assert others == [None, None]


async def test_map_returns_errors_in_place_if_asked_to() -> None:
    async with pods(program(out("done")), fail_second_job(), pace=INSTANT) as cluster:
        results = await cluster.sandbox.map(["a", "b", "c"], max_concurrency=1, return_exceptions=True)
    first, second, third = results
    assert isinstance(second, Forbidden)
    assert [each.stdout for each in (first, third) if isinstance(each, ExecutionResult)] == ["done", "done"]


def test_both_sandboxes_have_the_same_public_attributes() -> None:
    def public(sandbox: object) -> set[str]:
        return {name for name in dir(sandbox) if not name.startswith("_")}

    synchronous = Sandbox(LOCAL)
    names = {"aopen": "open", "aclose": "close"}
    assert {names.get(name, name) for name in public(AsyncSandbox(LOCAL))} == public(synchronous)
    for name in ("run", "map", "stream", "check", "__init__"):
        ours, theirs = (inspect.signature(getattr(cls, name)) for cls in (Sandbox, AsyncSandbox))
        assert ours.parameters == theirs.parameters
