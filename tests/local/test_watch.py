"""Watches, and the transport as httpx sees it."""

from __future__ import annotations

import anyio
import httpx
import pytest

from gke_sandbox.local import LocalTransport, ScriptedRuntime

from ..clock import run_on_mock_clock
from .kit import CONFIG_MAPS, HELLO, JOBS, PODS, SLEEPS, config_map, job, running

pytestmark = pytest.mark.anyio


async def test_a_watch_without_a_version_lists_all_objects_and_marks_their_end() -> None:
    async with running() as kit:
        await kit.create(CONFIG_MAPS, config_map())
        async with kit.watch(CONFIG_MAPS, allowWatchBookmarks="true") as watch:
            assert (await watch.event())["type"] == "ADDED"
            mark = await watch.event()
            assert mark["type"] == "BOOKMARK"
            assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
            await kit.delete(f"{CONFIG_MAPS}/config")
            assert (await watch.event())["type"] == "DELETED"


async def test_every_watch_gets_every_change_once_in_order() -> None:
    async with running() as kit:
        version = (await kit.get(CONFIG_MAPS))["metadata"]["resourceVersion"]
        async with (
            kit.watch(CONFIG_MAPS, resourceVersion=version) as one,
            kit.watch("/api/v1/configmaps", resourceVersion=version) as other,
        ):
            for name in "abc":
                await kit.create(CONFIG_MAPS, config_map(name))
            for watch in (one, other):
                seen = await watch.events(3)
                assert [event["object"]["metadata"]["name"] for event in seen] == list("abc")
                versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
                assert versions == sorted(versions)
                assert versions[0] > int(version)


async def test_an_object_is_added_when_it_enters_the_selection_and_deleted_when_it_leaves() -> None:
    async with running(HELLO) as kit:
        version = (await kit.get(PODS))["metadata"]["resourceVersion"]
        async with kit.watch(resourceVersion=version, fieldSelector="status.phase=Running") as watch:
            await kit.create(JOBS, job())
            types = []
            while not types or types[-1] != "DELETED":
                types.append((await watch.event())["type"])
        assert types[0] == "ADDED"
        assert set(types[1:-1]) <= {"MODIFIED"}
        assert len(kit.pods()) == 1


def test_a_watch_ends_after_its_timeout() -> None:
    async def run() -> None:
        async with running() as kit, kit.watch(timeoutSeconds="100") as watch:
            with anyio.fail_after(101):
                assert await watch.events() == []

    run_on_mock_clock(run)


async def test_a_watch_from_an_expired_version_gets_one_error_event_and_ends() -> None:
    async with running() as kit:
        version = (await kit.get(PODS))["metadata"]["resourceVersion"]
        await kit.create(CONFIG_MAPS, config_map())
        kit.cluster.expire_watches()
        async with kit.watch(resourceVersion=version) as watch:
            (event,) = await watch.events()
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_a_watch_can_be_closed_at_any_time() -> None:
    async with running() as kit:
        async with kit.watch(CONFIG_MAPS) as watch:
            with anyio.move_on_after(0.02):
                await watch.event()
        async with kit.watch(CONFIG_MAPS):
            await kit.create(CONFIG_MAPS, config_map())
        assert (await kit.client.get(CONFIG_MAPS)).status_code == 200


async def test_a_read_timeout_ends_a_quiet_stream() -> None:
    async with running(timeout=httpx.Timeout(1.0, read=0.05)) as kit, kit.watch() as watch:
        with pytest.raises(httpx.ReadTimeout):
            await watch.event()


# The transport.


async def test_closing_the_cluster_ends_streams_requests_and_containers() -> None:
    async with running(SLEEPS) as kit:
        await kit.create(JOBS, job())
        await kit.phase("Running")
        async with kit.watch(timeoutSeconds="60") as watch:
            await watch.event()
            assert kit.runtime.running == 1
            await kit.cluster.aclose()
            with pytest.raises(httpx.ReadError):
                await watch.events()
        with pytest.raises(httpx.ConnectError):
            await kit.client.get("/version")
    assert kit.runtime.running == 0
    # What was in it can still be looked at.
    assert len(kit.cluster.objects("jobs")) == 1


async def test_an_exception_leaves_the_context_unchanged() -> None:
    async def fail() -> None:
        async with running(SLEEPS) as kit:
            await kit.create(JOBS, job())
            raise LookupError("the caller's own")

    with pytest.raises(LookupError, match="own"):
        await fail()


async def test_the_cluster_can_be_entered_twice_and_serves_once() -> None:
    cluster = LocalTransport(ScriptedRuntime(HELLO))
    async with cluster, httpx.AsyncClient(transport=cluster, base_url="https://embedded.invalid") as client:
        assert (await client.get("/version")).status_code == 200
    with pytest.raises(RuntimeError, match="again"):
        async with cluster:
            raise AssertionError("it was closed")


async def test_requests_are_kept_with_their_verb_and_resource() -> None:
    async with running() as kit:
        await kit.get(PODS, labelSelector="a=b")
        await kit.client.get(f"{PODS}/p/log")
    sent = [(one.verb, one.resource, one.namespace, one.name, dict(one.query)) for one in kit.cluster.requests]
    assert sent == [
        ("list", "pods", "default", "", {"labelSelector": "a=b"}),
        ("get", "pods/log", "default", "p", {}),
    ]
