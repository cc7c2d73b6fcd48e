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
class PodStatus:
    """The kubelet's state of one pod. `state` and `last_state` are the container's, in the form of the API."""

    phase: Phase = "Pending"
    state: Json = field(default_factory=lambda: waiting("ContainerCreating"))
    last_state: Json = field(default_factory=dict)
    sandbox: bool = False
    container_id: str = ""
    pod_ip: str = ""
    restarts: int = 0
    reason: str = ""
    message: str = ""
    start_time: str = ""
    _transitions: dict[str, tuple[bool, str]] = field(default_factory=dict)

    def to_json(self, pod: Json, calendar: Calendar) -> Json:
        """Return the current status of `pod`."""
        stamp = calendar.stamp()
        container = pod["spec"]["containers"][0]
        generation = pod["metadata"]["generation"]
        self.start_time = self.start_time or stamp
        status: Json = {
            "observedGeneration": generation,
            "phase": self.phase,
            "conditions": self._conditions(pod, container["name"], generation, stamp),
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
        status["containerStatuses"] = [self._container(container)]
        status["qosClass"] = pod["status"]["qosClass"]
        resources = container["resources"]
        if resources.get("requests"):
            status["allocatedResources"] = resources["requests"]
        if resources:
            status["resources"] = resources
        return status

    def _conditions(self, pod: Json, container: str, generation: int, stamp: str) -> list[Json]:
        ready = "running" in self.state and self.phase == "Running"
        completed = self._ended_with(0)
        why = (
            "" if ready else "PodCompleted" if completed else "PodFailed" if self._ended else "ContainersNotReady"
        )
        message = f"containers with unready status: [{container}]" if why == "ContainersNotReady" else ""
        rows = (
            ("PodReadyToStartContainers", self.sandbox, "", ""),
            ("Initialized", True, "PodCompleted" if completed else "", ""),
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

    def _ended_with(self, code: int) -> bool:
        return bool("terminated" in self.state and self.state["terminated"]["exitCode"] == code)

    def _container(self, container: Json) -> Json:
        running = "running" in self.state
        status: Json = {
            "name": container["name"],
            "state": self.state,
            "lastState": self.last_state,
            "ready": running,
            "restartCount": self.restarts,
            "image": full_image_name(container["image"]) if self.container_id else container["image"],
            "imageID": image_id(container["image"]) if self.container_id else "",
            "started": running,
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
