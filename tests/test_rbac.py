"""rbac.yaml grants exactly the permissions that the library uses, and our pods satisfy its policies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from gke_sandbox import AsyncSandbox, Cluster, ConfigError, ResultLost, SandboxError
from gke_sandbox._fakes.api_request import parse
from gke_sandbox._wire.manifests import build
from gke_sandbox._wire.program import Program
from gke_sandbox.cassette import load
from gke_sandbox.cli.clean import Cleaning
from gke_sandbox.errors import Forbidden
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.quantity import parse_quantity
from gke_sandbox.kube.resources import JOBS
from gke_sandbox.local import Caller, LocalTransport, Namespace, Rule, ScriptedRuntime
from gke_sandbox.local.faults import Action, Drop, Fault, FaultPlan, Match, RefusePod
from gke_sandbox.settings import Settings

from .clock import run_on_mock_clock
from .pods import out, program
from .warm_runner import WaitingRunner

ROOT = Path(__file__).parent.parent
DOCUMENTS = [each for each in yaml.safe_load_all((ROOT / "gke_sandbox" / "rbac.yaml").read_text()) if each]
NAMESPACE = "agent-sandbox"

Permission = tuple[str, str, str]


ROLES = ("gke-sandbox", "gke-sandbox-attach")


def the(kind: str, name: str | None = None) -> dict[str, Any]:
    (found,) = (each for each in DOCUMENTS if each["kind"] == kind and name in (None, each["metadata"]["name"]))
    return found


def granted(role: str = "gke-sandbox") -> set[Permission]:
    return {
        (verb, group, resource)
        for rule in the("Role", role)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def caller(without: Permission | None = None, *, attach: bool = False) -> Caller:
    """Return a caller with the first Role, and with the second one if `attach` is set."""
    all_granted = granted() | (granted("gke-sandbox-attach") if attach else set())
    rules = [Rule([verb], [group], [resource]) for verb, group, resource in all_granted - {without}]
    return Caller.service_account(NAMESPACE, "gke-sandbox", rules)


# -- content ---------------------------------------------------------------------------------------------------


def test_every_document_exists_and_is_in_the_same_namespace() -> None:
    assert [each["kind"] for each in DOCUMENTS] == [
        "Namespace",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "Role",
        "RoleBinding",
        "NetworkPolicy",
        "ResourceQuota",
        "LimitRange",
    ]
    assert the("Namespace")["metadata"]["name"] == NAMESPACE
    assert {each["metadata"]["namespace"] for each in DOCUMENTS[1:]} == {NAMESPACE}


def test_every_document_has_a_comment_with_its_purpose() -> None:
    texts = (ROOT / "gke_sandbox" / "rbac.yaml").read_text().split("\n---\n")
    assert len(texts) == len(DOCUMENTS)
    for text in texts:
        before, found, _ = text.partition("\napiVersion: ")
        assert found, text
        assert before.splitlines()[-1].startswith("# "), text


@pytest.mark.parametrize("role", ROLES)
def test_the_role_is_bound_to_the_service_account(role: str) -> None:
    binding = the("RoleBinding", role)
    assert binding["roleRef"]["name"] == the("Role", role)["metadata"]["name"]
    (subject,) = binding["subjects"]
    account = the("ServiceAccount")["metadata"]
    assert (subject["kind"], subject["name"], subject["namespace"]) == (
        "ServiceAccount",
        account["name"],
        NAMESPACE,
    )


def test_the_namespace_enforces_the_restricted_standard() -> None:
    labels = the("Namespace")["metadata"]["labels"]
    assert labels == {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}


@pytest.mark.parametrize("delivery", ["env", "mount", "attach"])
def test_the_default_pod_satisfies_limits_and_quota_and_has_no_network(delivery: str) -> None:
    settings = Settings(namespace=NAMESPACE).override(delivery=delivery)
    job = build(settings, Program(code="print(1)"), name="job", session="s").job
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    (limit,) = the("LimitRange")["spec"]["limits"]
    for name, most in limit["max"].items():
        assert parse_quantity(container["resources"]["limits"][name]).nano <= parse_quantity(most).nano
    hard = the("ResourceQuota")["spec"]["hard"]
    for part in ("requests", "limits"):
        for name, amount in container["resources"][part].items():
            together = parse_quantity(amount).nano * int(hard["pods"])
            assert together <= parse_quantity(hard[f"{part}.{name}"]).nano
    policy = the("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & policy.keys(), "nothing is allowed"


# -- usage ----------------------------------------------------------------------------------------------------


def in_fixtures() -> Iterator[Permission]:
    for path in sorted((ROOT / "fixtures").glob("*.yaml")):
        for step in load(path).steps:
            asked = parse(step.method, step.path, step.query, b"")
            # Attaching has a separate Role.
            if asked.resource != "pods/attach":
                yield asked.verb, asked.group, asked.resource


def asked_of(cluster: LocalTransport) -> set[Permission]:
    group = {"jobs": "batch"}
    return {(each.verb, group.get(each.resource, ""), each.resource) for each in cluster.requests}


def in_cleaning() -> set[Permission]:
    """The permissions that `gke-sandbox clean` uses."""

    async def main() -> set[Permission]:
        cluster = LocalTransport(ScriptedRuntime(program()), namespaces=[Namespace(NAMESPACE)], caller=caller())
        config = ClusterConfig(server="https://embedded.invalid", source="a test")
        async with KubeClient(config, transport=cluster) as client:
            body = build(Settings(namespace=NAMESPACE), Program(code="x"), name="left", session="s").job
            await client.create(JOBS, NAMESPACE, body)
            cleaning = Cleaning(NAMESPACE, dry_run=False, older_than=0.0)
            await cleaning.run(client, datetime.now(timezone.utc))
            assert len(cleaning.deleted) == 1
        return asked_of(cluster)

    return run_on_mock_clock(main)


def run(who: Caller, *actions: tuple[Action, Match]) -> tuple[set[Permission], SandboxError | None, list[str]]:
    """Run one program as `who`. Return the requests, the error, and the remaining objects."""

    async def main() -> tuple[set[Permission], SandboxError | None, list[str]]:
        error = None
        async with LocalTransport(
            ScriptedRuntime(program(out("fine"))),
            namespaces=[Namespace(NAMESPACE, pod_security="restricted")],
            caller=who,
            faults=FaultPlan(*(Fault(action, match) for action, match in actions)),
        ) as cluster:
            async with AsyncSandbox(Cluster.transport(cluster), namespace=NAMESPACE) as sandbox:
                try:
                    assert (await sandbox.run("x")).stdout == "fine"
                except SandboxError as caught:
                    error = caught
            used = asked_of(cluster)
            await anyio.sleep(10)
            return used, error, cluster.leftovers()

    return run_on_mock_clock(main)


LOST_ANSWER = (Drop(carried_out=True), Match("create", "jobs"))


def used() -> set[Permission]:
    lost, error, _ = run(caller(), LOST_ANSWER)
    assert error is None
    return lost | in_cleaning() | set(in_fixtures())


# Without these, the library continues with a warning.
DONE_WITHOUT = {("watch", "", "pods"), ("list", "", "events")}
CLEANS = ("list", "batch", "jobs")


def test_the_role_has_the_used_permissions_and_no_others() -> None:
    assert used() - granted() == set(), "missing in rbac.yaml"
    assert granted() - used() == set(), "in rbac.yaml, and used by nobody"


def test_the_second_role_has_what_an_attach_needs_and_nothing_else() -> None:
    assert granted("gke-sandbox-attach") == {("get", "", "pods/attach"), ("create", "", "pods/attach")}


@pytest.mark.parametrize("options", [{"warm": 1}, {"delivery": "attach"}], ids=str)
def test_attaching_uses_both_roles_and_no_more(options: dict[str, Any]) -> None:
    used, start, _ = attached(caller(attach=True), **options)
    assert start == ("warm" if "warm" in options else "cold")
    # The server checks "create" for the same request.
    assert used - granted() == {("get", "", "pods/attach")}


@pytest.mark.parametrize("verb", ["get", "create"])
@pytest.mark.parametrize("options", [{"warm": 1}, {"delivery": "attach"}], ids=str)
def test_a_missing_verb_of_attach_is_named_by_check_and_by_the_run(options: dict[str, Any], verb: str) -> None:
    who = caller((verb, "", "pods/attach"), attach=True)
    _, start, problem = attached(who, **options)
    # A warm Sandbox starts programs in new pods instead.
    assert start == ("cold" if "warm" in options else "")
    assert "pods/attach" in problem
    assert 'resources: ["pods/attach"], verbs: ["get", "create"]' in problem
    assert ("The verb create is missing." in problem) == (verb == "create")
    assert f"permission to {verb} pods/attach: missing" in check_failure(who, **options)


def attached(who: Caller, **options: Any) -> tuple[set[Permission], str, str]:
    """Run one program by attach. Return the requests, `result.start`, and the warning or the error."""

    async def main() -> tuple[set[Permission], str, str]:
        async with sandbox_of(who, **options) as (cluster, sandbox):
            await anyio.sleep(5)  # Until the pod waits, or could not be used.
            try:
                result = await sandbox.run("fine")
            except SandboxError as error:
                return asked_of(cluster), "", f"{error.message}. {error.hint}"
            return asked_of(cluster), result.start, "".join(result.warnings)

    return run_on_mock_clock(main)


def check_failure(who: Caller, **options: Any) -> str:
    async def main() -> str:
        async with sandbox_of(who, **options) as (_, sandbox):
            with pytest.raises(ConfigError) as caught:
                await sandbox.check()
            return caught.value.message

    return run_on_mock_clock(main)


@asynccontextmanager
async def sandbox_of(who: Caller, **options: Any) -> AsyncIterator[tuple[LocalTransport, AsyncSandbox]]:
    async with (
        LocalTransport(
            ScriptedRuntime(WaitingRunner().script),
            namespaces=[Namespace(NAMESPACE, pod_security="restricted")],
            caller=who,
        ) as cluster,
        AsyncSandbox(Cluster.transport(cluster), namespace=NAMESPACE, **options) as sandbox,
    ):
        yield cluster, sandbox


def rule(missing: Permission) -> str:
    verb, group, resource = missing
    return f'apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]'


@pytest.mark.parametrize("missing", sorted(granted() - DONE_WITHOUT - {CLEANS}), ids="-".join)
def test_a_missing_rule_is_named_in_the_error(missing: Permission) -> None:
    _, error, left = run(caller(without=missing), LOST_ANSWER)
    verb, group, resource = missing
    if verb == "delete":
        assert error is None, "the result was there before"
        assert left != []
        return
    # The program has run by then.
    assert isinstance(error, ResultLost if resource == "pods/log" else Forbidden)
    assert f'cannot {verb} resource "{resource}" in API group "{group}"' in str(error)
    assert rule(missing) in error.hint


@pytest.mark.parametrize("missing", sorted(DONE_WITHOUT), ids="-".join)
def test_optional_permissions_that_are_missing_are_named_in_a_warning(
    missing: Permission, caplog: pytest.LogCaptureFixture
) -> None:
    refused = (RefusePod.quota_exceeded(), Match(resource="pods"))
    _, error, left = run(caller(without=missing), refused)
    assert error is None, "the second pod was not refused"
    assert left == []
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert rule(missing) in warnings[0]
