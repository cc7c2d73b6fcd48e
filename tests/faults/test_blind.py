"""Streams that fall silent, watches that see nothing, answers that get lost: what is not seen is asked about."""

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

RUNS_ON = Script(chunks=[(0.0, START), (0.1, out("so far"))])
AFTER_OUTPUT = len(START) + len(out("so far"))

POD, LOG, WATCH = Match(resource="pods"), Match("get", "pods/log"), Match("watch", "pods")
POST_CONFIG_MAP = Match("create", "configmaps")


async def lost(cluster: Pods) -> ResultLost:
    """The error of a run whose result is lost, once the cluster is seen to be empty again."""
    with pytest.raises(ResultLost) as caught:
        await cluster.sandbox.run("pass")
    assert "may have run" in caught.value.hint
    await anyio.sleep(10)
    assert cluster.left() == []
    return caught.value


# -- open streams fall silent -----------------------------------------------------------------------------


class Forgetful(httpx.AsyncBaseTransport):
    """At `at`, somebody on the way forgets every open connection; new ones work."""

    def __init__(self, cluster: LocalTransport, at: float) -> None:
        self._cluster = cluster
        self._at = at

    async def __aenter__(self) -> Forgetful:
        await self._cluster.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._cluster.__aexit__(None, None, None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._cluster.handle_async_request(request)
        if anyio.current_time() < self._at:
            answer.stream = Forgotten(answer.stream, self._at, request.extensions["timeout"]["read"])  # type: ignore[arg-type]
        return answer


class Forgotten(httpx.AsyncByteStream):
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


def forgotten(script: Script, timeout: float) -> ExecutionResult:
    async def main() -> ExecutionResult:
        cluster = LocalTransport(ScriptedRuntime(script), pace=Pace.recorded())
        async with AsyncSandbox(Cluster.transport(Forgetful(cluster, at=3.0)), timeout=timeout) as sandbox:
            return await sandbox.run("pass")

    return run_on_mock_clock(main)


@pytest.mark.parametrize("timeout", [20, 60, 300])
def test_a_program_whose_end_came_on_forgotten_connections_has_its_whole_result(timeout: float) -> None:
    """At the program's limit the pod is looked at; and before that, a log that is silent is opened again."""
    result = forgotten(Script([(0.0, START), (0.1, out("a")), (8.0, out("b")), (8.0, exit_frame())], 8.0), timeout)
    assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "ab", False)
    assert result.timings.returned < 57


def test_a_program_that_runs_on_over_forgotten_connections_is_timed_out() -> None:
    result = forgotten(Script([(0.0, START), (0.1, out("a"))]), 20)
    assert (result.status, result.reason, result.stdout) == ("timed_out", "Overtime", "a")


@mock_clock
async def test_the_log_of_a_quiet_program_is_opened_again_less_and_less_often() -> None:
    async with pods(program(out("done"), at=3600.0)) as cluster:
        result = await cluster.sandbox.run("pass", timeout=7200)
        assert 4 <= cluster.requests.count("GET pods/*/log") <= 9
    assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "done", False)


@mock_clock
async def test_a_long_log_is_not_read_again_for_its_silence() -> None:
    """It could have been rotated; and its bytes are many."""
    junk = (b"j" * 1023 + b"\n") * (9 << 10)
    script = Script([(0.0, START), (0.1, junk), (200.0, out("b")), (200.0, exit_frame())], 200.0)
    async with pods(script) as cluster:
        result = await cluster.sandbox.run("pass")
        assert cluster.requests.count("GET pods/*/log") == 1
    assert (result.status, result.stdout) == ("succeeded", "b")


# -- the program's time is over ---------------------------------------------------------------------------

NO_LOG_ANY_MORE = (Fault(CutBody(after=AFTER_OUTPUT), LOG), Fault(Respond.internal_error(), LOG, None, skip=1))


@mock_clock
async def test_a_limit_that_passes_while_the_log_is_broken_does_not_blame_the_runner() -> None:
    """Nor is it a time-out: where the log cannot be read, the pod's status may be an old one."""
    async with pods(RUNS_ON, *NO_LOG_ANY_MORE, timeout=20) as cluster:
        error = await lost(cluster)
    assert error.stdout == "so far"
    assert "runner" not in str(error)
    assert "its limit of 20 s" in str(error)
    assert "its log could not be read: GET" in str(error)
    assert "500 InternalError" in str(error)


@mock_clock
async def test_a_limit_that_passes_while_nothing_can_be_seen_is_a_lost_result() -> None:
    no_pods = Fault(Respond.unavailable(), Match("list", "pods"), None, skip=1)
    async with pods(RUNS_ON, *NO_LOG_ANY_MORE, no_pods, timeout=20) as cluster:
        error = await lost(cluster)
    assert "its limit of 20 s" in str(error)
    assert error.stdout == "so far"


# -- a pod that goes while nobody sees it -----------------------------------------------------------------


@mock_clock
async def test_a_pod_that_ran_and_went_unseen_is_a_lost_result_and_not_a_failed_start() -> None:
    """It is preempted two seconds after its start, and the watch says nothing at all."""
    faults = Fault(StallBody(), WATCH, None), Fault(NoNode(4), POD), Fault(Preempt(after=2), POD, None)
    async with pods(RUNS_ON, *faults, startup_timeout=40) as cluster:
        error = await lost(cluster)
    assert error.cause == "deleted"
    assert error.pod
    assert error.pod in str(error)


@mock_clock
async def test_a_pod_that_ran_and_went_between_two_lists_is_a_lost_result() -> None:
    polled = Fault(Forbid(), WATCH, None), Fault(Respond.unavailable(), Match("list", "pods"), 6, skip=4)
    unseen = Fault(NoNode(3), POD), Fault(Preempt(after=0.05), POD, None)
    async with pods(RUNS_ON, *polled, *unseen, startup_timeout=40) as cluster:
        error = await lost(cluster)
    assert error.cause == "deleted"


@mock_clock
async def test_a_pod_that_went_while_neither_it_nor_its_log_was_seen_may_have_ended_by_itself() -> None:
    cut = Fault(CutBody(after=AFTER_OUTPUT), LOG)
    no_log = Fault(Respond.internal_error(), LOG, 8, skip=1)
    silent = Fault(StallBody(after=9000), WATCH, None)
    async with pods(RUNS_ON, cut, no_log, silent, Fault(Preempt(after=2), POD, None), timeout=20) as cluster:
        error = await lost(cluster)
    assert error.stdout == "so far"


# -- the ConfigMap's answer -------------------------------------------------------------------------------


@mock_clock
async def test_a_pod_that_runs_is_all_the_answer_that_a_configmap_needs() -> None:
    async with pods(program(out("ran")), Fault(StallBody(after=40), POST_CONFIG_MAP, None)) as cluster:
        result = await cluster.sandbox.run("pass", startup_timeout=20)
        assert len(cluster.runtime.specs) == 1
    assert (result.status, result.stdout) == ("succeeded", "ran")
    assert result.timings.returned < 2
    assert result.timings.created is not None


@mock_clock
async def test_a_pod_that_runs_unseen_is_looked_for_before_the_configmaps_answer_is_given_up() -> None:
    faults = Fault(StallBody(after=40), POST_CONFIG_MAP, None), Fault(StallBody(), WATCH, None)
    async with pods(program(out("ran")), *faults) as cluster:
        result = await cluster.sandbox.run("pass", startup_timeout=20)
        assert len(cluster.runtime.specs) == 1
    assert (result.status, result.stdout) == ("succeeded", "ran")
    assert result.timings.returned < 24


@pytest.mark.parametrize(
    ("action", "said"), [(Delay(1000), "startup_timeout"), (Respond.internal_error(), "500 InternalError")]
)
def test_a_configmap_that_may_have_arrived_is_a_lost_result_in_time(action: Action, said: str) -> None:
    async def main() -> None:
        async with pods(program(), Fault(action, POST_CONFIG_MAP, None), startup_timeout=15) as cluster:
            began = anyio.current_time()
            error = await lost(cluster)
            assert anyio.current_time() - began < 15 + 3 + 10 + 0.5
            assert cluster.requests.count("POST jobs") == 1
        assert "POST /api/v1/namespaces/default/configmaps" in str(error)
        assert said in str(error)

    run_on_mock_clock(main)


@mock_clock
async def test_a_job_whose_answer_does_not_come_is_given_up_in_time_and_deleted() -> None:
    async with pods(program(), Fault(StallBody(), Match("create", "jobs"), None)) as cluster:
        began = anyio.current_time()
        with pytest.raises(NetworkError, match=r"POST /apis/.*/jobs: no complete response within startup_timeout"):
            await cluster.sandbox.run("pass", startup_timeout=5)
        assert anyio.current_time() - began < 5.5
        await anyio.sleep(10)
        assert cluster.left() == []
        assert cluster.runtime.specs == []


# -- the log is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "kind"), [(Respond.unauthorized(), Unauthorized), (Forbid(), Forbidden)])
def test_a_log_that_may_not_be_read_any_more_is_a_lost_result_with_what_was_read(
    action: Action, kind: type[Exception]
) -> None:
    async def main() -> None:
        cut = Fault(CutBody(after=AFTER_OUTPUT), LOG)
        async with pods(RUNS_ON, cut, Fault(action, LOG, None, skip=1)) as cluster:
            error = await lost(cluster)
        assert error.stdout == "so far"
        assert isinstance(error.__cause__, kind)
        assert str(error.__cause__) in str(error)
        assert error.__cause__.hint in error.hint  # type: ignore[attr-defined]

    run_on_mock_clock(main)


@pytest.mark.parametrize("action", [Respond.too_many_requests(5), Respond.unavailable(5)])
def test_a_log_is_asked_for_again_when_the_server_wants_it(action: Action) -> None:
    async def main() -> None:
        async with pods(RUNS_ON, Fault(action, LOG, None), timeout=20) as cluster:
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
async def test_one_request_for_the_log_that_is_not_answered_costs_no_output(faults: list[Fault]) -> None:
    async with pods(program(out("x"), at=1), *faults) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "x", False)
    assert result.timings.returned < 50


@mock_clock
async def test_the_last_look_is_for_the_pod_before_its_events() -> None:
    silent = [Fault(StallBody(), Match(verb, resource), times=None) for verb, resource in BLIND]
    late = Fault(NoNode.scaling_up(38), Match(resource="pods"))
    async with pods(program(out("x")), *silent, late, startup_timeout=40) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.stdout) == ("succeeded", "x")


BLIND = [("watch", "pods"), ("list", "events")]


@mock_clock
async def test_a_start_that_was_waited_for_in_vain_may_happen_until_the_job_is_deleted() -> None:
    slow = Pace(sandbox=9.6, start=0.5, observe=0.1)
    busy = Fault(Respond.unavailable(), Match("delete", "jobs"), 3)
    async with pods(program(out("x")), busy, pace=slow, startup_timeout=10) as cluster:
        with pytest.raises(StartError) as caught:
            await cluster.sandbox.run("pass")
        await anyio.sleep(5)
        assert len(cluster.runtime.specs) == 1, "it has run after all"
    assert caught.value.may_have_run


@pytest.mark.parametrize("stops_after", [0.0, 0.9])
@mock_clock
async def test_a_pod_that_somebody_deletes_is_no_failure_of_its_job(stops_after: float) -> None:
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
