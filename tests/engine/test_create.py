"""Creating the Job and its ConfigMap: never a second Job that runs, and retries of temporary errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from gke_sandbox import AsyncSandbox, Cluster, NetworkError
from gke_sandbox._engine.create import CONFLICT_DELAY, Creation
from gke_sandbox._engine.steps import (
    ConfigMapCreated,
    CreateFailed,
    CreateRejected,
    Input,
    JobCreated,
    RetryCreate,
)
from gke_sandbox._wire.program import Program
from gke_sandbox.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    Forbidden,
    SandboxError,
    ServerError,
    TooManyRequests,
)
from gke_sandbox.local.faults import Action, Drop, Fault, Forbid, Match, Refuse, Respond
from gke_sandbox.local.latency import Pace
from gke_sandbox.local.runtimes.scripted import ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport
from gke_sandbox.settings import Settings

from ..clock import mock_clock, run_on_mock_clock
from ..pods import Pods, out, pods, program

POST_JOB, POST_CONFIG_MAP = Match("create", "jobs"), Match("create", "configmaps")


@pytest.mark.parametrize(
    ("fault", "posts"),
    [
        # A refused connection never reaches the server, which counts what it was asked.
        (Fault(Refuse(), POST_JOB), (1, 1)),
        (Fault(Respond.too_many_requests(), POST_JOB), (2, 1)),
        (Fault(Drop(carried_out=True), POST_JOB), (2, 1)),
        (Fault(Drop(carried_out=False), POST_JOB), (2, 1)),
        (Fault(Respond.timed_out(), POST_JOB), (2, 1)),
        (Fault(Refuse(), POST_CONFIG_MAP), (2, 1)),
        (Fault(Respond.too_many_requests(), POST_CONFIG_MAP), (2, 2)),
        (Fault(Drop(carried_out=True), POST_CONFIG_MAP), (1, 2)),
        (Fault(Drop(carried_out=False), POST_CONFIG_MAP), (1, 2)),
        (Fault(Respond.internal_error(), POST_CONFIG_MAP), (1, 2)),
    ],
)
def test_a_post_that_fails_once_still_creates_one_job(fault: Fault, posts: tuple[int, int]) -> None:
    """If the ConfigMap was not created, everything starts over; a request with a lost response is repeated."""

    async def run() -> None:
        async with pods(program(out("x")), fault) as cluster:
            result = await cluster.sandbox.run("pass")
            await anyio.sleep(20)
            assert cluster.left() == []
            counts = cluster.requests.count("POST jobs"), cluster.requests.count("POST configmaps")
            assert counts == posts
            ran = len(cluster.runtime.specs)
        assert result.stdout == "x"
        assert ran == 1

    run_on_mock_clock(run)


@pytest.mark.parametrize("match", [POST_JOB, POST_CONFIG_MAP])
@pytest.mark.parametrize("then", [Refuse(), Respond.too_many_requests(), Respond.unavailable()])
def test_after_a_lost_response_no_other_error_creates_a_second_job(match: Match, then: object) -> None:
    async def run() -> None:
        faults = Fault(Drop(carried_out=True), match), Fault(then, match, skip=1)  # type: ignore[arg-type]
        async with pods(program(out("x")), *faults) as cluster:
            result = await cluster.sandbox.run("pass")
            await anyio.sleep(20)
            assert cluster.left() == []
            assert len(cluster.runtime.specs) == 1
            assert cluster.requests.count("DELETE jobs/*") == 1
        assert result.stdout == "x"

    run_on_mock_clock(run)


@mock_clock
async def test_a_refusal_after_a_lost_response_deletes_the_job_that_may_exist() -> None:
    faults = Fault(Drop(carried_out=True), POST_JOB), Fault(Forbid(), POST_JOB, None, skip=1)
    async with pods(program(), *faults) as cluster:
        with pytest.raises(Forbidden):
            await cluster.sandbox.run("pass")
        await anyio.sleep(10)
        assert cluster.left() == []


class LatePosts(httpx.AsyncBaseTransport):
    """Delivers the POST of a Job a second late, even if its response is not awaited any more."""

    def __init__(self, cluster: LocalTransport) -> None:
        self._cluster = cluster

    async def __aenter__(self) -> LatePosts:
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._tasks.__aexit__(None, None, None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "POST" or not request.url.path.endswith("/jobs"):
            return await self._cluster.handle_async_request(request)
        answers: list[httpx.Response] = []
        answered = anyio.Event()

        async def carry_out() -> None:
            await anyio.sleep(1)
            answers.append(await self._cluster.handle_async_request(request))
            answered.set()

        self._tasks.start_soon(carry_out)
        await answered.wait()
        return answers[0]


@mock_clock
async def test_a_job_whose_post_outlives_its_cancelled_run_is_deleted_too() -> None:
    async with LocalTransport(ScriptedRuntime(program()), pace=Pace.recorded()) as cluster:
        async with AsyncSandbox(Cluster.transport(LatePosts(cluster))) as sandbox:
            with anyio.move_on_after(0.5):
                await sandbox.run("pass")
        await anyio.sleep(10)
        assert cluster.leftovers() == []
        assert sandbox.leftovers == []


@pytest.mark.parametrize("match", [POST_JOB, POST_CONFIG_MAP])
def test_a_refusal_is_raised_and_leaves_nothing(match: Match) -> None:
    async def run() -> None:
        async with pods(program(), Fault(Forbid(), match)) as cluster:
            with pytest.raises(Forbidden) as caught:
                await cluster.sandbox.run("pass")
            await anyio.sleep(10)
            assert cluster.left() == []
            deletes = cluster.requests.count("DELETE jobs/*")
        assert deletes == (0 if match is POST_JOB else 1)
        assert caught.value.hint

    run_on_mock_clock(run)


@mock_clock
async def test_a_cluster_that_cannot_be_reached_is_a_network_error() -> None:
    async with pods(program(), Fault(Refuse(), times=None)) as cluster:
        began = anyio.current_time()
        with pytest.raises(NetworkError):
            await cluster.sandbox.run("pass")
        assert anyio.current_time() - began < 10


# -- conflicts ---------------------------------------------------------------------------------------------

CONFLICT = Respond.quota_conflict()


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("match", [POST_JOB, POST_CONFIG_MAP], ids=["job", "configmap"])
def test_conflicts_on_a_post_are_retried_in_place_and_soon(match: Match, times: int) -> None:
    async def run() -> None:
        async with pods(program(out("x")), Fault(CONFLICT, match, times)) as cluster:
            began = anyio.current_time()
            assert (await cluster.sandbox.run("pass")).stdout == "x"
            posts = [request.at for request in cluster.transport.requests if request.method == "POST"]
            assert posts[-1] - began < 0.8
            counts = cluster.requests.count("POST jobs"), cluster.requests.count("POST configmaps")
            assert counts == ((1 + times, 1) if match is POST_JOB else (1, 1 + times))
            await anyio.sleep(20)
            assert cluster.left() == []
            assert len(cluster.runtime.specs) == 1

    run_on_mock_clock(run)


@mock_clock
async def test_after_five_conflicts_on_the_configmap_a_new_job_is_created() -> None:
    async with pods(program(out("x")), Fault(CONFLICT, POST_CONFIG_MAP, times=5)) as cluster:
        assert (await cluster.sandbox.run("pass")).stdout == "x"
        assert cluster.requests.count("POST jobs") == 2
        await anyio.sleep(20)
        assert cluster.left() == []
        assert len(cluster.runtime.specs) == 1


@pytest.mark.parametrize("match", [POST_JOB, POST_CONFIG_MAP], ids=["job", "configmap"])
def test_permanent_conflicts_are_an_error_with_a_hint_and_nothing_runs(match: Match) -> None:
    async def run() -> None:
        async with pods(program(), Fault(CONFLICT, match, None)) as cluster:
            began = anyio.current_time()
            with pytest.raises(Conflict, match='resourcequotas "gke-sandbox": the object has been') as caught:
                await cluster.sandbox.run("pass", startup_timeout=300)
            assert anyio.current_time() - began < 65
            assert caught.value.hint == "Nothing was created. Try again later, with fewer requests at once."
            await anyio.sleep(20)
            assert cluster.left() == []
            assert cluster.runtime.specs == []

    run_on_mock_clock(run)


@mock_clock
async def test_a_run_that_is_cancelled_during_the_pause_after_a_conflict_has_no_job_to_delete() -> None:
    async with pods(program(), Fault(CONFLICT, POST_JOB, None)) as cluster, anyio.create_task_group() as tasks:
        tasks.start_soon(cluster.sandbox.run, "pass")
        while cluster.requests.count("POST jobs") == 0:
            await anyio.sleep(0.001)
        # The pause is at least half of CONFLICT_DELAY.
        await anyio.sleep(CONFLICT_DELAY / 4)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(20)
        assert cluster.requests.count("DELETE jobs/*") == 0


@pytest.mark.parametrize("match", [POST_JOB, POST_CONFIG_MAP], ids=["job", "configmap"])
def test_a_conflict_after_a_lost_response_creates_no_second_job(match: Match) -> None:
    async def run() -> None:
        faults = Fault(Drop(carried_out=True), match), Fault(CONFLICT, match, times=8, skip=1)
        async with pods(program(out("x")), *faults) as cluster:
            assert (await cluster.sandbox.run("pass")).stdout == "x"
            await anyio.sleep(20)
            assert cluster.left() == []
            assert cluster.requests.count("DELETE jobs/*") == 1
            assert len(cluster.runtime.specs) == 1

    run_on_mock_clock(run)


@mock_clock
async def test_an_object_that_exists_is_not_a_conflict() -> None:
    exists = Fault(Respond(409, "AlreadyExists", "it already exists"), POST_JOB)
    async with pods(program(), exists) as cluster:
        with pytest.raises(AlreadyExists):
            await cluster.sandbox.run("pass")
        assert cluster.requests.count("POST jobs") == 1


@mock_clock
async def test_a_map_with_a_conflict_on_every_tenth_post_is_complete() -> None:
    faults = [
        Fault(CONFLICT, match, skip=skip) for match in (POST_JOB, POST_CONFIG_MAP) for skip in (0, 9, 19, 29)
    ]
    async with pods(program(out("x")), *faults) as cluster:
        results = await cluster.sandbox.map(["pass"] * 40, max_concurrency=20)
        assert [result.stdout for result in results] == ["x"] * 40
        assert cluster.requests.count("POST jobs") == cluster.requests.count("POST configmaps") == 44
        await anyio.sleep(20)
        assert cluster.left() == []
        assert len(cluster.runtime.specs) == 40


# -- a response without the object ------------------------------------------------------------------------

NO_OBJECT = ["{}", '{"metadata": null}', '{"metadata": {"name": "another", "uid": "1"}}', '{"metadata": []}']


@pytest.mark.parametrize("match", [POST_JOB, POST_CONFIG_MAP], ids=["job", "configmap"])
@pytest.mark.parametrize("text", NO_OBJECT)
def test_a_201_without_the_object_counts_as_a_lost_response(match: Match, text: str) -> None:
    async def run() -> None:
        async with pods(program(out("x")), Fault(Respond(201, "", "", text=text), match)) as cluster:
            assert (await cluster.sandbox.run("pass")).stdout == "x"
            assert len(cluster.runtime.specs) == 1

    run_on_mock_clock(run)


@mock_clock
async def test_repeated_201_without_the_object_is_a_server_error_and_the_job_is_deleted() -> None:
    faults = Fault(Respond(201, "", "", text="{}", carried_out=True), POST_JOB, None)
    async with pods(program(), faults, startup_timeout=10) as cluster:
        with pytest.raises(ServerError, match="not the object"):
            await cluster.sandbox.run("pass")
        await anyio.sleep(10)
        assert cluster.left() == []
        assert cluster.requests.count("POST jobs") > 1


# -- outages ----------------------------------------------------------------------------------------------


async def outage(cluster: Pods, action: Action, seconds: float) -> None:
    """Let every request fail in this way for some time."""
    cluster.transport.faults.add(Fault(action, times=None))
    await anyio.sleep(seconds)
    cluster.transport.faults.clear()


@pytest.mark.parametrize("seconds", [3, 30])
@pytest.mark.parametrize("action", [Respond.unavailable(), Respond.too_many_requests(None), Drop(), Refuse()])
def test_an_outage_of_a_server_that_has_responded_is_waited_out(action: Action, seconds: float) -> None:
    async def run() -> None:
        async with pods(program(out("x"))) as cluster, anyio.create_task_group() as beside:
            await cluster.sandbox.run("pass")
            beside.start_soon(outage, cluster, action, seconds)
            result = await cluster.sandbox.run("pass")
            assert seconds < result.timings.returned < seconds + 13
        assert result.stdout == "x"

    run_on_mock_clock(run)


@mock_clock
async def test_requests_are_retried_for_at_most_a_minute() -> None:
    async with pods(program(), Fault(Respond.unavailable(), POST_JOB, None)) as cluster:
        began = anyio.current_time()
        with pytest.raises(ServerError):
            await cluster.sandbox.run("pass", startup_timeout=300)
        assert 30 < anyio.current_time() - began <= 60
        assert cluster.requests.count("POST jobs") < 20


@mock_clock
async def test_a_server_that_has_never_responded_is_an_error_within_two_seconds() -> None:
    async with pods(program(), Fault(Refuse(), times=None)) as cluster:
        began = anyio.current_time()
        with pytest.raises(NetworkError, match="cannot reach"):
            await cluster.sandbox.run("pass", startup_timeout=300)
        assert anyio.current_time() - began < 2


@mock_clock
async def test_a_request_that_httpx_refuses_is_an_error_at_once(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError("Illegal header value b' x'")

    async with AsyncSandbox(Cluster.transport(httpx.MockTransport(refuse))) as sandbox:
        began = anyio.current_time()
        with pytest.raises(NetworkError, match="cannot be sent") as caught:
            await sandbox.run("pass")
    assert caught.value.may_have_run is False
    assert anyio.current_time() == began
    assert not caplog.records


# -- the delays -------------------------------------------------------------------------------------------


class FakeClient:
    """A client whose server responds with the given errors first; it records what is created, and when."""

    has_responded = True

    def __init__(self, *errors: Exception, round_trip: float | None = None) -> None:
        self._errors = list(errors)
        self.round_trip = round_trip
        self.created: list[dict[str, Any]] = []
        self.at: list[float] = []

    async def create(self, resource: object, namespace: str, body: dict[str, Any], **options: object) -> object:
        self.at.append(anyio.current_time())
        if self._errors:
            raise self._errors.pop(0)
        self.created.append(body)
        return {**body, "metadata": {**body["metadata"], "uid": "u-1"}}


def busy(retry_after: float | None = None) -> TooManyRequests:
    return TooManyRequests("busy", code=429, reason="TooManyRequests", retry_after=retry_after)


async def create(client: FakeClient, deadline: float, **options: Callable[[], float]) -> list[Input]:
    """Create a Job and a ConfigMap, as an execution does; return what was reported. Raises the last error."""
    inputs: list[Input] = []
    args = client, Settings(), Program(code="pass"), "s", deadline, inputs.append
    creation = Creation(*args, **options)  # type: ignore[arg-type]
    creation.prepare("gke-sandbox-x")
    await creation.create_job()
    while not isinstance(last := inputs[-1], ConfigMapCreated):
        if isinstance(last, CreateFailed):
            raise last.error
        if isinstance(last, JobCreated):
            await creation.create_config_map(last.job["metadata"]["uid"])
        else:
            assert isinstance(last, RetryCreate)
            await creation.create_job()
    return inputs


def pauses(
    client: FakeClient, uniform: Callable[[], float] = lambda: 1.0, deadline: float = math.inf
) -> list[float]:
    """Return the delays between the requests of one creation."""

    async def run() -> None:
        await create(client, anyio.current_time() + deadline, uniform=uniform)

    try:
        run_on_mock_clock(run)
    finally:
        client.at = [later - sooner for sooner, later in zip(client.at, client.at[1:], strict=False)]
    return client.at


def test_the_delays_double_up_to_ten_seconds() -> None:
    client = FakeClient(*(busy() for _ in range(8)))
    assert pauses(client) == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 0])


def test_the_upper_half_of_each_delay_is_random() -> None:
    assert pauses(FakeClient(busy(), busy()), lambda: 0.0) == pytest.approx([0.1, 0.2, 0])
    assert pauses(FakeClient(busy(), busy()), lambda: 0.5) == pytest.approx([0.15, 0.3, 0])


def test_the_delays_are_random_by_default() -> None:
    """The test does not replace the random numbers."""
    seen = set()
    for _ in range(5):
        client = FakeClient(busy())

        async def run(client: FakeClient = client) -> None:
            await create(client, math.inf)

        run_on_mock_clock(run)
        seen.add(client.at[1] - client.at[0])
    assert len(seen) > 1


def conflict() -> Conflict:
    return Conflict("the object has been modified", code=409, reason="Conflict")


def test_the_delays_after_a_conflict_are_short_and_random() -> None:
    assert pauses(FakeClient(*(conflict() for _ in range(4)))) == pytest.approx([0.05, 0.1, 0.2, 0.2, 0])
    assert pauses(FakeClient(*(conflict() for _ in range(4))), lambda: 0.0) == pytest.approx(
        [0.025, 0.05, 0.1, 0.1, 0]
    )


def test_after_the_short_delays_a_conflict_is_retried_like_other_errors() -> None:
    client = FakeClient(*(conflict() for _ in range(7)))
    assert pauses(client) == pytest.approx([0.05, 0.1, 0.2, 0.2, 0.2, 0.4, 0.8, 0])


def test_a_conflict_is_not_retried_beyond_the_deadline() -> None:
    client = FakeClient(*(conflict() for _ in range(20)))
    with pytest.raises(Conflict):
        pauses(client, deadline=0.5)
    assert sum(client.at) == pytest.approx(0.05 + 0.1 + 0.2)


def test_retry_after_is_respected() -> None:
    assert pauses(FakeClient(busy(7), busy(3))) == pytest.approx([7, 3, 0])


def test_a_retry_after_that_is_shorter_than_the_delay_does_not_shorten_it() -> None:
    assert pauses(FakeClient(*(busy(1) for _ in range(4)))) == pytest.approx([1, 1, 1, 1.6, 0])


def test_no_request_is_retried_beyond_the_deadline() -> None:
    client = FakeClient(*(busy() for _ in range(20)))
    with pytest.raises(TooManyRequests):
        pauses(client, deadline=5)
    assert sum(client.at) == pytest.approx(0.2 + 0.4 + 0.8 + 1.6)


def test_a_retry_after_beyond_the_deadline_is_not_waited_for() -> None:
    client = FakeClient(busy(30))
    with pytest.raises(TooManyRequests):
        pauses(client, deadline=20)
    assert client.at == []


# -- a far away cluster -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("round_trip", "volumes"), [(0.3, True), (0.05, False), (None, False)])
def test_a_far_away_cluster_gets_its_content_mounted(round_trip: float | None, volumes: bool) -> None:
    client = FakeClient(round_trip=round_trip)
    inputs: list[Input] = []

    async def run() -> None:
        inputs.extend(await create(client, math.inf))

    run_on_mock_clock(run)
    job, config_map = client.created
    assert ("volumes" in job["spec"]["template"]["spec"]) is volumes
    assert config_map["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert [type(each) for each in inputs] == [JobCreated, ConfigMapCreated]


def test_a_rejected_request_is_reported_before_the_delay_and_the_retry_after_it() -> None:
    client = FakeClient(busy())
    inputs: list[Input] = []

    async def run() -> None:
        inputs.extend(await create(client, math.inf))

    run_on_mock_clock(run)
    assert [type(each) for each in inputs] == [CreateRejected, RetryCreate, JobCreated, ConfigMapCreated]


# -- whether the program may have run ---------------------------------------------------------------------


@pytest.mark.parametrize("match", [POST_JOB, POST_CONFIG_MAP], ids=["job", "configmap"])
@pytest.mark.parametrize(
    "action",
    [
        Refuse(),
        Forbid(),
        Respond(400, "BadRequest", "the body is invalid"),
        Respond(422, "Invalid", "the name is invalid"),
        Respond.too_many_requests(),
        Respond.quota_conflict(),
    ],
)
def test_a_program_has_not_run_if_the_server_created_nothing(match: Match, action: Action) -> None:
    async def run() -> None:
        async with pods(program(), Fault(action, match, None), startup_timeout=10) as cluster:
            with pytest.raises(SandboxError) as caught:
                await cluster.sandbox.run("pass")
            assert cluster.runtime.specs == []
        assert caught.value.may_have_run is False

    run_on_mock_clock(run)


@pytest.mark.parametrize("action", [Drop(carried_out=False), Respond.internal_error()])
def test_a_program_may_have_run_if_the_response_to_its_configmap_was_lost(action: Action) -> None:
    async def run() -> None:
        async with pods(program(), Fault(action, POST_CONFIG_MAP, None), startup_timeout=10) as cluster:
            with pytest.raises(SandboxError) as caught:
                await cluster.sandbox.run("pass")
        assert caught.value.may_have_run is True

    run_on_mock_clock(run)


def test_a_program_has_not_run_if_the_kubeconfig_is_missing(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncSandbox(Cluster.kubeconfig(tmp_path / "missing")):
            pass

    with pytest.raises(ConfigError) as caught:
        run_on_mock_clock(main)
    assert caught.value.may_have_run is False
