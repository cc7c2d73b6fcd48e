"""Container logs: lines, parts, following, rotation, and the errors for missing logs."""

from __future__ import annotations

import anyio
import pytest

from gke_sandbox.local import Pace, Script
from tests.clock import run_on_mock_clock

from ..kit import JOBS, PODS, Kit, Stream, job, refusal, running

pytestmark = pytest.mark.anyio

MEBIBYTE = 1 << 20


async def started(kit: Kit, phase: str = "Running") -> None:
    await kit.create(JOBS, job())
    await kit.phase(phase)


async def read(kit: Kit, **query: str) -> bytes:
    async with kit.log(**query) as log:
        assert log.response.status_code == 200
        return await log.all()


async def test_a_followed_log_delivers_each_complete_line_and_ends_with_the_container() -> None:
    script = Script(chunks=[(0.0, b"one\ntw"), (0.05, b"o\nthr"), (0.1, b"ee")], ends_at=0.15)
    async with running(script) as kit:
        await started(kit)
        async with kit.log(follow="true", container="code-runner") as log:
            assert log.response.headers["content-type"] == "text/plain"
            pieces = [piece async for piece in log.pieces]
    assert pieces == [b"one\n", b"two\n", b"three"]


async def test_a_log_that_is_not_followed_ends_at_its_current_end() -> None:
    async with running(Script(chunks=[(0.0, b"one\ntwo")])) as kit:
        await started(kit)
        async with kit.log(follow="true") as log:
            assert await anext(log.pieces) == b"one\n"
        assert await read(kit) == b"one\n"


async def test_a_line_over_16_kib_is_delivered_in_parts_before_it_is_complete() -> None:
    async with running(Script(chunks=[(0.0, b"x" * 40_000)])) as kit:
        await started(kit)
        async with kit.log(follow="true") as log:
            assert [len(await anext(log.pieces)) for _ in range(2)] == [16_384, 16_384]
        assert len(await read(kit)) == 32_768


@pytest.mark.parametrize("size", [97, 16_384, 16_385])
async def test_the_log_does_not_depend_on_the_chunks_of_the_output(size: int) -> None:
    text = b"a\n\n" + b"b" * 16_384 + b"\n" + b"c" * 20_000 + b"\nrest"
    chunks = [(0.0, text[start : start + size]) for start in range(0, len(text), size)]
    async with running(Script(chunks=chunks, ends_at=0.0)) as kit:
        await started(kit, "Succeeded")
        assert await read(kit, follow="true") == text


async def test_the_log_of_a_container_that_the_pod_does_not_have_is_a_bad_request() -> None:
    async with running(Script(ends_at=0.0)) as kit:
        await started(kit, "Succeeded")
        path = f"{PODS}/{kit.pod()['metadata']['name']}/log"
        code, _, message = refusal(await kit.client.get(path, params={"container": "other"}))
        assert code == 400
        assert "container other is not valid for pod " in message


async def test_the_log_of_a_pod_whose_container_does_not_run_is_an_error_with_the_reason() -> None:
    env = {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}]}
    images = {"image": "registry.invalid/x:1"}
    async with running(pace=Pace(config_wait=0.0, image_backoff=0.2)) as kit:
        await kit.create(JOBS, job("env", container=env))
        await kit.waiting("CreateContainerConfigError")
        path = f"{PODS}/{kit.pod()['metadata']['name']}/log"
        assert refusal(await kit.client.get(path))[2].endswith("is waiting to start: CreateContainerConfigError")
        await kit.delete(f"{JOBS}/env")
        await kit.until(lambda: kit.pods() == [])
        await kit.create(JOBS, job("image", container=images))
        await kit.waiting("ErrImagePull")
        path = f"{PODS}/{kit.pod()['metadata']['name']}/log"
        assert refusal(await kit.client.get(path))[2].endswith("is waiting to start: image can't be pulled")


async def test_the_log_of_a_pod_without_a_node_is_an_empty_response() -> None:
    async with running() as kit:
        await kit.create(JOBS, job(pod={"nodeSelector": {"a": "b"}}))
        await kit.until(kit.pods)
        response = await kit.client.get(f"{PODS}/{kit.pod()['metadata']['name']}/log")
        assert (response.status_code, response.content) == (204, b"")


async def test_the_log_is_removed_with_its_pod_and_followed_logs_end() -> None:
    async with running(Script(chunks=[(0.0, b"one\n")], stops_after=None)) as kit:
        await started(kit)
        path = f"{PODS}/{kit.pod()['metadata']['name']}"
        async with kit.log(follow="true") as log:
            assert await anext(log.pieces) == b"one\n"
            await kit.delete(path, gracePeriodSeconds=0)
            assert await log.all() == b""
        assert refusal(await kit.client.get(f"{path}/log"))[:2] == (404, "NotFound")


def test_a_log_whose_output_stays_open_does_not_end_with_the_container() -> None:
    async def main() -> None:
        async with running(Script(chunks=[(0.0, b"one\n")], ends_at=0.0, log_never_ends=True)) as kit:
            await started(kit, "Succeeded")
            async with kit.log(follow="true") as log:
                assert await anext(log.pieces) == b"one\n"
                with anyio.move_on_after(1000) as waited:
                    await log.all()
                assert waited.cancelled_caught
            assert kit.runtime.running == 1

    run_on_mock_clock(main)


def test_the_followed_log_ends_some_time_after_the_container() -> None:
    async def main() -> None:
        async with running(Script(chunks=[(0.0, b"one\n")], ends_at=0.0), pace=Pace(log_end=1.0)) as kit:
            await started(kit, "Succeeded")
            begin = anyio.current_time()
            assert await read(kit, follow="true") == b"one\n"
            assert anyio.current_time() - begin == pytest.approx(1.0)

    run_on_mock_clock(main)


def test_a_log_over_10_mib_is_rotated_at_the_kubelets_next_check() -> None:
    """A reader that follows misses nothing; a later reader gets only the new file."""
    line = b"x" * 9_999 + b"\n"
    flood = line * (11 * MEBIBYTE // len(line))
    script = Script(chunks=[(1.0, flood), (11.0, b"after\n"), (21.0, b"more\n")])

    async def follow(kit: Kit, seen: list[int]) -> None:
        async with kit.log(follow="true") as log:
            await count(log, seen)

    async def count(log: Stream, seen: list[int]) -> None:
        async for piece in log.pieces:
            seen[0] += len(piece)

    async def main() -> None:
        seen = [0]
        async with running(script) as kit, anyio.create_task_group() as tasks:
            await started(kit)
            tasks.start_soon(follow, kit, seen)
            await anyio.sleep(5)
            assert len(await read(kit)) == len(flood)
            await anyio.sleep(7)
            assert await read(kit) == b"after\n"
            await anyio.sleep(10)
            assert await read(kit) == b"after\nmore\n"
            assert seen == [len(flood) + len(b"after\nmore\n")]
            tasks.cancel_scope.cancel()

    run_on_mock_clock(main)


def test_a_rotated_log_without_later_output_is_empty() -> None:
    async def main() -> None:
        async with running(Script(chunks=[(1.0, b"x" * 11 * MEBIBYTE + b"\n")])) as kit:
            await started(kit)
            await anyio.sleep(12)
            assert await read(kit) == b""

    run_on_mock_clock(main)
