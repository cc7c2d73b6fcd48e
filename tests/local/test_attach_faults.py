"""Faults of attached connections."""

from __future__ import annotations

from typing import Any

import anyio
import httpcore
import httpx
import pytest
from wsproto.events import BytesMessage, CloseConnection

from gke_sandbox.local import Fault, Match, Script, ScriptedProcess
from gke_sandbox.local.faults import (
    CloseAttach,
    CutAttach,
    Delay,
    DelayAttach,
    Drop,
    Forbid,
    GarbleAttach,
    Refuse,
    Respond,
    StallAttach,
)

from .attaching import WebSocket, attached, log_of, request_attach, start
from .kit import on_a_jumping_clock, on_both_loops, refusal, running

ATTACH = Match("get", "pods/attach")
OUTPUT = b"0123456789"


async def answer(process: ScriptedProcess) -> None:
    """Print ten bytes after each line of stdin."""
    while await process.readline():
        await process.write(OUTPUT)


ANSWER = Script(program=answer)


async def received(fault: Any) -> tuple[bytes, str]:
    """Send a line, and return the output that arrives and how the connection ends."""
    async with running(ANSWER, [Fault(fault)]) as kit:
        await start(kit)
        response = await request_attach(kit)
        websocket, output = WebSocket(response), b""
        try:
            await websocket.send(b"go\n")
            while True:
                event = await websocket.event()
                if isinstance(event, CloseConnection):
                    return output, str(int(event.code))
                assert isinstance(event, BytesMessage)
                output += event.data.removeprefix(b"\x01")
        except (httpcore.ReadError, httpcore.WriteError):
            return output, "cut"
        finally:
            await response.aclose()
            # Whatever happened to the connection, the program has seen the end of stdin.
            await kit.phase("Succeeded")


@pytest.mark.parametrize(
    ("fault", "output", "end"),
    [
        (CutAttach(), b"", "cut"),
        (CutAttach(after=3), OUTPUT[:3], "cut"),
        (CutAttach(after=3, inside_frame=True), OUTPUT[:3], "cut"),
        (CutAttach(after=10), OUTPUT, "cut"),
        (CutAttach(after=4, clean=True), OUTPUT[:4], "1006"),
        (CutAttach(direction="input"), b"", "cut"),
        (CutAttach(direction="input", after=3), b"", "cut"),
        (CloseAttach(), b"", "1001"),
        (CloseAttach(after=2, code=1011, reason="restarting"), OUTPUT[:2], "1011"),
        (GarbleAttach(after=5), OUTPUT[:5], "1002"),
    ],
)
@on_both_loops
async def test_a_connection_breaks_after_some_bytes(fault: Any, output: bytes, end: str) -> None:
    assert await received(fault) == (output, end)


@on_both_loops
async def test_a_cut_in_the_input_loses_the_rest_of_it() -> None:
    seen = b""

    async def program(process: ScriptedProcess) -> None:
        nonlocal seen
        seen = await process.read(100)

    async with running(Script(program=program), [Fault(CutAttach(direction="input", after=4))]) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            await websocket.send(b"12")
            await websocket.send(b"3456")
            with pytest.raises(httpcore.ReadError):
                await websocket.receive()
        await kit.phase("Succeeded")
        assert seen == b"1234"


@on_both_loops
async def test_the_log_has_what_a_cut_connection_loses() -> None:
    async with running(ANSWER, [Fault(CutAttach(after=3), ATTACH)]) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            await websocket.send(b"go\n")
            assert await websocket.output(3) == OUTPUT[:3]
            with pytest.raises(httpcore.ReadError):
                await websocket.receive()
        assert await log_of(kit) == OUTPUT


@on_a_jumping_clock
async def test_a_stalled_connection_sends_nothing_and_answers_no_ping() -> None:
    async with running(ANSWER, [Fault(StallAttach(after=6))]) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            await websocket.send(b"go\n")
            assert await websocket.output(6) == OUTPUT[:6]
            await websocket.send(b"go\n")
            with pytest.raises(httpcore.ReadTimeout):
                await websocket.stream.read(1, 60.0)
            with anyio.move_on_after(60.0) as limit:
                await websocket.ping(b"1")
            assert limit.cancelled_caught
        assert await log_of(kit) == OUTPUT


@on_a_jumping_clock
async def test_output_is_delayed() -> None:
    async with running(ANSWER, [Fault(DelayAttach(5.0, after=2))]) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            await websocket.send(b"go\n")
            before = anyio.current_time()
            assert await websocket.output(2) == OUTPUT[:2]
            assert anyio.current_time() == before
            assert await websocket.output(8) == OUTPUT[2:]
            assert anyio.current_time() == pytest.approx(before + 5.0)


@on_both_loops
async def test_several_faults_apply_in_the_order_of_their_bytes() -> None:
    faults = [Fault(CloseAttach(after=5)), Fault(DelayAttach(0.0, after=5)), Fault(DelayAttach(0.0, after=1))]
    async with running(ANSWER, faults) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            await websocket.send(b"go\n")
            assert await websocket.receive() == (1, OUTPUT[:1])
            assert await websocket.receive() == (1, OUTPUT[1:5])
            assert await websocket.closed() == (1001, "")
        assert [kit.cluster.faults.count(fault) for fault in faults] == [1, 1, 1]


@on_both_loops
async def test_an_attach_fault_without_a_match_is_not_used_up_by_other_requests() -> None:
    fault = Fault(CutAttach())
    async with running(ANSWER, [fault]) as kit:
        await start(kit)
        assert kit.cluster.faults.count(fault) == 0
        websocket = WebSocket(await request_attach(kit))
        with pytest.raises(httpcore.ReadError):
            await websocket.receive()
        assert kit.cluster.faults.count(fault) == 1


@on_both_loops
async def test_faults_of_requests_refuse_an_attach() -> None:
    faults = [
        Fault(Respond(403, "Forbidden", 'pods "x" is forbidden: '), ATTACH),
        Fault(Forbid(), ATTACH),
        Fault(Respond.unauthorized(), ATTACH),
    ]
    async with running(ANSWER) as kit:
        await start(kit)
        seen = []
        for fault in faults:
            kit.cluster.faults.add(fault)
            seen.append(refusal(await request_attach(kit))[:2])
        assert seen == [(403, "Forbidden"), (403, "Forbidden"), (401, "Unauthorized")]
        kit.cluster.faults.add(Fault(Refuse(), ATTACH))
        with pytest.raises(httpx.ConnectError):
            await request_attach(kit)
        async with attached(kit) as websocket:
            await websocket.send(b"go\n")
            assert await websocket.output(10) == OUTPUT


@pytest.mark.parametrize("fault", [Drop(), Respond.timed_out()])
@on_both_loops
async def test_a_lost_101_ends_stdin(fault: Any) -> None:
    async with running(ANSWER, [Fault(fault, ATTACH)]) as kit:
        await start(kit)
        if isinstance(fault, Drop):
            with pytest.raises(httpx.ReadError):
                await request_attach(kit)
        else:
            assert (await request_attach(kit)).status_code == 504
        await kit.phase("Succeeded")


@on_a_jumping_clock
async def test_a_handshake_that_times_out_leaves_the_container_alone() -> None:
    async with running(ANSWER, [Fault(Delay(5.0, at="response"), ATTACH)], timeout=httpx.Timeout(2.0)) as kit:
        await start(kit)
        with pytest.raises(httpx.ReadTimeout):
            await request_attach(kit)
        async with attached(kit) as websocket:
            await websocket.send(b"go\n")
            assert await websocket.output(10) == OUTPUT
