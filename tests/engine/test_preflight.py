"""`check`: problems of the cluster are found before the first run, without creating anything."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gke_sandbox import AsyncSandbox, Cluster, ConfigError, Sandbox, SpecError
from gke_sandbox._engine.preflight import CHECK_TIMEOUT, Permission, Preflight, permissions
from gke_sandbox.errors import Forbidden, NetworkError, ReplayMismatch, ServerError
from gke_sandbox.local import LocalTransport, ScriptedRuntime
from gke_sandbox.local.apiserver.rbac import Caller, Rule
from gke_sandbox.local.faults import Delay, Fault, FaultPlan, Forbid, Match, Mutate, Refuse, Respond
from gke_sandbox.settings import Settings

from ..clock import mock_clock, run_on_mock_clock
from ..pods import out, program

REVIEWS = Match("create", "selfsubjectaccessreviews")
ALL = permissions()


def cluster(*faults: Fault, missing: tuple[Permission, ...] | None = None) -> LocalTransport:
    """Return an embedded cluster, for an administrator, or for a caller with all permissions but `missing`."""
    caller = None
    if missing is not None:
        rules = [
            Rule([each.verb], [each.resource.group], [str(each).partition(" ")[2]])
            for each in {*ALL, *permissions(attach=True)} - {*missing}
        ]
        caller = Caller.service_account("default", "runner", rules)
    return LocalTransport(ScriptedRuntime(program(out("x"))), faults=FaultPlan(*faults), caller=caller)


@asynccontextmanager
async def opened(transport: LocalTransport, **settings: Any) -> AsyncIterator[AsyncSandbox]:
    async with AsyncSandbox(Cluster.transport(transport), **settings) as sandbox:
        yield sandbox


async def failure(transport: LocalTransport, **settings: Any) -> ConfigError:
    async with opened(transport, **settings) as sandbox:
        with pytest.raises(ConfigError, match="no program can run as configured") as raised:
            await sandbox.check()
    assert raised.value.may_have_run is False
    return raised.value


@pytest.mark.anyio
@pytest.mark.parametrize("delivery", ["env", "mount", "attach"])
async def test_check_passes_on_a_good_cluster_and_creates_nothing(
    delivery: str, caplog: pytest.LogCaptureFixture
) -> None:
    transport = cluster(missing=())
    async with opened(transport, delivery=delivery) as sandbox:
        await sandbox.check()
        assert (transport.leftovers(), sandbox.jobs) == ([], [])
    sent = [(each.resource, each.query.get("dryRun")) for each in transport.requests]
    assert all(resource == "selfsubjectaccessreviews" or dry_run == "All" for resource, dry_run in sent)
    assert len(sent) == 10
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("permission", ALL, ids=str)
@mock_clock
async def test_each_missing_permission_is_named_with_the_rule_to_add(
    permission: Permission, caplog: pytest.LogCaptureFixture
) -> None:
    rule = f'resources: ["{str(permission).partition(" ")[2]}"], verbs: ["{permission.verb}"]'
    transport = cluster(missing=(permission,))
    if not permission.optional:
        error = await failure(transport)
        assert f"a check failed: permission to {permission}: missing; {permission.without}" in error.message
        assert rule in error.hint
        return
    async with opened(transport) as sandbox:
        await sandbox.check()
    (warning,) = (each.getMessage() for each in caplog.records if each.levelno == logging.WARNING)
    assert warning.startswith(f"permission to {permission}: missing")
    assert rule in warning


@mock_clock
async def test_attach_needs_its_permissions_and_none_to_create_config_maps() -> None:
    attach = [each for each in permissions(attach=True) if each.subresource == "attach"]
    only_config_maps = tuple(each for each in ALL if each not in permissions(attach=True))
    async with opened(cluster(missing=only_config_maps), delivery="attach") as sandbox:
        await sandbox.check()
    error = await failure(cluster(missing=tuple(attach)), delivery="attach")
    assert [f"permission to {each}" in error.message for each in attach] == [True, True]


@pytest.mark.anyio
async def test_warm_pods_need_both_the_permission_to_attach_and_to_create_config_maps() -> None:
    needed = [each for each in permissions(warm=True) if each.subresource == "attach" or each.verb == "create"]
    assert len(needed) == 4
    missing = tuple(each for each in needed if str(each) != "create jobs")
    error = await failure(cluster(missing=missing), warm=1)
    assert [f"permission to {each}" in error.message for each in missing] == [True] * 3


@mock_clock
async def test_one_error_lists_every_failure_and_every_hint() -> None:
    missing = tuple(each for each in ALL if str(each) in ("create configmaps", "get pods/log", "delete jobs"))
    error = await failure(cluster(missing=missing))
    assert "3 checks failed" in error.message
    assert [f"permission to {each}: missing" in error.message for each in missing] == [True] * 3
    assert error.hint.count("Add this rule") == 3


@mock_clock
async def test_a_missing_namespace_is_named() -> None:
    error = await failure(cluster(), namespace="absent")
    assert 'namespace: POST /apis/batch/v1/namespaces/absent/jobs: namespaces "absent" not found' in error.message
    assert "kubectl create namespace absent" in error.hint


@mock_clock
async def test_an_unreachable_cluster_is_one_failure_after_a_few_attempts() -> None:
    transport = cluster(Fault(Refuse(), Match(), times=None))
    error = await failure(transport)
    assert error.message.startswith("no program can run as configured, a check failed: cluster: ")
    assert isinstance(error.__cause__, NetworkError)


@mock_clock
async def test_a_cluster_that_does_not_respond_fails_after_a_limited_time() -> None:
    error = await failure(cluster(Fault(Delay(3600), REVIEWS, times=None)))
    assert f"no complete response within {CHECK_TIMEOUT:g} s" in error.message
    assert "overloaded" in error.hint


@mock_clock
async def test_temporary_errors_are_retried() -> None:
    again = [Fault(Respond.too_many_requests(), each, times=1) for each in (REVIEWS, Match("create", "jobs"))]
    async with opened(cluster(*again)) as sandbox:
        await sandbox.check()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (Respond.unauthorized(), "Unauthorized"),
        (Respond(404, "", "", text="404 page not found"), "404 page not found"),
        (Respond(200, "", "", text="<html>"), "<html>"),
    ],
    ids=["credentials", "no API", "a page"],
)
@mock_clock
async def test_a_wrong_response_to_the_first_request_is_the_only_failure(response: Respond, message: str) -> None:
    error = await failure(cluster(Fault(response, REVIEWS, times=None)))
    assert "a check failed: cluster: " in error.message
    assert message in error.message


@mock_clock
async def test_a_review_without_a_result_is_a_failure() -> None:
    error = await failure(cluster(Fault(Respond(200, "", "{}", text="{}"), REVIEWS, times=None)))
    assert isinstance(error.__cause__, ServerError)
    assert "the response has no result" in error.message


@mock_clock
async def test_without_access_to_reviews_the_dry_run_decides(caplog: pytest.LogCaptureFixture) -> None:
    forbidden = Fault(Forbid(), REVIEWS, times=None)
    async with opened(cluster(forbidden)) as sandbox:
        await sandbox.check()
    assert "permissions: cannot be checked" in caplog.text
    error = await failure(cluster(forbidden, Fault(Forbid(), Match("create", "configmaps"), times=None)))
    assert isinstance(error.__cause__, Forbidden)
    assert "dry run of the ConfigMap" in error.message


@mock_clock
async def test_a_rejection_of_the_dry_run_has_the_cause_and_hint_of_a_run() -> None:
    webhook = 'admission webhook "policy.example.com" denied the request: no Jobs here'
    rejected = Fault(Respond(403, "Forbidden", webhook), Match("create", "jobs"), times=None)
    error = await failure(cluster(rejected))
    assert "dry run of the Job: the sandbox did not start" in error.message
    assert "no Jobs here" in error.message
    assert error.hint


def drop_runtime_class(job: dict[str, Any]) -> None:
    job["spec"]["template"]["spec"].pop("runtimeClassName")


@mock_clock
async def test_a_job_that_admission_weakens_is_a_failure_unless_it_is_accepted() -> None:
    mutate = Fault(Mutate(drop_runtime_class), Match(resource="jobs"), times=None)
    error = await failure(cluster(mutate))
    assert "runtimeClassName: sent" in error.message
    assert "accept_admission_changes" in error.hint
    async with opened(cluster(mutate)) as sandbox:
        await sandbox.check(accept_admission_changes=["runtimeClassName"])


@mock_clock
async def test_a_suspended_job_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    suspend = Fault(Mutate(lambda job: job["spec"].update(suspend=True)), Match(resource="jobs"), times=None)
    async with opened(cluster(suspend)) as sandbox:
        await sandbox.check()
    assert "dry run of the Job: the Job is suspended" in caplog.text


@mock_clock
async def test_every_check_has_a_result() -> None:
    async with opened(cluster(missing=())) as sandbox:
        assert sandbox._open is not None
        preflight = Preflight(sandbox._open.client, Settings(), session="s", name="gke-sandbox-x", warm=False)
        await preflight.run()
    names = [check.name for check in preflight.checks]
    assert names == [
        "cluster",
        *(f"permission to {each}" for each in ALL),
        "namespace",
        "dry run of the Job",
        "dry run of the ConfigMap",
    ]
    assert {check.status for check in preflight.checks} == {"ok"}


@mock_clock
async def test_invalid_overrides_are_rejected_before_any_request() -> None:
    transport = cluster()
    async with opened(transport) as sandbox:
        with pytest.raises(SpecError, match="namespace"):
            await sandbox.check(namespace="other")
    assert not transport.requests


def test_check_is_recorded_and_replayed_together_with_a_run_of_the_same_program(tmp_path: Path) -> None:
    cassette = tmp_path / "check.yaml"

    async def main(where: Cluster) -> None:
        async with AsyncSandbox(where) as sandbox:
            await sandbox.check()
            assert (await sandbox.run("pass")).stdout == "x"

    run_on_mock_clock(main, Cluster.record(cassette, Cluster.transport(cluster(missing=()))))
    run_on_mock_clock(main, Cluster.replay(cassette))


def test_a_check_that_was_not_recorded_is_a_mismatch(tmp_path: Path) -> None:
    cassette = tmp_path / "run.yaml"

    async def main(where: Cluster, check: bool) -> None:
        async with AsyncSandbox(where) as sandbox:
            if check:
                await sandbox.check()
            await sandbox.run("pass")

    run_on_mock_clock(main, Cluster.record(cassette, Cluster.transport(cluster())), False)
    with pytest.raises(ReplayMismatch, match="selfsubjectaccessreviews"):
        run_on_mock_clock(main, Cluster.replay(cassette), True)


def test_the_synchronous_sandbox_checks_too() -> None:
    missing = next(each for each in ALL if str(each) == "create configmaps")
    with Sandbox(Cluster.transport(cluster(missing=()))) as sandbox:
        sandbox.check(memory_limit="1Gi")
    with (
        Sandbox(Cluster.transport(cluster(missing=(missing,)))) as sandbox,
        pytest.raises(ConfigError, match="permission to create configmaps"),
    ):
        sandbox.check()
