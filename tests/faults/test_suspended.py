"""The client is suspended over the end of its program: nothing that it can read afterwards is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import anyio
import anyio.lowlevel
import httpx
import pytest
import trio

from gke_sandbox import ExecutionResult, ResultLost
from gke_sandbox.local.faults import Fault, Match, NoNode, Respond, StallBody
from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.scripted import Script
from gke_sandbox.local.transport import LocalTransport
from tests.clock import run_on_mock_clock
from tests.pods import START, Pods, exit_frame, out, pods

LOG, LIST_PODS, WATCH = Match("get", "pods/log"), Match("list", "pods"), Match("watch", "pods")
POD_NOT_FOUND = Respond(404, "NotFound", 'pods "x" not found', kind="pods")

LINES = [f"line {number}\n" for number in range(20)]
OUTPUT = "".join(LINES)

Ending = Literal["ended", "cut", "dropped"]
"""How the connection goes on after its waiting bytes: with its end, an error, or silence."""


def prints_for_20_seconds(code: int = 0) -> Script:
    chunks = [(number + 1.0, out(line)) for number, line in enumerate(LINES)]
    exit_ = ContainerExit(code, "Error" if code else "Completed")
    return Script([(0.0, START), *chunks, (20.0, exit_frame(code))], ends_at=20.0, exit=exit_)


def suspend(seconds: float) -> None:
    """Let time pass while no task runs."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)


async def read_from_socket() -> None:
    """Take as many steps of the event loop as reading and decrypting bytes that have arrived."""
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


@dataclasses.dataclass
class Suspended(httpx.AsyncBaseTransport):
    """The client is suspended when it has read five lines; its connection to the log then contains `waiting`.

    The clock jumps while no task of the client runs.
    """

    cluster: LocalTransport
    seconds: float
    waiting: list[bytes]
    ending: Ending
    opened = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.cluster.handle_async_request(request)
        if request.url.path.endswith("/log") and response.status_code == 200:
            self.opened += 1
            if self.opened == 1:
                response.stream = SuspendedStream(self, response.stream)  # type: ignore[arg-type]
        return response


@dataclasses.dataclass
class SuspendedStream(httpx.AsyncByteStream):
    client: Suspended
    stream: httpx.AsyncByteStream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = len(START) + sum(len(out(line)) for line in LINES[:5])
        async for chunk in self.stream:
            yield chunk
            left -= len(chunk)
            if left <= 0:
                break
        suspend(self.client.seconds)
        for chunk in self.client.waiting:
            await read_from_socket()
            yield chunk
        if self.client.ending == "cut":
            raise httpx.ReadError("")
        if self.client.ending == "dropped":
            await anyio.sleep_forever()

    async def aclose(self) -> None:
        await self.stream.aclose()


def rest(code: int = 0) -> list[bytes]:
    return [*map(out, LINES[5:]), exit_frame(code)]


def suspended(
    seconds: float,
    waiting: list[bytes],
    ending: Ending,
    *faults: Fault,
    code: int = 0,
    check: Callable[[Pods], None] = lambda _: None,
    **settings: Any,
) -> ExecutionResult:
    """Return the result of a program whose client is suspended for `seconds`."""

    async def main() -> ExecutionResult:
        def around(cluster: LocalTransport) -> Suspended:
            return Suspended(cluster, seconds, waiting, ending)

        async with pods(prints_for_20_seconds(code), *faults, around=around, **settings) as cluster:
            try:
                return await cluster.sandbox.run("pass")
            finally:
                await anyio.sleep(10)
                assert [left for left in cluster.left() if left.startswith("jobs/")] == []
                check(cluster)

    return run_on_mock_clock(main)


def is_complete(result: ExecutionResult, code: int = 0) -> bool:
    return (result.status, result.exit_code, result.stdout, result.output_truncated) == (
        "failed" if code else "succeeded",
        code,
        OUTPUT,
        False,
    )


NO_LOG = Fault(POD_NOT_FOUND, LOG, None, skip=1)
"""The pod is removed while the client is suspended."""
NO_PODS = Fault(StallBody(), LIST_PODS, None, skip=1)
NO_EVENTS = Fault(StallBody(after=9000), WATCH, None)

SECONDS = [5, 30, 60, 90, 250]


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("timeout", [22, 30, 300])
@pytest.mark.parametrize("ending", ["ended", "cut", "dropped"])
@pytest.mark.parametrize("code", [0, 3])
def test_what_waits_in_the_connection_is_read(seconds: float, timeout: float, ending: Ending, code: int) -> None:
    """The log is gone, so there is no other way to read it."""
    assert is_complete(suspended(seconds, rest(code), ending, NO_LOG, code=code, timeout=timeout), code)


@pytest.mark.parametrize("faults", [[NO_PODS], [NO_EVENTS]])
def test_what_waits_in_the_connection_is_read_before_the_pods_are_listed(faults: list[Fault]) -> None:
    assert is_complete(suspended(90, rest(), "dropped", NO_LOG, *faults, timeout=30))


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("timeout", [30, 300])
@pytest.mark.parametrize("waiting", [0, 7], ids=lambda number: f"{number} lines wait")
@pytest.mark.parametrize("ending", ["cut", "dropped"])
@pytest.mark.parametrize("faults", [[], [NO_EVENTS]], ids=["events", "no events"])
def test_the_log_is_read_again_if_the_connection_was_closed_meanwhile(
    seconds: float, timeout: float, waiting: int, ending: Ending, faults: list[Fault]
) -> None:
    assert is_complete(suspended(seconds, rest()[:waiting], ending, *faults, timeout=timeout))


@pytest.mark.parametrize("waiting", [0, 7], ids=lambda number: f"{number} lines wait")
@pytest.mark.parametrize("ending", ["cut", "dropped"])
@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("faults", [[], [NO_EVENTS]], ids=["events", "no events"])
def test_output_that_cannot_be_read_any_more_is_a_lost_result(
    waiting: int, ending: Ending, code: int, faults: list[Fault]
) -> None:
    with pytest.raises(ResultLost) as caught:
        suspended(90, rest(code)[:waiting], ending, NO_LOG, *faults, code=code)
    assert caught.value.stdout == "".join(LINES[: 5 + waiting])
    assert caught.value.may_have_run


@dataclasses.dataclass
class SuspendedDuringList(httpx.AsyncBaseTransport):
    """The client is suspended for 90 s while it waits for the last list of pods before the startup timeout."""

    cluster: LocalTransport
    suspended = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.cluster.handle_async_request(request)
        is_list = request.url.path.endswith("/pods") and "watch" not in request.url.params
        if is_list and not self.suspended and anyio.current_time() >= 40:
            self.suspended = True
            suspend(90)
            await read_from_socket()
        return response


def test_the_response_to_a_poll_is_read_before_the_startup_timeout() -> None:
    """The container starts at 39 s, and the watch delivers nothing."""
    late = Fault(NoNode.scaling_up(38), Match(resource="pods"))
    silent = Fault(StallBody(), WATCH, None), Fault(StallBody(), Match("list", "events"), None)
    script = Script([(0.0, START), (200.0, out("x")), (200.0, exit_frame())], 200.0)

    async def main() -> ExecutionResult:
        async with pods(script, late, *silent, around=SuspendedDuringList, startup_timeout=40) as cluster:
            return await cluster.sandbox.run("pass")

    result = run_on_mock_clock(main)
    assert (result.status, result.stdout) == ("succeeded", "x")


def test_the_second_connection_is_opened_before_the_first_is_closed() -> None:
    """The log cannot be opened a second time, and the first connection continues after a silence."""
    unavailable = Fault(Respond.unavailable(), LOG, None, skip=1)
    silence = Script([(0.0, START), (1.0, out("a")), (58.0, out("b")), (58.0, exit_frame())], 58.0)

    async def main() -> ExecutionResult:
        async with pods(silence, unavailable) as cluster:
            result = await cluster.sandbox.run("pass")
            assert cluster.requests.count("GET pods/*/log") > 1
            return result

    result = run_on_mock_clock(main)
    assert (result.status, result.stdout, result.output_truncated) == ("succeeded", "ab", False)
    assert result.timings.returned < 60
