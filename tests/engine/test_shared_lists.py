"""While many executions wait to start, one list answers the polls of all of them."""

from __future__ import annotations

from collections import Counter

import anyio
import httpx

from gke_sandbox._engine.shared_lists import SharedLists
from gke_sandbox.errors import StartError
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.resources import EVENTS
from gke_sandbox.local import Quota
from gke_sandbox.local.faults import Fault, Match, Respond

from ..clock import mock_clock
from ..pods import pods, program

MANY = 40


def lists(requests: list[str]) -> Counter[str]:
    return Counter(request for request in requests if request in ("GET pods", "GET events"))


@mock_clock
async def test_runs_that_wait_for_a_quota_share_their_lists() -> None:
    async with pods(program(at=20.0), quota=Quota("pods", pods=MANY // 2)) as cluster:
        start = anyio.current_time()
        results = await cluster.sandbox.map([f"print({i})" for i in range(MANY)], max_concurrency=MANY)
        seconds = anyio.current_time() - start
        assert all(result.ok for result in results)
        counts = lists(cluster.requests)
        assert 0 < counts["GET events"] <= seconds + 2
        assert 0 < counts["GET pods"] <= seconds + 2


@mock_clock
async def test_a_failed_list_fails_the_poll_of_each_run() -> None:
    events = Fault(Respond.internal_error(), Match("list", "events"), times=None)
    async with pods(program(), events, quota=Quota("pods", pods=0), startup_timeout=15.0) as cluster:
        results = await cluster.sandbox.map(["pass"] * 5, max_concurrency=5, return_exceptions=True)
        assert [type(result) for result in results] == [StartError] * 5
        assert 0 < lists(cluster.requests)["GET events"] <= 17


class Events(httpx.AsyncBaseTransport):
    """Lists two Events of each object in two pages."""

    def __init__(self) -> None:
        self.queries: list[dict[str, str]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        query = dict(request.url.params)
        self.queries.append(query)
        page = query.get("continue", "1")
        items = [{"involvedObject": {"name": name}, "reason": f"{name} {page}"} for name in ("a", "b", "c")]
        metadata = {"resourceVersion": "7", **({"continue": "2"} if page == "1" else {})}
        return httpx.Response(200, json={"kind": "EventList", "metadata": metadata, "items": items})


@mock_clock
async def test_each_run_gets_the_events_of_its_pod_from_all_pages() -> None:
    server, found = Events(), dict[str, list[str]]()
    async with (
        KubeClient(ClusterConfig(server="http://cluster"), transport=server) as client,
        anyio.create_task_group() as background,
        anyio.create_task_group() as tasks,
    ):
        shared = SharedLists(client, "ns", "session=s", background)

        async def poll(name: str) -> None:
            items, _ = await shared.get(EVENTS, name, name, {"a", "b"})
            found[name] = [item["reason"] for item in items]

        tasks.start_soon(poll, "a")
        tasks.start_soon(poll, "b")
    assert found == {"a": ["a 1", "a 2"], "b": ["b 1", "b 2"]}
    assert server.queries == [{"limit": "1000"}, {"limit": "1000", "continue": "2"}]


@mock_clock
async def test_a_run_that_waits_alone_lists_at_once_and_only_its_own_events() -> None:
    server = Events()
    async with (
        KubeClient(ClusterConfig(server="http://cluster"), transport=server) as client,
        anyio.create_task_group() as background,
    ):
        shared = SharedLists(client, "ns", "session=s", background)
        for _ in range(2):
            await shared.get(EVENTS, "a", "a", {"a"})
        assert anyio.current_time() == 0
    assert server.queries == [{"fieldSelector": "involvedObject.name=a", "limit": "100"}] * 2
