"""Safe and unsafe changes of a Job and its pod by mutating admission."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox._diagnosis.admission import (
    FIELDS,
    RELEASE_FIELDS,
    Change,
    compared_fields,
    job_changes,
    pod_changes,
)
from gke_sandbox._wire.manifests import CONTAINER, build
from gke_sandbox._wire.program import Program
from gke_sandbox.cassette import load
from gke_sandbox.settings import ADMISSION_FIELDS, Settings

ROOT = Path(__file__).parent.parent.parent
RECORDED, FIXTURES = ROOT / "tests" / "local" / "recorded", ROOT / "fixtures"
REMOVED = "(removed)"

SENT = build(Settings(delivery="mount"), Program(code="pass"), name="job-1", session="s").job
COMPARED = compared_fields(SENT)
SENT_POD = {"spec": SENT["spec"]["template"]["spec"]}


def changed(obj: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a copy with the value at a path like ``spec.containers.0.name`` replaced or removed."""
    result = copy.deepcopy(obj)
    place: Any = result
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    return result


def of_job(path: str, value: object) -> list[Change]:
    received = changed(SENT, path, value)
    found = job_changes(SENT, received, CONTAINER)
    assert job_changes(COMPARED, received, CONTAINER) == found
    return found


def of_pod(path: str, value: object) -> list[Change]:
    received = changed(SENT_POD, path, value)
    found = pod_changes(SENT, received, CONTAINER)
    assert pod_changes(COMPARED, received, CONTAINER) == found
    return found


def with_volume(source: dict[str, Any], mount_path: str = "/x", container: int = 0) -> dict[str, Any]:
    """Return the pod with another volume, mounted into a container; container 1 is a sidecar."""
    pod = copy.deepcopy(SENT_POD)
    pod["spec"]["containers"].append({"name": "sidecar", "volumeMounts": []})
    pod["spec"]["volumes"].append({"name": "more", **source})
    pod["spec"]["containers"][container]["volumeMounts"].append({"name": "more", "mountPath": mount_path})
    return pod


# -- unsafe ---------------------------------------------------------------------------------------------------

JOB_UNSAFE: list[tuple[str, object]] = [
    ("parallelism", 2),
    ("parallelism", "2"),
    ("completions", 2),
    ("backoffLimit", 1),
    ("backoffLimit", REMOVED),
    ("backoffLimitPerIndex", 1),
    ("podFailurePolicy", {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}),
    ("activeDeadlineSeconds", REMOVED),
    ("activeDeadlineSeconds", 10**6),
]


@pytest.mark.parametrize(("name", "value"), JOB_UNSAFE, ids=str)
def test_a_job_that_can_run_the_program_twice_or_longer_is_unsafe(name: str, value: object) -> None:
    (change,) = of_job(f"spec.{name}", value)
    assert (change.field, change.path) == (name, f"spec.{name}")
    assert change.sent == SENT["spec"].get(name)
    assert change.received == (None if value is REMOVED else value)


POD_UNSAFE: list[tuple[str, object]] = [
    ("restartPolicy", "OnFailure"),
    ("restartPolicy", REMOVED),
    ("runtimeClassName", REMOVED),
    ("runtimeClassName", "runc"),
    ("serviceAccountName", "admin"),
    ("automountServiceAccountToken", True),
    ("automountServiceAccountToken", REMOVED),
    ("hostNetwork", True),
    ("hostPID", True),
    ("hostIPC", True),
    ("shareProcessNamespace", True),
    ("securityContext.fsGroup", 0),
    ("securityContext.supplementalGroups", [5, 0]),
    ("securityContext.runAsNonRoot", False),
    ("securityContext.runAsNonRoot", REMOVED),
    ("securityContext.runAsUser", 0),
    ("securityContext.runAsUser", REMOVED),
    ("securityContext.runAsGroup", 0),
    ("securityContext.runAsGroup", REMOVED),
    ("securityContext.seccompProfile", {"type": "Unconfined"}),
    ("securityContext.seccompProfile", REMOVED),
    ("securityContext.appArmorProfile", {"type": "Unconfined"}),
    ("securityContext.seLinuxOptions", {"type": "spc_t"}),
    ("containers.0.command", ["sh", "-c", "true"]),
    ("containers.0.command", REMOVED),
    ("containers.0.args", ["more"]),
    ("containers.0.restartPolicy", "Always"),
    ("containers.0.restartPolicyRules", [{"action": "Restart"}]),
    ("containers.0.securityContext.privileged", True),
    ("containers.0.securityContext.allowPrivilegeEscalation", True),
    ("containers.0.securityContext.allowPrivilegeEscalation", REMOVED),
    ("containers.0.securityContext.readOnlyRootFilesystem", False),
    ("containers.0.securityContext.readOnlyRootFilesystem", REMOVED),
    ("containers.0.securityContext.capabilities", REMOVED),
    ("containers.0.securityContext.capabilities", {"drop": ["CHOWN"]}),
    ("containers.0.securityContext.capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    ("containers.0.securityContext.procMount", "Unmasked"),
    ("containers.0.securityContext.runAsUser", 0),
    ("containers.0.securityContext.runAsGroup", 0),
    ("containers.0.securityContext.runAsNonRoot", False),
    ("containers.0.securityContext.seccompProfile", {"type": "Unconfined"}),
    ("containers.0.securityContext.appArmorProfile", {"type": "Unconfined"}),
    ("containers.0.securityContext.seLinuxOptions", {"user": "root"}),
]


@pytest.mark.parametrize(("path", "value"), POD_UNSAFE, ids=str)
def test_a_pod_with_less_protection_is_unsafe_in_the_job_and_in_the_pod(path: str, value: object) -> None:
    (in_pod,) = of_pod(f"spec.{path}", value)
    assert in_pod.field == path.rpartition(".")[2]
    assert in_pod.path == f"spec.{path}".replace(".0.", "[0].")
    assert in_pod.received == (None if value is REMOVED else value)
    (in_job,) = of_job(f"spec.template.spec.{path}", value)
    assert in_job.path == in_pod.path.replace("spec.", "spec.template.spec.", 1)


def test_host_users_must_stay_false_only_if_it_was_sent_as_false() -> None:
    assert of_pod("spec.hostUsers", True) == []
    sent = changed(SENT, "spec.template.spec.hostUsers", False)
    (change,) = pod_changes(sent, SENT_POD, CONTAINER)
    assert change == Change("hostUsers", "spec.hostUsers", False, None)


def test_a_removed_security_context_is_one_change_for_each_of_its_fields() -> None:
    found = {change.field for change in of_pod("spec.securityContext", REMOVED)}
    assert found == {"runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile"}
    found = {change.field for change in of_pod("spec.containers.0.securityContext", REMOVED)}
    assert found == {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"}


def test_a_missing_container_has_no_field_that_could_be_accepted() -> None:
    assert of_pod("spec.containers.0.name", "main") == [Change("", "spec.containers", [CONTAINER], ["main"])]


TOKEN = {"projected": {"sources": [{"configMap": {}}, {"serviceAccountToken": {"path": "token"}}]}}


def test_a_service_account_token_in_the_container_is_unsafe() -> None:
    (change,) = pod_changes(SENT, with_volume(TOKEN), CONTAINER)
    assert change.field == "automountServiceAccountToken"
    assert change.path == "spec.volumes[2].projected.sources[1].serviceAccountToken"
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    (change,) = pod_changes(SENT, with_volume({"secret": {"secretName": "token"}}, place), CONTAINER)
    assert (change.field, change.received) == ("automountServiceAccountToken", place)
    assert change.path == "spec.containers[0].volumeMounts[2].mountPath"


def test_a_pod_certificate_in_the_container_is_unsafe() -> None:
    source = {"signerName": "kubernetes.io/kube-apiserver-client-pod", "keyType": "ED25519"}
    volume = {"projected": {"sources": [{"podCertificate": source}]}}
    (change,) = pod_changes(SENT, with_volume(volume), CONTAINER)
    assert change == Change("podCertificate", "spec.volumes[2].projected.sources[0].podCertificate", None, source)
    assert pod_changes(SENT, with_volume(volume, container=1), CONTAINER) == []


RESTART_ALL = {"action": "RestartAllContainers", "exitCodes": {"operator": "NotIn", "values": [0]}}


@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_rule_of_another_container_that_restarts_every_container_is_unsafe(kind: str) -> None:
    """On Kubernetes 1.36 without any feature gate: an exit of the sidecar runs the program a second time."""

    def with_rules(*rules: dict[str, Any]) -> dict[str, Any]:
        pod = copy.deepcopy(SENT_POD)
        sidecar = {"name": "sidecar", "restartPolicy": "Never", "restartPolicyRules": list(rules)}
        pod["spec"].setdefault(kind, []).insert(0, sidecar)
        return pod

    own = {**RESTART_ALL, "action": "Restart"}
    assert pod_changes(SENT, with_rules(own), CONTAINER) == []
    (change,) = pod_changes(SENT, with_rules(own, RESTART_ALL), CONTAINER)
    assert change == Change("restartPolicyRules", f"spec.{kind}[0].restartPolicyRules", None, [own, RESTART_ALL])
    job = changed(SENT, "spec.template.spec", with_rules(RESTART_ALL)["spec"])
    assert [each.path for each in job_changes(SENT, job, CONTAINER)] == [
        f"spec.template.spec.{kind}[0].restartPolicyRules"
    ]


def test_a_host_path_in_the_container_is_unsafe() -> None:
    (change,) = pod_changes(SENT, with_volume({"hostPath": {"path": "/"}}), CONTAINER)
    assert change == Change("hostPath", "spec.volumes[2].hostPath", None, {"path": "/"})


# -- safe -----------------------------------------------------------------------------------------------------

SAFE: list[tuple[str, object]] = [
    ("spec.parallelism", 1),
    ("spec.parallelism", 0),
    ("spec.completions", 1),
    ("spec.completionMode", "Indexed"),
    ("spec.activeDeadlineSeconds", 10),
    ("spec.suspend", True),
    ("spec.podFailurePolicy", {"rules": [{"action": "FailJob"}, {"action": "Count"}]}),
    ("spec.ttlSecondsAfterFinished", 5),
    ("spec.template.metadata.labels", {"istio": "yes"}),
    ("metadata.annotations", {"policy": "applied"}),
]
POD_SAFE: list[tuple[str, object]] = [
    ("serviceAccountName", "default"),
    ("schedulerName", "other"),
    ("priorityClassName", "low"),
    ("nodeSelector", {"pool": "a"}),
    ("tolerations", [{"operator": "Exists"}]),
    ("imagePullSecrets", [{"name": "mirror"}]),
    ("initContainers", [{"name": "istio-init", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}]),
    ("hostNetwork", False),
    ("hostUsers", False),
    ("securityContext.runAsUser", 1000650000),
    ("securityContext.runAsGroup", 7),
    ("securityContext.fsGroup", REMOVED),
    ("securityContext.supplementalGroups", [7]),
    ("securityContext.seccompProfile", {"type": "Localhost", "localhostProfile": "strict.json"}),
    ("securityContext.appArmorProfile", {"type": "RuntimeDefault"}),
    ("securityContext.seLinuxOptions", {"level": "s0:c1,c2"}),
    ("containers.0.image", "mirror.example/python:3.11-slim"),
    ("containers.0.args", []),
    ("containers.0.resources", {}),
    ("containers.0.securityContext.runAsUser", 5),
    ("containers.0.securityContext.privileged", False),
    ("containers.0.securityContext.capabilities", {"drop": ["ALL", "CHOWN"]}),
    ("containers.0.securityContext.procMount", "Default"),
]


@pytest.mark.parametrize(("path", "value"), SAFE, ids=str)
def test_a_harmless_change_of_a_job_is_safe(path: str, value: object) -> None:
    assert of_job(path, value) == []


@pytest.mark.parametrize(("path", "value"), POD_SAFE, ids=str)
def test_a_harmless_or_stricter_change_of_a_pod_is_safe(path: str, value: object) -> None:
    assert of_pod(f"spec.{path}", value) == []
    assert of_job(f"spec.template.spec.{path}", value) == []


def test_a_sidecar_before_the_container_with_a_token_or_a_host_path_is_safe() -> None:
    for source in (TOKEN, {"hostPath": {"path": "/var/log"}}):
        pod = with_volume(source, container=1)
        pod["spec"]["containers"].reverse()
        assert pod_changes(SENT, pod, CONTAINER) == []


def test_hardening_may_move_from_the_pod_to_the_container() -> None:
    pod = changed(SENT_POD, "spec.securityContext", {})
    own = {**SENT_POD["spec"]["securityContext"], **SENT_POD["spec"]["containers"][0]["securityContext"]}
    assert pod_changes(SENT, changed(pod, "spec.containers.0.securityContext", own), CONTAINER) == []


def test_the_cluster_may_set_fields_that_were_not_sent() -> None:
    sent = build(Settings(runtime_class_name=None), Program(code="pass"), name="job-1", session="s").job
    assert job_changes(sent, changed(sent, "spec.template.spec.runtimeClassName", "kata"), CONTAINER) == []


# -- responses of real servers --------------------------------------------------------------------------------


def recorded_jobs() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each recorded Job as sent, and as returned by the real server."""
    for path in sorted(RECORDED.glob("*.json")):
        for each in json.loads(path.read_text()).get("exchanges", ()):
            sent, received = each.get("request", {}).get("body"), each.get("response", {}).get("body")
            if all(isinstance(body, dict) and body.get("kind") == "Job" for body in (sent, received)):
                yield sent, received


def test_the_jobs_that_a_real_server_returned_are_safe() -> None:
    found = list(recorded_jobs())
    assert len(found) > 20
    for sent, received in found:
        assert job_changes(sent, received, CONTAINER) == []


def test_the_pods_of_every_cassette_are_safe() -> None:
    """Except for the fields in which the Jobs of the recorder were different."""
    pods = 0
    for path in sorted(FIXTURES.glob("*.yaml")):
        steps = load(path).steps
        jobs = [step.body for step in steps if isinstance(step.body, dict) and step.body.get("kind") == "Job"]
        for chunk in (chunk for step in steps for chunk in step.response.chunks or ()):
            pod = (chunk.event or {}).get("object", {})
            if pod.get("kind") == "Pod":
                pods += 1
                changes = pod_changes(jobs[0], pod, CONTAINER)
                assert {change.field for change in changes} <= RELEASE_FIELDS, path
    assert pods > 100


def test_an_object_without_a_spec_is_not_compared() -> None:
    assert job_changes(SENT, {"metadata": {"name": "job-1"}}, CONTAINER) == []
    assert pod_changes(SENT, {"metadata": {"name": "job-1-x"}}, CONTAINER) == []


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.sampled_from([path for path, _ in SAFE] + [f"spec.template.spec.{path}" for path, _ in POD_SAFE]), any_json
)
def test_any_json_can_be_compared(path: str, value: object) -> None:
    for change in of_job(path, value):
        assert change.path in str(change)


# -- field names and messages ----------------------------------------------------------------------------------


def test_the_setting_accepts_every_field_that_is_compared() -> None:
    assert set(ADMISSION_FIELDS) == FIELDS
    assert len(ADMISSION_FIELDS) == len(FIELDS)
    assert RELEASE_FIELDS < FIELDS


def test_a_change_names_the_path_and_both_values() -> None:
    assert (
        str(of_pod("spec.runtimeClassName", REMOVED)[0])
        == 'spec.runtimeClassName: sent "gvisor", received nothing'
    )
    assert str(of_job("spec.parallelism", 2)[0]) == "spec.parallelism: sent nothing, received 2"
    assert len(str(of_pod("spec.containers.0.command", ["x" * 1000])[0])) < 400
