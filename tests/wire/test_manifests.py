"""The Job and the ConfigMap, compared with bodies of a real server, with Kubernetes' rules, and field by field."""

from __future__ import annotations

import base64
import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox._wire.manifests import (
    CONTAINER,
    Manifests,
    build,
    build_waiting,
    lifetime,
)
from gke_sandbox._wire.payload import runner_text
from gke_sandbox._wire.program import Program
from gke_sandbox.errors import PayloadTooLarge
from gke_sandbox.kube import names, pod_security
from gke_sandbox.kube.quantity import parse_quantity
from gke_sandbox.settings import MANAGED_BY, SESSION_LABEL, Settings, Toleration
from tests.kubernetes_rules import field_errors, is_config_map_key
from tests.pod_security_rules import RULES, violations

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "manifests.md"
NAME, SESSION, UID = "gke-sandbox-0123456789", "0123abcd", "18960708-402a-47e7-aded-412945bb4243"
Delivery = Literal["env", "mount", "attach"]
BOTH: list[Delivery] = ["env", "mount"]
ALL: list[Delivery] = [*BOTH, "attach"]


def make(program: Program | None = None, **settings: Any) -> Manifests:
    return build(Settings(**settings), program or Program(code="print(1)\n"), name=NAME, session=SESSION)


def pod_of(manifests: Manifests) -> dict[str, Any]:
    pod: dict[str, Any] = manifests.job["spec"]["template"]["spec"]
    return pod


def container_of(manifests: Manifests) -> dict[str, Any]:
    (container,) = pod_of(manifests)["containers"]
    found: dict[str, Any] = container
    return found


everything = {
    "labels": {"team": "a", "empty": ""},
    "annotations": {"adk.agent.google.com/invocation-id": "e-1"},
    "node_selector": {"sandbox.gke.io/runtime": "gvisor"},
    "tolerations": [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}],
    "env": {"A": "1", "EMPTY": ""},
    "image_pull_secrets": ["registry"],
    "image_pull_policy": "Always",
    "priority_class_name": "low",
    "service_account_name": "runner",
    "ttl_seconds_after_finished": 0,
    "timeout": 0.5,
}
nothing = {"runtime_class_name": None, "tolerations": []}


# -- compared with a real server ---------------------------------------------------------------------------


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Return every value by its path; list entries are identified by their name, if they have one."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            name = item.get("name", i) if isinstance(item, dict) else i
            yield from leaves(item, f"{path}[{name}]")
    else:
        yield path, value


POD = ".spec.template.spec"
BOX = f"{POD}.containers[code-runner]"
# The differences from the recorded bodies, and the reasons.
COMMON = {
    ".metadata.annotations.gke-sandbox/program": "the recorder did not send the digest of its program",
    f"{BOX}.command[1]": "ours passes -u: the runner's output is never held back",
    f"{BOX}.command[2]": "moved by -u; mounted, the runner's file",
    ".data.runner": "the recorder's throw-away runner was left out",
    ".data.request": "the recorder's runner took another form of request",
}
BY_ENV = {
    **COMMON,
    f"{BOX}.command[3]": "moved by -u",
    f"{BOX}.volumeMounts": "empty lists are not sent",
    f"{POD}.volumes": "empty lists are not sent",
}
BY_MOUNT = {
    **COMMON,
    **{
        f"{BOX}.env[GKE_SANDBOX_{key}].{rest}": "the recorder passed the content by environment"
        for key in ("RUNNER", "REQUEST", "CODE_0")
        for rest in ("name", "valueFrom.configMapKeyRef.name", "valueFrom.configMapKeyRef.key")
    },
    f"{BOX}.resources.requests.ephemeral-storage": "the volume's size is added to it",
    f"{BOX}.resources.limits.ephemeral-storage": "raised to hold the volume",
}
PROGRAMS = {
    "execution-success": Program(code="print('hola')\n"),
    "execution-mounted": Program(code="print('hola')\n"),
    "execution-files": Program(
        code=(
            "rows = open('data.csv').read().split()\n"
            "open('sum.txt','w').write(str(sum(map(int, rows))))\n"
            "open('bytes.bin','wb').write(bytes(range(256)))\n"
            "print(len(rows))\n"
        ),
        files={"data.csv": "1\n2\n3\n"},
    ),
}


@pytest.mark.parametrize(
    ("scenario", "delivery", "differences"),
    [
        ("execution-success", "env", BY_ENV),
        ("execution-files", "env", BY_ENV),
        ("execution-mounted", "mount", BY_MOUNT),
    ],
)
def test_bodies_equal_those_accepted_by_a_real_server_except_for_listed_differences(
    scenario: str, delivery: Delivery, differences: dict[str, str]
) -> None:
    recorded = json.loads((HERE / "recorded_bodies" / f"{scenario}.json").read_text())
    settings = Settings(
        delivery=delivery,
        timeout=15,
        startup_timeout=15,
        memory_request="64Mi",
        memory_limit="128Mi",
        ephemeral_storage_limit="80Mi" if delivery == "mount" else "64Mi",
        tmp_size="16Mi",
        ttl_seconds_after_finished=60,
    )
    owner = recorded["config_map"]["metadata"]["ownerReferences"][0]
    session = recorded["job"]["metadata"]["labels"][SESSION_LABEL]
    built = build(settings, PROGRAMS[scenario], name=owner["name"], session=session)
    ours = dict(leaves(built.job)) | {f"cm{path}": v for path, v in leaves(built.config_map(owner["uid"]))}
    theirs = dict(leaves(recorded["job"])) | {f"cm{path}": v for path, v in leaves(recorded["config_map"])}
    different = {path for path in ours.keys() | theirs.keys() if ours.get(path, ours) != theirs.get(path, theirs)}
    assert {path.removeprefix("cm") for path in different} == set(differences)


# -- compared with Kubernetes' rules -----------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ALL)
@pytest.mark.parametrize("settings", [{}, everything, nothing], ids=["defaults", "everything", "nothing"])
def test_every_field_exists_has_its_type_and_is_not_empty(delivery: Delivery, settings: dict[str, Any]) -> None:
    program = Program(code=b"\xff", files={"a": b"1"}, stdin="x", args=["a"])
    manifests = make(program, delivery=delivery, **settings)
    assert field_errors("Job", manifests.job) == []
    if delivery != "attach":
        assert field_errors("ConfigMap", manifests.config_map(UID)) == []
    json.dumps(manifests.job, allow_nan=False)


@pytest.mark.parametrize("delivery", ALL)
@pytest.mark.parametrize("settings", [{}, everything, nothing], ids=["defaults", "everything", "nothing"])
def test_the_pod_satisfies_the_restricted_pod_security_standard(
    delivery: Delivery, settings: dict[str, Any]
) -> None:
    assert violations(make(delivery=delivery, **settings).job["spec"]["template"]) == []


SECURITY, BOX_SECURITY = ["spec", "securityContext"], ["spec", "containers", 0, "securityContext"]
VIOLATIONS: list[tuple[str, list[Any], Any]] = [
    ("baseline, HostProcess", [*SECURITY, "windowsOptions"], {"hostProcess": True}),
    ("baseline, HostProcess", [*BOX_SECURITY, "windowsOptions"], {"hostProcess": True}),
    ("baseline, Host Namespaces", ["spec", "hostNetwork"], True),
    ("baseline, Host Namespaces", ["spec", "hostPID"], True),
    ("baseline, Host Namespaces", ["spec", "hostIPC"], True),
    ("baseline, Privileged Containers", [*BOX_SECURITY, "privileged"], True),
    ("baseline, Capabilities", [*BOX_SECURITY, "capabilities", "add"], ["NET_RAW"]),
    ("baseline, HostPath Volumes", ["spec", "volumes", 0, "hostPath"], {"path": "/"}),
    ("baseline, Host Ports", ["spec", "containers", 0, "ports"], [{"containerPort": 1, "hostPort": 1}]),
    (
        "baseline, Host Probes / Lifecycle Hooks",
        ["spec", "containers", 0, "lifecycle"],
        {"preStop": {"httpGet": {"port": 80, "host": "169.254.169.254"}}},
    ),
    ("baseline, AppArmor", [*SECURITY, "appArmorProfile"], {"type": "Unconfined"}),
    (
        "baseline, AppArmor",
        ["metadata", "annotations"],
        {"container.apparmor.security.beta.kubernetes.io/code-runner": "unconfined"},
    ),
    ("baseline, SELinux", [*BOX_SECURITY, "seLinuxOptions"], {"type": "spc_t"}),
    ("baseline, SELinux", [*SECURITY, "seLinuxOptions"], {"user": "system_u"}),
    ("baseline, /proc Mount Type", [*BOX_SECURITY, "procMount"], "Unmasked"),
    ("baseline, Seccomp", [*BOX_SECURITY, "seccompProfile"], {"type": "Unconfined"}),
    ("baseline, Sysctls", [*SECURITY, "sysctls"], [{"name": "kernel.msgmax", "value": "1"}]),
    ("restricted, Volume Types", ["spec", "volumes", 0, "nfs"], {"server": "a", "path": "/"}),
    ("restricted, Privilege Escalation", [*BOX_SECURITY, "allowPrivilegeEscalation"], True),
    ("restricted, Privilege Escalation", ["spec", "initContainers"], [{"name": "init"}]),
    ("restricted, Privilege Escalation", ["spec", "ephemeralContainers"], [{"name": "debug"}]),
    ("restricted, Running as Non-root", [*SECURITY, "runAsNonRoot"], False),
    ("restricted, Running as Non-root", [*BOX_SECURITY, "runAsNonRoot"], False),
    ("restricted, Running as Non-root user", [*SECURITY, "runAsUser"], 0),
    ("restricted, Seccomp", [*SECURITY, "seccompProfile"], {}),
    ("restricted, Capabilities", [*BOX_SECURITY, "capabilities"], {}),
    ("restricted, Capabilities", [*BOX_SECURITY, "capabilities", "add"], ["CHOWN"]),
]


def changed_template(path: list[Any], value: Any) -> dict[str, Any]:
    """Return a pod template that satisfies the standard, except for the value at this path."""
    template: dict[str, Any] = copy.deepcopy(make(delivery="mount").job["spec"]["template"])
    at: Any = template
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return template


@pytest.mark.parametrize(("control", "path", "value"), VIOLATIONS)
def test_the_check_of_the_restricted_standard_finds_violations(control: str, path: list[Any], value: Any) -> None:
    assert control in {each.partition(":")[0] for each in violations(changed_template(path, value))}


UNCHECKED = {
    "baseline, HostProcess",
    "baseline, HostPath Volumes",
    "baseline, Host Ports",
    "baseline, Host Probes / Lifecycle Hooks",
    "baseline, AppArmor",
    "baseline, SELinux",
    "baseline, /proc Mount Type",
    "baseline, Sysctls",
    "restricted, Volume Types",
}
"""The controls that `gke_sandbox.kube.pod_security` does not check. It checks no ephemeral containers either."""


@pytest.mark.parametrize(("control", "path", "value"), VIOLATIONS)
def test_the_package_finds_violations_of_all_controls_but_those_listed(
    control: str, path: list[Any], value: Any
) -> None:
    is_checked = control not in UNCHECKED and path != ["spec", "ephemeralContainers"]
    found = pod_security.violations(changed_template(path, value)["spec"])
    assert bool(found) is is_checked


def test_every_control_of_the_restricted_standard_is_tried() -> None:
    assert {control for control, _, _ in VIOLATIONS} == {f"{rule.profile}, {rule.control}" for rule in RULES}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"nosuchField": 1}, ".nosuchField: Job has no such field"),
        ({"metadata": {"labels": {}}}, ".metadata.labels: is empty"),
        ({"spec": {"backoffLimit": "0"}}, ".spec.backoffLimit: '0' is no <class 'int'>"),
        ({"spec": {"backofflimit": 0}}, ".spec.backofflimit: JobSpec has no such field"),
    ],
)
def test_the_check_of_fields_finds_errors(change: dict[str, Any], error: str) -> None:
    assert error in field_errors("Job", {**make().job, **change})


@pytest.mark.parametrize("delivery", BOTH)
def test_names_keys_and_references_are_consistent(delivery: Delivery) -> None:
    program = Program(code="x" * 200_000, files={f"f{i}": b"1" for i in range(5)}, stdin="x")
    manifests = make(program, delivery=delivery, env={"A": "1"})
    config_map = manifests.config_map(UID)
    keys = config_map["data"].keys() | config_map.get("binaryData", {}).keys()
    assert [key for key in keys if not is_config_map_key(key)] == []
    variables = [each["name"] for each in container_of(manifests)["env"]]
    assert len(variables) == len(set(variables))
    assert [error for name in variables for error in names.env_name(name)] == []
    references = [
        each["valueFrom"]["configMapKeyRef"] for each in container_of(manifests)["env"] if "valueFrom" in each
    ]
    volumes = {volume["name"]: volume for volume in pod_of(manifests).get("volumes", [])}
    mounts = container_of(manifests).get("volumeMounts", [])
    assert {mount["name"] for mount in mounts} == set(volumes)
    if delivery == "env":
        assert {each["key"] for each in references} == keys
        assert {each["name"] for each in references} == {config_map["metadata"]["name"]}
    else:
        assert references == []
        assert volumes["code"]["configMap"]["name"] == config_map["metadata"]["name"]


# -- field by field ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", BOTH)
def test_labels_are_set_on_job_pod_and_config_map(delivery: Delivery) -> None:
    manifests = make(delivery=delivery, labels={"team": "a"})
    ours = {MANAGED_BY: "gke-sandbox", SESSION_LABEL: SESSION, "team": "a"}
    assert manifests.job["metadata"]["labels"] == ours
    assert manifests.job["spec"]["template"]["metadata"]["labels"] == ours
    assert manifests.config_map(UID)["metadata"]["labels"] == ours


def test_annotations_are_set_on_job_and_pod() -> None:
    annotations = {"adk.agent.google.com/invocation-id": "e-1"}
    job = make(annotations=annotations).job
    assert job["metadata"]["annotations"].items() > annotations.items()
    assert job["spec"]["template"]["metadata"]["annotations"] == annotations


@pytest.mark.parametrize("delivery", ALL)
def test_the_job_names_its_program_by_a_digest_and_the_pod_does_not(delivery: Delivery) -> None:
    program, settings = Program(code="print(1)"), Settings(delivery=delivery, timeout=7)
    job = build(settings, program, name=NAME, session=SESSION).job
    assert job["metadata"]["annotations"] == {"gke-sandbox/program": program.digest(settings)}
    assert "annotations" not in job["spec"]["template"]["metadata"]


def test_the_config_map_is_immutable_and_owned_by_the_job() -> None:
    config_map = make().config_map(UID)
    assert config_map["immutable"] is True
    assert config_map["metadata"]["name"] == NAME
    assert config_map["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": NAME,
            "uid": UID,
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]


def test_the_pod_is_hardened() -> None:
    pod, container = pod_of(make()), container_of(make())
    assert pod["runtimeClassName"] == "gvisor"
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 1
    assert pod["tolerations"] == [
        {"key": "sandbox.gke.io/runtime", "operator": "Equal", "value": "gvisor", "effect": "NoSchedule"}
    ]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1001,
        "runAsGroup": 1001,
        "fsGroup": 1001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["name"] == CONTAINER == "code-runner"
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"] == {
        "requests": {"cpu": "200m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
        "limits": {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "256Mi"},
    }


def test_unset_fields_are_not_sent() -> None:
    pod = pod_of(make(delivery="env", **nothing))
    for field in (
        "runtimeClassName",
        "tolerations",
        "nodeSelector",
        "imagePullSecrets",
        "priorityClassName",
        "serviceAccountName",
        "volumes",
    ):
        assert field not in pod
    assert "annotations" not in make().job["spec"]["template"]["metadata"]
    assert "annotations" not in make().config_map(UID)["metadata"]


def test_settings_are_set_in_the_right_fields() -> None:
    manifests = make(**everything, image="registry.example/python:3", run_as_user=5, run_as_group=6)
    pod, container = pod_of(manifests), container_of(manifests)
    assert pod["nodeSelector"] == {"sandbox.gke.io/runtime": "gvisor"}
    assert pod["tolerations"] == [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["priorityClassName"] == "low"
    assert pod["serviceAccountName"] == "runner"
    assert pod["automountServiceAccountToken"] is False
    assert (container["image"], container["imagePullPolicy"]) == ("registry.example/python:3", "Always")
    context = pod["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (5, 6, 6)
    assert manifests.job["spec"]["ttlSecondsAfterFinished"] == 0
    assert manifests.job["metadata"]["labels"]["empty"] == ""


def test_a_toleration_is_sent_with_kubernetes_field_names() -> None:
    toleration = Toleration(key="a", operator="Exists", effect="NoExecute", toleration_seconds=30)
    assert pod_of(make(tolerations=[toleration]))["tolerations"] == [
        {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    ]


@pytest.mark.parametrize(
    ("timeout", "startup_timeout", "deadline"),
    [(300, 300, 630), (10, 20, 60), (0.1, 0.1, 31), (1.5, 1.5, 33), (1.0000001, 1, 33)],
)
def test_the_job_has_a_deadline_after_both_timeouts_and_30_seconds(
    timeout: float, startup_timeout: float, deadline: int
) -> None:
    spec = make(timeout=timeout, startup_timeout=startup_timeout).job["spec"]
    assert spec["activeDeadlineSeconds"] == deadline
    assert type(spec["activeDeadlineSeconds"]) is int
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (0, 300)


def test_quantities_are_sent_unchanged() -> None:
    resources = container_of(
        make(cpu_request="0.1", cpu_limit="1.5", memory_limit="1e9", memory_request="1000Ki")
    )["resources"]
    assert resources["requests"]["cpu"] == "0.1"
    assert resources["limits"]["cpu"] == "1.5"
    assert resources["limits"]["memory"] == "1e9"
    assert resources["requests"]["memory"] == "1000Ki"


def test_delivery_by_environment_has_no_volume() -> None:
    manifests = make(delivery="env")
    assert manifests.delivery == "env"
    assert "volumes" not in pod_of(manifests)
    container = container_of(manifests)
    assert "volumeMounts" not in container
    assert container["command"] == [
        "python3",
        "-u",
        "-c",
        "import os;exec(compile(os.environ.pop('GKE_SANDBOX_RUNNER'),'runner.py','exec'))",
    ]
    assert [each["name"] for each in container["env"]] == [
        "GKE_SANDBOX_RUNNER",
        "GKE_SANDBOX_REQUEST",
        "GKE_SANDBOX_CODE_0",
    ]
    assert container["env"][2]["valueFrom"] == {"configMapKeyRef": {"name": NAME, "key": "code_0"}}


def test_delivery_by_mount_has_two_volumes_and_requests_their_storage() -> None:
    manifests = make(delivery="mount", tmp_size="100Mi")
    assert manifests.delivery == "mount"
    assert pod_of(manifests)["volumes"] == [
        {"name": "code", "configMap": {"name": NAME}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "100Mi"}},
    ]
    container = container_of(manifests)
    assert container["volumeMounts"] == [
        {"name": "code", "mountPath": "/app", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    assert container["command"] == ["python3", "-u", "/app/runner"]
    assert "env" not in container
    assert container["resources"]["requests"]["ephemeral-storage"] == "164Mi"
    assert container["resources"]["limits"]["ephemeral-storage"] == "256Mi"


def test_delivery_by_attach_has_the_runner_in_the_job_and_the_program_in_a_request() -> None:
    program = Program(code="é", files={"b": b"\xff", "a": b""}, stdin="in", args=["x"])
    manifests = make(program, delivery="attach", env={"A": "1"}, timeout=5)
    assert manifests.delivery == "attach"
    assert "volumes" not in pod_of(manifests)
    container = container_of(manifests)
    assert "volumeMounts" not in container
    assert (container["stdin"], container["stdinOnce"]) == (True, True)
    assert container["command"] == container_of(make(delivery="env"))["command"]
    values = {each["name"]: expanded(each["value"]) for each in container["env"]}
    assert values == {"GKE_SANDBOX_RUNNER": runner_text(), "GKE_SANDBOX_WAIT": "60", "A": "1"}
    assert container["resources"]["requests"]["ephemeral-storage"] == "64Mi"
    lengths, _, rest = manifests.request.partition(b"\n")
    size, contents = map(int, lengths.split())
    request = json.loads(rest[:size])
    assert request["code"] == ["raw", [2]]
    assert request["stdin"] == ["raw", [2]]
    assert request["files"] == {"b": ["raw", [1]], "a": ["raw", [0]]}
    assert (request["args"], request["timeout"], "env" in request) == (["x"], 5.0, False)
    assert rest[size:] == "é".encode() + b"in\xff"
    assert contents == 5


def test_other_deliveries_have_no_stdin() -> None:
    for delivery in BOTH:
        assert {"stdin", "stdinOnce"}.isdisjoint(container_of(make(delivery=delivery)))


def test_a_warm_pod_waits_for_any_program_for_its_idle_time() -> None:
    settings = Settings(timeout=20, startup_timeout=10, annotations={"a": "b"})
    manifests = build_waiting(settings, name=NAME, session=SESSION, idle_timeout=600)
    assert manifests.job["metadata"]["annotations"] == {"a": "b"}
    assert manifests.job["spec"]["activeDeadlineSeconds"] == 600 + 10 + 20 + 30
    assert lifetime(settings, 600) == 660 + settings.ttl_seconds_after_finished
    values = {each["name"]: each["value"] for each in container_of(manifests)["env"]}
    assert values["GKE_SANDBOX_WAIT"] == "600"
    assert container_of(manifests)["stdinOnce"] is True
    assert manifests.request == b""
    assert field_errors("Job", manifests.job) == []
    assert violations(manifests.job["spec"]["template"]) == []


def test_a_program_above_64_mib_is_refused_with_attach() -> None:
    with pytest.raises(PayloadTooLarge, match="the maximum is 67108864"):
        make(Program(code="", files={"a": bytes(64 << 20), "b": b"1"}), delivery="attach")


@pytest.mark.parametrize("tmp_size", ["64Mi", "1", "100M", "1e6", "0.5Gi"])
def test_with_a_volume_requests_never_exceed_limits(tmp_size: str) -> None:
    resources = container_of(make(delivery="mount", tmp_size=tmp_size, ephemeral_storage_limit="1Gi"))["resources"]
    request = parse_quantity(resources["requests"]["ephemeral-storage"])
    assert request.nano == parse_quantity("64Mi").nano + parse_quantity(tmp_size).nano
    assert request.nano <= parse_quantity("1Gi").nano


@pytest.mark.parametrize("delivery", ALL)
def test_dollars_in_variables_are_doubled(delivery: Delivery) -> None:
    """Kubernetes expands $(X) and writes $$ for a dollar."""
    manifests = make(delivery=delivery, env={"A": "$(HOME) costs 5$", "B": "$$", "EMPTY": ""})
    own = [each for each in container_of(manifests)["env"] if not each["name"].startswith("GKE_SANDBOX_")]
    assert own == [{"name": "A", "value": "$$(HOME) costs 5$$"}, {"name": "B", "value": "$$$$"}, {"name": "EMPTY"}]


def expanded(value: str) -> str:
    """Return the value that a container receives for a variable when no other variable is defined.

    https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    """
    return re.sub(r"\$\$|\$\([^)]*\)", lambda found: "$" if found[0] == "$$" else found[0], value)


@given(st.text(alphabet="$()AB ", max_size=12))
def test_a_variable_arrives_unchanged(value: str) -> None:
    (variable,) = (each for each in container_of(make(env={"A": value}))["env"] if each["name"] == "A")
    assert expanded(variable.get("value", "")) == value


def test_arguments_input_and_code_are_in_the_config_map_only() -> None:
    program = Program(code="# secret-code", args=["secret-arg"], stdin="secret-in", files={"secret-name": "x"})
    for delivery in ALL:
        assert "secret" not in json.dumps(make(program, delivery=delivery).job)


def test_binary_data_is_base64() -> None:
    config_map = make(Program(code="", files={"a": b"\xff\x00"}), delivery="mount").config_map(UID)
    assert config_map["binaryData"] == {"file_0": base64.b64encode(b"\xff\x00").decode()}


# -- build -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", BOTH)
def test_the_same_input_gives_the_same_bodies(delivery: Delivery) -> None:
    program = Program(code="x", files={"a": b"1", "b": b"2"})
    settings = Settings(delivery=delivery, env={"A": "1"})
    first, second = (build(settings, program, name=NAME, session=SESSION) for _ in range(2))
    assert first.job == second.job
    assert first.config_map(UID) == second.config_map(UID)


def test_bodies_share_nothing_and_can_be_changed() -> None:
    settings = Settings(labels={"a": "b"})
    manifests = build(settings, Program(code=""), name=NAME, session=SESSION)
    manifests.job["metadata"]["labels"]["c"] = "d"
    manifests.config_map(UID)["metadata"]["labels"]["c"] = "d"
    assert settings.labels == {"a": "b"}
    assert "c" not in manifests.config_map(UID)["metadata"]["labels"]
    assert "c" not in manifests.job["spec"]["template"]["metadata"]["labels"]


def test_a_slow_connection_uses_a_volume() -> None:
    settings, program = Settings(), Program(code="")
    assert build(settings, program, name=NAME, session=SESSION).delivery == "env"
    assert build(settings, program, name=NAME, session=SESSION, slow_connection=True).delivery == "mount"


def test_a_program_that_does_not_fit_is_rejected() -> None:
    with pytest.raises(PayloadTooLarge):
        make(Program(code="", files={"a": random.Random(1).randbytes(2 << 20)}))


# -- docs --------------------------------------------------------------------------------------------------


SHOWN_RUNNER = "(the text of gke_sandbox/_wire/runner.py)"


def shown(kind: str, delivery: Delivery) -> dict[str, Any]:
    program = Program(code="print(open('data.csv').read())\n", files={"data.csv": "a,b\n1,2\n"})
    manifests = make(program, delivery=delivery)
    if delivery == "attach":
        (runner,) = (each for each in container_of(manifests)["env"] if each["name"] == "GKE_SANDBOX_RUNNER")
        assert runner["value"] == runner_text().replace("$", "$$")
        runner["value"] = SHOWN_RUNNER
    if kind == "job":
        return manifests.job
    config_map = manifests.config_map(UID)
    assert config_map["data"]["runner"] == runner_text()
    config_map["data"]["runner"] = SHOWN_RUNNER
    return config_map


@pytest.mark.parametrize(
    ("kind", "delivery"), [*(("job", each) for each in ALL), *(("config_map", each) for each in BOTH)]
)
def test_the_documentation_shows_the_built_manifests(kind: str, delivery: Delivery) -> None:
    blocks = re.findall(r"<!-- (\w+) (\w+) -->\n```json\n(.*?)\n```", DOCS.read_text(), re.DOTALL)
    documented = {(what, by): text for what, by, text in blocks}[kind, delivery]
    assert documented == json.dumps(shown(kind, delivery), indent=2, ensure_ascii=False)
