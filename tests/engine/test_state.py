"""The state machine of an execution, without I/O: a table of its transitions, and inputs in any order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox._diagnosis import cause
from gke_sandbox._engine import steps
from gke_sandbox._engine.ending import FINAL_POLL_TIMEOUT, FINAL_STATUS_TIMEOUT, KILL_GRACE
from gke_sandbox._engine.log_stream import (
    DRAIN_TIMEOUT,
    IDLE_REOPEN_AFTER,
    OPEN_TIMEOUT,
    REOPEN_DELAY,
    REQUEST_TIMEOUT,
    RESUME_GRACE,
)
from gke_sandbox._engine.startup_probe import POD_CREATION_GRACE, POLL_INTERVAL, POLL_INTERVAL_PER_PENDING
from gke_sandbox._engine.state import REJECTED_DELAY, ExecutionState
from gke_sandbox._engine.steps import (
    Abandoned,
    ConfigMapCreated,
    CreateFailed,
    CreateRejected,
    Input,
    JobAttempt,
    JobCreated,
    RetryCreate,
    Started,
    Tick,
    WatchFailed,
)
from gke_sandbox._wire.frames import encode
from gke_sandbox.errors import (
    BadRequest,
    Forbidden,
    NetworkError,
    NotFound,
    ResultLost,
    SandboxError,
    ServerError,
    StartError,
)
from gke_sandbox.result import PodWaiting
from gke_sandbox.settings import Settings

from ..pods import START, exit_frame, out

TIMEOUT, STARTUP_TIMEOUT = 20.0, 40.0

RUNNING = {"running": {}}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
BAD_IMAGE = {"waiting": {"reason": "InvalidImageName", "message": "no"}}
OUT_OF_MEMORY = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
NEVER_STARTED = {"terminated": {"exitCode": 128, "reason": "StartError", "message": "no python3"}}


def exited(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}


def pod(state: dict[str, Any] | None, version: int = 5, *, shared: bool = False) -> dict[str, Any]:
    statuses = [] if state is None else [{"name": "code-runner", "state": state}]
    spec: dict[str, Any] = {"containers": [{"name": "code-runner"}], "hostPID": shared}
    return {
        "metadata": {"name": "job-1-x", "resourceVersion": str(version)},
        "spec": {**spec, "nodeName": "node1"} if state is not None else spec,
        "status": {"phase": "Pending", "containerStatuses": statuses},
    }


def job(**spec: Any) -> dict[str, Any]:
    """Return a Job; without a spec, it is not compared with the one that was sent."""
    return {"metadata": {"name": "job-1", "uid": "u-1"}, **({"spec": spec} if spec else {})}


def forbidden() -> Forbidden:
    return Forbidden("no", code=403, reason="Forbidden", hint="Add a rule.")


def broken() -> NetworkError:
    return NetworkError("it broke", sent=True)


def not_found(kind: str) -> NotFound:
    return NotFound("no", code=404, reason="NotFound", details={"kind": kind})


def refused() -> NetworkError:
    return NetworkError("cannot reach it", sent=False)


class Machine:
    """A state machine with a clock, and a record of its effects."""

    def __init__(self, **settings: Any) -> None:
        names = (f"job-{number}" for number in range(1, 100))
        options = Settings().override(**{"timeout": TIMEOUT, "startup_timeout": STARTUP_TIMEOUT, **settings})
        self.state = ExecutionState(options, 0.0, lambda: next(names), lambda: 1.0)
        self.now = 0.0
        self.log = self.poll = 0
        self.effects: list[steps.Effect] = []
        self.last: steps.Done | steps.Fail | None = None

    def feed(self, *inputs: Input, after: float = 0.0) -> list[steps.Effect]:
        """Apply the inputs and return the effects of the last, without events."""
        self.now += after
        found: list[steps.Effect] = []
        for each in inputs:
            found = self.state.apply(each, self.now)
            self._check(found)
            self.effects += found
        return [effect for effect in found if not isinstance(effect, steps.Emit)]

    def _check(self, effects: list[steps.Effect]) -> None:
        assert self.last is None or not effects, "nothing follows after the last effect"
        for effect in effects:
            assert self.last is None, "the last effect is the last"
            if isinstance(effect, steps.OpenLog):
                self.log = effect.number
            elif isinstance(effect, (steps.PollPods, steps.PollEvents, steps.PollJob)):
                self.poll = effect.number
            elif isinstance(effect, (steps.Done, steps.Fail)):
                self.last = effect

    def tick(self, pending: int = 1) -> list[steps.Effect]:
        """Advance to the next deadline."""
        assert self.now <= self.state.next_deadline < math.inf
        self.now = self.state.next_deadline
        return self.feed(Tick(pending))

    def see(self, state: dict[str, Any] | None, **options: Any) -> list[steps.Effect]:
        return self.feed(steps.PodSeen("job-1", pod(state), **options))

    @property
    def error(self) -> SandboxError:
        assert isinstance(self.last, steps.Fail)
        return self.last.error

    @property
    def status(self) -> str:
        assert isinstance(self.last, steps.Done)
        return self.last.result.status


# -- machines in each phase --------------------------------------------------------------------------------


def creating_job() -> Machine:
    machine = Machine()
    machine.feed(Started())
    return machine


def creating_config_map() -> Machine:
    machine = creating_job()
    machine.feed(JobCreated(job()))
    return machine


def confirming() -> Machine:
    machine = creating_config_map()
    machine.feed(CreateFailed(broken(), may_have_arrived=True))
    return machine


def starting() -> Machine:
    machine = creating_config_map()
    machine.feed(ConfigMapCreated())
    return machine


def polling() -> Machine:
    machine = starting()
    machine.tick()
    return machine


def opening() -> Machine:
    machine = starting()
    machine.see(RUNNING)
    return machine


def reading() -> Machine:
    machine = opening()
    machine.feed(steps.LogOpened(machine.log), steps.LogChunk(machine.log, START))
    return machine


def replacing() -> Machine:
    """Return a machine whose log is silent, so that it opens a second connection."""
    machine = Machine(timeout=5000.0)
    machine.feed(Started(), JobCreated(job()), ConfigMapCreated())
    machine.see(RUNNING)
    machine.feed(steps.LogOpened(machine.log), steps.LogChunk(machine.log, START))
    machine.tick()
    return machine


def draining() -> Machine:
    machine = reading()
    machine.see(exited(3))
    return machine


def overtime() -> Machine:
    machine = opening()
    machine.feed(steps.LogEnded(machine.log, broken()))
    while machine.state.phase == "reading":
        machine.tick()
        if machine.state.phase == "reading":
            machine.feed(steps.LogEnded(machine.log, broken()))
    return machine


def status() -> Machine:
    machine = reading()
    machine.feed(steps.LogEnded(machine.log))
    return machine


def status_poll() -> Machine:
    machine = status()
    machine.tick()
    return machine


def deleted() -> Machine:
    machine = status()
    machine.see(RUNNING, deleted=True)
    return machine


Make = Callable[[Machine], Input]


def same(input_: Input) -> Make:
    return lambda _: input_


def seen(state: dict[str, Any] | None, **options: Any) -> Make:
    return lambda _: steps.PodSeen("job-1", pod(state), **options)


TWO_PODS = same(JobCreated(job(parallelism=2)))
SHARED = same(steps.PodSeen("job-1", pod(CREATING, shared=True)))


def chunk(*frames: bytes) -> Make:
    return lambda machine: steps.LogChunk(machine.log, b"".join(frames))


def log_ended(error: SandboxError | None = None) -> Make:
    return lambda machine: steps.LogEnded(machine.log, error)


def listed(*states: dict[str, Any], version: str = "9") -> Make:
    return lambda machine: steps.PodsListed(machine.poll, [pod(state) for state in states], version)


def events(*reasons: str, message: str = "no") -> Make:
    found = [{"reason": reason, "message": message} for reason in reasons]
    return lambda machine: steps.EventsListed(machine.poll, found)


def poll_failed(error: SandboxError) -> Make:
    return lambda machine: steps.PollFailed(machine.poll, error)


MISSING = same(steps.PodSeen("job-1", pod(CREATING), missing=True))
DEADLINE = {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]}}

C = steps
TRANSITIONS: list[tuple[Callable[[], Machine], Make, str, list[type]]] = [
    # The Job and the ConfigMap are created.
    (Machine, same(Started()), "creating", [C.CreateJob]),
    (creating_job, same(JobCreated(job())), "creating", [C.CreateConfigMap]),
    (creating_job, TWO_PODS, "finished", [C.StopCreating, C.DeleteJob, C.Fail]),
    (creating_job, SHARED, "finished", [C.StopCreating, C.DeleteJob, C.Fail]),
    (creating_job, same(CreateRejected()), "creating", []),
    (creating_job, same(RetryCreate()), "creating", [C.CreateJob]),
    (creating_job, same(CreateFailed(refused(), may_have_arrived=False)), "finished", [C.Fail]),
    (creating_job, same(CreateFailed(broken(), may_have_arrived=True)), "finished", [C.DeleteJob, C.Fail]),
    (creating_job, same(WatchFailed(forbidden())), "creating", []),
    (creating_config_map, same(CreateRejected()), "creating", []),
    (creating_config_map, same(RetryCreate()), "creating", [C.DeleteJob, C.CreateJob]),
    (creating_config_map, same(RetryCreate(same_job=True)), "creating", [C.CreateConfigMap]),
    (creating_config_map, same(CreateFailed(refused(), False)), "finished", [C.DeleteJob, C.Fail]),
    (creating_config_map, same(CreateFailed(broken(), True)), "confirming", [C.PollPods]),
    (creating_config_map, same(ConfigMapCreated()), "starting", []),
    (creating_config_map, seen(CREATING), "creating", []),
    (creating_config_map, seen(RUNNING), "reading", [C.StopCreating, C.OpenLog]),
    (creating_config_map, seen(BAD_IMAGE), "finished", [C.StopCreating, C.DeleteJob, C.Fail]),
    # The ConfigMap may have arrived.
    (confirming, seen(RUNNING), "reading", [C.StopPolling, C.OpenLog]),
    (confirming, listed(RUNNING), "reading", [C.OpenLog]),
    (confirming, listed(CREATING), "finished", [C.DeleteJob, C.Fail]),
    (confirming, poll_failed(broken()), "finished", [C.DeleteJob, C.Fail]),
    # The sandbox starts.
    (starting, seen(None), "starting", []),
    (starting, SHARED, "finished", [C.DeleteJob, C.Fail]),
    (starting, seen(RUNNING), "reading", [C.OpenLog]),
    (starting, seen(exited(0)), "reading", [C.OpenLog]),
    (starting, seen(BAD_IMAGE), "finished", [C.DeleteJob, C.Fail]),
    (starting, seen(NEVER_STARTED), "finished", [C.DeleteJob, C.Fail]),
    (starting, seen(CREATING, deleted=True), "reading", [C.OpenLog]),
    (starting, MISSING, "finished", [C.DeleteJob, C.Fail]),
    (starting, same(WatchFailed(forbidden())), "finished", [C.DeleteJob, C.Fail]),
    (polling, events(), "starting", [C.PollPods]),
    (polling, events("FailedCreate"), "starting", [C.PollPods]),
    (polling, events("FailedCreate", message="violates PodSecurity"), "finished", [C.DeleteJob, C.Fail]),
    (polling, poll_failed(forbidden()), "starting", [C.PollPods]),
    (polling, seen(RUNNING), "reading", [C.StopPolling, C.OpenLog]),
    # The log is read.
    (opening, log_ended(broken()), "reading", []),
    (opening, log_ended(BadRequest("not yet", code=400, reason="BadRequest")), "reading", []),
    (opening, log_ended(not_found("pods/log")), "reading", []),
    (opening, log_ended(not_found("pods")), "status", []),
    (opening, log_ended(forbidden()), "finished", [C.DeleteJob, C.Fail]),
    (reading, chunk(out("a")), "reading", []),
    (reading, chunk(out("a"), exit_frame(3)), "finished", [C.CloseLog, C.DeleteJob, C.Done]),
    (reading, chunk(exit_frame(None, 9)), "status", [C.CloseLog]),
    (reading, chunk(exit_frame(None, 9, timed_out=True)), "finished", [C.CloseLog, C.DeleteJob, C.Done]),
    (reading, log_ended(), "status", []),
    (reading, log_ended(broken()), "reading", []),
    (reading, seen(exited(0)), "reading", []),
    (reading, same(WatchFailed(forbidden())), "reading", []),
    (draining, log_ended(BadRequest("none", code=400, reason="BadRequest")), "reading", []),
    # The time limit passes.
    (overtime, listed(RUNNING), "finished", [C.DeleteJob, C.Fail]),
    (overtime, listed(exited(3)), "reading", [C.OpenLog]),
    (overtime, poll_failed(broken()), "finished", [C.DeleteJob, C.Fail]),
    # The final status of the pod.
    (status, seen(OUT_OF_MEMORY), "finished", [C.DeleteJob, C.Done]),
    (status, seen(exited(3)), "reading", [C.OpenLog]),
    (status, seen(RUNNING), "status", []),
    (status, seen(RUNNING, deleted=True), "status poll", [C.PollJob]),
    (status, same(WatchFailed(forbidden())), "status poll", [C.PollPods]),
    (status_poll, listed(RUNNING), "reading", [C.OpenLog]),
    (status_poll, listed(OUT_OF_MEMORY), "finished", [C.DeleteJob, C.Done]),
    (status_poll, listed(), "status poll", [C.PollJob]),
    (status_poll, poll_failed(broken()), "reading", [C.OpenLog]),
    (deleted, lambda machine: steps.JobRead(machine.poll, {}), "finished", [C.DeleteJob, C.Done]),
    (deleted, lambda machine: steps.JobRead(machine.poll, DEADLINE), "finished", [C.DeleteJob, C.Done]),
    (deleted, poll_failed(broken()), "finished", [C.DeleteJob, C.Done]),
    # The run is cancelled.
    (creating_job, same(Abandoned()), "finished", [C.DeleteJob]),
    (polling, same(Abandoned()), "finished", [C.StopPolling, C.DeleteJob]),
    (reading, same(Abandoned()), "finished", [C.CloseLog, C.DeleteJob]),
]


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: f"{row[0].__name__}-{row[2]}")
def test_each_input_leads_to_its_phase_and_effects(
    row: tuple[Callable[[], Machine], Make, str, list[type]],
) -> None:
    make, input_, phase, effects = row
    machine = make()
    found = machine.feed(input_(machine))
    assert machine.state.phase == phase
    assert [type(effect) for effect in found] == effects


# -- timers -------------------------------------------------------------------------------------------------

TIMERS: list[tuple[Callable[[], Machine], float, str, list[type]]] = [
    (confirming, FINAL_POLL_TIMEOUT, "finished", [C.StopPolling, C.DeleteJob, C.Fail]),
    (starting, POD_CREATION_GRACE, "starting", [C.PollEvents]),
    (polling, STARTUP_TIMEOUT - POD_CREATION_GRACE, "starting", [C.StopPolling, C.PollPods]),
    (reading, TIMEOUT + KILL_GRACE, "overtime", [C.CloseLog, C.PollPods]),
    (draining, DRAIN_TIMEOUT, "reading", [C.CloseLog, C.OpenLog]),
    (overtime, FINAL_POLL_TIMEOUT, "finished", [C.StopPolling, C.DeleteJob, C.Fail]),
    (status, FINAL_STATUS_TIMEOUT, "status poll", [C.PollPods]),
    (status_poll, FINAL_POLL_TIMEOUT, "reading", [C.StopPolling, C.OpenLog]),
    (deleted, FINAL_POLL_TIMEOUT, "finished", [C.StopPolling, C.DeleteJob, C.Done]),
]


@pytest.mark.parametrize("row", TIMERS, ids=lambda row: row[0].__name__)
def test_each_phase_has_its_deadline(row: tuple[Callable[[], Machine], float, str, list[type]]) -> None:
    make, seconds, phase, effects = row
    machine = make()
    before = machine.now
    found = machine.tick()
    assert machine.now - before == pytest.approx(seconds)
    assert machine.state.phase == phase
    assert [type(effect) for effect in found] == effects


def test_executions_that_wait_together_poll_less_often() -> None:
    machine = starting()
    machine.tick(pending=21)
    assert machine.poll == 0
    assert machine.state.next_deadline == pytest.approx(POD_CREATION_GRACE + 20 * POLL_INTERVAL_PER_PENDING)


def test_a_poll_starts_only_with_a_tick_which_knows_how_many_wait() -> None:
    machine = starting()
    assert machine.feed(steps.PodSeen("job-1", pod(None)), after=30.0) == []
    assert machine.state.next_deadline <= machine.now + POLL_INTERVAL


def test_a_log_that_breaks_off_is_opened_again_with_growing_delays() -> None:
    machine = opening()
    delays = []
    for _ in range(6):
        machine.feed(steps.LogEnded(machine.log, broken()))
        delays.append(machine.state.next_deadline - machine.now)
        machine.tick()
    assert delays == pytest.approx([REOPEN_DELAY * 2**n for n in range(5)] + [5.0])


def test_a_silent_log_is_opened_again_after_twice_as_long_each_time() -> None:
    machine = Machine(timeout=5000.0)
    machine.feed(Started(), JobCreated(job()), ConfigMapCreated())
    machine.see(RUNNING)
    machine.feed(steps.LogOpened(machine.log))
    for factor in (1, 2, 4):
        before = machine.now
        assert [type(effect) for effect in machine.tick()] == [C.OpenLog]
        assert machine.now - before == pytest.approx(factor * IDLE_REOPEN_AFTER)
        machine.feed(steps.LogOpened(machine.log))


def test_a_log_of_a_killed_container_has_its_time_to_open() -> None:
    machine = opening()
    machine.see(RUNNING, deleted=True)
    while machine.state.phase == "reading":
        machine.feed(steps.LogEnded(machine.log, broken()))
        machine.tick()
    assert machine.now == pytest.approx(OPEN_TIMEOUT)


# -- two connections to the log -----------------------------------------------------------------------------


def test_the_first_connection_is_closed_when_the_second_is_open() -> None:
    machine = replacing()
    second = machine.log
    assert machine.feed(steps.LogOpened(second)) == [C.CloseLog(second - 1)]
    machine.feed(steps.LogChunk(second, START + out("a") + exit_frame(0)))
    assert machine.status == "succeeded"


def test_the_second_connection_is_closed_if_the_first_delivers_again() -> None:
    machine = replacing()
    second = machine.log
    assert machine.feed(steps.LogChunk(second - 1, out("a"))) == [C.CloseLog(second)]
    assert machine.feed(steps.LogOpened(second), steps.LogChunk(second, exit_frame(3))) == []
    machine.feed(steps.LogChunk(second - 1, exit_frame(0)))
    assert machine.status == "succeeded"


@pytest.mark.parametrize("error", [broken(), refused(), forbidden(), not_found("pods/log"), not_found("pods")])
def test_the_first_connection_is_read_if_the_second_cannot_be_opened(error: SandboxError) -> None:
    machine = replacing()
    assert machine.feed(steps.LogEnded(machine.log, error)) == []
    machine.feed(steps.LogChunk(machine.log - 1, exit_frame(0)))
    assert machine.status == "succeeded"


def test_the_second_connection_remains_when_the_first_breaks_off() -> None:
    machine = replacing()
    assert machine.feed(steps.LogEnded(machine.log - 1, broken())) == []
    assert machine.feed(steps.LogOpened(machine.log)) == []
    machine.feed(steps.LogChunk(machine.log, START + exit_frame(0)))
    assert machine.status == "succeeded"


def test_a_second_request_for_the_log_without_a_response_is_sent_again() -> None:
    machine = replacing()
    before, second = machine.now, machine.log
    assert machine.tick() == [C.CloseLog(second), C.OpenLog(second + 1, "job-1-x")]
    assert machine.now - before == pytest.approx(REQUEST_TIMEOUT)


def test_a_log_whose_pod_is_missing_is_read_until_it_is_silent() -> None:
    machine = replacing()
    machine.feed(steps.LogEnded(machine.log, not_found("pods")))
    before = machine.now
    assert machine.tick() == [C.CloseLog(machine.log - 1)]
    assert machine.now - before == pytest.approx(DRAIN_TIMEOUT)
    assert machine.state.phase == "status"


# -- a client that was suspended ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [confirming, opening, reading, replacing, draining, overtime, status, status_poll, deleted]
)
@pytest.mark.parametrize("seconds", [1.0, 90.0, 9000.0])
def test_no_timer_takes_effect_before_inputs_after_a_suspension(
    make: Callable[[], Machine], seconds: float
) -> None:
    machine = make()
    phase = machine.state.phase
    assert machine.feed(steps.Resumed(seconds), after=seconds) == []
    assert machine.state.phase == phase
    assert machine.state.next_deadline >= machine.now + RESUME_GRACE


@pytest.mark.parametrize("make", [starting, polling])
def test_the_pods_are_listed_after_a_suspension_over_the_startup_timeout(make: Callable[[], Machine]) -> None:
    machine = make()
    machine.feed(steps.Resumed(9000.0), after=9000.0)
    while not isinstance(machine.state._poll, C.PollPods):
        machine.now = max(machine.now, machine.state.next_deadline)
        machine.feed(Tick())
    machine.feed(steps.PodsListed(machine.poll, [pod(RUNNING)], "9"))
    assert machine.state.phase == "reading"


def test_the_log_is_opened_again_after_a_long_suspension_unless_it_delivers() -> None:
    for seconds, effects in ((2.0, [C.CloseLog, C.PollPods]), (90.0, [C.OpenLog])):
        machine = reading()
        machine.feed(steps.Resumed(seconds), after=seconds)
        assert [type(effect) for effect in machine.tick()] == effects
    machine = reading()
    machine.feed(steps.Resumed(90.0), steps.LogChunk(machine.log, out("a")), after=90.0)
    assert machine.state.next_deadline > machine.now + RESUME_GRACE


# -- whether the program may have run ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "input_", "may_have_run"),
    [
        (creating_job, same(CreateFailed(refused(), False)), False),
        (creating_job, same(CreateFailed(broken(), True)), False),
        (creating_config_map, same(CreateFailed(forbidden(), False)), False),
        (confirming, poll_failed(broken()), True),
        (creating_job, TWO_PODS, False),
        (creating_job, SHARED, False),
        (starting, SHARED, True),
        (starting, seen(BAD_IMAGE), False),
        (starting, seen(NEVER_STARTED), False),
        (starting, MISSING, True),
        (starting, same(WatchFailed(forbidden())), True),
        (opening, log_ended(forbidden()), True),
        (reading, chunk(encode("start", b'{"python": "3.11", "protocol": 99}')), True),
    ],
)
def test_an_error_shows_whether_the_program_may_have_run(
    make: Callable[[], Machine], input_: Make, may_have_run: bool
) -> None:
    machine = make()
    machine.feed(input_(machine))
    if machine.last is None:
        machine.feed(steps.LogEnded(machine.log, forbidden()))
    assert machine.error.may_have_run is machine.state.may_have_run is may_have_run


@pytest.mark.parametrize(
    ("make", "may_have_run"),
    [(creating_job, False), (creating_config_map, True), (starting, True), (reading, True)],
)
def test_a_cancelled_run_may_have_run_once_its_configmap_may_exist(
    make: Callable[[], Machine], may_have_run: bool
) -> None:
    machine = make()
    machine.feed(Abandoned())
    assert machine.state.may_have_run is may_have_run
    assert machine.last is None


def test_a_startup_timeout_may_have_run_because_the_job_is_not_deleted_yet() -> None:
    machine = starting()
    while machine.last is None:
        machine.tick()
    assert isinstance(machine.error, (StartError, ResultLost))
    assert machine.error.may_have_run
    assert machine.now <= STARTUP_TIMEOUT + FINAL_POLL_TIMEOUT


def test_an_error_of_the_shared_watch_is_copied_for_each_execution() -> None:
    error = forbidden()
    machine = starting()
    machine.feed(WatchFailed(error))
    assert machine.error is not error
    assert str(machine.error) == str(error)


# -- attempts ---------------------------------------------------------------------------------------------


def test_a_rejected_job_does_not_exist_and_a_created_one_is_not_pending() -> None:
    machine = creating_job()
    assert machine.state.attempts == [JobAttempt("job-1", True, True)]
    machine.feed(CreateRejected())
    assert machine.state.attempts == [JobAttempt("job-1", False, False)]
    machine.feed(RetryCreate())
    assert machine.state.attempts == [JobAttempt("job-1", True, True)]
    machine.feed(JobCreated(job()))
    assert machine.state.attempts == [JobAttempt("job-1", True, False)]


def test_after_a_rejected_configmap_a_new_job_replaces_the_old_and_its_pod() -> None:
    machine = creating_config_map()
    machine.see(CREATING)
    assert machine.feed(CreateRejected(), RetryCreate()) == [
        C.DeleteJob(JobAttempt("job-1", True, False)),
        C.CreateJob("job-2"),
    ]
    machine.feed(JobCreated(job()), ConfigMapCreated())
    assert machine.see(RUNNING) == []
    assert machine.state.phase == "starting", "the pod belongs to the first Job"


def rejected(message: str = "Pod was rejected: The node had condition: [DiskPressure]. ") -> dict[str, Any]:
    status = {"phase": "Failed", "reason": "Evicted", "message": message}
    return {**pod(CREATING), "status": status}


@pytest.mark.parametrize("make", [creating_job, creating_config_map, confirming, starting, polling])
def test_a_new_job_replaces_one_whose_pod_was_rejected_by_its_node(make: Callable[[], Machine]) -> None:
    machine = make()
    machine.feed(steps.PodSeen("job-1", rejected()))
    assert machine.state.phase == "pausing"
    (waiting,) = [
        effect.event
        for effect in machine.effects
        if isinstance(effect, steps.Emit) and isinstance(effect.event, PodWaiting)
    ]
    assert (waiting.reason, waiting.cause) == ("Evicted", "node_pressure")
    assert machine.state.next_deadline == machine.now + REJECTED_DELAY
    assert machine.feed(ConfigMapCreated(), RetryCreate(), steps.PodSeen("job-1", rejected("other"))) == []
    assert machine.tick() == [steps.DeleteJob(machine.state.attempts[0]), steps.CreateJob("job-2")]
    machine.feed(JobCreated(job()), ConfigMapCreated())
    machine.feed(steps.PodSeen("job-2", pod(RUNNING)))
    assert machine.state.phase == "reading"


def test_a_pod_that_is_rejected_again_and_again_ends_the_run_before_startup_timeout() -> None:
    machine = Machine()
    machine.feed(Started())
    pauses = []
    while machine.last is None:
        machine.feed(steps.PodSeen(machine.state.attempts[-1].name, rejected()))
        if machine.last is None:
            pauses.append(machine.state.next_deadline - machine.now)
            machine.tick()
    assert pauses == [2.0, 4.0, 8.0, 16.0]
    assert isinstance(machine.error, StartError)
    assert (machine.error.cause, machine.error.may_have_run) == ("node_pressure", False)
    assert f"within {STARTUP_TIMEOUT:g} s (startup_timeout)" in str(machine.error)
    assert "[DiskPressure]" in str(machine.error)


def test_a_run_that_is_cancelled_or_loses_its_watch_after_a_rejection_has_not_run() -> None:
    for input_ in (Abandoned(), WatchFailed(forbidden())):
        machine = starting()
        machine.feed(steps.PodSeen("job-1", rejected()), input_)
        assert machine.state.phase == "finished"
        assert not machine.state.may_have_run


@pytest.mark.parametrize("before", [RUNNING, CREATING])
def test_a_pod_that_was_accepted_before_it_was_rejected_is_not_replaced(before: dict[str, Any]) -> None:
    """A kubelet that was restarted checks all pods again."""
    machine = starting()
    machine.see(before)
    machine.feed(steps.PodSeen("job-1", rejected()))
    assert machine.state.phase != "pausing"
    assert [attempt.name for attempt in machine.state.attempts] == ["job-1"]
    assert machine.state.may_have_run is (before is RUNNING)


def test_responses_to_requests_that_were_stopped_are_ignored() -> None:
    machine = reading()
    stale = machine.log
    machine.feed(steps.LogEnded(stale))
    machine.see(exited(3))
    assert machine.state.phase == "reading"
    assert machine.log != stale
    assert machine.feed(steps.LogChunk(stale, exit_frame(0)), steps.LogEnded(stale, forbidden())) == []
    assert machine.state.phase == "reading"


def test_a_list_that_is_older_than_the_known_pod_is_ignored() -> None:
    machine = status_poll()
    machine.feed(steps.PodsListed(machine.poll, [], "4"))
    assert machine.state.phase == "reading"


def test_the_reason_why_the_job_controller_deleted_the_pod_is_the_jobs() -> None:
    machine = deleted()
    machine.feed(steps.JobRead(machine.poll, DEADLINE))
    assert isinstance(machine.last, steps.Done)
    assert machine.last.result.cause == cause("job_deadline").name


# -- any order --------------------------------------------------------------------------------------------

ERRORS = st.sampled_from(
    [
        broken(),
        refused(),
        forbidden(),
        not_found("pods"),
        not_found("pods/log"),
        ServerError("down", code=503, reason="", retry_after=30.0),
        BadRequest("not yet", code=400, reason="BadRequest"),
    ]
)
STATES = st.sampled_from(
    [None, CREATING, RUNNING, BAD_IMAGE, OUT_OF_MEMORY, NEVER_STARTED, exited(0), exited(3), exited(125)]
)
JOBS = st.sampled_from(["job-1", "job-1", "job-1", "job-2"])
PODS = st.builds(pod, STATES, st.integers(1, 9), shared=st.sampled_from([False, False, False, True])) | st.just(
    rejected()
)
FRAMES = st.sampled_from([START, out("a"), exit_frame(0), exit_frame(None, 9), b"junk\n", out("a")[:5]])
NUMBERS = st.integers(0, 2)
"""How far a number is behind that of the latest request."""

EVENTS = [
    {"reason": "FailedCreate", "message": "violates PodSecurity"},
    {"reason": "FailedScaleUp", "message": ""},
]

Step = Callable[[Machine], Input]
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.sampled_from([Started(), ConfigMapCreated(), CreateRejected(), RetryCreate(), JobCreated(job())]).map(same),
    st.builds(CreateFailed, ERRORS, st.booleans()).map(same),
    st.builds(steps.PodSeen, JOBS, PODS, st.booleans()).map(same),
    st.builds(steps.PodSeen, JOBS, PODS, missing=st.just(True)).map(same),
    st.builds(WatchFailed, ERRORS).map(same),
    st.builds(Tick, st.integers(1, 50), st.none() | ERRORS).map(same),
    st.builds(steps.Resumed, st.sampled_from([1.0, 90.0])).map(same),
    NUMBERS.map(lambda back: lambda machine: steps.LogOpened(machine.log - back)),
    st.tuples(NUMBERS, FRAMES).map(lambda drawn: lambda machine: steps.LogChunk(machine.log - drawn[0], drawn[1])),
    st.tuples(NUMBERS, st.none() | ERRORS).map(
        lambda drawn: lambda machine: steps.LogEnded(machine.log - drawn[0], drawn[1])
    ),
    st.tuples(NUMBERS, st.lists(PODS, max_size=2), st.sampled_from(["", "3", "9"])).map(
        lambda drawn: lambda machine: steps.PodsListed(machine.poll - drawn[0], drawn[1], drawn[2])
    ),
    NUMBERS.map(lambda back: lambda machine: steps.EventsListed(machine.poll - back, EVENTS)),
    NUMBERS.map(lambda back: lambda machine: steps.JobRead(machine.poll - back, DEADLINE)),
    st.tuples(NUMBERS, ERRORS).map(
        lambda drawn: lambda machine: steps.PollFailed(machine.poll - drawn[0], drawn[1])
    ),
)
BEGINNINGS = st.sampled_from(
    [Machine, creating_job, creating_config_map, starting, polling, opening, reading, replacing]
)


@given(BEGINNINGS, st.lists(st.tuples(STEPS, st.sampled_from([0.0, 0.0, 0.1, 3.0, 30.0])), max_size=25))
def test_inputs_in_any_order_lead_to_one_end(
    make: Callable[[], Machine], inputs: list[tuple[Step, float]]
) -> None:
    machine = make()
    machine.feed(Started())
    may_have_run = False
    for step, after in inputs:
        input_ = step(machine)
        starts = (
            isinstance(input_, steps.PodSeen)
            and input_.job == machine.state.attempts[-1].name
            and "'running'" in str(input_.pod)
            and machine.last is None
            and machine.state._termination is None
        )
        machine.feed(input_, after=after)
        assert machine.state.may_have_run or not may_have_run, "it never goes back to False"
        assert machine.state.may_have_run or not starts, "a container that runs has started"
        may_have_run = machine.state.may_have_run
    # From here on every request stays without a response.
    for _ in range(500):
        if machine.last is not None:
            break
        if machine.state.phase == "creating":
            machine.feed(CreateFailed(broken(), may_have_arrived=True))
        else:
            machine.now = max(machine.now, machine.state.next_deadline)
            machine.feed(Tick())
    assert machine.last is not None, "each execution ends"
    for input_ in (Tick(), Abandoned(), WatchFailed(forbidden())):
        assert machine.state.apply(input_, machine.now + 1) == []
    assert machine.state.may_have_run or not may_have_run
    if isinstance(machine.last, steps.Fail):
        assert machine.last.error.may_have_run is machine.state.may_have_run
        assert machine.last.error.may_have_run or not isinstance(machine.last.error, ResultLost)
    else:
        assert machine.state.may_have_run, "a program with a result has run"
    created = [effect.name for effect in machine.effects if isinstance(effect, steps.CreateJob)]
    deleted = [effect.attempt.name for effect in machine.effects if isinstance(effect, steps.DeleteJob)]
    may_exist = {each.name for each in machine.state.attempts if each.job_may_exist}
    assert len(deleted) == len(set(deleted))
    assert may_exist <= set(deleted) <= set(created), "each Job that may exist is deleted, once"


# -- several pods of one Job --------------------------------------------------------------------------------


def second_pod() -> dict[str, Any]:
    unsafe = pod(None, shared=True)
    return {**unsafe, "metadata": {**unsafe["metadata"], "name": "job-1-y"}}


@pytest.mark.parametrize("make", [opening, reading, draining])
def test_an_unsafe_second_pod_ends_the_run(make: Callable[[], Machine]) -> None:
    machine = make()
    machine.feed(steps.PodSeen("job-1", second_pod()))
    assert isinstance(machine.error, StartError)
    assert machine.error.cause == "unsafe_admission_change"
    assert machine.error.may_have_run


def test_an_unsafe_pod_is_not_forgotten_if_a_safe_one_follows_in_the_same_list() -> None:
    machine = confirming()
    machine.feed(steps.PodsListed(machine.poll, [second_pod(), pod(RUNNING)], "7"))
    assert isinstance(machine.error, StartError)
    assert machine.error.cause == "unsafe_admission_change"
