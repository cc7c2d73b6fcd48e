"""`KubeClient.attach` with the embedded cluster, with and without faults."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from gke_sandbox.errors import ApiError, BadRequest, Forbidden, NetworkError, NotFound, ServerError, Unauthorized
from gke_sandbox.kube.attach import PING_INTERVAL, PONG_TIMEOUT, AttachConnection
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.local import Fault, LocalTransport, Match, Script, ScriptedProcess
from gke_sandbox.local.faults import (
    Action,
    BadImage,
    CloseAttach,
    CutAttach,
    DelayAttach,
    Drop,
    Forbid,
    GarbleAttach,
    NoNode,
    Refuse,
    Respond,
    StallAttach,
)

from .attaching import start
from .kit import JOBS, Kit, job, on_a_jumping_clock, on_both_loops, running

REQUEST = b"x" * 100_000
FRAME = b"\x1eout 3\nabc\n"


async def serve(process: ScriptedProcess) -> None:
    """Read one request; answer with a frame and wait for the end of stdin, or leave without a request."""
    if await process.read(len(REQUEST)) == REQUEST:
        await process.write(FRAME)
        await process.read(1)


SERVE = Script(program=serve)


@asynccontextmanager
async def client_of(cluster: LocalTransport) -> AsyncIterator[KubeClient]:
    async with KubeClient(ClusterConfig(server="https://embedded.invalid"), transport=cluster) as client:
        yield client


@asynccontextmanager
async def connected(kit: Kit, pod: str = "", container: str = "code-runner") -> AsyncIterator[AttachConnection]:
    pod = pod or kit.pod()["metadata"]["name"]
    async with (
        client_of(kit.cluster) as client,
        client.attach("default", pod, container=container) as connection,
    ):
        yield connection


async def exchange(connection: AttachConnection) -> bytes:
    """Send the request, and return the output to the end."""
    await connection.send(REQUEST)
    output = b""
    async for chunk in connection:
        output += chunk
        if output == FRAME:
            await connection.close_stdin()
    return output


@on_both_loops
async def test_a_request_is_answered_and_the_container_ends() -> None:
    async with running(SERVE) as kit:
        await start(kit)
        async with connected(kit) as connection:
            assert await exchange(connection) == FRAME
        await kit.phase("Succeeded")


@on_both_loops
async def test_leaving_without_a_request_ends_the_container() -> None:
    async with running(SERVE) as kit:
        await start(kit)
        async with connected(kit):
            pass
        await kit.phase("Succeeded")


@on_a_jumping_clock
async def test_an_idle_connection_stays_open() -> None:
    async with running(SERVE) as kit:
        await start(kit)
        async with connected(kit) as connection, anyio.create_task_group() as tasks:

            async def idle() -> None:
                async for chunk in connection:
                    assert chunk == FRAME
                    break

            tasks.start_soon(idle)
            await anyio.sleep(10 * PING_INTERVAL)
            await connection.send(REQUEST)


@pytest.mark.parametrize(
    ("fault", "refused"),
    [
        (Respond(403, "Forbidden", 'pods "x" is forbidden: '), Forbidden),
        (Forbid(), Forbidden),
        (Respond.unauthorized(), Unauthorized),
        (Respond.internal_error(), ServerError),
        (Respond.bad_gateway(), ServerError),
        (Respond.timed_out(), ServerError),
        (Refuse(), NetworkError),
        (Drop(), NetworkError),
        (Drop(carried_out=False), NetworkError),
    ],
    ids=str,
)
@on_both_loops
async def test_a_refused_attach_is_an_error(fault: Action, refused: type[Exception]) -> None:
    async with running(SERVE, [Fault(fault, Match("get", "pods/attach"))]) as kit:
        await start(kit)
        with pytest.raises(refused):
            async with connected(kit):
                raise AssertionError("it was not refused")


@on_both_loops
async def test_a_container_that_does_not_exist_or_run_is_an_error() -> None:
    async with running(SERVE) as kit:
        await start(kit)
        with pytest.raises(NotFound):
            await connected(kit, pod="other").__aenter__()
        with pytest.raises(BadRequest, match="container other is not valid for pod"):
            await connected(kit, container="other").__aenter__()
    for script, faults in (
        (SERVE, [Fault(NoNode())]),
        (SERVE, [Fault(BadImage(), times=None)]),
        (Script(ends_at=0.0), []),
    ):
        async with running(script, faults) as kit:
            await kit.create(JOBS, job())
            await kit.until(kit.pods)
            if not faults:
                await kit.phase("Succeeded")
            with pytest.raises(ApiError) as caught:
                await connected(kit).__aenter__()
            assert re.search(" not found in pod | does not have a host assigned", caught.value.message)


BROKEN: list[tuple[Action, bytes]] = [
    (CutAttach(), b""),
    (CutAttach(after=4), FRAME[:4]),
    (CutAttach(after=4, inside_frame=True), FRAME[:4]),
    (CutAttach(after=4, clean=True), FRAME[:4]),
    (CutAttach(after=len(FRAME)), FRAME),
    (CutAttach(after=1, direction="input"), b""),
    (CloseAttach(after=4), FRAME[:4]),
    (CloseAttach(after=4, code=1011, reason="internal error"), FRAME[:4]),
    (GarbleAttach(after=4), FRAME[:4]),
    (StallAttach(after=4), FRAME[:4]),
]


@pytest.mark.parametrize(("fault", "expected"), BROKEN, ids=str)
def test_a_broken_connection_is_a_network_error_after_what_arrived(fault: Action, expected: bytes) -> None:
    @on_a_jumping_clock
    async def main() -> None:
        async with running(SERVE, [Fault(fault)]) as kit:
            await start(kit)
            output, began = b"", anyio.current_time()
            with pytest.raises(NetworkError):
                async with connected(kit) as connection:
                    await connection.send(REQUEST)
                    async for chunk in connection:
                        output += chunk
            assert output == expected
            assert anyio.current_time() - began <= PING_INTERVAL + PONG_TIMEOUT
            # The container is not left waiting.
            await kit.phase("Succeeded")

    main()


@on_a_jumping_clock
async def test_delayed_output_is_complete() -> None:
    async with running(SERVE, [Fault(DelayAttach(5.0, after=4))]) as kit:
        await start(kit)
        async with connected(kit) as connection:
            assert await exchange(connection) == FRAME


@on_a_jumping_clock
async def test_a_client_that_is_cancelled_at_any_time_leaves_no_waiting_container() -> None:
    steps, complete = 0, False

    async def attempt(kit: Kit) -> None:
        nonlocal complete
        async with connected(kit) as connection:
            complete = await exchange(connection) == FRAME

    while not complete:
        steps += 1
        async with running(SERVE) as kit:
            await start(kit)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(attempt, kit)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            with anyio.move_on_after(5.0) as limit:
                await kit.phase("Succeeded")
            if limit.cancelled_caught:
                # It was cancelled before the server attached it.
                async with connected(kit) as connection:
                    assert await exchange(connection) == FRAME
    assert steps > 20
