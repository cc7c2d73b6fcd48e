"""Conclusions of the doctor from the objects of a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gke_sandbox._diagnosis.admission_diff import job_differences
from gke_sandbox._diagnosis.finding import Finding
from gke_sandbox._diagnosis.nodes import nodes_finding
from gke_sandbox._diagnosis.pod_resources import pod_resources
from gke_sandbox._diagnosis.policies import namespace_finding, network_policies_finding
from gke_sandbox._diagnosis.probe_report import probe_findings
from gke_sandbox._diagnosis.room import limit_ranges_finding, quotas_finding
from gke_sandbox._wire.manifests import build
from gke_sandbox._wire.program import Program
from gke_sandbox.settings import Settings

RECORDED = Path(__file__).parent.parent / "local" / "recorded"
GVISOR = {"sandbox.gke.io/runtime": "gvisor"}
GVISOR_TAINT = {"key": "sandbox.gke.io/runtime", "value": "gvisor", "effect": "NoSchedule"}
RUNTIME_CLASS = {"scheduling": {"nodeSelector": GVISOR, "tolerations": []}}


def job(**settings: Any) -> dict[str, Any]:
    return build(Settings().override(**settings), Program(code="pass"), name="job", session="s").job


def spec(**settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = job(**settings)["spec"]["template"]["spec"]
    return found


# -- nodes ----------------------------------------------------------------------------------------------------


def node(name: str = "n1", labels: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": fields.pop("ready", "True")}]
    conditions += [{"type": each, "status": "True"} for each in fields.pop("pressure", ())]
    status = {"conditions": conditions, "allocatable": fields.pop("allocatable", {"cpu": "4", "memory": "8Gi"})}
    return {
        "metadata": {"name": name, "labels": GVISOR if labels is None else labels},
        "spec": fields,
        "status": status,
    }


def test_a_gvisor_node_with_its_taint_can_run_the_pod() -> None:
    nodes = [node(taints=[GVISOR_TAINT]), node("n2", {})]
    found = nodes_finding(nodes, spec(), RUNTIME_CLASS)
    assert found == Finding("ok", "1 of 2 nodes can run the pod: n1")


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        (node(labels={}), "1 without the label sandbox.gke.io/runtime=gvisor", "--sandbox=type=gvisor"),
        (node(unschedulable=True), "1 cordoned", "kubectl uncordon n1"),
        (node(ready="Unknown"), "1 not ready", "kubectl describe node n1"),
        (node(pressure=["DiskPressure"]), "1 with DiskPressure", "kubectl describe node n1"),
        (
            node(taints=[{"key": "team", "value": "a", "effect": "NoExecute"}]),
            "1 with the taint team=a:NoExecute",
            "--toleration",
        ),
        (node(allocatable={"cpu": "100m"}), "1 with only 100m of cpu", "cpu_request"),
    ],
    ids=["label", "cordoned", "not ready", "pressure", "taint", "too small"],
)
def test_a_node_that_cannot_run_the_pod_is_a_failure_with_the_reason(
    given: dict[str, Any], message: str, hint: str
) -> None:
    found = nodes_finding([given], spec(), RUNTIME_CLASS)
    assert (found.status, found.message) == ("failure", f"none of 1 node can run the pod: {message}")
    assert hint in found.hint


@pytest.mark.parametrize(
    "nodes",
    [[], [node("gk3-auto-1", {})], [node("gke-1", {"cloud.google.com/gke-nodepool": "default-pool"})]],
    ids=["none", "Autopilot", "GKE"],
)
def test_an_autoscaler_may_add_a_node(nodes: list[dict[str, Any]]) -> None:
    found = nodes_finding(nodes, spec(), RUNTIME_CLASS)
    assert found.status == "warning"
    assert "an autoscaler may add one" in found.message


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"key": "team", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "team", "value": "a"}, True),
        ({"key": "team", "value": "a", "effect": "NoExecute"}, False),
        ({"key": "team", "value": "b"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
    ids=json.dumps,
)
def test_tolerations_are_compared_as_the_scheduler_does(toleration: dict[str, str], fits: bool) -> None:
    tainted = node(taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}])
    found = nodes_finding([tainted], {**spec(), "tolerations": [toleration]}, RUNTIME_CLASS)
    assert (found.status == "ok") is fits


def test_a_taint_that_only_prefers_and_one_that_repeats_a_condition_do_not_count() -> None:
    taints = [
        {"key": "team", "effect": "PreferNoSchedule"},
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
    ]
    assert nodes_finding([node(taints=taints)], spec(), RUNTIME_CLASS).status == "ok"


# -- quotas and LimitRanges -----------------------------------------------------------------------------------


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "q"},
        "spec": {"hard": hard, **more},
        "status": {"hard": hard, "used": used or {}},
    }


def of_quota(*quotas: dict[str, Any], config_map: bool = True, **settings: Any) -> Finding:
    return quotas_finding(quotas, spec(**settings), "agents", config_map=config_map)


def test_the_scarcest_resource_decides_how_many_runs_fit() -> None:
    found = of_quota(quota({"pods": "50", "requests.cpu": "1"}, {"pods": "2", "requests.cpu": "400m"}))
    assert found == Finding("ok", "room for 3 more runs (requests.cpu of q: 400m of 1 in use)")


@pytest.mark.parametrize("resource", ["pods", "count/jobs.batch", "configmaps", "limits.memory", "memory"])
def test_a_full_quota_is_a_warning(resource: str) -> None:
    most = "1Gi" if "memory" in resource else "1"
    found = of_quota(quota({resource: most}, {resource: most}))
    assert found.status == "warning"
    assert f"no room now: {resource} of q" in found.message
    assert "gke-sandbox clean" in found.hint


def test_a_quota_that_is_too_small_for_one_run_is_a_failure() -> None:
    found = of_quota(quota({"limits.memory": "256Mi"}))
    assert found.status == "failure"
    assert found.message == "limits.memory of q: the quota is 256Mi, and one run needs 512Mi"
    assert "kubectl --namespace agents edit resourcequota q" in found.hint


def test_the_quota_of_the_recorded_server_is_a_failure() -> None:
    """Its message was: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0."""
    assert of_quota(quota({"pods": "0"}, {"pods": "0"})).status == "failure"


def of_priority(**expression: Any) -> dict[str, Any]:
    return {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", **expression}]}}


@pytest.mark.parametrize(
    ("scope", "applies"),
    [
        ({"scopes": ["BestEffort"]}, False),
        ({"scopes": ["Terminating"]}, False),
        ({"scopes": ["NotTerminating"]}, True),
        (of_priority(operator="In", values=["p"]), True),
        (of_priority(operator="NotIn", values=["p"]), False),
        (of_priority(operator="DoesNotExist"), False),
    ],
    ids=["best effort", "terminating", "not terminating", "priority", "other", "no priority"],
)
def test_a_quota_counts_only_if_its_scope_applies(scope: dict[str, Any], applies: bool) -> None:
    found = of_quota(quota({"pods": "0"}, **scope), priority_class_name="p")
    assert (found.status == "failure") is applies


@pytest.mark.parametrize("priority_class", [None, "p"])
def test_a_quota_for_pods_with_a_priority_class_counts_only_those(priority_class: str | None) -> None:
    found = of_quota(quota({"pods": "0"}, scopes=["PriorityClass"]), priority_class_name=priority_class)
    assert (found.status == "failure") is (priority_class is not None)


def test_without_a_config_map_their_number_does_not_count() -> None:
    assert of_quota(quota({"configmaps": "0"}), config_map=False).status == "ok"
    assert of_quota().message == "no ResourceQuota limits the runs"


def limit_range(**item: Any) -> dict[str, Any]:
    return {"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", **item}]}}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"max": {"memory": "256Mi"}},
            "the maximum memory of a Container is 256Mi, and the limit of the container",
        ),
        ({"min": {"cpu": "1"}}, "the minimum cpu of a Container is 1, and the request of the container"),
        ({"maxLimitRequestRatio": {"cpu": "2"}}, "the maximum ratio of limit to request of cpu is 2"),
        ({"type": "Pod", "max": {"cpu": "100m"}}, "the maximum cpu of a Pod is 100m, and the limit of the pod is"),
    ],
    ids=["max", "min", "ratio", "pod"],
)
def test_a_limit_range_that_rejects_the_pod_is_a_failure(item: dict[str, Any], message: str) -> None:
    found = limit_ranges_finding([limit_range(**item)], spec(), "agents")
    assert found.status == "failure"
    assert found.message.startswith(f"LimitRange r: {message}")
    assert "edit limitrange r" in found.hint


def test_a_limit_range_counts_the_limit_of_a_container_as_its_request_if_it_has_none() -> None:
    container = {"name": "main", "resources": {"limits": {"memory": "64Mi"}}}
    found = limit_ranges_finding([limit_range(min={"memory": "128Mi"})], {"containers": [container]}, "agents")
    assert found.message.startswith("LimitRange r: the minimum memory of a Container is 128Mi, and the request")


def test_a_limit_range_that_admits_the_pod_is_named() -> None:
    item = {"max": {"cpu": "4"}, "min": {"cpu": "100m"}, "maxLimitRequestRatio": {"cpu": "10"}}
    assert limit_ranges_finding([limit_range(**item)], spec(), "a") == Finding("ok", "the pod respects r")
    assert limit_ranges_finding([limit_range(type="PersistentVolumeClaim")], spec(), "a").status == "ok"


def test_sidecars_add_to_the_requests_of_a_pod_and_init_containers_count_if_they_are_larger() -> None:
    def container(cpu: str, **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    pod = {
        "initContainers": [container("100m", restartPolicy="Always"), container("2")],
        "containers": [container("200m"), container("300m")],
        "overhead": {"memory": "10Mi"},
    }
    assert {name: str(each) for name, each in pod_resources(pod, "requests").items()} == {
        "cpu": "2100m",
        "memory": "10Mi",
    }


def test_the_overhead_of_a_pod_is_added_only_to_limits_that_exist() -> None:
    pod = {"containers": [{"resources": {"limits": {"cpu": "1"}}}], "overhead": {"cpu": "100m", "memory": "10Mi"}}
    assert {name: str(each) for name, each in pod_resources(pod, "limits").items()} == {"cpu": "1100m"}


def test_the_request_of_a_container_is_its_limit_if_it_has_none() -> None:
    resources = {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    pod = {"containers": [{"resources": resources}]}
    assert {name: str(each) for name, each in pod_resources(pod, "requests").items()} == {
        "cpu": "100m",
        "memory": "1Gi",
    }


# -- the namespace and its policies ---------------------------------------------------------------------------


def namespace(level: str | None, **more: Any) -> dict[str, Any]:
    labels = {} if level is None else {"pod-security.kubernetes.io/enforce": level}
    return {"metadata": {"name": "agents", "labels": labels, **more}, "status": {"phase": "Active"}}


@pytest.mark.parametrize("level", [None, "privileged", "baseline", "restricted"])
def test_our_pod_is_admitted_at_every_pod_security_level(level: str | None) -> None:
    assert namespace_finding(namespace(level), spec()).status == "ok"


def test_a_pod_that_a_webhook_weakened_violates_pod_security() -> None:
    weakened = spec()
    weakened["containers"].append({"name": "sidecar", "image": "x"})
    found = namespace_finding(namespace("restricted"), weakened)
    assert found.status == "failure"
    assert 'container "sidecar"' in found.message
    assert namespace_finding(namespace("baseline"), weakened).status == "warning"


def test_a_namespace_that_is_being_deleted_is_reported() -> None:
    deleting = namespace(None, deletionTimestamp="2026-11-27T10:00:00Z")
    assert namespace_finding(deleting, spec()).message == "agents is being deleted"


def test_an_unknown_level_is_enforced_as_restricted() -> None:
    level = 'restricted (its level is unknown: "strict")'
    assert namespace_finding(namespace("strict"), spec()).message.startswith(
        f"agents enforces Pod Security {level},"
    )
    found = namespace_finding(namespace("strict"), {**spec(), "securityContext": {}})
    assert (found.status, level in found.message) == ("failure", True)
    assert found.hint.startswith("Correct the label pod-security.kubernetes.io/enforce.")


LABELS = job()["spec"]["template"]["metadata"]["labels"]


def policy(selector: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"podSelector": selector, **more}}


OURS = {"matchLabels": {"app.kubernetes.io/managed-by": "gke-sandbox"}}
BOTH = ["Ingress", "Egress"]


@pytest.mark.parametrize(
    ("policies", "status", "message"),
    [
        ([], "warning", "no NetworkPolicy restricts"),
        ([policy(OURS, policyTypes=BOTH)], "ok", "p denies all egress"),
        ([policy({}, policyTypes=BOTH)], "ok", "p denies all egress"),
        ([policy({"matchLabels": {"app": "other"}}, policyTypes=BOTH)], "warning", "no NetworkPolicy restricts"),
        ([policy(OURS)], "warning", "no NetworkPolicy restricts"),
        ([policy(OURS, policyTypes=["Egress"])], "warning", "but no NetworkPolicy restricts ingress"),
        ([policy(OURS, policyTypes=BOTH, egress=[{}])], "ok", "some egress is allowed by p"),
        (
            [
                policy(
                    {"matchExpressions": [{"key": "gke-sandbox/session", "operator": "Exists"}]}, policyTypes=BOTH
                )
            ],
            "ok",
            "p denies all egress",
        ),
        (
            [policy({"matchExpressions": [{"key": "x", "operator": "In", "values": ["y"]}]}, policyTypes=BOTH)],
            "warning",
            "no NetworkPolicy restricts",
        ),
    ],
    ids=["none", "ours", "all pods", "other pods", "ingress only", "egress only", "allows", "exists", "in"],
)
def test_network_policies_are_read(policies: list[dict[str, Any]], status: str, message: str) -> None:
    found = network_policies_finding(policies, LABELS, "agents")
    assert found.status == status
    assert message in found.message


# -- admission ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", ["dry-run", "execution-success", "execution-mounted", "quota-exceeded"])
def test_the_defaults_of_the_recorded_server_are_no_differences(recording: str) -> None:
    exchanges = json.loads((RECORDED / f"{recording}.json").read_text())["exchanges"]
    jobs = [
        (each["request"]["body"], each["response"]["body"])
        for each in exchanges
        if each["request"]["method"] == "POST" and each["request"]["path"].endswith("/jobs")
    ]
    assert jobs
    assert [job_differences(*each) for each in jobs] == [[]] * len(jobs)


def test_each_kind_of_difference_is_listed() -> None:
    sent, received = job(env={"A": "1"}, memory_limit="1024Mi"), job(env={"A": "1"}, memory_limit="1Gi")
    received["spec"]["suspend"] = True
    received["metadata"]["labels"]["team"] = "a"
    pod = received["spec"]["template"]["spec"]
    pod["nodeSelector"] = {"pool": "x"}
    pod["tolerations"].append({"key": "k", "operator": "Exists"})
    del pod["enableServiceLinks"]
    (container,) = pod["containers"]
    container["resources"]["requests"]["cpu"] = "500m"
    container["env"].append({"name": "B", "value": "2"})
    pod["containers"].append({"name": "sidecar", "image": "x"})
    assert job_differences(sent, received) == [
        'metadata.labels.team: added "a"',
        "spec.template.spec.enableServiceLinks: removed false",
        'spec.template.spec.tolerations: added {"key": "k", "operator": "Exists"}',
        'spec.template.spec.containers[code-runner].env[B]: added {"name": "B", "value": "2"}',
        'spec.template.spec.containers[code-runner].resources.requests.cpu: "200m" became "500m"',
        'spec.template.spec.containers[sidecar]: added {"name": "sidecar", "image": "x"}',
        'spec.template.spec.nodeSelector: added {"pool": "x"}',
        "spec.suspend: added true",
    ]


# -- the report of the probe ----------------------------------------------------------------------------------

EXPECTED = {"run_as_user": 1001, "run_as_group": 1001, "memory_limit": "512Mi", "changed_limits": {}}
GOOD: dict[str, Any] = {
    "version": "Linux version 4.4.0 (x)",
    "is_gvisor": True,
    "tested": ["DNS", "the API server"],
    "reachable": [],
    "token": False,
    "writable": ["/dev/shm", "/tmp"],
    "uid": 1001,
    "gid": 1001,
    "capabilities": 0,
    "memory": 512 << 20,
    "cpus": 1,
    "home": "/tmp/home",
    "home_writable": True,
    "directory_writable": True,
}


def test_a_good_report_has_only_good_findings() -> None:
    found = probe_findings(json.dumps(GOOD), EXPECTED)
    assert {each.status for each in found.values()} == {"ok"}
    assert len(found) == 7


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({"is_gvisor": False}, "kernel", "not gVisor: the kernel is Linux version 4.4.0"),
        ({"reachable": ["the metadata server"]}, "network", "reachable: the metadata server"),
        ({"token": True}, "token", "there is a service account token"),
        ({"writable": ["/tmp", "/tmpfiles"]}, "files", "writable: /tmpfiles"),
        ({"directory_writable": False}, "files", "the working directory is not writable"),
        ({"uid": 0}, "user", "uid 0, gid 1001, not uid 1001, gid 1001"),
        ({"capabilities": 0x400}, "user", "with capabilities 0x400"),
        ({"home": "", "home_writable": False}, "HOME", "HOME is not writable: not set"),
    ],
    ids=str,
)
def test_each_weakness_is_a_failure(change: dict[str, Any], name: str, message: str) -> None:
    found = probe_findings(json.dumps({**GOOD, **change}), EXPECTED)
    failures = {key: each for key, each in found.items() if each.status == "failure"}
    assert list(failures) == [f"inside: {name}"]
    assert message in failures[f"inside: {name}"].message


def test_a_memory_limit_that_is_not_visible_is_skipped() -> None:
    for memory in (24 << 30, None):
        assert (
            probe_findings(json.dumps({**GOOD, "memory": memory}), EXPECTED)["inside: limits"].status == "skipped"
        )


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"memory": "256Mi"}, "warning", "the cluster changed the limits: memory 256Mi"),
        ({"cpu": "1", "memory": "none"}, "failure", "the cluster changed the limits: cpu 1, memory none"),
    ],
)
def test_limits_that_the_cluster_changed_are_reported(changed: dict[str, str], status: str, message: str) -> None:
    found = probe_findings(json.dumps(GOOD), {**EXPECTED, "changed_limits": changed})["inside: limits"]
    assert (found.status, found.message) == (status, message)
    assert found.hint


@pytest.mark.parametrize("output", ["", "[]", "{}", '{"version": 1'])
def test_output_that_is_no_report_is_a_failure(output: str) -> None:
    (found,) = probe_findings(output, EXPECTED).values()
    assert found.status == "failure"
    assert "python3" in found.hint
