"""An AsyncSandbox is opened, used and closed by different tasks of one event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

import anyio
import httpx
import pytest
import trio

from gke_sandbox import AsyncSandbox, Cluster, OutputChunk
from gke_sandbox.errors import ConfigError, ReplayMismatch, SandboxClosed
from gke_sandbox.local.faults import Delay, Fault, FaultPlan, Match
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport

from .clock import run_on_mock_clock
from .pods import START, out, program

pytestmark = pytest.mark.anyio

LOCAL = Cluster.local("process")
RUNNING = Script(chunks=[(0.0, START), (0.1, out("a"))])


def scripted(script: Script, *faults: Fault) -> LocalTransport:
    return LocalTransport(ScriptedRuntime(script), faults=FaultPlan(*faults))


async def in_new_task(call: Callable[[], Awaitable[object]]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)


async def start_program(sandbox: AsyncSandbox) -> None:
    """Start a program that runs until it is cancelled, in a task of the Sandbox."""
    async for event in sandbox.stream("pass"):
        if isinstance(event, OutputChunk):
            return


async def test_each_step_may_have_its_own_task() -> None:
    sandbox = AsyncSandbox(LOCAL)
    printed: list[str] = []

    async def run() -> None:
        printed.append((await sandbox.run("print(6 * 7)")).stdout)

    await in_new_task(sandbox.aopen)
    await in_new_task(run)
    await in_new_task(run)
    await in_new_task(sandbox.aclose)
    assert printed == ["42\n", "42\n"]
    with pytest.raises(SandboxClosed, match="is closed"):
        await run()


async def test_closing_in_another_task_cancels_a_run_and_deletes_its_job() -> None:
    transport = scripted(RUNNING)
    sandbox = AsyncSandbox(Cluster.transport(transport))

    async def run() -> None:
        with pytest.raises(SandboxClosed, match="was closed while the program ran"):
            await sandbox.run("pass")

    await in_new_task(sandbox.aopen)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await transport.until(lambda: transport.objects("pods"))
        await in_new_task(sandbox.aclose)
    assert (sandbox.jobs, sandbox.leftovers, transport.objects("jobs")) == ([], [], [])


async def test_several_tasks_may_close_it_at_the_same_time() -> None:
    transport = scripted(RUNNING)
    sandbox = AsyncSandbox(Cluster.transport(transport))
    await sandbox.aopen()
    await start_program(sandbox)
    remaining: list[int] = []

    async def close() -> None:
        await sandbox.aclose()
        remaining.append(len(transport.objects("jobs")))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(close)
    assert remaining == [0, 0, 0]


async def test_an_asgi_lifespan_closes_it_in_another_task_than_its_requests() -> None:
    """An ASGI server runs the lifespan in one task, and each request in a new one."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[AsyncSandbox]:
        async with AsyncSandbox(LOCAL) as sandbox:
            yield sandbox

    startup_done, shutdown = anyio.Event(), anyio.Event()
    bodies: list[str] = []
    sandboxes: list[AsyncSandbox] = []

    async def run_lifespan(context: AbstractAsyncContextManager[AsyncSandbox]) -> None:
        async def start() -> None:
            sandboxes.append(await context.__aenter__())

        async def stop() -> None:
            await context.__aexit__(None, None, None)

        await in_new_task(start)
        startup_done.set()
        await shutdown.wait()
        await in_new_task(stop)

    async def respond(number: int) -> None:
        bodies.append((await sandboxes[0].run(f"print({number})")).stdout)

    async with anyio.create_task_group() as server:
        server.start_soon(run_lifespan, lifespan())
        await startup_done.wait()
        async with anyio.create_task_group() as requests:
            for number in range(3):
                requests.start_soon(respond, number)
        shutdown.set()
    assert sorted(bodies) == ["0\n", "1\n", "2\n"]


async def test_cancelling_the_task_that_opened_it_deletes_the_job_and_closes_it() -> None:
    transport = scripted(RUNNING)
    sandbox = AsyncSandbox(Cluster.transport(transport))
    started = anyio.Event()

    async def open_and_wait() -> None:
        async with sandbox:
            await start_program(sandbox)
            started.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_and_wait)
        await started.wait()
        tasks.cancel_scope.cancel()
    assert (sandbox.leftovers, transport.objects("jobs")) == ([], [])
    with pytest.raises(SandboxClosed):
        await sandbox.run("pass")


async def test_an_exception_in_the_block_is_raised_when_the_jobs_are_deleted() -> None:
    transport = scripted(RUNNING)
    with pytest.raises(KeyError, match="mine"):
        async with AsyncSandbox(Cluster.transport(transport)) as sandbox:
            await start_program(sandbox)
            raise KeyError("mine")
    assert (sandbox.leftovers, transport.objects("jobs")) == ([], [])


async def test_a_task_that_is_cancelled_after_it_opened_it_leaves_it_open_for_the_others() -> None:
    sandbox = AsyncSandbox(LOCAL)
    opened = anyio.Event()

    async def open_and_wait() -> None:
        await sandbox.aopen()
        opened.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_and_wait)
        await opened.wait()
        tasks.cancel_scope.cancel()
    assert (await sandbox.run("print(1)")).stdout == "1\n"
    await sandbox.aclose()


class SlowToOpen(httpx.AsyncBaseTransport):
    """A transport that opens when a test sets `release`."""

    def __init__(self) -> None:
        self.entered, self.release = anyio.Event(), anyio.Event()
        self.cancelled = self.closed = False

    async def __aenter__(self) -> SlowToOpen:
        self.entered.set()
        try:
            await self.release.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.closed = True


async def test_cancelling_the_opening_cancels_the_transport_that_is_being_opened() -> None:
    transport = SlowToOpen()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(AsyncSandbox(Cluster.transport(transport)).aopen)
        await transport.entered.wait()
        tasks.cancel_scope.cancel()
    assert transport.cancelled


class BrokenTransport(httpx.AsyncBaseTransport):
    """A transport that cannot be opened at the first attempt."""

    failures = 1

    async def __aenter__(self) -> BrokenTransport:
        if self.failures:
            self.failures -= 1
            raise ConfigError("it is broken")
        return self


async def test_an_error_of_opening_is_raised_there_and_opening_can_be_tried_again() -> None:
    sandbox = AsyncSandbox(Cluster.transport(BrokenTransport()))
    with pytest.raises(ConfigError, match="it is broken"):
        await sandbox.aopen()
    await sandbox.aopen()
    await sandbox.aclose()


async def test_closing_while_another_task_opens_it_closes_it() -> None:
    transport = SlowToOpen()
    sandbox = AsyncSandbox(Cluster.transport(transport))

    async def open_() -> None:
        with pytest.raises(SandboxClosed, match="was closed while it was opened") as raised:
            await sandbox.aopen()
        assert raised.value.may_have_run is False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_)
        await transport.entered.wait()
        with pytest.raises(SandboxClosed, match="can be opened once"):
            await sandbox.aopen()
        await sandbox.aclose()
        transport.release.set()
    assert transport.closed


async def test_the_error_of_closing_is_raised_in_the_task_that_closes(tmp_path: object) -> None:
    cassette = f"{tmp_path}/run.yaml"
    async with AsyncSandbox(Cluster.record(cassette, LOCAL)) as sandbox:
        await sandbox.run("print(1)")
    sandbox = AsyncSandbox(Cluster.replay(cassette))
    await sandbox.aopen()

    async def close() -> None:
        with pytest.raises(ReplayMismatch, match="were not sent"):
            await sandbox.aclose()
        await sandbox.aclose()

    await in_new_task(close)


async def test_an_error_that_leaves_the_block_is_not_replaced_by_requests_that_were_not_replayed(
    tmp_path: object,
) -> None:
    cassette = f"{tmp_path}/run.yaml"
    async with AsyncSandbox(Cluster.record(cassette, LOCAL)) as sandbox:
        await sandbox.run("print(1)")
    with pytest.raises(KeyError, match="mine"):
        async with AsyncSandbox(Cluster.replay(cassette)):
            raise KeyError("mine")


request_id = ContextVar("request_id", default="none")


class RecordsContext(httpx.AsyncBaseTransport):
    """A transport that keeps the value of a context variable where it is opened, used and closed."""

    def __init__(self, inner: LocalTransport) -> None:
        self.inner = inner
        self.seen: dict[str, str] = {}

    async def __aenter__(self) -> RecordsContext:
        self.seen["open"] = request_id.get()
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.seen["close"] = request_id.get()
        await self.inner.__aexit__()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.seen[request.url.path.rpartition("/")[2]] = request_id.get()
        return await self.inner.handle_async_request(request)


async def test_context_variables_are_those_of_the_opening_task_and_of_each_run() -> None:
    transport = RecordsContext(scripted(program()))
    sandbox = AsyncSandbox(Cluster.transport(transport))

    async def open_() -> None:
        request_id.set("opener")
        await sandbox.aopen()

    async def run() -> None:
        request_id.set("runner")
        await sandbox.run("pass")

    for each in (open_, run, sandbox.aclose):
        await in_new_task(each)
    assert transport.seen == {"open": "opener", "jobs": "runner", "configmaps": "runner", "close": "opener"}


# -- the end of the event loop ------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_end_of_the_event_loop_closes_it_and_deletes_the_jobs(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    transport = scripted(RUNNING)
    sandbox = AsyncSandbox(Cluster.transport(transport))

    async def main() -> None:
        await sandbox.aopen()
        await start_program(sandbox)
        assert transport.objects("jobs")

    anyio.run(main, backend=backend)
    assert (sandbox.jobs, sandbox.leftovers, transport.objects("jobs")) == ([], [], [])
    (warning,) = (each for each in caplog.records if each.name.startswith("gke_sandbox"))
    assert "was not closed before its event loop ended" in warning.getMessage()
    # It is closed: another event loop can check that.
    anyio.run(sandbox.aclose, backend=backend)


def test_a_deletion_that_the_end_of_the_event_loop_interrupts_is_started_again() -> None:
    transport = scripted(program(), Fault(Delay(0.3), Match("delete", "jobs")))
    sandbox = AsyncSandbox(Cluster.transport(transport))

    async def main() -> None:
        await sandbox.aopen()
        await sandbox.run("pass")
        # The deletion is waiting for its response.
        while not any(each.verb == "delete" for each in transport.requests):
            await asyncio.sleep(0)

    asyncio.run(main(), debug=True)
    assert (sandbox.leftovers, transport.objects("jobs")) == ([], [])


def test_the_end_of_the_event_loop_waits_ten_seconds_for_a_server_that_does_not_respond() -> None:
    transport = scripted(RUNNING, Fault(Delay(3600), Match("delete", "jobs"), times=None))
    sandbox = AsyncSandbox(Cluster.transport(transport))
    times: list[float] = []

    class Clock(trio.abc.Instrument):
        def after_run(self) -> None:
            times.append(trio.current_time())

    async def main() -> None:
        trio.lowlevel.add_instrument(Clock())
        await sandbox.aopen()
        await start_program(sandbox)
        times.append(trio.current_time())

    run_on_mock_clock(main)
    assert times[1] - times[0] == pytest.approx(10)
    assert len(sandbox.leftovers) == 1


INTERRUPTED = """
import os, signal, sys
import anyio
from gke_sandbox import AsyncSandbox, Cluster, OutputChunk
from gke_sandbox.local import LocalTransport, ScriptedRuntime
from gke_sandbox.local.runtimes.scripted import Script
from tests.pods import START, out

backend, style = sys.argv[1:]
transport = LocalTransport(ScriptedRuntime(Script(chunks=[(0.0, START), (0.0, out("a"))])))
sandbox = AsyncSandbox(Cluster.transport(transport))

async def use():
    async for event in sandbox.stream("pass"):
        if isinstance(event, OutputChunk):
            os.kill(os.getpid(), signal.SIGINT)

async def main():
    if style == "block":
        async with sandbox:
            await use()
    await sandbox.aopen()
    await use()

try:
    anyio.run(main, backend=backend)
except KeyboardInterrupt:
    print(transport.objects("jobs"), sandbox.jobs, sandbox.leftovers)
"""


@pytest.mark.parametrize("style", ["block", "aopen"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ctrl_c_deletes_the_jobs(backend: str, style: str) -> None:
    command = [sys.executable, "-X", "dev", "-c", INTERRUPTED, backend, style]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment)
    assert ran.stdout == "[] [] []\n", ran.stderr
    assert "Task was destroyed" not in ran.stderr
    assert "Traceback" not in ran.stderr


ENDS = """
import asyncio, gc, sys
from gke_sandbox import AsyncSandbox, Cluster

async def main():
    sandbox = AsyncSandbox(Cluster.local("process"))
    await sandbox.aopen()
    print((await sandbox.run("print(1)")).stdout)
    return sandbox

loop = asyncio.new_event_loop()
sandbox = loop.run_until_complete(main())
loop.close()
del sandbox, loop
gc.collect()
"""


def test_an_event_loop_that_is_closed_without_cancelling_its_tasks_prints_nothing() -> None:
    ran = subprocess.run([sys.executable, "-X", "dev", "-c", ENDS], capture_output=True, text=True, timeout=50)
    assert (ran.returncode, ran.stdout) == (0, "1\n\n")
    assert "Task was destroyed" not in ran.stderr
    assert "ignored" not in ran.stderr


def test_a_sandbox_that_is_dropped_stays_open_until_its_event_loop_ends() -> None:
    transport = scripted(RUNNING)

    async def main() -> None:
        sandbox = AsyncSandbox(Cluster.transport(transport))
        await sandbox.aopen()
        await start_program(sandbox)
        del sandbox
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main(), debug=True)
    assert transport.objects("jobs") == []


# -- asyncio's cancellation ---------------------------------------------------------------------------


def test_closing_in_a_new_task_with_a_timeout_as_google_adk_does() -> None:
    transport = scripted(RUNNING)

    async def main() -> None:
        sandbox = AsyncSandbox(Cluster.transport(transport))
        await sandbox.aopen()
        await start_program(sandbox)
        await asyncio.wait_for(asyncio.create_task(sandbox.aclose()), timeout=10)
        assert transport.objects("jobs") == []
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main(), debug=True)


def test_a_timeout_of_closing_leaves_no_task_and_reports_the_job() -> None:
    async def main() -> None:
        transport = scripted(RUNNING, Fault(Delay(3600), Match("delete", "jobs"), times=None))
        sandbox = AsyncSandbox(Cluster.transport(transport))
        await sandbox.aopen()
        await start_program(sandbox)
        closing = asyncio.create_task(sandbox.aclose())
        while not any(each.verb == "delete" for each in transport.requests):
            await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(sandbox.leftovers) == 1

    asyncio.run(main(), debug=True)
