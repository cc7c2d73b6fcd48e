"""ExecutionStream: the events of one execution, for a reader of any speed."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from gke_sandbox._stream import ExecutionStream
from gke_sandbox.errors import StartError
from gke_sandbox.result import ExecutionFinished, ExecutionResult, OutputChunk, PhaseChanged

pytestmark = pytest.mark.anyio

RESULT = ExecutionResult(status="succeeded", exit_code=0)


class Run:
    """A fake execution that records whether it was started and cancelled."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = False

    def start(self, stream: ExecutionStream) -> Callable[[], None]:
        self.started += 1
        return self.cancel

    def cancel(self) -> None:
        self.cancelled = True


async def test_the_execution_starts_once_when_the_block_is_entered() -> None:
    run = Run()
    stream = ExecutionStream(run.start)
    assert run.started == 0
    async with stream as events:
        aiter(events)
        assert run.started == 1


async def test_events_are_returned_in_order_and_the_result_last() -> None:
    run = Run()
    async with ExecutionStream(run.start) as events:
        put = [PhaseChanged("created", 0.1), OutputChunk("stdout", b"a", 0.2, text="a"), ExecutionFinished(RESULT)]
        for event in put:
            events._put(event)
        events._end()
        assert [event async for event in events] == put
    assert not run.cancelled


async def test_an_error_is_raised_once_after_the_events_that_preceded_it() -> None:
    run = Run()
    async with ExecutionStream(run.start) as events:
        events._put(PhaseChanged("created", 0.1))
        events._end(StartError("no"))
        assert await anext(events) == PhaseChanged("created", 0.1)
        with pytest.raises(StartError, match="no"):
            await anext(events)
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_leaving_the_block_early_cancels_the_execution() -> None:
    run = Run()
    async with ExecutionStream(run.start) as events:
        events._put(PhaseChanged("created", 0.1))
        async for _ in events:
            break
    assert run.cancelled
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_a_waiting_reader_gets_new_events() -> None:
    run = Run()
    taken = []
    async with ExecutionStream(run.start) as events, anyio.create_task_group() as group:

        async def read() -> None:
            taken.extend([event async for event in events])

        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        events._put(ExecutionFinished(RESULT))
        events._end()
    assert taken == [ExecutionFinished(RESULT)]


async def test_a_slow_reader_gets_every_byte_in_few_events() -> None:
    """A program that prints byte by byte does not fill the memory with events."""
    run = Run()
    async with ExecutionStream(run.start) as events:
        for n in range(50_000):
            events._put(OutputChunk("stderr" if n % 2 else "stdout", b"%d," % n, n / 1000))
        events._put(ExecutionFinished(RESULT))
        events._end()
        taken = [event async for event in events]
    assert len(taken) < 100
    for stream, first in (("stdout", 0), ("stderr", 1)):
        chunks = [e.data for e in taken if isinstance(e, OutputChunk) and e.stream == stream]
        assert b"".join(chunks) == b"".join(b"%d," % n for n in range(first, 50_000, 2))
    assert taken[-1] == ExecutionFinished(RESULT)


async def test_requesting_the_first_event_starts_the_execution() -> None:
    run = Run()
    stream = ExecutionStream(run.start)
    stream._put(PhaseChanged("created", 0.1))
    assert await anext(stream) == PhaseChanged("created", 0.1)
    assert run.started == 1


async def test_close_ends_a_waiting_reader_and_drops_later_events() -> None:
    run = Run()
    async with ExecutionStream(run.start) as events, anyio.create_task_group() as group:

        async def read() -> None:
            with pytest.raises(StopAsyncIteration):
                await anext(events)

        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        events.close()
        events._put(PhaseChanged("created", 0.1))
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_the_text_of_chunks_is_decoded_across_chunks() -> None:
    euro = "€".encode()

    async def texts(*chunks: OutputChunk) -> list[tuple[str, bytes, str]]:
        stream = ExecutionStream(Run().start)
        async with stream as events:
            for chunk in chunks:
                events._put(chunk)
            events._put(ExecutionFinished(RESULT))
            events._end()
            return [(each.stream, each.data, each.text) async for each in events if isinstance(each, OutputChunk)]

    assert await texts(
        OutputChunk("stdout", b"a" + euro[:1], 0.1),
        OutputChunk("stderr", b"x", 0.2),
        OutputChunk("stdout", euro[1:] + b"b", 0.3),
    ) == [("stdout", b"a\xe2", "a"), ("stderr", b"x", "x"), ("stdout", b"\x82\xacb", "€b")]
    assert await texts(OutputChunk("stdout", b"\xff\n" + euro[:2], 0.1)) == [
        ("stdout", b"\xff\n\xe2\x82", "\ufffd\n"),
        ("stdout", b"", "\ufffd"),
    ]
