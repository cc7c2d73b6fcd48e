"""The checks of ``gke-sandbox doctor``, each on a cluster where it fails."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
import pytest

from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox._engine.doctor import Doctor, inside_checks
from gke_sandbox._engine.preflight import Check
from gke_sandbox._wire.manifests import build
from gke_sandbox._wire.program import Program
from gke_sandbox.errors import StartError
from gke_sandbox.kube.resources import JOBS
from gke_sandbox.local import FaultPlan, LocalTransport, Namespace, Quota, ScriptedRuntime
from gke_sandbox.local.faults import Fault, Forbid, Match, Mutate, Refuse, Respond
from gke_sandbox.result import ExecutionResult
from gke_sandbox.settings import Settings
from tests.clock import mock_clock
from tests.pods import out, program
from tests.test_rbac import NAMESPACE, caller

START = datetime(2026, 11, 27, 12, 0, tzinfo=timezone.utc)
GOOD = Namespace(NAMESPACE, pod_security="restricted", network_policy=True)


def now() -> datetime:
    return START + timedelta(seconds=anyio.current_time())


def cluster(*faults: Fault, namespace: Namespace = GOOD, **options: Any) -> LocalTransport:
    runtime = ScriptedRuntime(program(out("x")))
    options.setdefault("now", now)
    return LocalTransport(runtime, namespaces=[namespace], faults=FaultPlan(*faults), **options)


async def diagnose(transport: LocalTransport, *, warm: bool = False, **settings: Any) -> dict[str, Check]:
    settings.setdefault("namespace", NAMESPACE)
    async with AsyncSandbox(Cluster.transport(transport), **settings) as sandbox:
        assert sandbox._open is not None
        doctor = Doctor(
            sandbox._open.client, sandbox.settings, session="s", name="gke-sandbox-x", warm=warm, now=now
        )
        await doctor.run()
    return {check.name: check for check in doctor.checks}


def not_ok(checks: Mapping[str, Check]) -> dict[str, str]:
    return {name: check.status for name, check in checks.items() if check.status != "ok"}


@mock_clock
async def test_on_a_good_cluster_everything_is_ok_and_nothing_is_created() -> None:
    transport = cluster()
    checks = await diagnose(transport, warm=True)
    assert not_ok(checks) == {}
    assert [name for name in checks if not name.startswith("permission to")] == [
        "cluster",
        "version",
        "clock",
        "identity",
        "dry run of the Job",
        "dry run of the ConfigMap",
        "namespace",
        "RuntimeClass",
        "nodes",
        "quota",
        "LimitRange",
        "NetworkPolicy",
        "leftovers",
    ]
    assert transport.leftovers() == []
    assert "permission to get pods/attach" in checks
    assert checks["identity"].message == "kubernetes-admin (system:authenticated)"
    assert checks["namespace"].message == (
        f"{NAMESPACE} enforces Pod Security restricted, "
        "and the pod violates none of the rules that are checked here"
    )


@mock_clock
async def test_the_role_of_rbac_yaml_skips_what_it_may_not_read() -> None:
    checks = await diagnose(cluster(caller=caller()))
    assert not_ok(checks) == dict.fromkeys(
        ("namespace", "RuntimeClass", "nodes", "quota", "LimitRange", "NetworkPolicy"), "skipped"
    )
    assert checks["nodes"].message == "unknown: no permission to list nodes"
    assert 'resources: ["nodes"], verbs: ["list"]' in checks["nodes"].hint


def old(version: str) -> Fault:
    return Fault(Respond(200, "", "", text=f'{{"gitVersion": "{version}"}}'), Match(resource=""), times=None)


def weaken(job: dict[str, Any]) -> None:
    job["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "x"})


@pytest.mark.parametrize(
    ("transport", "settings", "name", "status", "message", "hint"),
    [
        (lambda: cluster(old("v1.26.9-gke.1")), {}, "version", "failure", "the minimum is 1.27", "Upgrade"),
        (
            lambda: cluster(old("v1.29.1")),
            {"delivery": "attach"},
            "version",
            "failure",
            "the minimum for warm pods and the delivery attach is 1.30",
            "Upgrade",
        ),
        (
            lambda: cluster(old("nightly")),
            {},
            "version",
            "warning",
            "not recognized: 'nightly'",
            "1.27 or newer: kubectl version",
        ),
        (
            lambda: cluster(now=lambda: now() - timedelta(seconds=90)),
            {},
            "clock",
            "warning",
            "the clock of this machine is 90 s ahead of the server's",
            "Synchronize",
        ),
        (
            lambda: cluster(),
            {"namespace": "absent"},
            "namespace",
            "failure",
            'namespaces "absent" not found',
            "kubectl create namespace absent",
        ),
        (
            lambda: cluster(Fault(Mutate(weaken), Match(resource="jobs"), times=None)),
            {},
            "namespace",
            "failure",
            'which rejects the pod: allowPrivilegeEscalation != false (container "sidecar"',
            "webhook",
        ),
        (
            lambda: cluster(),
            {"runtime_class_name": "kata"},
            "RuntimeClass",
            "failure",
            "kata does not exist",
            "kubectl create -f -",
        ),
        (
            lambda: cluster(),
            {"runtime_class_name": None},
            "RuntimeClass",
            "warning",
            "which may isolate less",
            "runtime_class_name gvisor",
        ),
        (
            lambda: cluster(node_labels={}),
            {"node_selector": {"pool": "x"}},
            "nodes",
            "failure",
            "none of 1 node can run the pod: 1 without the label pool=x",
            "kubectl label node",
        ),
        (
            lambda: cluster(namespace=Namespace(NAMESPACE, quota=Quota("q", pods=0))),
            {},
            "quota",
            "failure",
            "pods of q: the quota is 0, and one run needs 1",
            "edit resourcequota q",
        ),
        (
            lambda: cluster(
                objects=[
                    {
                        "kind": "LimitRange",
                        "metadata": {"name": "r", "namespace": NAMESPACE},
                        "spec": {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]},
                    }
                ]
            ),
            {"memory_limit": "2Gi"},
            "LimitRange",
            "failure",
            "the maximum memory of a Container is 1Gi",
            "memory_limit",
        ),
        (
            lambda: cluster(namespace=Namespace(NAMESPACE)),
            {},
            "NetworkPolicy",
            "warning",
            "no NetworkPolicy",
            f"gke-sandbox rbac --namespace {NAMESPACE}",
        ),
        (
            lambda: cluster(Fault(Respond.internal_error(), Match("list", "nodes"), times=None)),
            {},
            "nodes",
            "warning",
            "unknown: GET /api/v1/nodes",
            "",
        ),
        (
            lambda: cluster(Fault(Forbid(), Match("create", "jobs"), times=None)),
            {},
            "dry run of the Job",
            "failure",
            'cannot create resource "jobs"',
            'verbs: ["create"]',
        ),
    ],
    ids=[
        "version",
        "version for attach",
        "unknown version",
        "clock",
        "namespace",
        "Pod Security",
        "RuntimeClass",
        "no RuntimeClass",
        "nodes",
        "quota",
        "LimitRange",
        "NetworkPolicy",
        "an error",
        "dry run",
    ],
)
@mock_clock
async def test_each_problem_has_a_reason_and_a_fix(
    transport: Any, settings: dict[str, Any], name: str, status: str, message: str, hint: str
) -> None:
    checks = await diagnose(transport(), **settings)
    assert checks[name].status == status
    assert message in checks[name].message
    assert hint in checks[name].hint


@mock_clock
async def test_what_admission_changed_safely_is_shown() -> None:
    def change(job: dict[str, Any]) -> None:
        job["spec"]["template"]["spec"]["nodeSelector"] = {"pool": "x"}

    checks = await diagnose(cluster(Fault(Mutate(change), Match(resource="jobs"), times=None)))
    assert checks["dry run of the Job"].status == "ok"
    assert checks["dry run of the Job"].message == (
        'accepted; admission changed spec.template.spec.nodeSelector: added {"pool": "x"}'
    )
    assert checks["nodes"].status == "failure", "the node has no such label"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(Refuse(), Match(), times=None), "GET /version"),
        (Fault(Respond(200, "", "", text="<html>login</html>"), Match(), times=None), "<html>login"),
        (Fault(Respond.unauthorized(), Match(), times=None), "Unauthorized"),
    ],
    ids=["refused", "no API", "credentials"],
)
@mock_clock
async def test_a_cluster_that_cannot_be_used_is_the_only_result(fault: Fault, message: str) -> None:
    checks = await diagnose(cluster(fault))
    assert not_ok(checks) == {"cluster": "failure"}
    assert message in checks["cluster"].message
    assert checks["cluster"].hint
    assert len(checks) == 1


@mock_clock
async def test_a_request_that_fails_once_does_not_end_the_checks() -> None:
    checks = await diagnose(cluster(Fault(Refuse(), Match(), skip=1)))
    assert not_ok(checks) == {}


@mock_clock
async def test_a_server_without_self_subject_reviews_skips_the_identity() -> None:
    missing = Fault(Respond(404, "NotFound", "no"), Match(resource="selfsubjectreviews"), times=None)
    checks = await diagnose(cluster(missing))
    assert not_ok(checks) == {"identity": "skipped"}


@mock_clock
async def test_an_anonymous_user_is_a_failure() -> None:
    text = '{"kind": "SelfSubjectReview", "status": {"userInfo": {"username": "system:anonymous"}}}'
    anonymous = Fault(Respond(201, "", "", text=text), Match(resource="selfsubjectreviews"), times=None)
    checks = await diagnose(cluster(anonymous))
    assert not_ok(checks) == {"identity": "failure"}


@mock_clock
async def test_jobs_of_earlier_runs_are_a_warning_and_those_of_active_runs_are_not() -> None:
    transport = cluster()
    async with AsyncSandbox(Cluster.transport(transport), namespace=NAMESPACE) as sandbox:
        assert sandbox._open is not None
        client = sandbox._open.client
        for name, deadline in (("old", 10), ("active", 3600)):
            made = build(Settings(), Program(code="pass"), name=name, session="s").job
            made["spec"]["activeDeadlineSeconds"] = deadline
            await client.create(JOBS, NAMESPACE, made)
        await anyio.sleep(20)
        doctor = Doctor(client, sandbox.settings, session="s", name="gke-sandbox-x", warm=False, now=now)
        await doctor.run()
        (check,) = (each for each in doctor.checks if each.name == "leftovers")
    assert check.status == "warning"
    assert check.message == "Jobs of earlier runs: 1; active: 1, see gke-sandbox ps"
    assert "gke-sandbox clean" in check.hint


def test_a_probe_that_did_not_succeed_is_a_failure_of_the_run() -> None:
    (check,) = inside_checks(StartError("the sandbox did not start", hint="Do something."), Settings())
    assert (check.name, check.status, check.hint) == ("run", "failure", "Do something.")
    failed = ExecutionResult(status="failed", exit_code=1, stderr_bytes=b"Traceback: no json\n")
    (check,) = inside_checks(failed, Settings())
    assert check.message == "the probe failed: Traceback: no json"
    assert "gke-sandbox run -c" in check.hint
