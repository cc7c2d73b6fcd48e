"""`KubeClient.attach` against the embedded cluster: what one sends, the other one understands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from gke_sandbox.errors import BadRequest, Forbidden, NetworkError, NotFound, ServerError
from gke_sandbox.kube.attach import AttachConnection, is_not_running
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.local import Caller, ContainerExit, Fault, Rule, Script
from gke_sandbox.local.faults import CloseAttach, CutAttach, GarbleAttach, StallAttach
from gke_sandbox.local.runtimes.scripted import ScriptedProcess

from .attaching import start
from .kit import Kit, on_a_jumping_clock, on_both_loops, running


async def echo(process: ScriptedProcess) -> ContainerExit:
    while line := await process.readline():
        await process.write(line)
    await process.write_error(b"no more lines\n")
    return ContainerExit(3, "Error")


ECHO = Script(program=echo)


@asynccontextmanager
async def attached(kit: Kit, pod: str = "", container: str = "code-runner") -> AsyncIterator[AttachConnection]:
    config = ClusterConfig(server="https://embedded.invalid")
    name = pod or kit.pod()["metadata"]["name"]
    async with (
        KubeClient(config, transport=kit.cluster) as client,
        client.attach("default", name, container=container) as connection,
    ):
        yield connection


@on_both_loops
async def test_stdin_stdout_and_stderr_of_a_container() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        async with attached(kit) as connection:
            await connection.send(b"hello\n")
            assert await anext(connection) == b"hello\n"
            await connection.send(b"x" * 200_000 + b"\n")
            await connection.close_stdin()
            received = b"".join([chunk async for chunk in connection])
            assert received == b"x" * 200_000 + b"\n"
            assert bytes(connection.stderr) == b"no more lines\n"


@on_both_loops
async def test_the_refusals() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        with pytest.raises(NotFound):
            async with attached(kit, pod="nosuch"):
                pass
        with pytest.raises(BadRequest, match="container nosuch is not valid"):
            async with attached(kit, container="nosuch"):
                pass
        async with attached(kit) as connection:
            await connection.close_stdin()
            assert [chunk async for chunk in connection] == []
        with pytest.raises(ServerError) as raised:
            async with attached(kit):
                pass
        assert is_not_running(raised.value)


@on_both_loops
async def test_without_the_verb_create_the_hint_names_it() -> None:
    rules = [Rule(("*",), ("batch", ""), ("jobs", "pods")), Rule(("get",), ("",), ("pods/attach",))]
    async with running(ECHO, caller=Caller.service_account("default", "reader", rules)) as kit:
        await start(kit)
        with pytest.raises(Forbidden) as raised:
            async with attached(kit):
                pass
        assert "The verb create is missing." in raised.value.hint


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (CutAttach(after=3), "no complete response"),
        (CutAttach(after=3, clean=True), "it ended without a close frame"),
        (CutAttach(after=3, inside_frame=True), "no complete response"),
        (CloseAttach(after=3, code=1001, reason="restart"), "closed the connection with code 1001 (restart)"),
        (CloseAttach(after=3, code=1011), "with code 1011"),
        (GarbleAttach(after=3), "violated the protocol"),
        (StallAttach(after=3), "no response to a ping within 20 s"),
    ],
)
def test_each_fault_is_a_network_error_after_the_output(fault: Any, text: str) -> None:
    @on_a_jumping_clock
    async def check() -> None:
        async with running(ECHO, [Fault(fault)]) as kit:
            await start(kit)
            async with attached(kit) as connection:
                await connection.send(b"123456\n")
                received = b""
                with pytest.raises(NetworkError) as raised:
                    async for chunk in connection:
                        received += chunk
                assert text in raised.value.message
                assert received == b"123"

    check()


@on_a_jumping_clock
async def test_an_idle_connection_stays_open() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        async with attached(kit) as connection:
            with anyio.move_on_after(600):
                await anext(connection)
            await connection.send(b"late\n")
            assert await anext(connection) == b"late\n"
