"""Tests of closing, cancellation and large input, which all real runtimes share (`process_client`).

The test modules of the runtimes import these tests and define the fixture `runtime`.
"""

from __future__ import annotations

import os

import anyio

from gke_sandbox.local.runtimes.base import ContainerExit

from .containers import container, python, run, running
from .runtime_behaviours import UNTIL_TERMINATED, RealRuntime


async def test_closing_kills_and_frees_everything_and_is_idempotent(runtime: RealRuntime) -> None:
    await run(runtime, container())
    before = len(os.listdir("/proc/self/fd"))
    started = await runtime.start(python("print('ready')\nimport signal; signal.pause()"))
    lines = started.output()
    assert await anext(lines)
    await started.aclose()
    await started.aclose()
    assert await started.wait() == ContainerExit(137, "Error")
    assert [chunk async for chunk in lines] == []
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_start_that_is_cancelled_leaves_nothing(runtime: RealRuntime) -> None:
    await run(runtime, container())
    before = len(os.listdir("/proc/self/fd"))

    async def start() -> None:
        started = await runtime.start(python("import signal; signal.pause()"))
        await started.aclose()  # it was faster than the cancellation

    for steps in range(4):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_cancelling_one_waiter_does_not_affect_others(runtime: RealRuntime) -> None:
    async with running(runtime, python(UNTIL_TERMINATED)) as (started, lines):
        await lines.next()
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(started.wait)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await started.stop(30)
        assert (await started.wait()).exit_code == 7


async def test_large_input_waits_until_the_program_reads_it(runtime: RealRuntime) -> None:
    size = 4 << 20
    code = f"import sys\ndata = sys.stdin.buffer.read({size})\nprint(len(data), data == b'x' * {size})"
    async with running(runtime, python(code, stdin=True)) as (started, lines):
        await started.write_stdin(b"x" * size)
        assert await lines.next() == f"{size} True"


async def test_a_container_that_is_closed_while_its_input_waits_frees_everything(runtime: RealRuntime) -> None:
    await run(runtime, container())
    before = len(os.listdir("/proc/self/fd"))
    started = await runtime.start(python("print('ready')\nimport signal; signal.pause()", stdin=True))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(started.write_stdin, b"x" * (4 << 20))
        assert await anext(started.output())
        await started.aclose()
    assert len(os.listdir("/proc/self/fd")) == before
