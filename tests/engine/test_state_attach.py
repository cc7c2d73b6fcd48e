"""The state machine of an execution with delivery ``attach``, and of a warm pod."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox._engine import steps
from gke_sandbox._engine.ending import KILL_GRACE, MAX_ATTACH_FAILURES
from gke_sandbox._engine.log_stream import REOPEN_DELAY, REQUEST_TIMEOUT
from gke_sandbox._engine.state import ExecutionState
from gke_sandbox._engine.steps import Abandoned, Assigned, JobCreated, LogOpened, Started, Tick, WatchFailed
from gke_sandbox.errors import BadRequest, NetworkError, ResultLost, ServerError, StartError
from gke_sandbox.result import OutputChunk
from gke_sandbox.settings import Settings

from ..pods import START, err, exit_frame, out
from .test_state import (
    BAD_IMAGE,
    CREATING,
    OUT_OF_MEMORY,
    RUNNING,
    STARTUP_TIMEOUT,
    TIMEOUT,
    Machine,
    broken,
    exited,
    forbidden,
    not_found,
    pod,
)

C = steps
SETTINGS = Settings(timeout=TIMEOUT, startup_timeout=STARTUP_TIMEOUT, delivery="attach")


def not_running() -> ServerError:
    return ServerError("container code-runner not found in pod x", code=500, reason="")


class AttachMachine(Machine):
    """A machine whose Job and pod have the name of its last attempt."""

    def __init__(self, *, has_program: bool = True) -> None:
        super().__init__()
        names = (f"job-{number}" for number in range(1, 100))
        self.state = ExecutionState(SETTINGS, 0.0, lambda: next(names), lambda: 1.0, has_program=has_program)

    def _check(self, effects: list[steps.Effect]) -> None:
        super()._check(effects)
        for effect in effects:
            if isinstance(effect, steps.OpenAttach):
                self.log = effect.number

    @property
    def job(self) -> str:
        return self.state.attempts[-1].name

    def create(self) -> list[steps.Effect]:
        return self.feed(JobCreated({"metadata": {"name": self.job, "uid": f"uid of {self.job}"}}))

    def see(self, state: dict[str, Any] | None, **options: Any) -> list[steps.Effect]:
        return self.feed(steps.PodSeen(self.job, pod(state), **options))

    def run(self) -> list[steps.Effect]:
        self.create()
        return self.see(RUNNING)


def creating() -> AttachMachine:
    machine = AttachMachine()
    machine.feed(Started())
    return machine


def starting() -> AttachMachine:
    machine = creating()
    machine.create()
    return machine


def attaching() -> AttachMachine:
    machine = creating()
    machine.run()
    return machine


def sent() -> AttachMachine:
    machine = attaching()
    machine.feed(LogOpened(machine.log))
    return machine


def started() -> AttachMachine:
    machine = sent()
    machine.feed(steps.LogChunk(machine.log, START))
    return machine


def cut() -> AttachMachine:
    """The connection was cut after the request was sent, and the log is open."""
    machine = sent()
    machine.feed(steps.LogEnded(machine.log, broken()))
    machine.feed(steps.LogOpened(machine.log))
    return machine


def waiting() -> AttachMachine:
    machine = AttachMachine(has_program=False)
    machine.feed(Started())
    machine.run()
    machine.feed(LogOpened(machine.log))
    return machine


def assigned() -> AttachMachine:
    machine = waiting()
    machine.feed(Assigned(SETTINGS))
    return machine


Make = Callable[[AttachMachine], steps.Input]


def seen(state: dict[str, Any], **options: Any) -> Make:
    return lambda machine: steps.PodSeen(machine.job, pod(state), **options)


def opened(machine: AttachMachine) -> steps.Input:
    return LogOpened(machine.log)


def ended(error: Any = None) -> Make:
    return lambda machine: steps.LogEnded(machine.log, error)


def chunk(*frames: bytes) -> Make:
    return lambda machine: steps.LogChunk(machine.log, b"".join(frames))


def same(input_: steps.Input) -> Make:
    return lambda _: input_


TRANSITIONS: list[tuple[Callable[[], AttachMachine], Make, str, list[type]]] = [
    (creating, lambda m: JobCreated({"metadata": {"name": m.job, "uid": "u"}}), "starting", []),
    (starting, seen(CREATING), "starting", []),
    (starting, seen(RUNNING), "attaching", [C.OpenAttach]),
    (starting, seen(BAD_IMAGE), "finished", [C.DeleteJob, C.Fail]),
    # Its log explains why it has ended.
    (starting, seen(exited(127)), "reading", [C.OpenLog]),
    (attaching, opened, "reading", [C.SendRequest]),
    (attaching, ended(not_running()), "attaching", []),
    (attaching, ended(broken()), "attaching", []),
    (attaching, ended(not_found("pods/attach")), "attaching", []),
    (attaching, ended(not_found("pods")), "creating", [C.DeleteJob, C.CreateJob]),
    (attaching, ended(forbidden()), "finished", [C.DeleteJob, C.Fail]),
    (attaching, ended(BadRequest("no", code=400, reason="")), "finished", [C.DeleteJob, C.Fail]),
    (attaching, seen(exited(0)), "reading", [C.CloseLog, C.OpenLog]),
    (attaching, same(WatchFailed(forbidden())), "finished", [C.CloseLog, C.DeleteJob, C.Fail]),
    (sent, chunk(START, out("a")), "reading", []),
    # The connection can still be open: sending the request has failed.
    (sent, ended(broken()), "reading", [C.CloseLog, C.OpenLog]),
    (sent, ended(), "reading", [C.CloseLog, C.OpenLog]),
    (started, ended(broken()), "reading", [C.CloseLog, C.OpenLog]),
    (started, chunk(exit_frame(3)), "finished", [C.CloseLog, C.DeleteJob, C.Done]),
    (cut, chunk(START, exit_frame(0)), "finished", [C.CloseLog, C.DeleteJob, C.Done]),
    (waiting, same(Assigned(SETTINGS)), "reading", [C.SendRequest]),
    (waiting, ended(broken()), "finished", [C.DeleteJob, C.Fail]),
    (waiting, seen(exited(0)), "reading", [C.CloseLog, C.OpenLog]),
    (waiting, same(WatchFailed(forbidden())), "finished", [C.CloseLog, C.DeleteJob, C.Fail]),
    (assigned, chunk(START, exit_frame(0)), "finished", [C.CloseLog, C.DeleteJob, C.Done]),
]


@pytest.mark.parametrize(("make", "input_", "phase", "effects"), TRANSITIONS)
def test_a_transition(make: Callable[[], AttachMachine], input_: Make, phase: str, effects: list[type]) -> None:
    machine = make()
    found = machine.feed(input_(machine))
    assert (machine.state.phase, [type(effect) for effect in found]) == (phase, effects)


def test_a_warm_pod_reports_that_it_is_ready_and_does_not_time_out() -> None:
    machine = waiting()
    assert any(isinstance(effect, steps.Ready) for effect in machine.effects)
    assert machine.state.next_deadline == math.inf
    assert machine.state.may_have_run is False


def test_a_run_in_a_warm_pod_counts_its_time_from_the_assignment() -> None:
    machine = waiting()
    machine.feed(Assigned(SETTINGS), after=500)
    machine.feed(steps.LogChunk(machine.log, START + out("x")), after=0.02)
    machine.feed(steps.LogChunk(machine.log, exit_frame(0)), after=0.01)
    assert isinstance(machine.last, steps.Done)
    result = machine.last.result
    assert (result.start, result.stdout_bytes, result.status) == ("warm", b"x", "succeeded")
    timings = result.timings
    assert (timings.created, timings.scheduled, timings.started) == (0.0, 0.0, 0.0)
    assert timings.first_output == pytest.approx(0.02)
    assert timings.returned == pytest.approx(0.03)


def test_a_run_with_a_new_pod_is_a_cold_start() -> None:
    machine = started()
    machine.feed(steps.LogChunk(machine.log, exit_frame(0)))
    assert isinstance(machine.last, steps.Done)
    assert machine.last.result.start == "cold"


def test_a_refused_attach_is_repeated_until_the_container_accepts_it() -> None:
    machine = attaching()
    machine.feed(steps.LogEnded(machine.log, not_running()))
    assert machine.state.next_deadline == REOPEN_DELAY
    assert [type(effect) for effect in machine.tick()] == [steps.OpenAttach]
    # No response to the request.
    before = machine.now
    assert [type(effect) for effect in machine.tick()] == [steps.CloseLog, steps.OpenAttach]
    assert machine.now == before + REQUEST_TIMEOUT
    machine.feed(LogOpened(machine.log))
    assert machine.state.phase == "reading"
    assert machine.state.may_have_run is False


def test_a_program_that_could_not_be_sent_to_three_pods_is_an_error() -> None:
    machine = attaching()
    for _ in range(MAX_ATTACH_FAILURES - 1):
        machine.feed(steps.LogEnded(machine.log, not_found("pods")))
        machine.run()
    machine.feed(steps.LogEnded(machine.log, not_found("pods")))
    assert isinstance(machine.error, StartError)
    assert (machine.error.cause, machine.error.may_have_run) == ("not_sent", False)
    assert "the connection to its container ended" in machine.error.message
    assert len(machine.state.attempts) == MAX_ATTACH_FAILURES


@pytest.mark.parametrize("error", [None, broken()])
def test_a_connection_lost_after_the_request_is_continued_in_the_log(error: NetworkError | None) -> None:
    machine = started()
    machine.feed(steps.LogChunk(machine.log, out("one")), steps.LogEnded(machine.log, error))
    machine.feed(steps.LogOpened(machine.log))
    machine.feed(steps.LogChunk(machine.log, START + out("one") + out("two") + exit_frame(0)))
    assert isinstance(machine.last, steps.Done)
    assert machine.last.result.stdout_bytes == b"onetwo"
    assert len(machine.state.attempts) == 1


NOT_STARTED = err("gke-sandbox: the program was not started: stdin ended without a request\n")


def read_to_the_end(machine: AttachMachine, log: bytes) -> None:
    """Read the log of the first Job as often as it is requested, until there is another attempt or the end."""
    while machine.job == "job-1" and machine.last is None:
        assert machine.state.phase in ("reading", "status", "status poll")
        if machine.log == machine.state._log.number:
            machine.feed(steps.LogOpened(machine.log), steps.LogChunk(machine.log, log))
            machine.feed(steps.LogEnded(machine.log))
        else:
            machine.tick()


@pytest.mark.parametrize("code", [0, 1, 125])
def test_an_empty_log_does_not_prove_that_the_program_has_not_run(code: int) -> None:
    machine = cut()
    machine.see(exited(code))
    read_to_the_end(machine, b"")
    assert isinstance(machine.error, ResultLost)
    assert machine.error.may_have_run is True


@pytest.mark.parametrize("code", [0, 125])
def test_the_runner_proves_that_the_program_has_not_run(code: int) -> None:
    machine = cut()
    machine.see(exited(code))
    read_to_the_end(machine, NOT_STARTED)
    assert not [effect for effect in machine.effects if isinstance(getattr(effect, "event", None), OutputChunk)]
    assert machine.state.phase == "creating"
    assert machine.state.may_have_run is False
    machine.run()
    machine.feed(LogOpened(machine.log), steps.LogChunk(machine.log, START + exit_frame(0)))
    assert machine.status == "succeeded"


def test_a_log_that_cannot_be_read_after_the_request_was_sent_is_a_lost_result() -> None:
    machine = sent()
    machine.feed(steps.LogEnded(machine.log, broken()))
    machine.see(exited(0))
    while machine.last is None:
        if machine.log == machine.state._log.number:
            machine.feed(steps.LogEnded(machine.log, broken()))
        if machine.last is None:
            machine.tick()
    assert isinstance(machine.error, ResultLost)
    assert machine.error.may_have_run is True
    assert len(machine.state.attempts) == 1


def test_a_runner_that_never_starts_the_program_is_a_lost_result() -> None:
    machine = cut()
    while machine.last is None:
        if machine.state._poll is not None:
            machine.feed(steps.PodsListed(machine.poll, [pod(RUNNING)], "9"))
        else:
            machine.tick()
            if machine.log == machine.state._log.number:
                machine.feed(steps.LogOpened(machine.log))
    assert machine.now == TIMEOUT + KILL_GRACE
    assert isinstance(machine.error, ResultLost)
    assert machine.error.may_have_run is True


def test_a_silent_connection_is_not_opened_again() -> None:
    machine = started()
    assert machine.state.next_deadline == TIMEOUT + KILL_GRACE


@pytest.mark.parametrize("make", [sent, started, assigned])
def test_the_log_shows_the_end_of_a_program_whose_connection_is_silent(make: Callable[[], AttachMachine]) -> None:
    """A runner waits for the acknowledgment of the exit frame, so the pod can still be running."""
    machine = make()
    assert [type(effect) for effect in machine.tick()] == [steps.CloseLog, steps.OpenLog]
    machine.feed(steps.LogOpened(machine.log), steps.LogChunk(machine.log, START + out("x") + exit_frame(0)))
    assert isinstance(machine.last, steps.Done)
    assert (machine.last.result.status, machine.last.result.stdout_bytes) == ("succeeded", b"x")


def test_a_request_that_got_lost_on_a_silent_connection_is_sent_to_another_pod() -> None:
    machine = sent()
    machine.tick()
    machine.see(exited(0))
    read_to_the_end(machine, NOT_STARTED)
    assert machine.state.phase == "creating"
    assert machine.state.may_have_run is False


def test_a_runner_that_does_not_end_the_program_is_a_timeout_once_the_log_confirms_it() -> None:
    machine = started()
    machine.tick()
    machine.feed(steps.LogOpened(machine.log), steps.LogChunk(machine.log, START))
    assert [type(effect) for effect in machine.tick()] == [steps.CloseLog, steps.PollPods]
    machine.feed(steps.PodsListed(machine.poll, [pod(RUNNING)], "9"))
    assert isinstance(machine.last, steps.Done)
    assert (machine.last.result.status, machine.last.result.reason) == ("timed_out", "Overtime")
    assert machine.now == TIMEOUT + 2 * KILL_GRACE


def test_a_silent_connection_and_a_log_that_does_not_open_are_a_lost_result() -> None:
    machine = started()
    machine.tick()
    machine.tick()
    machine.feed(steps.PodsListed(machine.poll, [pod(RUNNING)], "9"))
    assert isinstance(machine.error, ResultLost)
    assert "its log could not be read: it did not open in time" in machine.error.message


@pytest.mark.parametrize("state", [OUT_OF_MEMORY, exited(0)])
def test_a_pod_that_ends_before_it_has_the_program_is_replaced(state: dict[str, Any]) -> None:
    machine = attaching()
    machine.see(state)
    while machine.job == "job-1":
        machine.feed(steps.LogOpened(machine.log), steps.LogEnded(machine.log))
        if machine.job == "job-1":
            machine.tick()
    assert machine.state.phase == "creating"


def test_the_error_of_a_waiting_pod_that_is_out_of_memory_has_the_hint_of_that_cause() -> None:
    machine = waiting()
    machine.see(OUT_OF_MEMORY)
    while machine.last is None:
        machine.feed(steps.LogOpened(machine.log), steps.LogEnded(machine.log))
    assert isinstance(machine.error, StartError)
    assert machine.error.message.endswith("its container ended before it had the program: OOMKilled")
    assert machine.error.hint.startswith("Raise memory_limit")


def test_an_image_without_python_is_explained_by_its_log_and_not_tried_again() -> None:
    machine = starting()
    machine.see(exited(127))
    while machine.last is None:
        if machine.log == machine.state._log.number:
            machine.feed(steps.LogOpened(machine.log), steps.LogChunk(machine.log, b"exec python3: not found\n"))
            machine.feed(steps.LogEnded(machine.log))
        else:
            machine.tick()
    assert isinstance(machine.error, StartError)
    assert (machine.error.cause, machine.error.may_have_run) == ("runner_failed", False)
    assert "python3: not found" in machine.error.message


def test_a_run_in_a_warm_pod_that_is_lost_starts_over_with_its_own_delivery() -> None:
    machine = waiting()
    machine.feed(Assigned(SETTINGS.override(delivery="env")))
    machine.feed(steps.LogEnded(machine.log, broken()), steps.LogOpened(machine.log))
    machine.see(exited(0))
    read_to_the_end(machine, NOT_STARTED)
    assert [type(effect) for effect in machine.create()] == [steps.CreateConfigMap]
    assert machine.state.may_have_run is False


def test_the_log_can_have_lines_before_the_start_frame_that_the_connection_has_not() -> None:
    machine = started()
    machine.feed(steps.LogChunk(machine.log, out("one")), steps.LogEnded(machine.log, broken()))
    machine.feed(steps.LogOpened(machine.log), steps.LogChunk(machine.log, b"ERROR: ld.so: no such "))
    machine.feed(steps.LogChunk(machine.log, b"file\n" + START + out("one")[:5]))
    machine.feed(steps.LogEnded(machine.log, broken()))
    while machine.log != machine.state._log.number:
        machine.tick()
    machine.feed(steps.LogOpened(machine.log), steps.LogChunk(machine.log, b"ERROR: ld.so: no such file\n"))
    machine.feed(steps.LogChunk(machine.log, START + out("one") + out("two") + exit_frame(0)))
    assert isinstance(machine.last, steps.Done)
    assert (machine.last.result.stdout, machine.last.result.output_truncated) == ("onetwo", False)


def test_after_startup_timeout_there_is_no_new_attempt() -> None:
    machine = attaching()
    while machine.last is None:
        machine.feed(steps.LogEnded(machine.log, not_running()))
        machine.tick()
    assert machine.now <= STARTUP_TIMEOUT
    assert isinstance(machine.error, StartError)
    assert "did not accept a connection: container code-runner not found in pod x" in machine.error.message
    assert len(machine.state.attempts) == 1


def test_a_pod_lost_while_it_waits_does_not_end_the_run_that_was_assigned_meanwhile() -> None:
    machine = waiting()
    machine.see(exited(0))
    machine.feed(Assigned(SETTINGS))
    machine.feed(steps.LogOpened(machine.log), steps.LogEnded(machine.log))
    while machine.job == "job-1":
        machine.tick()
    machine.run()
    machine.feed(LogOpened(machine.log), steps.LogChunk(machine.log, START + exit_frame(0)))
    assert isinstance(machine.last, steps.Done)
    assert machine.last.result.start == "cold"


@pytest.mark.parametrize(("make", "may_have_run"), [(waiting, False), (attaching, False), (sent, True)])
def test_a_cancelled_run_may_have_run_once_the_request_was_sent(
    make: Callable[[], AttachMachine], may_have_run: bool
) -> None:
    machine = make()
    machine.feed(Abandoned())
    assert machine.state.may_have_run is may_have_run


inputs = st.sampled_from(
    [
        *(make for _, make, _, _ in TRANSITIONS),
        chunk(NOT_STARTED),
        ended(broken()),
        seen(RUNNING, deleted=True),
        seen(OUT_OF_MEMORY),
        lambda machine: steps.LogOpened(machine.log),
        lambda machine: steps.PodsListed(machine.poll, [], "9"),
        lambda machine: steps.PodsListed(machine.poll, [pod(RUNNING)], "9"),
        lambda machine: steps.PollFailed(machine.poll, broken()),
        same(Tick()),
        same(Assigned(SETTINGS)),
    ]
)


@given(st.booleans(), st.lists(st.tuples(inputs, st.sampled_from([0.0, 0.1, 1.0, 30.0])), max_size=30))
def test_inputs_in_any_order_send_the_program_to_one_pod_at_most_until_it_certainly_has_not_run(
    has_program: bool, given_: list[tuple[Make, float]]
) -> None:
    machine = AttachMachine(has_program=has_program)
    machine.feed(Started())

    def feed(input_: steps.Input, after: float = 0.0) -> None:
        job, log, was_sent = machine.job, machine.state._log, machine.state._request_sent
        machine.feed(input_, after=after)
        if machine.job != job:
            assert not was_sent or log.decoder.not_started

    for make, after in given_:
        if machine.last is not None:
            break
        feed(make(machine), after)
    for _ in range(500):
        if machine.last is not None:
            break
        if machine.state.phase == "creating":
            feed(steps.CreateFailed(broken(), may_have_arrived=True))
        elif machine.state.phase == "waiting":
            feed(Assigned(SETTINGS))
        else:
            machine.now = max(machine.now, machine.state.next_deadline)
            feed(Tick())
    assert machine.last is not None
    requests = [effect.number for effect in machine.effects if isinstance(effect, steps.SendRequest)]
    assert len(set(requests)) == len(requests), "a program is sent once over each connection"
    if isinstance(machine.last, steps.Fail):
        assert machine.last.error.may_have_run is machine.state.may_have_run
        assert machine.state.may_have_run or not isinstance(machine.last.error, ResultLost)
        assert requests or not machine.state.may_have_run
    created = [effect.name for effect in machine.effects if isinstance(effect, steps.CreateJob)]
    deleted = [effect.attempt.name for effect in machine.effects if isinstance(effect, steps.DeleteJob)]
    assert len(created) == len(set(created))
    assert set(deleted) == {each.name for each in machine.state.attempts if each.job_may_exist} | set(created[:-1])
