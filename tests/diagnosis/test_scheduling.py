"""The reason why no node accepts a pod: of several, the one that is about nodes that may accept it later."""

from __future__ import annotations

from typing import Any

import pytest

from gke_sandbox._diagnosis import WaitReason, pod_wait_reason, read_pod

CONTAINER = "code-runner"
GVISOR = {"sandbox.gke.io/runtime": "gvisor"}
MISMATCH = "node(s) didn't match Pod's node affinity/selector"
TAINT = "node(s) had untolerated taint"


def wait(
    *reasons: str,
    selector: dict[str, str] | None = None,
    sent: dict[str, str] | None = None,
    runtime_class: str | None = "gvisor",
) -> WaitReason:
    """Return the wait reason of a pod that each of the reasons keeps from one node.

    `sent`: the node selector of the caller; `selector`: that of the pod, to which the RuntimeClass may have added.
    """
    count = len(reasons)
    counted = ", ".join(f"1 {each}" for each in reasons)
    message = (
        f"0/{count} nodes are available: {counted}. no new claims to deallocate, preemption: 0/{count} nodes are "
        f"available: {count} Preemption is not helpful for scheduling."
    )
    spec: dict[str, Any] = {"nodeSelector": selector or sent or {}, "runtimeClassName": runtime_class}
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    pod = {"metadata": {"name": "p"}, "spec": spec, "status": {"phase": "Pending", "conditions": [condition]}}
    found = read_pod(pod, CONTAINER, node_selector=sent or {}).wait_reason
    assert found is not None
    assert found.message.startswith(message)
    assert not found.is_permanent
    return found


def test_a_node_selector_of_the_caller_that_matches_nothing_is_not_reported_as_missing_gvisor_nodes() -> None:
    found = wait(MISMATCH, MISMATCH, sent={"pool": "big"}, selector={"pool": "big", **GVISOR})
    assert found.cause.name == "node_selector_unmatched"
    assert "The pod selects nodes with pool=big, sandbox.gke.io/runtime=gvisor." in found.message
    assert "node_selector" in found.cause.hint


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "no_gvisor_node"),
        ({"selector": GVISOR}, "no_gvisor_node"),
        ({"sent": GVISOR, "runtime_class": None}, "no_gvisor_node"),
        ({"runtime_class": None}, "unschedulable"),
    ],
)
def test_gvisor_is_the_reason_only_if_the_pod_asks_for_it(options: Any, name: str) -> None:
    assert wait(MISMATCH, **options).cause.name == name


@pytest.mark.parametrize(
    ("reasons", "name"),
    [
        ((f"{TAINT} {{node.kubernetes.io/disk-pressure: }}", MISMATCH), "node_pressure"),
        ((MISMATCH, f"{TAINT} {{node.kubernetes.io/not-ready: }}"), "node_not_ready"),
        ((MISMATCH, "node(s) were unschedulable"), "node_cordoned"),
        ((f"{TAINT} {{team: x}}", "node(s) were unschedulable"), "node_cordoned"),
        ((f"{TAINT} {{team: x}}", "Insufficient cpu"), "not_enough_cpu"),
        ((MISMATCH, "Too many pods"), "not_enough_room"),
        ((f"{TAINT} {{team: x}}", f"{TAINT} {{nvidia.com/gpu: present}}"), "node_tainted"),
        ((f"{TAINT}(s)", f"{TAINT}(s)"), "node_tainted"),
        # Nodes for other programs and nodes without gVisor; or nodes with gVisor that are not ready.
        ((f"{TAINT}(s)", MISMATCH), "unschedulable"),
        ((f"{TAINT} {{node-role.kubernetes.io/control-plane: }}", MISMATCH), "no_gvisor_node"),
        ((f"{TAINT} {{node-role.kubernetes.io/control-plane: }}",), "node_tainted"),
        (("node(s) didn't match pod topology spread constraints",), "unschedulable"),
    ],
)
def test_of_several_reasons_the_one_that_may_pass_counts(reasons: tuple[str, ...], name: str) -> None:
    assert wait(*reasons).cause.name == name


@pytest.mark.parametrize(
    ("reason", "permanent"),
    [
        (f"{TAINT} {{node.kubernetes.io/disk-pressure: }}", False),
        (f"{TAINT} {{node.kubernetes.io/unreachable: }}", False),
        ("node(s) were unschedulable", False),
        (MISMATCH, True),
    ],
)
def test_an_autoscaler_that_adds_no_node_does_not_end_the_wait_for_a_node_that_may_come_back(
    reason: str, permanent: bool
) -> None:
    event = {"reason": "NotTriggerScaleUp", "message": "pod didn't trigger scale-up: 1 node(s) didn't match"}
    found = pod_wait_reason([event], wait(reason))
    assert (found is not None and found.is_permanent) is permanent
