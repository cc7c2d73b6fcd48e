"""The state of an embedded cluster: its objects, clock and options."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from anyio.abc import TaskGroup

from .apiserver.rbac import Caller
from .apiserver.resources import (
    ALL,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    RESOURCE_QUOTAS,
    RUNTIME_CLASSES,
    ResourceType,
)
from .controllers.container_streams import ContainerStreams
from .controllers.events import EventRecorder
from .controllers.logs import ContainerLog
from .faults import FaultPlan
from .latency import Pace
from .objects import Calendar, IdGenerator, Json
from .runtimes.base import Runtime
from .store import Store

NODE = "node1"

SERVER_VERSION: Json = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.2+embedded",
    "platform": "linux/amd64",
}

RUNTIME_CLASS = "gvisor"
SERVICE_ACCOUNT = "default"
# https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
PRIORITY_CLASSES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


@dataclass(frozen=True)
class Quota:
    """A ResourceQuota that limits the number of pods that have not ended, of Jobs, or of ConfigMaps."""

    name: str
    pods: int | None = None
    jobs: int | None = None
    config_maps: int | None = None

    @property
    def hard(self) -> dict[str, int]:
        """The limits by their names in a ResourceQuota."""
        limits = {"pods": self.pods, "count/jobs.batch": self.jobs, "configmaps": self.config_maps}
        return {name: limit for name, limit in limits.items() if limit is not None}


@dataclass(frozen=True)
class Namespace:
    """A namespace with its Pod Security level and quota.

    `network_policy`: whether a NetworkPolicy denies all traffic of its pods. The runtime must enforce it.
    """

    name: str
    pod_security: Literal["privileged", "restricted"] = "privileged"
    quota: Quota | None = None
    network_policy: bool = False


class ClusterState:
    """The state of one embedded cluster. Its controllers run in the task group `tasks`; see `LocalTransport`."""

    def __init__(
        self,
        tasks: TaskGroup,
        *,
        runtime: Runtime,
        namespaces: Iterable[str | Namespace],
        faults: FaultPlan,
        pace: Pace,
        node_labels: Mapping[str, str],
        objects: Iterable[Json],
        caller: Caller,
        now: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        self.runtime = runtime
        self.pace = pace
        self.faults = faults
        self.caller = caller
        self.calendar = Calendar(now)
        self.ids = IdGenerator(rng)
        self.tasks = tasks
        self.store = Store(self.calendar, self.ids)
        self.events = EventRecorder(self.store, self.calendar, NODE)
        named = (one if isinstance(one, Namespace) else Namespace(one) for one in namespaces)
        self.namespaces = {namespace.name: namespace for namespace in named}
        self.logs: dict[str, ContainerLog] = {}
        """The logs on the node, by the uid of the pod."""
        self.streams: dict[str, ContainerStreams] = {}
        """The streams of the running containers, by the uid of the pod."""
        self._populate(node_labels, objects)

    def _populate(self, node_labels: Mapping[str, str], objects: Iterable[Json]) -> None:
        for name, namespace in self.namespaces.items():
            body = {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
            labels = {"kubernetes.io/metadata.name": name}
            if namespace.pod_security != "privileged":
                labels["pod-security.kubernetes.io/enforce"] = namespace.pod_security
            self._create(NAMESPACES, name, labels, body)
            if namespace.quota is not None:
                hard = {key: str(limit) for key, limit in namespace.quota.hard.items()}
                self._create(RESOURCE_QUOTAS, namespace.quota.name, {}, {"spec": {"hard": hard}}, name)
            if namespace.network_policy:
                body = {"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}
                self._create(NETWORK_POLICIES, "no-network", {}, body, name)
        self._create(RUNTIME_CLASSES, RUNTIME_CLASS, {}, {"handler": "runsc"})
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is ready"}
        body = {"spec": {}, "status": {"conditions": [ready]}}
        labels = {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux", **node_labels}
        self._create(NODES, NODE, labels, body)
        for obj in objects:
            resource = next(resource for resource in ALL if resource.kind == obj["kind"])
            self.store.create(resource, self.store.prepare({"apiVersion": resource.api_version, **obj}))

    def _create(
        self, resource: ResourceType, name: str, labels: Mapping[str, str], body: Json, namespace: str = ""
    ) -> None:
        metadata = {"name": name, "namespace": namespace, "labels": dict(labels)}
        obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata, **body}
        self.store.create(resource, self.store.prepare(obj))
