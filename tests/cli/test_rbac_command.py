"""``gke-sandbox rbac`` prints rbac.yaml with other names and subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import gke_sandbox
from gke_sandbox.cli import main

FILE = list(yaml.safe_load_all(Path(gke_sandbox.__file__).with_name("rbac.yaml").read_text()))
ATTACH = "gke-sandbox-attach"
ACCOUNT = {"kind": "ServiceAccount", "name": "gke-sandbox", "namespace": "agent-sandbox"}
GROUP = "rbac.authorization.k8s.io"


def rbac(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, list[dict[str, Any]]]:
    assert main(["rbac", *arguments]) == 0
    text = capfd.readouterr().out
    return text, list(yaml.safe_load_all(text))


def bindings(documents: list[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
    return {each["metadata"]["name"]: each["subjects"] for each in documents if each["kind"] == "RoleBinding"}


def account(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (each["metadata"] for each in documents if each["kind"] == "ServiceAccount")
    return dict(found)


def test_with_warm_and_no_names_it_is_the_file(capfd: pytest.CaptureFixture[str]) -> None:
    _, documents = rbac(capfd, "--warm")
    assert documents == FILE


def test_without_warm_there_is_no_role_to_attach(capfd: pytest.CaptureFixture[str]) -> None:
    _, documents = rbac(capfd)
    assert documents == [each for each in FILE if each["metadata"]["name"] != ATTACH]
    assert "attach" not in str(documents)


@pytest.mark.parametrize("namespace", ["sandboxes", "true", "123", "gke-sandbox", "1e3", "y"])
def test_the_namespace_is_changed_everywhere(namespace: str, capfd: pytest.CaptureFixture[str]) -> None:
    _, documents = rbac(capfd, "--namespace", namespace, "--warm")
    first, *others = documents
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", namespace)
    assert {each["metadata"]["namespace"] for each in others} == {namespace}
    assert [each["metadata"]["name"] for each in others] == [each["metadata"]["name"] for each in FILE[1:]]
    subjects = [{**ACCOUNT, "namespace": namespace}]
    assert bindings(documents) == {"gke-sandbox": subjects, ATTACH: subjects}


@pytest.mark.parametrize("name", ["agent", "agent-sandbox", "no", "0x1"])
def test_the_service_account_is_created_and_bound(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    _, documents = rbac(capfd, "--service-account", name)
    assert account(documents) == {"name": name, "namespace": "agent-sandbox"}
    assert bindings(documents) == {"gke-sandbox": [{**ACCOUNT, "name": name}]}


def test_the_service_account_can_be_in_the_namespace_of_the_agent(capfd: pytest.CaptureFixture[str]) -> None:
    _, documents = rbac(capfd, "-n", "sandboxes", "--service-account", "agents/agent")
    assert account(documents) == {"name": "agent", "namespace": "agents"}
    subject = {"kind": "ServiceAccount", "name": "agent", "namespace": "agents"}
    assert bindings(documents) == {"gke-sandbox": [subject]}
    namespaces = {each["metadata"].get("namespace") for each in documents if each["kind"] != "ServiceAccount"}
    assert namespaces == {None, "sandboxes"}


def test_a_google_service_account_is_an_annotation(capfd: pytest.CaptureFixture[str]) -> None:
    text, documents = rbac(capfd, "--google-service-account", "agent@my-project.iam.gserviceaccount.com")
    assert account(documents)["annotations"] == {
        "iam.gke.io/gcp-service-account": "agent@my-project.iam.gserviceaccount.com"
    }
    assert "# Allow the service account to act as the Google service account" in text
    assert '"serviceAccount:PROJECT.svc.id.goog[agent-sandbox/gke-sandbox]"' in text


def test_users_and_groups_are_subjects_of_every_binding(capfd: pytest.CaptureFixture[str]) -> None:
    users = ["jane@example.com", "it's: #1"]
    options = [part for user in users for part in ("--user", user)]
    _, documents = rbac(capfd, *options, "--group", "team@example.com", "--warm")
    subjects = [
        ACCOUNT,
        *({"kind": "User", "apiGroup": GROUP, "name": user} for user in users),
        {"kind": "Group", "apiGroup": GROUP, "name": "team@example.com"},
    ]
    assert bindings(documents) == {"gke-sandbox": subjects, ATTACH: subjects}


def test_every_document_keeps_its_comment(capfd: pytest.CaptureFixture[str]) -> None:
    text, documents = rbac(capfd, "-n", "sandboxes", "--user", "jane", "--warm")
    texts = text.split("\n---\n")
    assert len(texts) == len(documents)
    assert all(each.partition("\napiVersion: ")[0].splitlines()[-1].startswith("# ") for each in texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--namespace", "Not A Name"], "--namespace: 'Not A Name' is not valid: "),
        (["--service-account", "a/b/c"], "--service-account: the namespace 'a/b' is not valid: "),
        (["--service-account", "/b"], "--service-account: the namespace '' is not valid: "),
        (["--service-account", "Agent"], "--service-account: 'Agent' is not valid: "),
        (["--google-service-account", "jane@example.com"], "must be like NAME@PROJECT.iam.gserviceaccount.com"),
        (["--user", ""], "--user: must not be empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_names_are_reported(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["rbac", *arguments]) == 2
    assert message in capfd.readouterr().err
