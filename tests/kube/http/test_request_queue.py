"""Requests in flight are bounded, and follow what the server accepts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx

from gke_sandbox.errors import TooManyRequests
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.http.request_queue import (
    INITIAL_IN_FLIGHT,
    MAX_IN_FLIGHT,
    MAX_PAUSE,
    MIN_IN_FLIGHT,
    RequestQueue,
)
from gke_sandbox.kube.resources import JOBS, PODS
from gke_sandbox.kube.status import RequestInfo

from ...clock import mock_clock


def info(name: str) -> RequestInfo:
    return RequestInfo("get", "GET", PODS, "ns", name)


class Server(httpx.AsyncBaseTransport):
    """Takes half a second for each request, and rejects those beyond `limit` in a second."""

    def __init__(self, limit: int = 1_000_000) -> None:
        self.limit = limit
        self.in_flight = self.most = self.requests = 0
        self.order: list[str] = []
        self._second, self._count = 0, 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.in_flight += 1
        self.requests += 1
        self.most = max(self.most, self.in_flight)
        self.order.append(f"{request.method} {request.url.path.rpartition('/')[2]}")
        second = int(anyio.current_time())
        self._count = self._count + 1 if second == self._second else 1
        self._second = second
        try:
            if self._count > self.limit:
                return httpx.Response(429, json={"kind": "Status", "code": 429}, headers={"retry-after": "1"})
            await anyio.sleep(0.5)
            return httpx.Response(200, json={"kind": "Pod", "metadata": {"name": "p", "uid": "u"}})
        finally:
            self.in_flight -= 1


@asynccontextmanager
async def client(server: Server) -> AsyncIterator[KubeClient]:
    async with KubeClient(ClusterConfig(server="http://cluster"), transport=server) as opened:
        yield opened


async def get_all(server: Server, count: int) -> None:
    """Get `count` pods at once, each again after a 429."""
    async with client(server) as opened:

        async def get(name: str) -> None:
            while True:
                try:
                    await opened.get(PODS, "ns", name)
                except TooManyRequests as error:
                    await anyio.sleep(error.retry_after or 0.0)
                else:
                    return

        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(get, f"p{number}")


@mock_clock
async def test_many_requests_at_once_are_sent_a_hundred_at_a_time() -> None:
    server = Server()
    await get_all(server, 4 * MAX_IN_FLIGHT)
    assert server.most == MAX_IN_FLIGHT
    assert server.requests == 4 * MAX_IN_FLIGHT


@mock_clock
async def test_few_requests_are_sent_again_to_a_server_that_accepts_20_per_second() -> None:
    server = Server(limit=20)
    await get_all(server, 400)
    assert server.requests <= 600
    assert server.most <= 2 * INITIAL_IN_FLIGHT + 1


@mock_clock
async def test_requests_of_low_priority_are_sent_after_the_others() -> None:
    queue, order = RequestQueue(), list[str]()

    async def send(name: str, seconds: float, low_priority: bool = False) -> None:
        async with queue.turn(info(name), low_priority=low_priority):
            order.append(name)
            await anyio.sleep(seconds)

    async with anyio.create_task_group() as tasks:
        for number in range(INITIAL_IN_FLIGHT):
            tasks.start_soon(send, f"p{number}", 1 + number)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(send, "low", 1, True)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(send, "late", 1)
    assert order[-2:] == ["late", "low"]


@mock_clock
async def test_jobs_are_created_after_the_requests_of_those_that_exist() -> None:
    server = Server()
    async with client(server) as opened, anyio.create_task_group() as tasks:

        async def create() -> None:
            await opened.create(JOBS, "ns", {"metadata": {"name": "j"}}, low_priority=True)

        for number in range(200):
            tasks.start_soon(create)
            tasks.start_soon(opened.get, PODS, "ns", f"p{number}")
    assert server.order[-100:] == ["POST jobs"] * 100


@mock_clock
async def test_a_request_that_got_429_is_the_next_one_after_the_pause() -> None:
    queue, order = RequestQueue(), list[str]()
    queue.record_throttled(info("other"), 1.0)
    queue.record_throttled(info("first"), 1.0)
    start = anyio.current_time()

    async def send(name: str) -> None:
        async with queue.turn(info(name)):
            order.append(name)
            await anyio.sleep(1)

    async with anyio.create_task_group() as tasks:
        for number in range(INITIAL_IN_FLIGHT):
            tasks.start_soon(send, f"p{number}")
        await anyio.wait_all_tasks_blocked()
        assert order == []
        tasks.start_soon(send, "first")
        await anyio.wait_all_tasks_blocked()
        await anyio.sleep(1)
        await anyio.wait_all_tasks_blocked()
        assert anyio.current_time() - start == 1.0
        assert "first" in order
        assert len(order) == INITIAL_IN_FLIGHT // 2


@mock_clock
async def test_a_single_429_delays_only_requests_of_low_priority() -> None:
    queue = RequestQueue()
    queue.record_throttled(info("p"), 1.0)
    start = anyio.current_time()
    async with queue.turn(info("ConfigMap of a Job that exists")):
        assert anyio.current_time() == start
    async with queue.turn(info("Job"), low_priority=True):
        assert anyio.current_time() == start + 1.0


@mock_clock
async def test_the_pause_has_a_maximum_and_the_limit_a_minimum() -> None:
    queue = RequestQueue()
    for _ in range(20):
        start = anyio.current_time()
        queue.record_throttled(info("p"), 3600.0)
        queue.record_throttled(info("q"), 3600.0)
        async with queue.turn(info("other")):
            assert anyio.current_time() - start == MAX_PAUSE
    in_flight = 0

    async def send(number: int) -> None:
        nonlocal in_flight
        async with queue.turn(info(f"p{number}")):
            in_flight += 1
            await anyio.sleep(1)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(send, number)
        await anyio.wait_all_tasks_blocked()
        assert in_flight == MIN_IN_FLIGHT
        tasks.cancel_scope.cancel()


@mock_clock
async def test_a_cancelled_request_leaves_its_place_to_the_others() -> None:
    queue = RequestQueue()
    done: list[int] = []

    async def send(number: int) -> None:
        async with queue.turn(info(f"p{number}")):
            await anyio.sleep(1)
            done.append(number)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            with anyio.move_on_after(0.5):
                async with anyio.create_task_group() as cancelled:
                    for number in range(100):
                        cancelled.start_soon(send, number)
        for number in range(INITIAL_IN_FLIGHT):
            tasks.start_soon(send, number)
        with anyio.fail_after(1.5):
            while len(done) < INITIAL_IN_FLIGHT:
                await anyio.sleep(0.1)
