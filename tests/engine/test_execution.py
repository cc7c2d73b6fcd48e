"""One execution, step by step, on the embedded cluster with scripted pods and a clock that jumps."""

from __future__ import annotations

import gc

import anyio
import httpx
import pytest

from gke_sandbox import (
    AsyncSandbox,
    ExecutionFinished,
    ExecutionResult,
    OutputChunk,
    PhaseChanged,
    PodWaiting,
    ResultLost,
    SpecError,
    StartError,
)
from gke_sandbox._engine.execution import Execution
from gke_sandbox.errors import Forbidden, PayloadTooLarge, SandboxClosed
from gke_sandbox.local.faults import (
    CutBody,
    Delay,
    EndWatch,
    Evict,
    ExpireWatch,
    Fault,
    Forbid,
    Match,
    NoNode,
    Respond,
)
from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.scripted import Script

from ..clock import mock_clock, run_on_mock_clock
from ..pods import INSTANT, START, err, exit_frame, out, pods, program

ONE_EXECUTION = [
    "POST jobs",
    "POST configmaps",
    "GET pods/*/log",
    "DELETE jobs/*",
]
THE_WATCH = ["GET pods", "GET pods?watch"]

NOT_STARTED = "gke-sandbox: the program was not started: no directory is writable: /tmp\n"

# -- the requests -----------------------------------------------------------------------------------------


@mock_clock
async def test_one_execution_is_four_requests_and_a_share_of_one_watch() -> None:
    async with pods(program(out("hola\n"))) as cluster:
        result = await cluster.sandbox.run("print('hola')")
        await anyio.sleep(10)
        assert sorted(cluster.requests) == sorted(ONE_EXECUTION + THE_WATCH)
        assert cluster.left() == []
    assert (result.status, result.exit_code, result.stdout, result.stderr) == ("succeeded", 0, "hola\n", "")


@mock_clock
async def test_ten_executions_share_one_list_and_one_watch() -> None:
    async with pods(program(out("x"))) as cluster:
        results = await cluster.sandbox.map(["pass"] * 10)
        await anyio.sleep(10)
        assert sorted(cluster.requests) == sorted(ONE_EXECUTION * 10 + THE_WATCH)
    assert [result.status for result in results] == ["succeeded"] * 10
    assert len({result.pod for result in results}) == 10


@mock_clock
async def test_the_watch_stays_open_for_a_minute_and_is_opened_again_after_that() -> None:
    async with pods(program()) as cluster:
        await cluster.sandbox.run("pass")
        await anyio.sleep(55)
        await cluster.sandbox.run("pass")
        assert cluster.requests.count("GET pods?watch") == 1
        await anyio.sleep(65)
        await cluster.sandbox.run("pass")
        assert cluster.requests.count("GET pods?watch") == 2


@mock_clock
async def test_the_watch_stays_open_during_a_run_of_an_hour() -> None:
    async with pods(program(out("done"), at=3600.0)) as cluster:
        result = await cluster.sandbox.run("pass", timeout=7200)
    assert (result.status, result.stdout) == ("succeeded", "done")


@mock_clock
async def test_invalid_arguments_send_no_request() -> None:
    async with pods(program()) as cluster:
        with pytest.raises(SpecError, match="cpu_limit"):
            await cluster.sandbox.run("pass", cpu_limit="abc")
        with pytest.raises(PayloadTooLarge):
            await cluster.sandbox.run("pass", files={"noise": bytes(range(256)) * 20_000}, delivery="env")
        with pytest.raises(SpecError, match="one namespace"):
            await cluster.sandbox.run("pass", namespace="other")
        assert cluster.requests == []


# -- the end ----------------------------------------------------------------------------------------------


@mock_clock
async def test_the_result_is_returned_at_the_exit_frame_even_if_log_and_pod_never_end() -> None:
    script = Script(chunks=[(0.0, START), (0.2, out("hi")), (0.3, exit_frame(3))], log_never_ends=True)
    async with pods(script) as cluster:
        with anyio.fail_after(2):
            result = await cluster.sandbox.run("pass")
    assert (result.status, result.exit_code, result.stdout) == ("failed", 3, "hi")
    assert result.timings.finished == result.timings.returned
    assert result.timings.program == 0.1


@mock_clock
async def test_timings_are_seconds_from_the_call_in_order() -> None:
    async with pods(program(out("x"), at=5.0)) as cluster:
        await anyio.sleep(100)
        timings = (await cluster.sandbox.run("pass")).timings
    seen = [timings.created, timings.scheduled, timings.started, timings.first_output, timings.finished]
    assert None not in seen
    assert seen == sorted(seen)  # type: ignore[type-var]
    assert timings.started is not None
    assert timings.finished == pytest.approx(timings.started + 5.0, abs=0.1)


@mock_clock
async def test_the_programs_own_signal() -> None:
    script = Script(
        chunks=[(0.0, START), (0.1, exit_frame(None, 11))], ends_at=0.1, exit=ContainerExit(139, "Error")
    )
    async with pods(script) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.exit_code, result.signal) == ("signaled", None, 11)


@mock_clock
async def test_the_runners_time_limit() -> None:
    script = Script(
        chunks=[(0.0, START), (0.1, out("partial")), (2.0, exit_frame(None, 9, timed_out=True))],
        ends_at=2.0,
        exit=ContainerExit(124, "Error"),
    )
    async with pods(script) as cluster:
        result = await cluster.sandbox.run("pass", timeout=2)
    assert (result.status, result.exit_code, result.stdout) == ("timed_out", None, "partial")


@mock_clock
async def test_a_program_that_stops_its_runner_is_stopped_by_the_client() -> None:
    """Under gVisor a program can SIGSTOP pid 1: then its time limit is not enforced in the pod."""
    script = Script(chunks=[(0.0, START), (0.1, out("partial"))])
    async with pods(script) as cluster:
        began = anyio.current_time()
        result = await cluster.sandbox.run("pass", timeout=30)
        assert anyio.current_time() - began == pytest.approx(30 + 5 + 0.7, abs=0.5)
        await anyio.sleep(10)
        assert cluster.left() == []
    assert (result.status, result.stdout, result.output_truncated) == ("timed_out", "partial", True)
    assert "30 s" in result.message


@mock_clock
async def test_the_clients_limit_applies_without_a_start_frame() -> None:
    async with pods(Script()) as cluster:
        began = anyio.current_time()
        result = await cluster.sandbox.run("pass", timeout=30)
        assert anyio.current_time() - began == pytest.approx(30 + 5 + 0.7, abs=0.5)
    assert result.status == "timed_out"


@mock_clock
async def test_out_of_memory_is_known_from_the_pod_within_seconds() -> None:
    script = Script(
        chunks=[(0.0, START), (0.1, out("before\n"))], ends_at=1.0, exit=ContainerExit(128, "OOMKilled")
    )
    async with pods(script) as cluster:
        began = anyio.current_time()
        result = await cluster.sandbox.run("pass")
        assert anyio.current_time() - began < 6
    assert (result.status, result.reason, result.stdout) == ("out_of_memory", "OOMKilled", "before\n")


@mock_clock
async def test_after_signal_nine_the_status_of_the_pod_is_awaited() -> None:
    """The kernel killed the program alone, for memory: the runner saw signal 9, and the pod has the reason."""
    script = Script(
        chunks=[(0.0, START), (0.5, exit_frame(None, 9))], ends_at=0.5, exit=ContainerExit(137, "OOMKilled")
    )
    async with pods(script) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.signal) == ("out_of_memory", 9)


@pytest.mark.parametrize("code", [137, 0, 1])
def test_a_program_that_kills_itself_with_signal_nine_was_not_killed_from_outside(code: int) -> None:
    """The runner reports the signal and exits with 128+9, so that the container looks as if it was killed."""
    chunks = [(0.0, START), (0.5, out("a")), (0.5, exit_frame(None, 9))]

    async def run() -> None:
        async with pods(Script(chunks, ends_at=0.5, exit=ContainerExit(code, "Error"))) as cluster:
            result = await cluster.sandbox.run("pass")
        assert (result.status, result.signal, result.stdout) == ("signaled", 9, "a")
        assert (result.cause, result.output_truncated) == ("", False)
        assert "the program sent it" in result.message
        assert "more than 4095 threads" in result.message

    run_on_mock_clock(run)


@mock_clock
async def test_signal_nine_of_an_evicted_pod_is_attributed_to_the_eviction() -> None:
    script = Script([(0.0, START), (0.5, exit_frame(None, 9))], log_never_ends=True)
    async with pods(script, Fault(Evict(after=1), Match(resource="pods"))) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.cause) == ("killed", "storage_exceeded")


@mock_clock
async def test_signal_nine_without_a_status_of_the_pod_is_the_programs_after_three_seconds() -> None:
    script = Script(chunks=[(0.0, START), (0.5, exit_frame(None, 9))], log_never_ends=True)
    async with pods(script) as cluster:
        began = anyio.current_time()
        result = await cluster.sandbox.run("pass")
        assert anyio.current_time() - began == pytest.approx(0.65 + 0.5 + 3.0, abs=0.3)
    assert (result.status, result.signal) == ("signaled", 9)


@mock_clock
async def test_the_result_of_an_evicted_pod_has_its_output_and_the_reason() -> None:
    script = Script(chunks=[(0.0, START), (0.1, out("filling\n"))])
    async with pods(script, Fault(Evict(after=50), Match(resource="pods"))) as cluster:
        result = await cluster.sandbox.run("pass")
        await anyio.sleep(10)
        assert cluster.left() == []
    assert (result.status, result.reason, result.stdout) == ("killed", "Evicted", "filling\n")
    assert "EmptyDir" in result.message


@mock_clock
async def test_an_exit_code_without_an_exit_frame_is_a_result_with_truncated_output() -> None:
    script = Script(chunks=[(0.0, START), (0.1, out("a"))], ends_at=0.2, exit=ContainerExit(3, "Error"))
    async with pods(script) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.exit_code, result.output_truncated) == ("failed", 3, True)


# -- no start ---------------------------------------------------------------------------------------------


async def start_error(*faults: Fault, script: Script | None = None, **settings: object) -> StartError:
    """Return the error of a run that does not start, after checking that the cluster is empty again."""
    async with pods(script or program(), *faults, **settings) as cluster:
        with pytest.raises(StartError) as caught:
            await cluster.sandbox.run("pass")
        await anyio.sleep(10)
        assert cluster.left() == []
        assert cluster.sandbox.leftovers == []
    return caught.value


@mock_clock
async def test_a_runner_that_cannot_start_is_an_error_with_its_output() -> None:
    script = Script(
        chunks=[(0.0, START), (0.0, err(NOT_STARTED))],
        ends_at=0.1,
        exit=ContainerExit(125, "Error"),
    )
    error = await start_error(script=script)
    assert "no directory is writable: /tmp" in str(error)


@pytest.mark.parametrize("before", [[], [out("ran")], [err("ran")], [err(NOT_STARTED), out("ran")]])
@mock_clock
async def test_a_runner_that_fails_after_the_fork_is_a_lost_result(before: list[bytes]) -> None:
    script = Script(
        chunks=[(0.0, part) for part in (START, *before, err("gke-sandbox: the runner failed: OSError: why\n"))],
        ends_at=0.1,
        exit=ContainerExit(125, "Error"),
    )
    async with pods(script) as cluster:
        with pytest.raises(ResultLost, match=r"(?m)after it had started the program: OSError: why$") as caught:
            await cluster.sandbox.run("pass")
    error = caught.value
    assert (error.cause, error.may_have_run) == ("runner_crashed", True)
    assert "interfered with the runner" in error.hint
    assert (out("ran") in before) == (error.stdout == "ran")


@mock_clock
async def test_a_program_with_the_exit_code_of_the_runner_has_run_even_if_its_exit_frame_is_lost() -> None:
    """After a StartError you may run the program again."""
    script = Script(chunks=[(0.0, START), (0.0, out("ran"))], ends_at=0.1, exit=ContainerExit(125, "Error"))
    async with pods(script) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.exit_code, result.output_truncated) == ("failed", 125, True)
    assert "no exit frame" in result.message
    assert result.message in result.summary


@mock_clock
async def test_an_image_whose_python_is_too_old_shows_what_it_printed() -> None:
    script = Script(chunks=[(0.0, b"SyntaxError: invalid syntax\n")], ends_at=0.1, exit=ContainerExit(1, "Error"))
    error = await start_error(script=script)
    assert "SyntaxError: invalid syntax" in str(error)
    assert "3.8" in error.hint


# -- the result is lost -----------------------------------------------------------------------------------


@mock_clock
async def test_a_missing_log_without_a_status_of_the_pod_is_a_lost_result() -> None:
    gone = Respond(404, "NotFound", 'pods "x" not found')
    async with pods(Script(chunks=[(0.0, START)]), Fault(gone, Match(resource="pods/log"), times=None)) as cluster:
        with pytest.raises(ResultLost, match="the result is lost") as caught:
            await cluster.sandbox.run("pass")
        await anyio.sleep(10)
        assert cluster.left() == []
    assert caught.value.hint


@mock_clock
async def test_a_log_that_cannot_be_read_is_a_lost_result_and_not_a_failed_start() -> None:
    """After a StartError you may run the program again, but this one has run."""
    broken = Fault(Respond.internal_error(), Match(resource="pods/log"), times=None)
    async with pods(program(out("x")), broken) as cluster:
        with pytest.raises(ResultLost, match="could not be read"):
            await cluster.sandbox.run("pass")


# -- the log ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [1, 300])
def test_a_log_that_opens_long_after_the_programs_end_is_read(timeout: float) -> None:
    async def run() -> None:
        slow = Fault(Delay(9), Match(resource="pods/log"))
        async with pods(program(out("x")), slow) as cluster:
            result = await cluster.sandbox.run("pass", timeout=timeout)
        assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "x", False)

    run_on_mock_clock(run)


@pytest.mark.parametrize("clean", [True, False])
def test_a_log_that_breaks_off_is_continued_where_it_was(clean: bool) -> None:
    frames = [START, *(out(f"line {n}\n") for n in range(8))]
    script = Script(
        chunks=[(n * 0.1, frame) for n, frame in enumerate(frames)] + [(10.0, exit_frame())],
        ends_at=10.0,
    )

    async def run() -> None:
        for after in range(0, sum(map(len, frames)), 7):
            cut = Fault(CutBody(after=after, clean=clean), Match(resource="pods/log"))
            async with pods(script, cut) as cluster:
                result = await cluster.sandbox.run("pass")
            assert result.stdout == "".join(f"line {n}\n" for n in range(8)), after
            assert not result.output_truncated

    run_on_mock_clock(run)


@mock_clock
async def test_output_is_streamed_as_it_arrives() -> None:
    script = Script(chunks=[(0.0, START), (0.5, out("a")), (1.5, err("b")), (2.5, exit_frame())], ends_at=2.5)
    async with pods(script) as cluster, cluster.sandbox.stream("pass") as events:
        seen = [event async for event in events]
    phases = [event.phase for event in seen if isinstance(event, PhaseChanged)]
    assert phases == ["created", "scheduled", "started", "first_output", "finished"]
    chunks = [event for event in seen if isinstance(event, OutputChunk)]
    assert [(chunk.stream, chunk.data) for chunk in chunks] == [("stdout", b"a"), ("stderr", b"b")]
    assert chunks[1].seconds - chunks[0].seconds == pytest.approx(1.0, abs=0.1)
    assert isinstance(seen[-1], ExecutionFinished)
    assert seen[-1].result.stdout == "a"


@mock_clock
async def test_a_stream_reports_why_the_pod_waits() -> None:
    fault = Fault(NoNode(seconds=5), Match(resource="pods"))
    async with pods(program(), fault) as cluster, cluster.sandbox.stream("pass") as events:
        waits = [event async for event in events if isinstance(event, PodWaiting)]
    assert [wait.reason for wait in waits] == ["Unschedulable"]


@mock_clock
async def test_a_stream_raises_the_error_of_its_run() -> None:
    fault = Fault(Forbid(), Match("create", "jobs"))
    async with pods(program(), fault) as cluster, cluster.sandbox.stream("pass") as events:
        with pytest.raises(Forbidden):
            async for _ in events:
                raise AssertionError("there is nothing to tell")


@mock_clock
async def test_leaving_a_stream_deletes_the_job() -> None:
    async with pods(Script(chunks=[(0.0, START), (0.1, out("a"))])) as cluster:
        async with cluster.sandbox.stream("pass") as events:
            async for event in events:
                if isinstance(event, OutputChunk):
                    break
        await anyio.sleep(5)
        assert cluster.left() == []


@mock_clock
async def test_the_result_has_the_files_and_the_dropped_output() -> None:
    from gke_sandbox._wire.frames import encode
    from gke_sandbox.result import DroppedOutput

    file = encode("file", b"eJwzAwAANwA3", "sub/sum.txt")
    end = exit_frame(dropped={"out": 10, "err": 2, "files": 1})
    script = Script(chunks=[(0.0, START), (0.1, out("abcdef")), (0.1, file), (0.1, end)], ends_at=0.1)
    async with pods(script) as cluster:
        result = await cluster.sandbox.run("pass", max_output_bytes=4)
    assert result.files == {"sub/sum.txt": b"6"}
    assert result.stdout == "abcd"
    assert result.dropped == DroppedOutput(stdout=12, stderr=2, files=1)


@mock_clock
async def test_a_forged_result_is_a_result_and_not_a_crash() -> None:
    from gke_sandbox._wire.frames import encode

    forged = [encode("file", b"AAAA", "../../evil"), encode("exit", b"{}"), exit_frame(0), exit_frame(7)]
    script = Script(chunks=[(0.0, START), *((0.1, frame) for frame in forged)], ends_at=0.1)
    async with pods(script) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.files, result.dropped.files) == ("succeeded", {}, 1)


# -- the watch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action", [EndWatch(after=2), ExpireWatch(after=2), ExpireWatch(status=True), CutBody(300)]
)
def test_a_watch_that_ends_is_opened_again_and_nothing_is_missed(action: object) -> None:
    async def run() -> None:
        fault = Fault(action, Match("watch", "pods"))  # type: ignore[arg-type]
        async with pods(program(out("x"), at=3.0), fault) as cluster:
            result = await cluster.sandbox.run("pass")
        assert (result.status, result.stdout) == ("succeeded", "x")

    run_on_mock_clock(run)


@mock_clock
async def test_a_forbidden_watch_is_replaced_by_lists_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with pods(
        program(out("seen all the same")), Fault(Forbid(), Match("watch", "pods"), times=None)
    ) as cluster:
        results = [await cluster.sandbox.run("pass") for _ in range(3)]
        await anyio.sleep(10)
        assert cluster.left() == []
        assert cluster.requests.count("GET pods?watch") == 1
    assert [result.stdout for result in results] == ["seen all the same"] * 3
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "watch" in warnings[0]


@mock_clock
async def test_without_permission_to_list_pods_every_run_fails() -> None:
    async with pods(program(), Fault(Forbid(), Match("list", "pods"), times=None)) as cluster:
        for _ in range(2):
            with pytest.raises(Forbidden, match="list"):
                await cluster.sandbox.run("pass")
        await anyio.sleep(10)
        assert cluster.left() == []


async def pods_are_forbidden_midway(script: Script) -> ExecutionResult:
    faults = (
        Fault(EndWatch(after=5), Match("watch", "pods")),
        Fault(Forbid(), Match("watch", "pods"), times=None, skip=1),
        Fault(Forbid(), Match("list", "pods"), times=None, skip=1),
    )
    async with pods(script, *faults) as cluster:
        result = await cluster.sandbox.run("pass")
        # The permission was granted at first, so the 403 is retried for some seconds.
        assert 2 < cluster.requests.count("GET pods?watch") < 10
    return result


@mock_clock
async def test_a_known_signal_is_a_result_even_if_the_pod_cannot_be_listed_any_more() -> None:
    chunks = [(0.0, START), (5.0, out("a")), (5.0, exit_frame(None, 9))]
    result = await pods_are_forbidden_midway(Script(chunks=chunks, log_never_ends=True))
    assert (result.status, result.signal, result.stdout) == ("signaled", 9, "a")


@mock_clock
async def test_without_exit_frame_and_status_of_the_pod_the_result_is_lost() -> None:
    with pytest.raises(ResultLost, match="list"):
        await pods_are_forbidden_midway(Script(chunks=[(0.0, START), (5.0, out("a"))], ends_at=5.0))


# -- cancellation and close -------------------------------------------------------------------------------


def test_closing_during_a_run_ends_it_and_waits_for_the_deletion() -> None:
    async def run() -> None:
        for milliseconds in range(0, 1500, 100):
            errors: list[SandboxClosed] = []
            async with anyio.create_task_group() as group:
                async with pods(Script(chunks=[(0.0, START)])) as cluster:

                    async def in_flight(cluster=cluster, errors=errors) -> None:  # type: ignore[no-untyped-def]
                        try:
                            await cluster.sandbox.run("pass")
                        except SandboxClosed as error:
                            errors.append(error)

                    group.start_soon(in_flight)
                    await anyio.sleep(milliseconds / 1000)
                assert cluster.sandbox.leftovers == []
            if milliseconds:
                assert [told.may_have_run for told in errors] == [True]
                posted = cluster.requests.count("POST jobs")
                assert cluster.requests.count("DELETE jobs/*") == posted

    run_on_mock_clock(run)


@mock_clock
async def test_a_closed_sandbox_refuses() -> None:
    async with pods(program()) as cluster:
        sandbox = cluster.sandbox
    with pytest.raises(SandboxClosed) as caught:
        await sandbox.run("pass")
    assert caught.value.may_have_run is False


# -- many -------------------------------------------------------------------------------------------------


@mock_clock
async def test_map_keeps_the_order_and_the_limit() -> None:
    most = 0

    def script(spec) -> Script:  # type: ignore[no-untyped-def]
        nonlocal most
        code = spec.env["GKE_SANDBOX_CODE_0"]
        most = max(most, cluster.runtime.running + 1)
        return program(out(code), at=10.0 - int(code))

    async with pods(script) as cluster:
        results = await cluster.sandbox.map([str(n) for n in range(10)], max_concurrency=3)
    assert [result.stdout for result in results] == [str(n) for n in range(10)]
    # A pod that has its exit frame may still be going when the next one starts.
    assert most <= 6


@mock_clock
async def test_map_raises_the_first_error_alone_and_ends_the_others() -> None:
    fault = Fault(Forbid(), Match("create", "configmaps"), times=None, skip=3)
    async with pods(program(at=50.0), fault) as cluster:
        with pytest.raises(Forbidden):
            await cluster.sandbox.map(["pass"] * 10, max_concurrency=5)
        await anyio.sleep(10)
        assert cluster.left() == []


# -- a rotated log, a slow connection ---------------------------------------------------------------------


@mock_clock
async def test_a_log_that_was_rotated_before_it_is_reopened_is_read_with_truncated_output() -> None:
    """The kubelet rotates at 10 MiB, so a fresh request starts in the middle of the log."""
    junk = (b"j" * 1023 + b"\n") * (11 << 10)
    script = Script(
        chunks=[(0.0, START), (0.1, out("a")), (0.2, junk), (25.0, out("b")), (26.0, exit_frame())],
        ends_at=26.0,
    )
    log = Match(resource="pods/log")
    cut, unavailable = (
        Fault(CutBody(after=len(START + out("a"))), log),
        Fault(Respond.unavailable(28), log, skip=1),
    )
    async with pods(script, cut, unavailable) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "ab", True)


# -- memory -----------------------------------------------------------------------------------------------


def runs_and_responses() -> list[str]:
    return [type(each).__name__ for each in gc.get_objects() if isinstance(each, (Execution, httpx.Response))]


def test_nothing_of_a_run_waits_for_the_garbage_collector_on_asyncio() -> None:
    async def run(sandbox: AsyncSandbox) -> None:
        await sandbox.run("pass")
        while sandbox.jobs:
            await anyio.sleep(0.01)
        await anyio.wait_all_tasks_blocked()

    async def main() -> None:
        async with pods(program(out("hola\n"), at=0.01), pace=INSTANT) as cluster:
            await run(cluster.sandbox)
            gc.collect()
            gc.disable()
            # That of the watch, for example.
            before = runs_and_responses()
            await run(cluster.sandbox)
            assert runs_and_responses() == before

    try:
        anyio.run(main)
    finally:
        gc.enable()
