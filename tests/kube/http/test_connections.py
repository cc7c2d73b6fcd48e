"""Connections are used again, in the order last in, first out, few are kept; a certificate needs its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from gke_sandbox.kube.auth.static import ClientCertificate
from gke_sandbox.kube.http.connections import IDLE_TIMEOUT, MAX_IDLE, ConnectionStack

from ...clock import mock_clock

REQUEST = httpx.Request("GET", "http://cluster/")


class Body(httpx.AsyncByteStream):
    def __init__(self) -> None:
        self._chunks = [b"a", b"b"]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.pop(0)


class Connection(httpx.AsyncBaseTransport):
    def __init__(self, number: int, certificate: ClientCertificate | None = None) -> None:
        self.number = number
        self.certificate = certificate
        self.closed = False
        self.error: Exception | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.error is not None:
            raise self.error
        return httpx.Response(200, stream=Body(), headers={"x-connection": str(self.number)})

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed = True


class Stack:
    """A stack and the connections that it has opened."""

    def __init__(self) -> None:
        self.opened: list[Connection] = []
        self.certificate: ClientCertificate | None = None
        self.stack = ConnectionStack(self._connect, lambda: self.certificate)

    def _connect(self, certificate: ClientCertificate | None) -> Connection:
        self.opened.append(Connection(len(self.opened), certificate))
        return self.opened[-1]

    async def open(self) -> httpx.Response:
        return await self.stack.handle_async_request(REQUEST)

    async def request(self) -> int:
        response = await self.open()
        await response.aread()
        await response.aclose()
        return int(response.headers["x-connection"])

    async def request_at_once(self, count: int) -> None:
        """Open this number of connections, which are idle afterwards."""
        responses = [await self.open() for _ in range(count)]
        for response in responses:
            await response.aread()
            await response.aclose()

    @property
    def still_open(self) -> list[int]:
        return [each.number for each in self.opened if not each.closed]


@mock_clock
async def test_a_connection_is_used_again_after_a_complete_response() -> None:
    stack = Stack()
    assert [await stack.request() for _ in range(3)] == [0, 0, 0]


@mock_clock
async def test_a_connection_whose_response_is_not_read_to_its_end_is_closed() -> None:
    stack = Stack()
    response = await stack.open()
    assert isinstance(response.stream, httpx.AsyncByteStream)
    assert await anext(aiter(response.stream)) == b"a"
    await response.aclose()
    assert stack.opened[0].closed
    assert await stack.request() == 1


@mock_clock
async def test_a_connection_whose_request_fails_is_closed() -> None:
    stack = Stack()
    await stack.request()
    stack.opened[0].error = httpx.ReadError("broken")
    with pytest.raises(httpx.ReadError):
        await stack.request()
    assert stack.still_open == []


@mock_clock
async def test_the_connection_that_was_used_last_is_used_first() -> None:
    stack = Stack()
    await stack.request_at_once(3)
    assert await stack.request() == 2


@mock_clock
async def test_only_some_of_many_connections_are_kept() -> None:
    stack = Stack()
    await stack.request_at_once(1000)
    assert len(stack.still_open) == MAX_IDLE


@mock_clock
async def test_connections_that_are_idle_for_long_are_closed_at_the_next_request() -> None:
    stack = Stack()
    await stack.request_at_once(3)
    await anyio.sleep(IDLE_TIMEOUT - 1)
    await stack.request()
    await anyio.sleep(1)
    await stack.request()
    assert stack.still_open == [2]


@mock_clock
async def test_closing_closes_idle_and_used_connections() -> None:
    stack = Stack()
    used, idle = await stack.open(), await stack.open()
    await idle.aread()
    await idle.aclose()
    await stack.stack.aclose()
    assert stack.still_open == []
    await used.aclose()


def named(name: str) -> ClientCertificate:
    return ClientCertificate(name.encode(), b"key")


@mock_clock
async def test_a_new_connection_is_opened_when_the_client_certificate_has_changed() -> None:
    stack = Stack()
    await stack.request()
    stack.certificate = named("one")
    assert [await stack.request() for _ in range(2)] == [1, 1]
    stack.certificate = named("two")
    assert await stack.request() == 2
    assert [each.certificate for each in stack.opened] == [None, named("one"), named("two")]
    assert stack.still_open == [2]


@mock_clock
async def test_a_running_request_keeps_its_connection_when_the_certificate_changes() -> None:
    stack = Stack()
    stack.certificate = named("one")
    running = await stack.open()
    stack.certificate = named("two")
    assert await stack.request() == 1
    assert stack.still_open == [0, 1]
    assert await running.aread() == b"ab"
    await running.aclose()
    assert stack.still_open == [1]


@mock_clock
async def test_requests_at_the_same_time_use_no_connection_with_the_old_certificate() -> None:
    stack = Stack()
    await stack.request_at_once(3)
    stack.certificate = named("one")
    used: list[int] = []

    async def send() -> None:
        used.append(await stack.request())

    async with anyio.create_task_group() as requests:
        for _ in range(3):
            requests.start_soon(send)
    assert {stack.opened[number].certificate for number in used} == {named("one")}


@mock_clock
async def test_a_failed_request_does_not_keep_an_old_connection_open() -> None:
    stack = Stack()
    await stack.request()
    stack.opened[0].error = httpx.ConnectError("refused")
    with pytest.raises(httpx.ConnectError):
        await stack.request()
    stack.certificate = named("one")
    await stack.request()
    assert stack.still_open == [1]


@mock_clock
async def test_closing_closes_connections_with_an_old_certificate() -> None:
    stack = Stack()
    running = await stack.open()
    stack.certificate = named("one")
    await stack.request()
    await stack.stack.aclose()
    assert stack.still_open == []
    await running.aclose()
