"""What all parts of the embedded cluster share: its objects, its clock, its settings."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from anyio.abc import TaskGroup

from .apiserver.pod_security import Level
from .apiserver.rbac import Caller
from .apiserver.resources import NAMESPACES, NODES, RUNTIME_CLASSES, ResourceType
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
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}

# https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
_PRIORITY_CLASSES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


@dataclass(frozen=True)
class Quota:
    """A ResourceQuota that limits the number of pods that have not ended."""

    name: str
    pods: int


@dataclass(frozen=True)
class Namespace:
    """A namespace: its Pod Security level (enforced, and warned of), its quota, its service accounts."""

    name: str
    pod_security: Level = "privileged"
    quota: Quota | None = None
    service_accounts: Sequence[str] = ("default",)


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How the cluster is; what `LocalTransport` is given."""

    namespaces: tuple[Namespace, ...]
    runtime_classes: tuple[str, ...]
    node_labels: Mapping[str, str]
    priority_classes: Mapping[str, int]
    caller: Caller
    pace: Pace


class ClusterState:
    """The state of one embedded cluster. `tasks` is where its controllers run."""

    def __init__(
        self,
        runtime: Runtime,
        settings: ClusterOptions,
        faults: FaultPlan,
        now: Callable[[], datetime],
        rng: random.Random,
        tasks: TaskGroup,
    ) -> None:
        self.runtime = runtime
        self.settings = settings
        self.pace = settings.pace
        self.faults = faults
        self.calendar = Calendar(now)
        self.ids = IdGenerator(rng)
        self.tasks = tasks
        self.store = Store(self.calendar, self.ids)
        self.events = EventRecorder(self.store, self.calendar, NODE)
        self.namespaces = {namespace.name: namespace for namespace in settings.namespaces}
        self.priority_classes = {**_PRIORITY_CLASSES, **settings.priority_classes}
        self.logs: dict[str, ContainerLog] = {}
        """The logs on the node, by the uid of their pod."""
        self._populate()

    def _populate(self) -> None:
        for name in self.namespaces:
            body = {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
            self._create(NAMESPACES, name, {"kubernetes.io/metadata.name": name}, body)
        for name in self.settings.runtime_classes:
            self._create(RUNTIME_CLASSES, name, {}, {"handler": "runsc" if name == "gvisor" else name})
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is ready"}
        body = {"spec": {}, "status": {"conditions": [ready]}}
        labels = {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux", **self.settings.node_labels}
        self._create(NODES, NODE, labels, body)

    def _create(self, served: ResourceType, name: str, labels: Mapping[str, str], body: Json) -> None:
        metadata = {"name": name, "labels": dict(labels)}
        obj = {"kind": served.kind, "apiVersion": served.api_version, "metadata": metadata, **body}
        self.store.create(served, self.store.prepare(obj))


def as_namespaces(given: Iterable[str | Namespace]) -> tuple[Namespace, ...]:
    """Turn names into namespaces; of two with the same name the last one counts."""
    named = (one if isinstance(one, Namespace) else Namespace(one) for one in given)
    return tuple({namespace.name: namespace for namespace in named}.values())
