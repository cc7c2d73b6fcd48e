"""Attaching to a container over WebSocket; `test_attach_recordings` compares it with a real server."""

from __future__ import annotations

from functools import partial

import anyio
import httpcore
import httpx
import pytest
from wsproto.events import BytesMessage, CloseConnection

from gke_sandbox.local import Caller, ContainerExit, Fault, Match, Rule, Script, ScriptedProcess
from gke_sandbox.local.controllers.container_streams import DRAIN_TIMEOUT, MAX_UNSENT
from gke_sandbox.local.faults import NoNode, StopKubelet
from tests.local.attaching import (
    SUCCESS,
    UPGRADE,
    WebSocket,
    attach_path,
    attached,
    log_of,
    request_attach,
    start,
)
from tests.local.kit import JOBS, PODS, SLEEPS, Kit, job, on_a_jumping_clock, on_both_loops, refusal, running


async def echo(process: ScriptedProcess) -> ContainerExit:
    """Answer each line of stdin, then report its end."""
    while line := await process.readline():
        await process.write(b"got " + line)
    await process.write(b"end of stdin\n")
    return ContainerExit(0, "Completed")


ECHO = Script(program=echo)


@on_both_loops
async def test_the_handshake_selects_the_newest_protocol_and_proves_the_key() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        offered = {**UPGRADE, "sec-websocket-protocol": "v4.channel.k8s.io, v5.channel.k8s.io"}
        response = await request_attach(kit, headers=offered)
        assert response.status_code == 101
        # https://www.rfc-editor.org/rfc/rfc6455#section-1.3
        assert response.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert response.headers["sec-websocket-protocol"] == "v5.channel.k8s.io"
        assert response.headers["upgrade"] == "websocket"
        await response.aclose()


@on_both_loops
async def test_a_program_answers_requests_and_everything_is_also_in_the_log() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            await websocket.send(b"one\n")
            assert await websocket.output(8) == b"got one\n"
            await websocket.send(b"tw")
            await websocket.send(b"o\n")
            assert await websocket.output(8) == b"got two\n"
            await websocket.send(b"\0", channel=255)
            assert await websocket.rest() == (b"end of stdin\n", (1000, ""))
            assert await websocket.stream.read(1) == b""
        assert await log_of(kit) == b"got one\ngot two\nend of stdin\n"


@on_both_loops
async def test_output_from_before_the_attach_is_only_in_the_log() -> None:
    async def program(process: ScriptedProcess) -> None:
        await process.write(b"before\n")
        await process.readline()
        await process.write(b"after\n")

    async with running(Script(program=program)) as kit:
        await start(kit)
        async with kit.log(follow="true") as log:
            assert await anext(log.pieces) == b"before\n"
            async with attached(kit) as websocket:
                await websocket.send(b"go\n")
                assert await websocket.rest() == (b"after\n", (1000, ""))
            assert await log.all() == b"after\n"


@on_both_loops
async def test_stderr_has_its_own_channel_and_its_lines_are_whole_in_the_log() -> None:
    async def program(process: ScriptedProcess) -> None:
        await process.readline()
        await process.write(b"out ")
        await process.write_error(b"error\n")
        await process.readline()
        await process.write(b"put\n")

    async with running(Script(program=program)) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            await websocket.send(b"go\n")
            assert {await websocket.receive(), await websocket.receive()} == {(1, b"out "), (2, b"error\n")}
            await websocket.send(b"go\n")
            assert await websocket.rest() == (b"put\n", (1000, ""))
        assert await log_of(kit) == b"error\nout put\n"


@on_both_loops
async def test_only_the_requested_streams_are_attached() -> None:
    async def program(process: ScriptedProcess) -> None:
        await process.readline()
        await process.write(b"out\n")
        await process.write_error(b"error\n")

    async with running(Script(program=program)) as kit:
        await start(kit)
        errors = WebSocket(await request_attach(kit, stderr="true"))
        assert await errors.receive() == (2, b"")
        await errors.send(b"discarded\n")
        stdin = WebSocket(await request_attach(kit, stdin="1"))
        assert await stdin.receive() == (3, b"")
        await stdin.send(b"go\n")
        assert await stdin.receive() == (3, SUCCESS)
        assert await stdin.closed() == (1000, "")
        assert await errors.output(6, channel=2) == b"error\n"
        assert await errors.output() == b""


async def leave(websocket: WebSocket, how: str) -> None:
    if how == "close":
        await websocket.send_event(CloseConnection(1000))
        assert await websocket.closed() == (1000, "")
        assert await websocket.stream.read(1) == b""
    else:
        await websocket.cut()


@pytest.mark.parametrize("how", ["close", "cut"])
@on_both_loops
async def test_stdin_ends_with_the_first_connection_and_a_later_one_gets_the_rest(how: str) -> None:
    at_the_end = anyio.Event()
    go = anyio.Event()

    async def program(process: ScriptedProcess) -> None:
        assert await process.read(10) == b""
        at_the_end.set()
        await go.wait()
        await process.write(b"rest\n")

    async with running(Script(program=program)) as kit:
        await start(kit)
        async with attached(kit) as first:
            await leave(first, how)
        await at_the_end.wait()
        async with attached(kit) as second:
            await second.send(b"too late\n")
            go.set()
            assert await second.rest() == (b"rest\n", (1000, ""))


@on_both_loops
async def test_without_stdin_once_stdin_outlives_a_connection() -> None:
    async with running(ECHO) as kit:
        await start(kit, stdinOnce=False)
        async with attached(kit) as first:
            await first.send(b"first\n")
            await first.output(10)
            await first.send(b"\0", channel=255)
        async with attached(kit) as second:
            await second.send(b"second\n")
            assert await second.output(11) == b"got second\n"


@on_both_loops
async def test_input_for_a_container_without_stdin_is_discarded() -> None:
    async with running(SLEEPS) as kit:
        await start(kit, stdin=False)
        async with attached(kit) as websocket:
            await websocket.send(b"x" * 100_000)
            assert await websocket.ping(b"1") == b"1"


@on_both_loops
async def test_a_channel_cannot_be_closed_with_the_older_protocol() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        async with attached(kit, headers={**UPGRADE, "sec-websocket-protocol": "v4.channel.k8s.io"}) as websocket:
            await websocket.send(b"\0", channel=255)
            await websocket.send(b"open\n")
            assert await websocket.output(9) == b"got open\n"


@on_both_loops
async def test_each_frame_is_a_message_even_a_fragment() -> None:
    """As in golang.org/x/net/websocket, on which the kubelet's server is built."""
    async with running(ECHO) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            await websocket.send_event(BytesMessage(b"\0on", message_finished=False))
            await websocket.send_event(BytesMessage(b"\0e\n"))
            assert await websocket.output(8) == b"got one\n"


@on_both_loops
async def test_two_connections_get_the_same_output_and_share_stdin() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        async with attached(kit) as first, attached(kit) as second:
            await first.send(b"one\n")
            assert await first.output(8) == await second.output(8) == b"got one\n"
            await second.send(b"two\n")
            assert await first.output(8) == await second.output(8) == b"got two\n"
            await second.cut()
            assert await first.rest() == (b"end of stdin\n", (1000, ""))


@on_both_loops
async def test_pings_are_answered() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            assert await websocket.ping(b"abc") == b"abc"


@on_both_loops
async def test_bytes_that_are_not_a_frame_are_a_protocol_error() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            await websocket.stream.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await websocket.closed())[0] == 1002
        assert await log_of(kit) == b"end of stdin\n"


@pytest.mark.parametrize("deleted", ["pods", "jobs"])
@on_both_loops
async def test_a_deleted_pod_ends_the_connection_with_success(deleted: str) -> None:
    async with running(ECHO) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            path = f"{PODS}/{kit.pod()['metadata']['name']}" if deleted == "pods" else f"{JOBS}/job"
            await kit.delete(path)
            assert await websocket.rest() == (b"", (1000, ""))


@on_both_loops
async def test_a_large_request_and_a_large_answer_arrive_whole() -> None:
    size = 3 << 20

    async def program(process: ScriptedProcess) -> None:
        body = await process.read(size)
        await process.write(body[::-1])

    async with running(Script(program=program)) as kit:
        await start(kit)
        async with attached(kit) as websocket, anyio.create_task_group() as tasks:
            pattern = bytes(range(256)) * (1 << 8)
            for _ in range(size // len(pattern)):
                await websocket.send(pattern)
            output, close = await websocket.rest()
            assert output == pattern[::-1] * (size // len(pattern))
            assert close == (1000, "")
            tasks.cancel_scope.cancel()


@on_a_jumping_clock
async def test_a_connection_that_does_not_read_slows_the_container_down() -> None:
    done = anyio.Event()

    async def program(process: ScriptedProcess) -> None:
        await process.readline()
        for _ in range(64):
            await process.write(b"x" * (1 << 16))
        done.set()

    async with running(Script(program=program)) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            await websocket.send(b"go\n")
            await anyio.sleep(60)
            assert not done.is_set()
            output, close = await websocket.rest()
            assert (len(output), close) == (64 << 16, (1000, ""))


@on_a_jumping_clock
async def test_a_connection_that_does_not_read_stdout_does_not_slow_stderr_down() -> None:
    written = anyio.Event()

    async def program(process: ScriptedProcess) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.write, b"x" * (2 * MAX_UNSENT))
            await anyio.sleep(10)
            await process.write_error(b"x" * MAX_UNSENT)
            written.set()

    async with running(Script(program=program)) as kit:
        await start(kit)
        response = await request_attach(kit, stdin="true", stdout="true")
        await anyio.sleep(20)
        assert written.is_set()
        await response.aclose()
        assert len(await log_of(kit)) == 3 * MAX_UNSENT


@on_a_jumping_clock
async def test_output_that_is_not_read_ten_seconds_after_the_end_is_dropped_but_stays_in_the_log() -> None:
    chunk = b"x" * 999 + b"\n"
    size = 4 * MAX_UNSENT // len(chunk)
    script = Script(chunks=[(1.0, chunk * 100) for _ in range(size // 100)], ends_at=1.0)
    for wait, complete in ((DRAIN_TIMEOUT - 1, True), (DRAIN_TIMEOUT + 1, False)):
        async with running(script) as kit:
            await start(kit)
            async with attached(kit) as websocket:
                await anyio.sleep(1 + wait)
                output, close = await websocket.rest()
                assert close == (1000, "")
                total = size // 100 * 100 * len(chunk)
                assert (len(output) == total) is complete
                assert MAX_UNSENT <= len(output) <= total
            assert len(await log_of(kit)) == total


@on_a_jumping_clock
async def test_a_restarting_kubelet_breaks_the_connection_and_refuses_new_ones() -> None:
    async def program(process: ScriptedProcess) -> None:
        await process.read(1)
        await process.write(b"stdin ended\n")
        await anyio.sleep_forever()

    stop = Fault(StopKubelet(after=1.0, seconds=4.0, starting=2.0))
    async with running(Script(program=program), [stop]) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            with pytest.raises(httpcore.ReadError):
                await websocket.receive()
        refused = await request_attach(kit)
        assert (refused.status_code, refused.json().get("reason")) == (500, None)
        why = "error dialing backend: dial tcp 192.0.2.2:10250: connect: connection refused"
        assert refused.json()["message"] == why
        await anyio.sleep(5)
        response = await request_attach(kit)
        assert (response.status_code, response.text) == (404, "404 page not found\n")
        await anyio.sleep(2)
        async with attached(kit), kit.log(follow="true") as log:
            assert await anext(log.pieces) == b"stdin ended\n"


@on_both_loops
async def test_closing_the_cluster_breaks_the_connections() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        websocket = WebSocket(await request_attach(kit))
    with pytest.raises(httpcore.ReadError):
        await websocket.receive()
    with pytest.raises(httpcore.WriteError):
        await websocket.send(b"x")


@on_both_loops
async def test_a_closed_stream_can_neither_be_read_nor_written() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            await websocket.cut()
            with pytest.raises(httpcore.ReadError):
                await websocket.stream.read(1)
            with pytest.raises(httpcore.WriteError):
                await websocket.stream.write(b"x")
            assert websocket.stream.get_extra_info("socket") is None


@on_a_jumping_clock
async def test_reads_and_writes_keep_their_timeouts() -> None:
    async def never(process: ScriptedProcess) -> None:
        await anyio.sleep_forever()

    async with running(Script(program=never)) as kit:
        await start(kit)
        async with attached(kit) as websocket:
            with pytest.raises(httpcore.ReadTimeout):
                await websocket.stream.read(1, 3.0)
            await websocket.send(b"x" * (1 << 20))
            with pytest.raises(httpcore.WriteTimeout):
                await websocket.stream.write(b"x" * (1 << 20), 3.0)


ATTACH = Rule(("get",), ("",), ("pods/attach",))
EVERYTHING_ELSE = Rule(("*",), ("batch", ""), ("jobs", "pods", "pods/log"))


@on_both_loops
async def test_attaching_needs_get_and_create() -> None:
    caller = partial(Caller.service_account, "default", "runner")
    for rules, why in (
        ([], 'User "system:serviceaccount:default:runner" cannot get resource "pods/attach" in API group "" in'),
        ([ATTACH], ""),
    ):
        async with running(ECHO, caller=caller([EVERYTHING_ELSE, *rules])) as kit:
            await start(kit)
            code, reason, message = refusal(await request_attach(kit))
            assert (code, reason) == (403, "Forbidden")
            assert message.startswith(f'pods "{kit.pod()["metadata"]["name"]}" is forbidden: {why}')
            assert bool(why) is not message.endswith(": ")


@on_both_loops
async def test_requests_that_are_not_an_upgrade_are_refused() -> None:
    async with running(ECHO) as kit:
        await start(kit)
        for missing in ("connection", "upgrade", "sec-websocket-key", "sec-websocket-version"):
            headers = {name: value for name, value in UPGRADE.items() if name != missing}
            if missing == "connection":
                headers["connection"] = "keep-alive"
            refused = await request_attach(kit, headers=headers)
            assert refusal(refused) == (400, "BadRequest", "Upgrade request required"), missing
        path = attach_path(kit.pod()["metadata"]["name"])
        refused = await kit.client.post(path, headers=UPGRADE)
        assert refusal(refused) == (400, "BadRequest", "Upgrade request required")


async def refused_text(kit: Kit, **options: str) -> tuple[int, str, str | None]:
    response: httpx.Response = await request_attach(kit, **options)
    return response.status_code, response.text, response.headers.get("content-type")


@on_both_loops
async def test_a_container_that_does_not_run_cannot_be_attached() -> None:
    async with running(ECHO, [Fault(NoNode(), Match(resource="pods"))]) as kit:
        await kit.create(JOBS, job())
        await kit.until(kit.pods)
        name = kit.pod()["metadata"]["name"]
        message = f"pod {name} does not have a host assigned"
        assert refusal(await request_attach(kit)) == (400, "BadRequest", message)
    async with running(Script(ends_at=0.0)) as kit:
        await kit.create(JOBS, job())
        await kit.phase("Succeeded")
        name = kit.pod()["metadata"]["name"]
        text = f"container code-runner not found in pod {name}_default"
        assert await refused_text(kit) == (500, text, "text/plain; charset=utf-8")
