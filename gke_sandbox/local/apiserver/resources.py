"""The resources that the embedded cluster serves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ResourceType:
    """One resource. `window` is how many changes of it a watch may go back before it has expired."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    verbs: frozenset[str]
    window: int = 4096

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """``jobs.batch``: how messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_READ: frozenset[str] = frozenset(("get", "list", "watch"))
_WRITE: frozenset[str] = frozenset(("create", "delete", "deletecollection"))
_CHANGE: frozenset[str] = frozenset(("update", "patch"))

JOBS = ResourceType("batch", "v1", "jobs", "Job", True, _READ | _WRITE)
PODS = ResourceType("", "v1", "pods", "Pod", True, _READ | _WRITE)
# A ConfigMap may be 1 MiB, and every change in the window is held: so few of them.
CONFIG_MAPS = ResourceType("", "v1", "configmaps", "ConfigMap", True, _READ | _WRITE | _CHANGE, window=64)
EVENTS = ResourceType("", "v1", "events", "Event", True, _READ)
NAMESPACES = ResourceType("", "v1", "namespaces", "Namespace", False, _READ)
NODES = ResourceType("", "v1", "nodes", "Node", False, _READ)
RUNTIME_CLASSES = ResourceType("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", False, _READ)

ALL = (JOBS, PODS, CONFIG_MAPS, EVENTS, NAMESPACES, NODES, RUNTIME_CLASSES)


def find(group: str, version: str, plural: str) -> ResourceType | None:
    for served in ALL:
        if (served.group, served.version, served.plural) == (group, version, plural):
            return served
    return None
