"""End-to-end tests: real programs in real processes, on the embedded cluster."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from typing import Any

import anyio
import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from gke_sandbox import AsyncSandbox, Cluster, ExecutionFinished, ExecutionResult, OutputChunk
from gke_sandbox.errors import SandboxClosed, SandboxError, SpecError
from gke_sandbox.local import LocalTransport, choose_runtime
from gke_sandbox.local.faults import Delay, Fault, Match
from gke_sandbox.local.runtimes.scripted import Script
from gke_sandbox.result import DroppedFile, DroppedOutput
from gke_sandbox.sandbox import ExecutionStream

from .clock import mock_clock
from .pods import INSTANT, START, out, pods, program

pytestmark = pytest.mark.anyio

LOCAL = Cluster.local("process")


async def run(code: str, **arguments: Any) -> ExecutionResult:
    async with AsyncSandbox(LOCAL) as sandbox:
        return await sandbox.run(code, **arguments)


async def test_a_program_runs_and_its_output_is_returned() -> None:
    result = await run("print(6 * 7)")
    assert (result.status, result.exit_code, result.stdout, result.stderr) == ("succeeded", 0, "42\n", "")
    assert result.job.startswith("gke-sandbox-")
    assert result.pod.startswith(result.job)
    assert result.timings.program is not None


@pytest.mark.parametrize("delivery", ["env", "mount"])
async def test_all_inputs_reach_the_program_and_all_outputs_are_returned(
    delivery: str,
) -> None:
    result = await run(
        "import os, sys\n"
        "print(sys.argv[1:], os.environ['WHO'], repr(input()), open('sub/in.bin', 'rb').read())\n"
        "print('to stderr', file=sys.stderr)\n"
        "os.makedirs('made'); open('made/out.bin', 'wb').write(bytes(range(256)))\n"
        "open('sub/in.bin', 'ab').write(b'!')\n"
        "sys.exit(3)\n",
        files={"sub/in.bin": b"\x00\xff"},
        args=["a b", "-c", "ñ"],
        stdin="línea\n",
        env={"WHO": "me $(HOME) $$"},
        delivery=delivery,
    )
    assert result.stdout == "['a b', '-c', 'ñ'] me $(HOME) $$ 'línea' b'\\x00\\xff'\n"
    assert result.stderr == "to stderr\n"
    assert (result.status, result.exit_code) == ("failed", 3)
    assert result.files == {"made/out.bin": bytes(range(256)), "sub/in.bin": b"\x00\xff!"}


async def test_a_large_program_that_compresses_well_is_mounted_compressed() -> None:
    big = "# " + "x" * 3_000_000 + "\nprint('big')\n"
    assert (await run(big)).stdout == "big\n"


async def test_the_time_limit_kills_the_program_and_keeps_its_output() -> None:
    result = await run("import time\nprint('started')\ntime.sleep(60)", timeout=0.5)
    assert (result.status, result.exit_code, result.stdout) == ("timed_out", None, "started\n")


async def test_a_segmentation_fault_is_reported_as_signal_11() -> None:
    result = await run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (result.status, result.signal) == ("signaled", 11)


async def test_undecodable_output_is_replaced_in_the_text_and_kept_in_the_bytes() -> None:
    result = await run("import sys; sys.stdout.buffer.write(b'\\xffok')")
    assert (result.stdout, result.stdout_bytes) == ("�ok", b"\xffok")


async def test_output_over_the_limit_is_dropped_and_counted() -> None:
    result = await run("print('x' * 5000)", max_output_bytes=1000)
    assert (len(result.stdout), result.dropped.stdout) == (1000, 4001)


async def test_dropped_files_are_named_with_the_reason() -> None:
    code = (
        "open('big', 'w').write('x' * 11)\n"
        "for name in ('back\\\\slash', 'fdp\\u202e.exe', 'new\\nline', 'ok', 'one too many'): open(name, 'w')\n"
    )
    result = await run(code, max_file_bytes=10, max_files=3)
    assert result.files == {"ok": b""}
    assert result.dropped == DroppedOutput(
        files=5,
        named_files=(
            DroppedFile("big", "too_large", 11),
            DroppedFile(r"new\nline", "refused_name", 0),
            DroppedFile("one too many", "too_many", 0),
            DroppedFile(r"back\\slash", "refused_name"),
            DroppedFile(r"fdp\u202e.exe", "refused_name"),
        ),
    )


async def test_a_program_does_not_inherit_the_environment_of_the_client() -> None:
    os.environ["SECRET_OF_THE_HOST"] = "1"
    try:
        result = await run("import os; print(sorted(os.environ))")
    finally:
        del os.environ["SECRET_OF_THE_HOST"]
    assert "SECRET_OF_THE_HOST" not in result.stdout
    assert "GKE_SANDBOX" not in result.stdout


async def test_a_stream_returns_output_while_the_program_runs() -> None:
    code = "import sys, time\nsys.stdout.write('first\\n')\ntime.sleep(60)"
    async with AsyncSandbox(LOCAL) as sandbox, sandbox.stream(code) as events:
        async for event in events:
            if isinstance(event, OutputChunk):
                assert event.data == b"first\n"
                break


async def test_a_stream_without_a_block_ends_with_the_result() -> None:
    async with AsyncSandbox(LOCAL) as sandbox:
        events = [event async for event in sandbox.stream("print(1)")]
    assert isinstance(events[-1], ExecutionFinished)
    assert events[-1].result.stdout == "1\n"


async def test_many_programs_at_once_use_few_threads() -> None:
    """Their results are complete, and no objects are left."""
    count = 25
    transport = LocalTransport(choose_runtime("process"))
    threads: list[int] = []
    before = len(os.listdir("/proc/self/task"))

    async def count_threads() -> None:
        while True:
            threads.append(len(os.listdir("/proc/self/task")))
            await anyio.sleep(0.02)

    async with transport:
        async with AsyncSandbox(Cluster.transport(transport)) as sandbox, anyio.create_task_group() as beside:
            beside.start_soon(count_threads)
            codes = [f"print({n})" for n in range(count)]
            results = await sandbox.map(codes, max_concurrency=count, startup_timeout=50, timeout=50)
            beside.cancel_scope.cancel()
        with anyio.fail_after(20):
            while transport.leftovers():
                await anyio.sleep(0.05)
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(count)]
    # The threads were counted while the programs ran, not only at the end.
    assert len(threads) > 2
    assert max(threads) - before <= 7


@mock_clock
async def test_many_executions_at_once_share_one_watch_and_send_four_requests_each() -> None:
    count = 50
    async with pods(lambda spec: program(out("done"))) as cluster:
        results = await cluster.sandbox.map(["pass"] * count, max_concurrency=count)
        await anyio.sleep(10)
        assert cluster.left() == []
    assert [result.stdout for result in results] == ["done"] * count
    assert Counter(cluster.requests) == {
        "GET pods": 1,
        "GET pods?watch": 1,
        "POST jobs": count,
        "POST configmaps": count,
        "GET pods/*/log": count,
        "DELETE jobs/*": count,
    }


# -- closing ------------------------------------------------------------------------------------------

RUNNING = Script(chunks=[(0.0, START), (0.1, out("a"))])


async def test_the_reader_of_a_stream_gets_an_error_if_the_task_of_the_sandbox_is_cancelled() -> None:
    started = anyio.Event()

    async def read(stream: ExecutionStream) -> None:
        with pytest.raises(SandboxClosed):
            async for event in stream:
                if isinstance(event, OutputChunk):
                    started.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as readers:
            with anyio.CancelScope() as around:
                async with pods(RUNNING, pace=INSTANT) as cluster:
                    readers.start_soon(read, cluster.sandbox.stream("pass"))
                    await started.wait()
                    around.cancel()
                    await anyio.sleep_forever()


class BrokenWatch(httpx.AsyncBaseTransport):
    """A transport with a bug: its watch raises RuntimeError."""

    def __init__(self) -> None:
        self.closed = False

    async def __aexit__(self, *raised: object) -> None:
        self.closed = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/pods"):
            raise RuntimeError("a bug")
        if request.method == "POST":
            await anyio.sleep_forever()
        return httpx.Response(200, json={"kind": "Status", "status": "Success"}, request=request)


async def test_an_unexpected_error_in_the_background_is_raised_without_a_group_after_closing() -> None:
    transport = BrokenWatch()
    with anyio.fail_after(20), pytest.raises(RuntimeError, match="a bug"):
        async with AsyncSandbox(Cluster.transport(transport)) as sandbox:
            await sandbox.run("pass")
    assert transport.closed


def test_a_task_that_asyncio_cancels_twice_leaves_no_task_and_reports_the_job() -> None:
    """task.cancel() of asyncio ignores shields, and the end of a loop cancels all of its tasks."""

    async def main() -> None:
        clusters = []

        async def run() -> None:
            slow = Fault(Delay(60), Match("delete", "jobs"), times=None)
            async with pods(RUNNING, slow, pace=INSTANT) as cluster:
                clusters.append(cluster)
                async with cluster.sandbox.stream("pass") as events:
                    async for event in events:
                        if isinstance(event, OutputChunk):
                            break
                await asyncio.sleep(60)

        task = asyncio.create_task(run())
        while not clusters or not any("log" in request for request in clusters[0].requests):
            await asyncio.sleep(0.01)
        task.cancel()
        while "DELETE jobs/*" not in clusters[0].requests:
            await asyncio.sleep(0.01)
        for other in asyncio.all_tasks() - {asyncio.current_task()}:
            other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(clusters[0].sandbox.leftovers) == 1

    asyncio.run(main(), debug=True)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_use_in_another_event_loop_is_an_error_at_once(backend: str) -> None:
    with (
        start_blocking_portal(backend) as portal,
        portal.wrap_async_context_manager(AsyncSandbox(LOCAL)) as sandbox,
    ):
        opened = sandbox.stream("print(1)")
        portal.call(anext, opened)

        async def first_event() -> object:
            return await anext(aiter(sandbox.stream("print(1)")))

        async def next_event() -> object:
            return await anext(opened)

        async def run() -> object:
            return await sandbox.run("print(1)")

        async def run_two() -> object:
            return await sandbox.map(["print(1)", "print(2)"])

        for use, may_have_run in (
            (run, False),
            (run_two, False),
            (first_event, False),
            (next_event, True),
            (sandbox.aclose, False),
        ):
            with pytest.raises(
                SandboxError, match="used in another event loop than the one that opened"
            ) as raised:
                anyio.run(use, backend=backend)
            assert raised.value.may_have_run is may_have_run
            assert "asyncio.run()" in raised.value.hint
        assert portal.call(sandbox.run, "print(2)").stdout == "2\n"


async def test_each_run_logs_one_info_record_and_its_phases_as_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "gke_sandbox")
    result = await run("print(12); raise SystemExit(3)")

    def messages(level: str) -> list[str]:
        return [each.getMessage() for each in caplog.records if each.levelname == level]

    (summary,) = (text for text in messages("INFO") if text.startswith("Job "))
    assert re.fullmatch(rf"Job {result.job}: failed after \d+\.\d\d\d s, 3 bytes of output", summary)
    phases = [text.split()[2] for text in messages("DEBUG") if text.startswith(f"Job {result.job}: ")]
    assert phases == ["created", "scheduled", "started", "first_output", "finished"]


async def test_a_run_without_a_result_logs_one_info_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gke_sandbox")
    with pytest.raises(SandboxError) as raised:
        await run("pass", image_pull_policy="Never", startup_timeout=0.001)
    (summary,) = (each.getMessage() for each in caplog.records if each.getMessage().startswith("Job "))
    assert f": {type(raised.value).__name__}" in summary
    assert summary.endswith(" s, 0 bytes of output")


@pytest.mark.parametrize("name", ["limit", "max_workers"])
async def test_a_common_name_for_the_concurrency_of_map_is_corrected(name: str) -> None:
    wrong: dict[str, Any] = {name: 3}
    async with AsyncSandbox(LOCAL) as sandbox:
        with pytest.raises(SpecError, match=f"{name}: unknown argument") as raised:
            await sandbox.map(["pass"], **wrong)
    assert raised.value.hint == "Did you mean max_concurrency?"
