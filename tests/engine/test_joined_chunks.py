"""A log of many small chunks or frames: they are decoded together, and other tasks make progress meanwhile."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import httpx
import pytest

from gke_sandbox import ExecutionFinished, OutputChunk
from gke_sandbox._engine.joined_chunks import MAX_BYTES, MAX_FRAMES, JoinedChunks
from gke_sandbox._wire.frames import encode
from gke_sandbox.local.runtimes.scripted import Script

from ..clock import mock_clock
from ..pods import START, Shared, exit_frame, pods

FLOODS = [
    b"\x1eout 1\nx\n",
    b"\x1eout 1\nx\n\x1eerr 1\ny\n",
    b"\x1eout 0\n\n",
    b"\x1eexit 0\n\n",
    b"\x1estart 0\n\n",
    b'\x1efile 0 "a"\n\n',
]


class WholeLog(Shared):
    """A cluster whose logs arrive in one chunk, as lines do that have waited in a buffer on the way."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if not request.url.path.endswith("/log"):
            return response
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())


@mock_clock
@pytest.mark.parametrize("flood", FLOODS, ids=range(len(FLOODS)))
async def test_other_tasks_make_progress_while_a_flood_of_tiny_frames_is_decoded(flood: bytes) -> None:
    number = 5_000 // flood.count(b"\x1e")
    script = Script(
        chunks=[(0.0, START), (0.1, encode("err", b"first") + flood * number + exit_frame())], ends_at=0.2
    )
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with pods(script, around=WholeLog) as cluster, anyio.create_task_group() as tasks:
        async with cluster.sandbox.stream("pass") as stream:
            async for event in stream:
                if isinstance(event, OutputChunk) and event.data.startswith(b"first"):
                    tasks.start_soon(count)
                elif isinstance(event, ExecutionFinished):
                    assert event.result.ok
                    # At most 256 frames at a time.
                    assert turns > 5_000 / 256
        tasks.cancel_scope.cancel()


async def taken(chunks: list[bytes]) -> list[bytes]:
    """Return what is decoded together if all chunks have been received."""
    queue: list[JoinedChunks] = []
    joined = JoinedChunks(1, queue.append)
    pieces = []

    async def add() -> None:
        for chunk in chunks:
            await joined.add(chunk)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(add)
        await anyio.wait_all_tasks_blocked()
        while queue:
            chunk = queue.pop(0).take()
            assert chunk.number == 1
            pieces.append(chunk.data)
            await anyio.wait_all_tasks_blocked()
    assert b"".join(pieces) == b"".join(chunks)
    return pieces


@mock_clock
async def test_chunks_that_have_been_received_are_decoded_together() -> None:
    assert len(await taken([b"line\n"] * 30)) == 1
    # Receiving them takes time too.
    assert len(await taken([b"line\n"] * 3200)) == 100


@mock_clock
async def test_large_chunks_without_frames_are_decoded_together() -> None:
    pieces = await taken([b"x" * 5000] * 100)
    assert max(map(len, pieces)) <= MAX_BYTES
    assert len(pieces) < 10


@mock_clock
@pytest.mark.parametrize("flood", FLOODS, ids=range(len(FLOODS)))
@pytest.mark.parametrize("size", [1, 100, 65536, 1 << 20])
async def test_a_flood_is_decoded_in_pieces_with_few_frames(flood: bytes, size: int) -> None:
    data = flood * ((1 << 14 if size < 1000 else 1 << 17) // len(flood))
    pieces = await taken([data[start : start + size] for start in range(0, len(data), size)])
    assert max(piece.count(b"\x1e") for piece in pieces) <= MAX_FRAMES


@mock_clock
async def test_an_empty_chunk_is_nothing() -> None:
    assert await taken([b"", b"a", b""]) == [b"a"]
