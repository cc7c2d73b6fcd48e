"""Attach, against a server in memory that sends recorded, hand-written and invalid frames."""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import httpcore
import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from wsproto.events import CloseConnection, Ping, Pong

from gke_sandbox.errors import (
    ApiError,
    BadRequest,
    ConfigError,
    Forbidden,
    NetworkError,
    NotFound,
    ServerError,
    Unauthorized,
)
from gke_sandbox.kube.attach import AttachConnection
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.resources import PODS

from ..clock import mock_clock, run_on_mock_clock
from .recordings import recorded_errors
from .websockets import (
    CLOSE,
    RECORDED,
    AttachServer,
    AttachStream,
    Piece,
    fragments,
    frames,
    message,
    raw_frame,
    recorded_attaches,
)

pytestmark = pytest.mark.anyio

CONFIG = ClusterConfig(server="https://cluster:6443")
SCENARIOS = sorted(path.stem.removeprefix("attach-") for path in RECORDED.glob("attach-*.json"))
SESSIONS = [
    (scenario, number)
    for scenario in SCENARIOS
    for number, attach in enumerate(recorded_attaches(scenario))
    if attach.status == 101
]
REFUSALS = {attach.note: attach for attach in recorded_attaches("refused") if attach.status != 101}


@asynccontextmanager
async def attached(server: AttachServer | AttachStream) -> AsyncIterator[AttachConnection]:
    if isinstance(server, AttachStream):
        server = AttachServer(server)
    async with (
        KubeClient(CONFIG, transport=server) as client,
        client.attach("ns", "p", container="code-runner") as connection,
    ):
        yield connection


async def read(*pieces: Piece) -> tuple[bytes, str]:
    """Return the bytes of stdout until the end, and the error, if any."""
    received = b""
    try:
        async with attached(AttachStream(pieces)) as connection:
            async for chunk in connection:
                assert chunk
                received += chunk
    except NetworkError as error:
        return received, error.message if error.sent else "it was not sent"
    return received, ""


# Recordings


@pytest.mark.parametrize(("scenario", "number"), SESSIONS, ids=[f"{scenario}-{n}" for scenario, n in SESSIONS])
def test_a_recorded_session_yields_all_of_stdout(scenario: str, number: int) -> None:
    recorded = recorded_attaches(scenario)[number]
    stream = AttachStream(recorded.pieces)

    async def main() -> None:
        async with attached(stream) as connection:
            if stdin := recorded.data(0, "client"):
                await connection.send(stdin)
            if recorded.data(255, "client"):
                await connection.close_stdin()
            received = b""
            try:
                async for chunk in connection:
                    received += chunk
                cut = False
            except NetworkError as error:
                cut = "ended without a close frame" in error.message
            assert received == recorded.data(1)
            assert cut == recorded.cut_by_client

    run_on_mock_clock(main)
    assert stream.stdin == recorded.data(0, "client")
    assert (b"\xff\0" in stream.messages) == bool(recorded.data(255, "client"))
    assert stream.close_code == (None if recorded.cut_by_client else 1000)


def test_the_recordings_contain_every_end_of_a_connection() -> None:
    ends = {recorded_attaches(scenario)[number].frames[-1][3] for scenario, number in SESSIONS}
    assert {1000, 1006} <= ends


async def test_the_request_is_that_of_the_recordings() -> None:
    recorded = recorded_attaches("success")[0]
    server = AttachServer(AttachStream())
    async with attached(server):
        request = server.requests[0]
        assert request.method == "GET"
        assert request.url.path == "/api/v1/namespaces/ns/pods/p/attach"
        assert dict(request.url.params) == recorded.query
        assert request.headers["sec-websocket-protocol"] == recorded.protocols
        assert request.headers["connection"] == "Upgrade"
        assert server.open_responses == 1
    assert server.open_responses == 0


# Refusals


async def refusal(*responses: tuple[int, dict[str, str], bytes]) -> ApiError:
    server = AttachServer(*responses)
    with pytest.raises(ApiError) as raised:
        async with attached(server):
            raise AssertionError("it is not attached")
    assert server.open_responses == 0
    return raised.value


@pytest.mark.parametrize(
    ("note", "kind", "text", "hint"),
    [
        ("as a service account without rights", Forbidden, "cannot get resource", 'verbs: ["get", "create"]'),
        ("with get on pods/attach, without create", Forbidden, "is forbidden:", "The verb create is missing."),
        ("with a wrong token", Unauthorized, "Unauthorized", "Log in again"),
        ("no such pod", NotFound, '"nosuch" not found', ""),
        ("no such container", BadRequest, "container nosuch is not valid", ""),
        ("no stream asked for", BadRequest, "at least 1 of stdin, stdout, stderr", ""),
        ("an unknown subprotocol", Forbidden, "not a Kubernetes Status but empty", "Kubernetes 1.30 or newer"),
        ("a plain GET without upgrade", BadRequest, "Upgrade request required", "a proxy"),
    ],
)
async def test_a_recorded_refusal_has_its_error_and_hint(
    note: str, kind: type[ApiError], text: str, hint: str
) -> None:
    recorded = REFUSALS[note]
    error = await refusal((recorded.status, recorded.headers, recorded.body.encode()))
    assert type(error) is kind
    assert text in error.message
    assert hint in error.hint
    assert 'resources: ["pods/attach"]' in error.hint or "verb" not in hint
    assert "does not run" not in error.hint


def test_every_recorded_refusal_is_tested() -> None:
    assert len(REFUSALS) == 8


@pytest.mark.parametrize(
    ("scenario", "number", "kind", "text", "hint"),
    [
        ("not-running", 0, ServerError, " not found in pod ", "The container does not run"),
        ("terminated", 1, ServerError, " not found in pod ", "The container does not run"),
        ("without-a-node", 0, BadRequest, "does not have a host assigned", ""),
    ],
)
async def test_a_container_that_does_not_run_is_recognized(
    scenario: str, number: int, kind: type[ApiError], text: str, hint: str
) -> None:
    recorded = recorded_attaches(scenario)[number]
    error = await refusal((recorded.status, recorded.headers, recorded.body.encode()))
    assert type(error) is kind
    assert text in error.message
    assert hint in error.hint


async def test_another_server_error_does_not_mean_that_the_container_does_not_run() -> None:
    text = b"error dialing backend: dial tcp 10.0.0.1:10250: connect: connection refused"
    error = await refusal((500, {}, text))
    assert type(error) is ServerError
    assert "does not run" not in error.hint


async def test_a_403_is_retryable_after_an_attach_that_was_allowed() -> None:
    recorded = REFUSALS["with get on pods/attach, without create"]
    forbidden = (recorded.status, recorded.headers, recorded.body.encode())
    assert not (await refusal(forbidden)).retryable
    server = AttachServer(AttachStream(), forbidden)
    async with KubeClient(CONFIG, transport=server) as client:
        async with client.attach("ns", "p", container="c"):
            pass
        with pytest.raises(Forbidden) as raised:
            async with client.attach("ns", "p2", container="c"):
                raise AssertionError("it is not attached")
    assert raised.value.retryable


async def test_a_cut_connection_counts_as_an_outage_of_the_server() -> None:
    recorded = recorded_errors("forbidden")[0]
    server = AttachServer(AttachStream([b""]), (recorded.status, {}, recorded.body))
    async with KubeClient(CONFIG, transport=server) as client:
        async with client.attach("ns", "p", container="c") as connection:
            with pytest.raises(NetworkError):
                await anext(connection)
        with pytest.raises(Forbidden) as raised:
            await client.get(PODS, "ns", "p")
    assert raised.value.retryable


async def test_a_connection_that_fails_before_the_response_is_a_network_error() -> None:
    for failure, sent in ((httpx.ConnectError("refused"), False), (httpx.ReadError("reset"), True)):
        with pytest.raises(NetworkError) as raised:
            async with attached(AttachServer(failure)):
                raise AssertionError("it is not attached")
        assert raised.value.sent is sent


async def test_a_response_that_ignores_the_upgrade_is_a_server_error() -> None:
    error = await refusal((200, {}, b"<html>welcome</html>"))
    assert isinstance(error, ServerError)
    assert "it is not a WebSocket" in error.message
    assert "proxy" in error.hint


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Sec_WebSocket_Accept": "bm9uc2Vuc2U="}, "Sec-WebSocket-Accept does not match"),
        ({"Sec_WebSocket_Protocol": ""}, "its subprotocol must be v5.channel.k8s.io, got ''"),
        ({"Sec_WebSocket_Protocol": "v4.channel.k8s.io"}, "got 'v4.channel.k8s.io'"),
    ],
)
async def test_an_upgrade_that_was_not_requested_is_a_server_error(headers: dict[str, str], text: str) -> None:
    server = AttachServer(AttachStream(), **headers)
    with pytest.raises(ServerError, match=r"cannot read the response") as raised:
        async with attached(server):
            raise AssertionError("it is not attached")
    assert text in raised.value.message
    assert server.open_responses == 0


class Renewable(httpx.Auth):
    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = "Bearer old"
        response = yield request
        if response.status_code == 401:
            request.headers["Authorization"] = "Bearer new"
            yield request


async def test_after_a_401_the_credentials_are_renewed() -> None:
    server = AttachServer((401, {}, b""), AttachStream([message(1, b"hi"), CLOSE]))
    async with (
        KubeClient(ClusterConfig(server="https://cluster", auth=Renewable()), transport=server) as client,
        client.attach("ns", "p", container="c") as connection,
    ):
        assert [chunk async for chunk in connection] == [b"hi"]
    assert server.credentials == ["Bearer old", "Bearer new"]
    assert server.open_responses == 0


async def test_without_the_package_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wsproto.connection", None)
    server = AttachServer()
    with pytest.raises(ConfigError, match="requires the package wsproto") as raised:
        async with attached(server):
            raise AssertionError("it is not attached")
    assert "pip install 'gke-sandbox[warm]'" in raised.value.hint
    assert server.requests == []


# Messages


async def test_empty_messages_are_skipped() -> None:
    empty = [message(1), raw_frame(2, b""), message(2), fragments(b"\1"), fragments(b"", 0, 0)]
    assert await read(*empty, message(1, b"a"), *empty, message(1, b"b"), CLOSE) == (b"ab", "")


async def test_messages_are_read_wherever_the_network_splits_them() -> None:
    sent = message(1) + message(1, b"one") + message(2, b"err") + fragments(b"\1two", 0, 1, 2)
    sent += message(3, b'{"status":"Success"}') + message(1, b"x" * 200) + CLOSE
    expected = (b"onetwo" + b"x" * 200, "")
    for at in range(1, len(sent)):
        assert await read(sent[:at], sent[at:]) == expected
    assert await read(*(bytes([byte]) for byte in sent)) == expected


@pytest.mark.parametrize("between", [b"", frames(Ping(b"p")), frames(Pong(b"q"))], ids=["", "ping", "pong"])
async def test_messages_are_read_wherever_the_server_fragments_them(between: bytes) -> None:
    payload = b"\1\xff\0\1hello\2\3\n"
    for first in range(len(payload) + 1):
        for second in range(len(payload) + 1 - first):
            sent = fragments(payload, first, second, between=between)
            assert await read(sent, CLOSE) == (payload[1:], ""), (first, second)


async def test_the_messages_of_one_read_are_one_chunk() -> None:
    async with attached(
        AttachStream([message(1, b"a") + message(2, b"e") + message(1, b"b"), CLOSE])
    ) as connection:
        assert [chunk async for chunk in connection] == [b"ab"]


async def test_a_large_message_is_yielded_while_it_arrives() -> None:
    size = 8 << 20
    stream = AttachStream([raw_frame(2, b"\1" + b"x" * size), CLOSE])
    received = 0
    async with attached(stream) as connection:
        async for chunk in connection:
            assert len(chunk) <= 1 << 16
            received += len(chunk)
            # Nothing was read ahead, except for the header.
            assert stream.bytes_read - received <= 11 + 4
    assert received == size


async def test_nothing_is_read_while_the_reader_is_busy() -> None:
    stream = AttachStream([message(1, b"x" * 60_000)] * 100)
    async with attached(stream) as connection:
        await anext(connection)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert len(stream.reads) == 1


async def test_stderr_is_ignored() -> None:
    pieces = [message(2, b"first\n"), message(1, b"out"), message(2, b"\nlast\n"), CLOSE]
    async with attached(AttachStream(pieces)) as connection:
        assert [chunk async for chunk in connection] == [b"out"]


async def test_the_status_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gke_sandbox")
    failure = b'{"status":"Failure","message":"' + b"z" * 5000
    assert await read(fragments(b"\3" + failure, 5), message(1, b"a"), CLOSE) == (b"a", "")
    logged = [record.getMessage() for record in caplog.records if " status " in record.getMessage()]
    assert len(logged) == 1
    assert '{"status":"Failure"' in logged[0]
    assert len(logged[0]) < 1200


async def test_a_closed_channel_of_the_server_is_not_an_error() -> None:
    assert await read(message(1, b"a"), message(255, b"\1"), CLOSE) == (b"a", "")


# Ends


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (frames(CloseConnection(1001, "bye")), "the server closed the connection with code 1001 (bye)"),
        (frames(CloseConnection(1011, "")), "the server closed the connection with code 1011"),
        (frames(CloseConnection(4000)), "with code 4000"),
        (raw_frame(8, b""), "with code 1005"),
        (raw_frame(8, b"\3"), "violated the protocol: CLOSE with 1 byte payload"),
        (raw_frame(8, b"\0\1"), "violated the protocol: CLOSE with invalid code"),
        (raw_frame(8, b"\3\xe8\xff"), "violated the protocol: Error decoding CLOSE reason"),
        (raw_frame(1, b"text"), "violated the protocol: a text message"),
        (message(0, b"a"), "violated the protocol: a message on channel 0"),
        (message(7), "violated the protocol: a message on channel 7"),
        (raw_frame(0, b"\1a"), "violated the protocol: unexpected CONTINUATION"),
        (raw_frame(3, b"\1a"), "violated the protocol: Invalid opcode"),
        (raw_frame(9, b"p", final=False), "violated the protocol"),
        (raw_frame(9, b"p" * 126), "violated the protocol"),
        (b"\xc2\x01\x01", "violated the protocol: Reserved bit"),
        (b"\x82\x81\0\0\0\0\1", "violated the protocol: client received unexpected masked frame"),
        (b"\x82\x7f" + b"\xff" * 8, "violated the protocol"),
        (raw_frame(2, b"\1", final=False) + CLOSE, "in the middle of a message"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "violated the protocol"),
        (b"", "the connection was cut: it ended without a close frame"),
    ],
)
async def test_any_other_end_is_a_network_error_after_the_output(frame: bytes, text: str) -> None:
    received, error = await read(message(1, b"out"), frame)
    assert received == b"out"
    assert text in error
    assert error.startswith(
        "GET /api/v1/namespaces/ns/pods/p/attach: no complete response from https://cluster:6443"
    )
    if frame:
        assert await read(message(1, b"out") + frame) == (received, error)


async def test_a_connection_cut_at_any_byte_yields_what_arrived() -> None:
    sent = message(1) + message(1, b"one\n") + fragments(b"\1two\n", 2) + message(3, b"{}") + CLOSE
    for at in range(len(sent)):
        received, error = await read(*([sent[:at]] if at else []), b"")
        assert b"one\ntwo\n".startswith(received)
        assert "the connection was cut" in error
    assert await read(sent) == (b"one\ntwo\n", "")


@pytest.mark.parametrize(
    "failure", [httpcore.ReadError("reset"), anyio.BrokenResourceError(), anyio.EndOfStream(), ssl.SSLError("bad")]
)
async def test_a_reset_connection_is_a_network_error_again_and_again(failure: Exception) -> None:
    async with attached(AttachStream([message(1, b"a"), failure])) as connection:
        assert await anext(connection) == b"a"
        for _ in range(3):
            with pytest.raises(NetworkError, match="no complete response"):
                await anext(connection)
        with pytest.raises(NetworkError, match="the connection was cut"):
            await connection.send(b"x")


async def test_after_the_end_iteration_ends_again_and_sending_fails() -> None:
    stream = AttachStream([CLOSE])
    async with attached(stream) as connection:
        for _ in range(3):
            assert [chunk async for chunk in connection] == []
        with pytest.raises(NetworkError, match="the server has closed the connection"):
            await connection.send(b"x")
        with pytest.raises(NetworkError, match="the server has closed the connection"):
            await connection.close_stdin()
    assert stream.messages == []
    assert stream.close_code == 1000


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x83\0", 1002),
        (raw_frame(1, b"text"), 1002),
        (raw_frame(8, b"\3\xe8\xff"), 1007),
        (frames(CloseConnection(1011)), 1011),
        (raw_frame(8, b""), 1005),
        (b"", None),
    ],
)
async def test_the_close_frame_has_the_code_of_the_end(frame: bytes, code: int | None) -> None:
    stream = AttachStream([frame])
    async with attached(stream) as connection:
        with pytest.raises(NetworkError):
            await anext(connection)
    assert stream.close_code == code


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.booleans())
def test_garbage_never_raises_anything_else(pieces: list[bytes], after_a_message: bool) -> None:
    valid = [message(1, b"valid")] if after_a_message else []
    received, _error = run_on_mock_clock(read, *valid, *pieces, b"")
    if after_a_message:
        assert received.startswith(b"valid")


@given(st.data())
def test_damaged_frames_never_raise_anything_else(data: st.DataObject) -> None:
    sent = bytearray(message(1, b"a" * 130) + fragments(b"\1bcd", 1, 1) + frames(Ping(b"p")) + CLOSE)
    for _ in range(data.draw(st.integers(1, 3))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    run_on_mock_clock(read, bytes(sent), b"")


# Sending


async def test_stdin_is_sent_in_messages_of_64_kib() -> None:
    stream = AttachStream()
    data = bytes(range(256)) * 1000
    async with attached(stream) as connection:
        await connection.send(data)
        await connection.send(b"")
        await connection.close_stdin()
    assert stream.stdin == data
    assert [len(sent) - 1 for sent in stream.messages] == [65536, 65536, 65536, 59392, 1]
    assert stream.messages[-1] == b"\xff\0"
    assert stream.close_code == 1000


async def test_data_of_several_tasks_is_not_mixed_within_a_message() -> None:
    stream = AttachStream()
    async with attached(stream) as connection, anyio.create_task_group() as tasks:
        for letter in (b"a", b"b", b"c"):
            tasks.start_soon(connection.send, letter * 1000)
    assert sorted(stream.messages) == [b"\0" + letter * 1000 for letter in (b"a", b"b", b"c")]


@mock_clock
async def test_a_server_that_takes_no_bytes_is_a_network_error() -> None:
    stream = AttachStream()
    stream.accepts_writes = anyio.Event()
    async with attached(stream) as connection:
        with pytest.raises(NetworkError, match="the connection fell silent"):
            await connection.send(b"x")
        assert anyio.current_time() == 30
        with pytest.raises(NetworkError, match="an earlier write was interrupted"):
            await connection.send(b"x")
    assert anyio.current_time() == 30


@pytest.mark.parametrize("failure", [httpcore.WriteError("broken pipe"), anyio.BrokenResourceError()])
async def test_a_failed_write_is_a_network_error_and_the_output_can_still_be_read(failure: Exception) -> None:
    stream = AttachStream([message(1, b"last words"), CLOSE])
    stream.write_errors.append(failure)
    async with attached(stream) as connection:
        with pytest.raises(NetworkError):
            await connection.send(b"x")
        assert [chunk async for chunk in connection] == [b"last words"]
    assert stream.bytes_written == 0


@mock_clock
async def test_after_a_cancelled_send_nothing_more_is_sent() -> None:
    stream = AttachStream()
    stream.accepts_writes = anyio.Event()
    async with attached(stream) as connection:
        with anyio.move_on_after(1):
            await connection.send(b"x" * 100_000)
        assert anyio.current_time() == 1
        stream.accepts_writes.set()
        with pytest.raises(NetworkError, match="an earlier write was interrupted"):
            await connection.send(b"y")
    assert stream.bytes_written == 0
    assert anyio.current_time() == 1


@mock_clock
async def test_leaving_does_not_wait_for_a_server_that_takes_no_bytes() -> None:
    stream = AttachStream()
    stream.accepts_writes = anyio.Event()
    with anyio.CancelScope() as scope:
        async with attached(stream) as connection, anyio.create_task_group() as tasks:
            tasks.start_soon(connection.send, b"x")
            await anyio.sleep(1)
            scope.cancel()
    assert anyio.current_time() == 1
    # There is nothing else to write than the close frame: that has a limit.
    async with attached(stream):
        pass
    assert anyio.current_time() == 6


async def test_leaving_in_a_cancelled_task_sends_the_close_frame_and_closes_the_response() -> None:
    stream = AttachStream()
    server = AttachServer(stream)
    with anyio.CancelScope() as scope:
        async with attached(server):
            scope.cancel()
            await anyio.sleep_forever()
    assert stream.close_code == 1000
    assert server.open_responses == 0


# Pings and time


@mock_clock
async def test_an_idle_connection_is_kept_open_with_pings() -> None:
    stream = AttachStream([message(1), 310.0, message(1, b"late"), CLOSE])
    async with attached(stream) as connection:
        assert [chunk async for chunk in connection] == [b"late"]
    assert stream.pings == [20.0 * number for number in range(1, 16)]


@mock_clock
async def test_no_ping_is_sent_while_output_arrives() -> None:
    stream = AttachStream([*([19.0, message(1, b"x")] * 10), CLOSE])
    async with attached(stream) as connection:
        assert len([chunk async for chunk in connection]) == 10
    assert stream.pings == []


@mock_clock
async def test_a_missing_pong_is_a_network_error() -> None:
    stream = AttachStream([message(1, b"a")], pongs=False)
    server = AttachServer(stream)
    async with attached(server) as connection:
        assert await anext(connection) == b"a"
        with pytest.raises(NetworkError, match="no response to a ping within 20 s") as raised:
            await anext(connection)
        assert raised.value.sent
        assert anyio.current_time() == 40
    assert stream.pings == [20]
    assert server.open_responses == 0


@mock_clock
async def test_a_response_to_a_ping_that_arrived_while_nothing_was_read_counts() -> None:
    stream = AttachStream([25.0, *[message(1, b"x")] * 3, 100.0])
    async with attached(stream) as connection:
        assert await anext(connection) == b"x"
        # Slower than any limit, again and again.
        await anyio.sleep(100)
        assert await anext(connection) == b"x"
        await anyio.sleep(100)
        with anyio.move_on_after(30):
            await anext(connection)
            await anext(connection)
        await anyio.sleep(1000)
        with anyio.move_on_after(30):
            await anext(connection)
            raise AssertionError("nothing was sent")


@mock_clock
async def test_a_response_to_a_ping_that_arrived_while_the_client_was_suspended_counts() -> None:
    stream = AttachStream([35.0, message(1, b"x"), CLOSE], pongs=False)

    async def suspend() -> None:
        await anyio.sleep(30)
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(90)

    async with attached(stream) as connection, anyio.create_task_group() as tasks:
        tasks.start_soon(suspend)
        assert await anext(connection) == b"x"
    assert stream.pings == [20]


@mock_clock
async def test_cancelled_reads_do_not_defer_the_ping() -> None:
    stream = AttachStream(pongs=False)
    async with attached(stream) as connection:
        with pytest.raises(NetworkError, match="no response to a ping"):
            while anyio.current_time() < 100:
                with anyio.move_on_after(3):
                    await anext(connection)
    assert stream.pings
    assert stream.pings[0] <= 23
    assert anyio.current_time() <= 46


async def test_a_cancelled_iteration_loses_nothing() -> None:
    payload = bytes(range(256)) * 40
    stream = AttachStream()
    received = b""
    async with attached(stream) as connection:
        for start in range(0, len(payload), 100):
            with anyio.CancelScope() as scope:
                scope.cancel()
                received += await anext(connection)
            stream.add(message(1, payload[start : start + 100]))
            with anyio.CancelScope() as scope:
                scope.cancel()
                received += await anext(connection)
        stream.add(CLOSE)
        async for chunk in connection:
            received += chunk
    assert received == payload


async def test_a_ping_of_the_server_is_answered() -> None:
    stream = AttachStream([frames(Ping(b"are you there")), message(1, b"a"), frames(Pong(b"unasked")), CLOSE])
    async with attached(stream) as connection:
        assert [chunk async for chunk in connection] == [b"a"]
    assert stream.pong_payloads == [b"are you there"]


@mock_clock
async def test_pings_during_a_long_send_are_answered_after_it() -> None:
    pings = [frames(Ping(b"%120d" % number)) for number in range(200)]
    stream = AttachStream([*pings, message(1, b"a")])
    stream.accepts_writes = anyio.Event()
    async with attached(stream) as connection, anyio.create_task_group() as tasks:
        tasks.start_soon(connection.send, b"request")
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        assert await anext(connection) == b"a"
        # The first ones are kept: memory is bounded.
        assert stream.pong_payloads == []
        stream.accepts_writes.set()
    assert stream.stdin == b"request"
    assert 10 < len(stream.pong_payloads) < 50


@mock_clock
async def test_an_answer_that_cannot_be_sent_does_not_lose_output() -> None:
    stream = AttachStream([frames(Ping(b"p")) + message(1, b"a"), message(1, b"b"), CLOSE])
    stream.write_errors.append(httpcore.WriteError("broken pipe"))
    async with attached(stream) as connection:
        assert [chunk async for chunk in connection] == [b"a", b"b"]
