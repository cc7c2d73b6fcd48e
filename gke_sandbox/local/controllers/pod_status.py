"""The status of a pod as the scheduler and the kubelet write it, as JSON.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from ..objects import Calendar, Json
from ..runtimes.base import ContainerExit

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]

HOST_IP = "192.0.2.2"

# The kubelet reports these messages for a container that it cannot find when the pod is removed.
LOST_MESSAGE = "The container could not be located when the pod was terminated"
LOST_RUNNING_MESSAGE = (
    "The container could not be located when the pod was deleted.  The container used to be Running"
)


def scheduled(pod: Json, node: str, stamp: str) -> Json:
    """Return the pod, bound to the node."""
    condition = _condition("PodScheduled", True, stamp)
    status = {**pod["status"], "conditions": [condition]}
    # The binding keeps the order of the fields in the status.
    return {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": status}


def unschedulable(pod: Json, message: str, stamp: str) -> Json:
    """Return the pod with the condition that it is unschedulable."""
    condition = _condition("PodScheduled", False, stamp, "Unschedulable", message)
    condition["observedGeneration"] = pod["metadata"]["generation"]
    return {**pod, "status": {**pod["status"], "conditions": [condition]}}


def disrupted(pod: Json, reason: str, message: str, stamp: str) -> Json:
    """Return the pod with the condition that it is about to be terminated.

    https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
    """
    condition = _condition("DisruptionTarget", True, stamp, reason, message)
    conditions = [*pod["status"].get("conditions", ()), condition]
    return {**pod, "status": {**pod["status"], "conditions": conditions}}


def _condition(kind: str, true: bool, stamp: str, reason: str = "", message: str = "") -> Json:
    condition: Json = {
        "type": kind,
        "status": "True" if true else "False",
        "lastProbeTime": None,
        "lastTransitionTime": stamp,
    }
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def full_image_name(image: str) -> str:
    """Return the image with its registry, as the container runtime reports it."""
    host, slash, _ = image.partition("/")
    if not slash:
        return f"docker.io/library/{image}"
    return image if "." in host or ":" in host or host == "localhost" else f"docker.io/{image}"


@dataclass
class ContainerStatus:
    """The kubelet's state of one container. `state` and `last_state` are in the form of the API."""

    state: Json = field(default_factory=lambda: waiting("ContainerCreating"))
    last_state: Json = field(default_factory=dict)
    container_id: str = ""
    restarts: int = 0
    probed: bool = True
    """Whether the startup probe has succeeded, or there is none."""

    @property
    def started(self) -> bool:
        return "running" in self.state and self.probed

    def ended_with(self, code: int) -> bool:
        return bool("terminated" in self.state and self.state["terminated"]["exitCode"] == code)

    def of_container(self, container: Json, *, ready: bool) -> Json:
        """Return the entry of the container in the status of its pod."""
        status: Json = {
            "name": container["name"],
            "state": self.state,
            "lastState": self.last_state,
            "ready": ready,
            "restartCount": self.restarts,
            "image": full_image_name(container["image"]) if self.container_id else container["image"],
            "imageID": image_id(container["image"]) if self.container_id else "",
            "started": self.started,
        }
        if self.container_id:
            status["containerID"] = f"containerd://{self.container_id}"
            if container["resources"].get("requests"):
                status["allocatedResources"] = container["resources"]["requests"]
            if container["resources"]:
                status["resources"] = container["resources"]
        mounts = container.get("volumeMounts")
        if mounts:
            status["volumeMounts"] = [_mount(mount) for mount in mounts]
        return status


@dataclass
class PodStatus(ContainerStatus):
    """The kubelet's state of one pod and of its container; `init` has the init containers and sidecars by name."""

    init: dict[str, ContainerStatus] = field(default_factory=dict)
    phase: Phase = "Pending"
    sandbox: bool = False
    pod_ip: str = ""
    reason: str = ""
    message: str = ""
    rejected: bool = False
    """Whether the kubelet has not accepted the pod; then the status contains nothing about its containers."""
    start_time: str = ""
    _transitions: dict[str, tuple[bool, str]] = field(default_factory=dict)

    def to_json(self, pod: Json, calendar: Calendar) -> Json:
        """Return the current status of `pod`."""
        stamp = calendar.stamp()
        container = pod["spec"]["containers"][0]
        init = [(one, self.init[one["name"]]) for one in pod["spec"].get("initContainers", ()) if self.init]
        generation = pod["metadata"]["generation"]
        self.start_time = self.start_time or stamp
        if self.rejected:
            return {
                **pod["status"],
                "phase": self.phase,
                "message": self.message,
                "reason": self.reason,
                "startTime": self.start_time,
            }
        status: Json = {
            "observedGeneration": generation,
            "phase": self.phase,
            "conditions": self._conditions(pod, container["name"], init, generation, stamp),
        }
        if self.message:
            status["message"] = self.message
        if self.reason:
            status["reason"] = self.reason
        status["hostIP"] = HOST_IP
        status["hostIPs"] = [{"ip": HOST_IP}]
        if self.pod_ip:
            status["podIP"] = self.pod_ip
            status["podIPs"] = [{"ip": self.pod_ip}]
        status["startTime"] = self.start_time
        if init:
            status["initContainerStatuses"] = [
                one.of_container(spec, ready=_is_initialized(spec, one)) for spec, one in init
            ]
        status["containerStatuses"] = [self.of_container(container, ready="running" in self.state)]
        status["qosClass"] = pod["status"]["qosClass"]
        resources = container["resources"]
        if resources.get("requests"):
            status["allocatedResources"] = resources["requests"]
        if resources:
            status["resources"] = resources
        return status

    def _conditions(
        self, pod: Json, container: str, init: list[tuple[Json, ContainerStatus]], generation: int, stamp: str
    ) -> list[Json]:
        ready = "running" in self.state and self.phase == "Running"
        completed = self.ended_with(0)
        pending = [spec["name"] for spec, one in init if not _is_initialized(spec, one)]
        initialized = not pending or "running" in self.state or "terminated" in self.state
        incomplete = "" if initialized else f"containers with incomplete status: [{' '.join(pending)}]"
        uninitialized = "PodCompleted" if completed else "" if initialized else "ContainersNotInitialized"
        why = (
            "" if ready else "PodCompleted" if completed else "PodFailed" if self._ended else "ContainersNotReady"
        )
        message = f"containers with unready status: [{container}]" if why == "ContainersNotReady" else ""
        rows = (
            ("PodReadyToStartContainers", self.sandbox, "", ""),
            ("Initialized", initialized, uninitialized, incomplete),
            ("Ready", ready, why, message),
            ("ContainersReady", ready, why, message),
            ("PodScheduled", True, "", ""),
        )
        conditions = []
        for kind, true, reason, text in rows:
            before = self._transitions.get(kind)
            if before is None or before[0] is not true:
                before = self._transitions[kind] = (true, stamp)
            condition = _condition(kind, true, before[1], reason, text)
            conditions.append({"type": kind, "observedGeneration": generation, **condition})
        others = ("DisruptionTarget",)
        conditions += [one for one in pod["status"].get("conditions", ()) if one["type"] in others]
        return conditions

    @property
    def _ended(self) -> bool:
        return "terminated" in self.state or self.phase == "Failed"


def _is_initialized(container: Json, status: ContainerStatus) -> bool:
    """Return whether an init container has succeeded, or a sidecar has started."""
    return status.started if is_sidecar(container) else status.ended_with(0)


def is_sidecar(container: Json) -> bool:
    """Return whether an init container is a sidecar, which runs until the pod ends.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
    """
    return container.get("restartPolicy") == "Always"


def _mount(mount: Json) -> Json:
    reported = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        reported.update(readOnly=True, recursiveReadOnly="Disabled")
    return reported


def image_id(image: str) -> str:
    """Return a digest that is always the same for the same image."""
    return f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def waiting(reason: str, message: str = "") -> Json:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def running(started_at: str) -> Json:
    return {"running": {"startedAt": started_at}}


def terminated(exit_status: ContainerExit, container_id: str, started_at: str, finished_at: str) -> Json:
    state: Json = {"exitCode": exit_status.exit_code, "reason": exit_status.reason}
    if exit_status.message:
        state["message"] = exit_status.message
    state.update(startedAt=started_at, finishedAt=finished_at, containerID=f"containerd://{container_id}")
    return {"terminated": state}


def start_failed(message: str, container_id: str, stamp: str) -> Json:
    """Return the state of a container that the runtime could not start, which has no start time."""
    return terminated(ContainerExit(128, "StartError", message), container_id, "1970-01-01T00:00:00Z", stamp)


def lost(message: str) -> Json:
    """Return the state of a container that was removed with its pod before the kubelet saw its exit."""
    state = {
        "exitCode": 137,
        "reason": "ContainerStatusUnknown",
        "message": message,
        "startedAt": None,
        "finishedAt": None,
    }
    return {"terminated": state}
