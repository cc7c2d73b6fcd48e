"""Init containers and sidecars that a webhook adds to the pod: reported at once if the program cannot start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from gke_sandbox import ExecutionFinished, ExecutionResult, PodWaiting, SandboxError, StartError
from gke_sandbox._diagnosis import cause
from gke_sandbox.local.controllers.init_containers import FIRST_BACK_OFF
from gke_sandbox.local.faults import Fault, Match, Mutate
from gke_sandbox.local.runtimes.base import ContainerExit, ContainerSpec, ContainerStartError
from gke_sandbox.local.runtimes.scripted import Script
from tests.clock import mock_clock
from tests.pods import out, pods, program

STARTUP_TIMEOUT = 120.0

SUCCEEDS = Script(ends_at=0.5)
CRASHES = Script(ends_at=1.0, exit=ContainerExit(1, "Error"))
RUNS_ON = Script()
INIT: dict[str, Any] = {"name": "istio-init", "image": "istio/proxyv2:1.24", "command": ["pilot-agent"]}
SIDECAR: dict[str, Any] = {"name": "istio-proxy", "image": "istio/proxyv2:1.24", "restartPolicy": "Always"}
PROBED = {**SIDECAR, "startupProbe": {"initialDelaySeconds": 5, "httpGet": {"port": 15021}}}
NO_SUCH_IMAGE = "registry.invalid/istio/proxyv2:1.24"


def injected(*containers: dict[str, Any]) -> Fault:
    """Return a webhook that adds these containers to every pod."""

    def add(pod: dict[str, Any]) -> None:
        pod["spec"]["initContainers"] = list(containers)

    return Fault(Mutate(add), Match(resource="pods"), times=None)


def scripts(**by_name: Script) -> Callable[[ContainerSpec], Script]:
    """Return the scripts of the containers by their names, with underscores; that of the program prints."""
    known = {"code_runner": program(out("ran")), **by_name}
    return lambda spec: known[spec.name.replace("-", "_")]


async def failure(script: Callable[[ContainerSpec], Script], *containers: dict[str, Any]) -> tuple[Any, float]:
    """Run a program that does not start, check that nothing is left, and return the error and its time."""
    async with pods(script, injected(*containers), startup_timeout=STARTUP_TIMEOUT) as cluster:
        began = anyio.current_time()
        with pytest.raises(SandboxError) as caught:
            await cluster.sandbox.run("pass")
        after = anyio.current_time() - began
        await anyio.sleep(20)
        assert cluster.left() == []
        assert cluster.runtime.running == 0
    assert isinstance(caught.value, StartError)
    assert not caught.value.may_have_run
    assert caught.value.hint == cause(caught.value.cause).hint
    assert "sidecar.istio.io/inject" in caught.value.hint
    return caught.value, after


async def result(
    script: Callable[[ContainerSpec], Script], *containers: dict[str, Any]
) -> tuple[ExecutionResult, list[PodWaiting]]:
    async with pods(script, injected(*containers), startup_timeout=STARTUP_TIMEOUT) as cluster:
        async with cluster.sandbox.stream("pass") as events:
            seen = [event async for event in events]
        await anyio.sleep(20)
        assert cluster.left() == []
        assert cluster.runtime.running == 0
    assert isinstance(seen[-1], ExecutionFinished)
    return seen[-1].result, [event for event in seen if isinstance(event, PodWaiting)]


@mock_clock
async def test_an_init_container_that_fails_is_reported_at_once_with_its_exit_code() -> None:
    script = scripts(istio_init=Script(ends_at=0.1, exit=ContainerExit(3, "Error")))
    error, after = await failure(script, INIT)
    assert (error.cause, error.reason) == ("init_container_failed", "Error")
    assert 'init container "istio-init" (image istio/proxyv2:1.24) ended with exit code 3' in str(error)
    assert after < 3


@mock_clock
async def test_an_init_container_without_its_command_is_reported_at_once() -> None:
    missing = ContainerStartError('exec: "pilot-agent": executable file not found in $PATH')
    error, after = await failure(scripts(istio_init=Script(start_error=missing)), INIT)
    assert (error.cause, error.reason) == ("init_container_failed", "StartError")
    assert f"could not be started: {missing}" in str(error)
    assert after < 3


@pytest.mark.parametrize("container", [INIT, SIDECAR], ids=["init container", "sidecar"])
@mock_clock
async def test_an_image_that_cannot_be_pulled_is_reported_at_once(container: dict[str, Any]) -> None:
    error, after = await failure(scripts(), {**container, "image": NO_SUCH_IMAGE})
    assert (error.cause, error.reason) == ("init_container_failed", "ErrImagePull")
    assert f'"{container["name"]}" (image {NO_SUCH_IMAGE}) is waiting' in str(error)
    assert "no such host" in str(error)
    assert after < 3


@mock_clock
async def test_a_sidecar_that_crashes_before_its_startup_probe_is_reported_at_its_third_crash() -> None:
    error, after = await failure(scripts(istio_proxy=CRASHES), PROBED)
    assert (error.cause, error.reason) == ("init_container_failed", "Error")
    assert 'sidecar "istio-proxy" (image istio/proxyv2:1.24) has failed 3 times' in str(error)
    assert "exit code 1" in str(error)
    assert FIRST_BACK_OFF * 3 < after < FIRST_BACK_OFF * 3 + 10


@mock_clock
async def test_a_sidecar_without_its_command_is_not_waited_for() -> None:
    missing = ContainerStartError("no such file")
    error, after = await failure(scripts(istio_proxy=Script(start_error=missing)), PROBED)
    assert error.cause == "init_container_failed"
    assert "could not be started: no such file" in str(error)
    assert after < 3


@mock_clock
async def test_a_sidecar_that_recovers_is_waited_for() -> None:
    """It needed a server that was just starting."""
    runs = iter([CRASHES, CRASHES, RUNS_ON])
    known = scripts()
    ended, waits = await result(lambda spec: next(runs) if spec.name == "istio-proxy" else known(spec), PROBED)
    assert (ended.status, ended.stdout) == ("succeeded", "ran")
    assert {wait.cause for wait in waits} == {"init_container_retried"}
    assert any("has failed 2 times" in wait.message for wait in waits)


@mock_clock
async def test_a_sidecar_that_never_passes_its_startup_probe_is_named_after_startup_timeout() -> None:
    slow = {**SIDECAR, "startupProbe": {"initialDelaySeconds": 1000}}
    async with pods(scripts(istio_proxy=RUNS_ON), injected(slow), startup_timeout=10.0) as cluster:
        with pytest.raises(StartError, match='it waits for the container "istio-proxy"') as caught:
            await cluster.sandbox.run("pass")
    assert caught.value.cause == "slow_start"


@mock_clock
async def test_init_containers_and_sidecars_that_start_do_not_disturb_the_program() -> None:
    ended, waits = await result(scripts(istio_init=SUCCEEDS, istio_proxy=RUNS_ON), INIT, PROBED)
    assert (ended.status, ended.stdout, waits) == ("succeeded", "ran", [])


@mock_clock
async def test_a_sidecar_that_crashes_while_the_program_runs_does_not_disturb_it() -> None:
    long = program(out("ran"), at=60.0)
    ended, waits = await result(scripts(istio_proxy=CRASHES, code_runner=long), SIDECAR)
    assert (ended.status, ended.stdout, waits) == ("succeeded", "ran", [])


@mock_clock
async def test_a_run_that_is_cancelled_while_an_init_container_runs_leaves_nothing() -> None:
    async with pods(scripts(istio_init=RUNS_ON), injected(INIT)) as cluster:
        with anyio.move_on_after(5):
            await cluster.sandbox.run("pass")
        await anyio.sleep(20)
        assert cluster.left() == []
        assert cluster.runtime.running == 0
