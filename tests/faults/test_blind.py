"""Stalled streams, watches without events and lost responses: the client requests the missing information."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from gke_sandbox import AsyncSandbox, Cluster, ExecutionResult, NetworkError, ResultLost, StartError
from gke_sandbox.errors import Forbidden, Unauthorized
from gke_sandbox.local.faults import (
    Action,
    CutBody,
    Delay,
    Fault,
    Forbid,
    Match,
    NoNode,
    Preempt,
    Respond,
    StallBody,
)
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport
from tests.clock import mock_clock, run_on_mock_clock
from tests.pods import START, Pods, Shared, exit_frame, out, pods, program

KEEPS_RUNNING = Script(chunks=[(0.0, START), (0.1, out("so far"))])
AFTER_OUTPUT = len(START) + len(out("so far"))

POD, LOG, WATCH = Match(resource="pods"), Match("get", "pods/log"), Match("watch", "pods")
POST_CONFIG_MAP = Match("create", "configmaps")


async def lost(cluster: Pods) -> ResultLost:
    """Run a program whose result is lost, check that the cluster is empty afterwards, and return the error."""
    with pytest.raises(ResultLost) as caught:
        await cluster.sandbox.run("pass")
    assert "may have run" in caught.value.hint
    await anyio.sleep(10)
    assert cluster.left() == []
    return caught.value


# -- open streams stall -----------------------------------------------------------------------------------


class DroppingConnections(httpx.AsyncBaseTransport):
    """At `at` a middlebox drops every open connection without closing it; new connections work."""

    def __init__(self, cluster: LocalTransport, at: float) -> None:
        self._cluster = cluster
        self._at = at

    async def __aenter__(self) -> DroppingConnections:
        await self._cluster.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._cluster.__aexit__(None, None, None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._cluster.handle_async_request(request)
        if anyio.current_time() < self._at:
            response.stream = DroppedStream(response.stream, self._at, request.extensions["timeout"]["read"])  # type: ignore[arg-type]
        return response


class DroppedStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, at: float, read_timeout: float | None) -> None:
        self._stream = stream
        self._at = at
        self._read_timeout = read_timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = aiter(self._stream)
        while True:
            with anyio.CancelScope(deadline=self._at):
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
            if anyio.current_time() >= self._at:
                if self._read_timeout is None:
                    await anyio.sleep_forever()
                await anyio.sleep(self._read_timeout)
                raise httpx.ReadTimeout("")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def run_with_dropped_connections(script: Script, timeout: float) -> ExecutionResult:
    async def main() -> ExecutionResult:
        cluster = LocalTransport(ScriptedRuntime(script), pace=Pace.recorded())
        async with AsyncSandbox(
            Cluster.transport(DroppingConnections(cluster, at=3.0)), timeout=timeout
        ) as sandbox:
            return await sandbox.run("pass")

    return run_on_mock_clock(main)


@pytest.mark.parametrize("timeout", [20, 60, 300])
def test_a_stalled_log_is_reopened_and_loses_nothing(timeout: float) -> None:
    """A log without output is reopened; at the latest, the pod is read when the timeout of the program is over."""
    result = run_with_dropped_connections(
        Script([(0.0, START), (0.1, out("a")), (8.0, out("b")), (8.0, exit_frame())], 8.0), timeout
    )
    assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "ab", False)
    assert result.timings.returned < 57


def test_a_program_that_still_runs_after_its_connections_were_dropped_times_out() -> None:
    result = run_with_dropped_connections(Script([(0.0, START), (0.1, out("a"))]), 20)
    assert (result.status, result.reason, result.stdout) == ("timed_out", "Overtime", "a")


@mock_clock
async def test_the_log_of_a_program_without_output_is_reopened_with_growing_delays() -> None:
    async with pods(program(out("done"), at=3600.0)) as cluster:
        result = await cluster.sandbox.run("pass", timeout=7200)
        assert 4 <= cluster.requests.count("GET pods/*/log") <= 9
    assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "done", False)


@mock_clock
async def test_a_stalled_log_of_almost_the_maximum_size_is_read_again() -> None:
    junk = (b"j" * 1023 + b"\n") * (7 << 10)
    script = Script([(0.0, START), (0.1, junk), (0.2, out("a")), (200.0, out("b")), (200.0, exit_frame())], 200.0)
    async with pods(script) as cluster:
        result = await cluster.sandbox.run("pass")
        assert cluster.requests.count("GET pods/*/log") == 3
    assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "ab", False)


# -- the timeout of the program is over -------------------------------------------------------------------

LOG_BREAKS = (Fault(CutBody(after=AFTER_OUTPUT), LOG), Fault(Respond.internal_error(), LOG, None, skip=1))


@mock_clock
async def test_a_timeout_while_the_log_cannot_be_read_is_a_lost_result_without_mention_of_the_runner() -> None:
    """The result is not "timed_out": if the log cannot be read, the pod status may be outdated."""
    async with pods(KEEPS_RUNNING, *LOG_BREAKS, timeout=20) as cluster:
        error = await lost(cluster)
    assert error.stdout == "so far"
    assert "runner" not in str(error)
    assert "its limit of 20 s" in str(error)
    assert "its log could not be read: GET" in str(error)
    assert "500 InternalError" in str(error)


@mock_clock
async def test_a_timeout_while_neither_log_nor_pods_can_be_read_is_a_lost_result() -> None:
    no_pods = Fault(Respond.unavailable(), Match("list", "pods"), None, skip=1)
    async with pods(KEEPS_RUNNING, *LOG_BREAKS, no_pods, timeout=20) as cluster:
        error = await lost(cluster)
    assert "its limit of 20 s" in str(error)
    assert error.stdout == "so far"


# -- a pod that disappears unnoticed ----------------------------------------------------------------------


@mock_clock
async def test_a_pod_that_ran_and_disappeared_unnoticed_is_a_lost_result_and_not_a_start_error() -> None:
    """It is preempted two seconds after its start, and the watch delivers no event."""
    faults = Fault(StallBody(), WATCH, None), Fault(NoNode(4), POD), Fault(Preempt(after=2), POD, None)
    async with pods(KEEPS_RUNNING, *faults, startup_timeout=40) as cluster:
        error = await lost(cluster)
    assert error.cause == "deleted"
    assert error.pod
    assert error.pod in str(error)


@mock_clock
async def test_a_pod_that_ran_and_disappeared_between_two_lists_is_a_lost_result() -> None:
    polled = Fault(Forbid(), WATCH, None), Fault(Respond.unavailable(), Match("list", "pods"), 6, skip=4)
    short_lived = Fault(NoNode(3), POD), Fault(Preempt(after=0.05), POD, None)
    async with pods(KEEPS_RUNNING, *polled, *short_lived, startup_timeout=40) as cluster:
        error = await lost(cluster)
    assert error.cause == "deleted"


@mock_clock
async def test_a_pod_that_disappears_while_neither_it_nor_its_log_can_be_read_is_a_lost_result() -> None:
    cut = Fault(CutBody(after=AFTER_OUTPUT), LOG)
    no_log = Fault(Respond.internal_error(), LOG, 8, skip=1)
    silent = Fault(StallBody(after=9000), WATCH, None)
    async with pods(KEEPS_RUNNING, cut, no_log, silent, Fault(Preempt(after=2), POD, None), timeout=20) as cluster:
        error = await lost(cluster)
    assert error.stdout == "so far"


# -- the response to the POST of the ConfigMap ------------------------------------------------------------


@mock_clock
async def test_a_running_pod_replaces_a_missing_response_to_the_configmaps_post() -> None:
    async with pods(program(out("ran")), Fault(StallBody(after=40), POST_CONFIG_MAP, None)) as cluster:
        result = await cluster.sandbox.run("pass", startup_timeout=20)
        assert len(cluster.runtime.specs) == 1
    assert (result.status, result.stdout) == ("succeeded", "ran")
    assert result.timings.returned < 2
    assert result.timings.created is not None


@mock_clock
async def test_the_pods_are_listed_before_a_missing_response_to_the_configmaps_post_is_an_error() -> None:
    faults = Fault(StallBody(after=40), POST_CONFIG_MAP, None), Fault(StallBody(), WATCH, None)
    async with pods(program(out("ran")), *faults) as cluster:
        result = await cluster.sandbox.run("pass", startup_timeout=20)
        assert len(cluster.runtime.specs) == 1
    assert (result.status, result.stdout) == ("succeeded", "ran")
    assert result.timings.returned < 24


@pytest.mark.parametrize(
    ("action", "text"), [(Delay(1000), "startup_timeout"), (Respond.internal_error(), "500 InternalError")]
)
def test_a_configmap_that_may_have_been_created_is_a_lost_result_within_startup_timeout(
    action: Action, text: str
) -> None:
    async def main() -> None:
        async with pods(program(), Fault(action, POST_CONFIG_MAP, None), startup_timeout=15) as cluster:
            started_at = anyio.current_time()
            error = await lost(cluster)
            assert anyio.current_time() - started_at < 15 + 3 + 10 + 0.5
            assert cluster.requests.count("POST jobs") == 1
        assert "POST /api/v1/namespaces/default/configmaps" in str(error)
        assert text in str(error)

    run_on_mock_clock(main)


@mock_clock
async def test_a_jobs_post_without_a_response_fails_within_startup_timeout_and_the_job_is_deleted() -> None:
    async with pods(program(), Fault(StallBody(), Match("create", "jobs"), None)) as cluster:
        started_at = anyio.current_time()
        with pytest.raises(
            NetworkError, match=r"POST /apis/.*/jobs: no complete response within startup_timeout"
        ) as raised:
            await cluster.sandbox.run("pass", startup_timeout=5)
        assert "raise startup_timeout" in raised.value.hint
        assert anyio.current_time() - started_at < 5.5
        await anyio.sleep(10)
        assert cluster.left() == []
        assert cluster.runtime.specs == []


# -- the log is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "kind"), [(Respond.unauthorized(), Unauthorized), (Forbid(), Forbidden)])
def test_a_log_that_becomes_forbidden_is_a_lost_result_with_the_output_read_before(
    action: Action, kind: type[Exception]
) -> None:
    async def main() -> None:
        cut = Fault(CutBody(after=AFTER_OUTPUT), LOG)
        async with pods(KEEPS_RUNNING, cut, Fault(action, LOG, None, skip=1)) as cluster:
            error = await lost(cluster)
        assert error.stdout == "so far"
        assert isinstance(error.__cause__, kind)
        assert str(error.__cause__) in str(error)
        assert error.__cause__.hint in error.hint  # type: ignore[attr-defined]

    run_on_mock_clock(main)


@pytest.mark.parametrize("action", [Respond.too_many_requests(5), Respond.unavailable(5)])
def test_requests_for_the_log_respect_retry_after(action: Action) -> None:
    async def main() -> None:
        async with pods(KEEPS_RUNNING, Fault(action, LOG, None), timeout=20) as cluster:
            with pytest.raises(ResultLost):
                await cluster.sandbox.run("pass")
            assert cluster.requests.count("GET pods/*/log") <= 6

    run_on_mock_clock(main)


LOG = Match("get", "pods/log")
HANGS = Delay(1000)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(HANGS, LOG)],
        [Fault(CutBody(after=len(START)), LOG), Fault(HANGS, LOG, skip=1)],
        [Fault(Respond.too_many_requests(50), LOG)],
        [Fault(Respond.unavailable(300), LOG)],
    ],
    ids=["at first", "the second time", "wait for 50 s", "wait for 300 s"],
)
@mock_clock
async def test_one_request_for_the_log_without_a_response_loses_no_output(faults: list[Fault]) -> None:
    async with pods(program(out("x"), at=1), *faults) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "x", False)
    assert result.timings.returned < 50


@mock_clock
async def test_the_last_check_lists_the_pods_before_the_events() -> None:
    silent = [Fault(StallBody(), Match(verb, resource), times=None) for verb, resource in STALLED]
    late = Fault(NoNode.scaling_up(38), Match(resource="pods"))
    async with pods(program(out("x")), *silent, late, startup_timeout=40) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.stdout) == ("succeeded", "x")


STALLED = [("watch", "pods"), ("list", "events")]


@mock_clock
async def test_a_program_may_start_after_startup_timeout_until_its_job_is_deleted() -> None:
    slow = Pace(sandbox=9.6, start=0.5, observe=0.1)
    busy = Fault(Respond.unavailable(), Match("delete", "jobs"), 3)
    async with pods(program(out("x")), busy, pace=slow, startup_timeout=10) as cluster:
        with pytest.raises(StartError) as caught:
            await cluster.sandbox.run("pass")
        await anyio.sleep(5)
        assert len(cluster.runtime.specs) == 1, "the program has run"
    assert caught.value.may_have_run


@pytest.mark.parametrize("stops_after", [0.0, 0.9])
@mock_clock
async def test_a_pod_deleted_by_another_client_is_reported_as_deleted_and_not_as_a_failed_job(
    stops_after: float,
) -> None:
    script = Script(chunks=[(0.0, START), (0.1, out("so far"))], stops_after=stops_after)
    async with pods(script) as cluster, anyio.create_task_group() as tasks:

        async def delete_pod() -> None:
            await anyio.sleep(3)
            (pod,) = cluster.transport.objects("pods")
            async with httpx.AsyncClient(
                transport=Shared(cluster.transport), base_url="https://embedded"
            ) as client:
                await client.delete(f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}")

        tasks.start_soon(delete_pod)
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.cause, result.stdout) == ("killed", "deleted", "so far")
