"""An executor with warm pods: a dialogue of several blocks, and when the pods are created and deleted."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any

import pytest

from gke_sandbox import ConfigError
from gke_sandbox._engine.preflight import permissions
from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.adk.executor import AGENT_LABEL, INVOCATION_ANNOTATION
from gke_sandbox.errors import SpecError
from gke_sandbox.local import Caller, Fault, Match, Rule, ScriptedRuntime
from gke_sandbox.local.faults import Delay
from tests.adk.kit import QUIET, Agent, Context, Seen, aconverse, agent, block, execute, on, scripted
from tests.warm_runner import WaitingRunner

pytestmark = QUIET


def wait_for_pods(executor: GkeCodeExecutor, count: int) -> None:
    """Wait until this many pods are ready: the executor runs on the event loop of another thread."""
    opened = executor._sandbox()._open().sandbox._opened()
    assert opened.pool is not None
    end = time.monotonic() + 20
    while opened.pool.ready < count:
        assert time.monotonic() < end, opened.pool.problem
        time.sleep(0.005)


def starts(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return "warm" or "cold" for each execution."""
    records = [record for record in caplog.records if record.msg.startswith("the code of agent")]
    return ["warm" if "(warm start" in record.getMessage() else "cold" for record in records]


def test_every_block_of_a_dialogue_runs_in_a_new_warm_pod(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gke_sandbox")
    runner = WaitingRunner()
    cluster = scripted(runner.script)
    with on(cluster, warm=2) as executor:

        def then(code: str) -> Any:
            def turn(_: object) -> str:
                wait_for_pods(executor, 1)
                return block(code)

            return turn

        blocks = ["print(1)", "print(2)", "print(3)"]
        talk = asyncio.run(aconverse(agent(executor, *map(then, blocks), "Done.")))
        assert talk.last == "Done."
        assert [str(each.output).strip().split("\n")[-1] for each in talk.outcomes] == blocks
    assert starts(caplog) == ["warm"] * 3
    assert [request["code"] for request in runner.requests] == blocks
    assert cluster.jobs_left() == []
    invocation = talk.events[0].invocation_id
    assert sum(f"invocation {invocation})" in record.getMessage() for record in caplog.records) == 3


def test_agents_share_warm_pods_which_have_no_name_of_an_agent_and_no_invocation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gke_sandbox")
    cluster = scripted(WaitingRunner().script)
    with on(cluster, warm=1, labels={"team": "data"}) as executor:
        for number in range(3):
            wait_for_pods(executor, 1)
            assert execute(executor, "x", context=Context(Agent(f"a{number}"), f"e-{number}")).stdout == "x"
    assert starts(caplog) == ["warm"] * 3
    for job in cluster.jobs():
        assert job["metadata"]["labels"]["team"] == "data"
        assert AGENT_LABEL not in job["metadata"]["labels"]
        assert INVOCATION_ANNOTATION not in job["metadata"].get("annotations", {})


def test_settings_and_fields_are_those_of_the_warm_pods(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gke_sandbox")
    runner = WaitingRunner()
    cluster = scripted(runner.script)
    settings = {"env": {"A": "b"}, "max_files": 3, "ttl_seconds_after_finished": 9}
    with on(cluster, warm=1, warm_idle_timeout_seconds=50, image="my/python:1", settings=settings) as executor:
        wait_for_pods(executor, 1)
        execute(executor, "x")
    assert starts(caplog) == ["warm"]
    job = cluster.jobs()[0]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert (container["image"], job["spec"]["ttlSecondsAfterFinished"]) == ("my/python:1", 9)
    assert {"name": "A", "value": "b"} in container["env"]
    assert {"name": "GKE_SANDBOX_WAIT", "value": "50"} in container["env"]
    assert runner.requests[0]["limits"]["files"] == 3


def test_code_that_a_changed_field_affects_starts_in_a_new_pod(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gke_sandbox")
    with on(scripted(WaitingRunner().script), warm=1, timeout_seconds=60) as executor:
        wait_for_pods(executor, 1)
        executor.timeout_seconds = 30
        assert execute(executor, "x").stdout == "x"
        wait_for_pods(executor, 1)
        executor.image = "my/python:2"
        assert execute(executor, "x").stdout == "from the environment"
    assert starts(caplog) == ["warm", "cold"]


def test_pods_are_created_by_the_with_block_by_open_or_at_the_first_execution() -> None:
    def created(cluster: Seen) -> int:
        return len(cluster.jobs())

    for enter in (lambda executor: executor.__enter__(), lambda executor: executor.open()):
        cluster = scripted(WaitingRunner().script)
        executor = on(cluster, warm=2)
        assert created(cluster) == 0
        assert enter(executor) is executor
        wait_for_pods(executor, 2)
        assert created(cluster) == 2
        executor.close()
        assert cluster.jobs_left() == []
    # No pod is ready before the execution that creates them starts.
    cluster = scripted(WaitingRunner().script, Fault(Delay(1.0), Match("get", "pods/attach"), times=2))
    executor = on(cluster, warm=2)
    assert execute(executor, "x").stdout == "from the environment"
    wait_for_pods(executor, 2)
    assert created(cluster) == 3
    executor.close()
    assert cluster.jobs_left() == []


def test_a_copy_has_its_own_sandbox_and_warm_pods() -> None:
    executor = GkeCodeExecutor(warm=1)
    copied = executor.model_copy(update={"warm": 2})
    assert (executor._sandbox().warm, copied._sandbox().warm) == (1, 2)


def test_check_verifies_the_permissions_of_warm_pods() -> None:
    allowed = [
        Rule([each.verb], [each.resource.group], [str(each).partition(" ")[2]])
        for each in permissions(attach=False)
    ]
    caller = Caller.service_account("default", "agent", [*allowed, Rule(["get"], [""], ["pods/attach"])])
    cluster = Seen(ScriptedRuntime(WaitingRunner().script), caller=caller)
    with on(cluster, warm=1) as executor, pytest.raises(ConfigError) as caught:
        executor.check()
    assert "permission to create pods/attach: missing" in caught.value.message
    assert "get pods/attach" not in caught.value.message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"warm": -1}, "warm: must be between 0 and 1000, got -1"),
        ({"warm": 1001}, "warm: must be between 0 and 1000, got 1001"),
        ({"warm_idle_timeout_seconds": 0}, "warm_idle_timeout_seconds: must be more than 0"),
    ],
)
def test_invalid_values_are_refused_by_the_names_of_the_fields(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        GkeCodeExecutor(**given)
    assert str(caught.value).startswith(message)


def test_the_number_of_pods_cannot_be_changed_later() -> None:
    executor = GkeCodeExecutor(warm=1)
    with pytest.raises(SpecError, match="cannot be changed after the executor is created"):
        executor.warm = 2


@pytest.mark.parametrize("given", [{"warm": 1}, {"settings": {"delivery": "attach"}}], ids=str)
def test_a_missing_package_is_one_error_at_creation(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wsproto.connection", None)
    with pytest.raises(ConfigError, match="requires the package wsproto") as caught:
        GkeCodeExecutor(**given)
    assert "pip install 'gke-sandbox[warm]'" in caught.value.hint
