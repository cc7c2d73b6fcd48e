"""A kubelet restarts or stays down while a program runs: no readable output is lost."""

from __future__ import annotations

import anyio
import pytest

from gke_sandbox import ExecutionResult, ResultLost
from gke_sandbox.local.faults import CutBody, Fault, Match, Respond, StopKubelet
from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.scripted import Script
from tests.clock import mock_clock, run_on_mock_clock
from tests.pods import START, Pods, exit_frame, out, pods, program

POD, LOG = Match(resource="pods"), Match("get", "pods/log")
LINES = [f"line {number}\n" for number in range(20)]
OUTPUT = "".join(LINES)
NEVER = None


def prints_until(end: float, code: int = 0) -> Script:
    """Return a program that prints twenty lines at even intervals and exits after the last."""
    chunks = [(end * (number + 1) / len(LINES), out(line)) for number, line in enumerate(LINES)]
    exit_ = ContainerExit(code, "Error" if code else "Completed")
    return Script([(0.0, START), *chunks, (end, exit_frame(code))], ends_at=end, exit=exit_)


def stopped(after: float, seconds: float | None) -> Fault:
    return Fault(StopKubelet(after, seconds), POD)


def run(script: Script, *faults: Fault, timeout: float = 300) -> ExecutionResult:
    async def main() -> ExecutionResult:
        async with pods(script, *faults, timeout=timeout) as cluster:
            result = await cluster.sandbox.run("pass")
            await anyio.sleep(60)
            assert cluster.left() == []
            return result

    return run_on_mock_clock(main)


async def lost(cluster: Pods) -> ResultLost:
    with pytest.raises(ResultLost) as caught:
        await cluster.sandbox.run("pass")
    await anyio.sleep(10)
    assert [left for left in cluster.left() if left.startswith("jobs/")] == []
    assert "may have run" in caught.value.hint
    return caught.value


def is_complete(result: ExecutionResult) -> bool:
    return (result.stdout, result.output_truncated) == (OUTPUT, False)


@pytest.mark.parametrize("away", [1, 2, 3, 4, 20])
@pytest.mark.parametrize("ends", [5, 12, 40], ids=lambda ends: f"ends after {ends} s")
@pytest.mark.parametrize("code", [0, 3])
def test_a_restart_of_the_kubelet_loses_no_output(away: float, ends: float, code: int) -> None:
    """The kubelet stops at 3 s. The log of a program that ends meanwhile is read when the kubelet is back."""
    result = run(prints_until(ends, code), stopped(3, away))
    assert is_complete(result)
    assert (result.status, result.exit_code) == ("failed" if code else "succeeded", code)
    assert result.timings.returned < max(3 + away, ends) + 8


@pytest.mark.parametrize("milliseconds", range(0, 3000, 100))
def test_a_restart_of_the_kubelet_around_the_end_of_the_program_loses_no_output(milliseconds: int) -> None:
    """The restart is close to the last line of the program, its exit, and the final status of the pod."""
    assert is_complete(run(prints_until(5), stopped(2 + milliseconds / 1000, 3)))


def test_two_restarts_of_the_kubelet_lose_no_output() -> None:
    assert is_complete(run(prints_until(30), stopped(3, 4), stopped(9, 4)))


def test_a_restart_of_the_kubelet_loses_no_output_of_many_programs() -> None:
    async def main() -> list[ExecutionResult]:
        fault = Fault(StopKubelet(3, 2.5), POD, times=None)
        async with pods(prints_until(12), fault) as cluster:
            return await cluster.sandbox.map(["pass"] * 18)

    assert all(is_complete(result) for result in run_on_mock_clock(main))


# -- the timeout of the program ---------------------------------------------------------------------------


@pytest.mark.parametrize("back", [9, 11, 13], ids=lambda back: f"back at {back} s")
def test_a_program_that_ends_before_its_timeout_while_the_kubelet_is_down_has_not_timed_out(back: float) -> None:
    result = run(prints_until(8), stopped(3, back - 3), timeout=12)
    assert result.status == "succeeded"
    assert is_complete(result)


@mock_clock
async def test_a_kubelet_that_is_still_down_at_the_timeout_is_a_lost_result_with_the_output_read_before() -> None:
    """The program ends at 8 s, its timeout is 12 s; its pod is still reported as running."""
    async with pods(prints_until(8), stopped(3, NEVER), timeout=12) as cluster:
        started_at = anyio.current_time()
        error = await lost(cluster)
        assert anyio.current_time() - started_at < 12 + 5 + 3 + 10 + 2
    assert error.stdout == "".join(LINES[:7])
    assert "its limit of 12 s the pod was reported as running, and its log could not be read: GET" in str(error)
    assert "10250: connect: connection refused (500" in str(error)


# -- only the log cannot be read --------------------------------------------------------------------------


class Unreachable:
    """Requests for the log fail until the time `until` of the event loop."""

    def __init__(self, response: Respond, until: float) -> None:
        self._fault = Fault(response, LOG, times=None, skip=1)
        self._until = until

    async def result(self, script: Script) -> ExecutionResult:
        cut = Fault(CutBody(after=len(START) + len(out(LINES[0]))), LOG)
        async with pods(script, cut, self._fault) as cluster, anyio.create_task_group() as tasks:

            async def recover() -> None:
                await anyio.sleep(self._until)
                cluster.transport.faults.clear()

            tasks.start_soon(recover)
            return await cluster.sandbox.run("pass")


NOT_KNOWN = "the server could not find the requested resource ( pods/log x)"
TEMPORARY = [
    Respond(500, "", 'Get "https://192.0.2.2:10250/containerLogs/x": dial tcp 192.0.2.2:10250: i/o timeout'),
    Respond.bad_gateway(),
    Respond.unavailable(),
    Respond.timed_out(),
    Respond(404, "NotFound", NOT_KNOWN, kind="pods/log"),
    Respond(404, "NotFound", 'nodes "x" not found', kind="nodes"),
    Respond(404, "", "", text="404 page not found\n"),
]


@pytest.mark.parametrize("response", TEMPORARY, ids=lambda each: f"{each.code} {each.kind or each.reason}")
@pytest.mark.parametrize("until", [4, 30, 58])
def test_requests_for_the_log_are_retried_after_the_program_ended(response: Respond, until: float) -> None:
    """The program ends at 5 s, and its Job is kept for a minute."""
    result = run_on_mock_clock(Unreachable(response, until).result, prints_until(5))
    assert result.status == "succeeded"
    assert is_complete(result)


@pytest.mark.parametrize("response", TEMPORARY, ids=lambda each: f"{each.code} {each.kind or each.reason}")
@pytest.mark.parametrize("read", [0, 1], ids=["nothing was read", "a line was read"])
def test_a_log_that_cannot_be_read_until_the_timeout_is_a_lost_result(response: Respond, read: int) -> None:
    async def main() -> None:
        cut = Fault(CutBody(after=len(START + out(LINES[0]))), LOG)
        faults = [cut] * read
        async with pods(prints_until(5), *faults, Fault(response, LOG, None, skip=read), timeout=20) as cluster:
            started_at = anyio.current_time()
            error = await lost(cluster)
            assert anyio.current_time() - started_at < 5 + 45 + 10 + 5
            assert cluster.requests.count("GET pods/*/log") < 30
        assert error.stdout == "".join(LINES[:read])
        assert str(response.code) in str(error)

    run_on_mock_clock(main)


# -- a missing pod, and a log without its end -------------------------------------------------------------

POD_NOT_FOUND = Respond(404, "NotFound", 'pods "x" not found', kind="pods")


@pytest.mark.parametrize("read", [0, 1], ids=["nothing was read", "a line was read"])
def test_a_program_whose_pod_disappears_before_its_output_is_read_is_a_lost_result(read: int) -> None:
    async def main() -> None:
        cut = Fault(CutBody(after=len(START + out(LINES[0]))), LOG)
        async with pods(prints_until(5), *[cut] * read, Fault(POD_NOT_FOUND, LOG, None, skip=read)) as cluster:
            started_at = anyio.current_time()
            error = await lost(cluster)
            assert anyio.current_time() - started_at < 20 + 10, "the client must not wait for a missing pod"
        assert error.stdout == "".join(LINES[:read])

    run_on_mock_clock(main)


@mock_clock
async def test_exit_code_0_without_an_exit_frame_is_a_lost_result() -> None:
    script = Script([(0.0, START), (0.1, out("a"))], ends_at=0.2)
    async with pods(script) as cluster:
        error = await lost(cluster)
    assert error.stdout == "a"
    assert "its log does not contain the result" in str(error)


@mock_clock
async def test_one_refused_request_for_the_log_loses_nothing() -> None:
    async with pods(program(out("x"), at=5), Fault(Respond(404, "NotFound", NOT_KNOWN), LOG)) as cluster:
        result = await cluster.sandbox.run("pass")
    assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "x", False)


FORBIDDEN = (
    "Forbidden (user=kube-apiserver-kubelet-client, verb=get, resource=nodes, subresource=proxy) ( pods/log x)"
)
UNAUTHORIZED = "the server has asked for the client to provide credentials ( pods/log x)"
OF_KUBELET = [
    Respond(403, "Forbidden", FORBIDDEN, kind="pods/log"),
    Respond(401, "Unauthorized", UNAUTHORIZED, kind="pods/log"),
]


@pytest.mark.parametrize("response", OF_KUBELET, ids=["403", "401"])
@pytest.mark.parametrize("until", [4, 30])
def test_a_kubelet_that_rejects_the_api_server_for_some_seconds_costs_no_output(
    response: Respond, until: float
) -> None:
    result = run_on_mock_clock(Unreachable(response, until).result, prints_until(5))
    assert is_complete(result)


def test_a_400_for_the_log_of_an_ended_container_is_retried() -> None:
    waiting = 'container "code-runner" in pod "x" is waiting to start: ContainerCreating'
    result = run_on_mock_clock(Unreachable(Respond(400, "BadRequest", waiting), 7).result, prints_until(5))
    assert is_complete(result)
