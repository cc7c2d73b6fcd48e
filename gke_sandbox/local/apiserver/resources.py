"""The resource types of the embedded API server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ResourceType:
    """A resource type. A watch can start at most `window` changes in the past; before, it has expired."""

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
        """The name in messages: ``jobs.batch``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_READ: frozenset[str] = frozenset(("get", "list", "watch"))
_WRITE: frozenset[str] = frozenset(("create", "delete"))

JOBS = ResourceType("batch", "v1", "jobs", "Job", True, _READ | _WRITE)
PODS = ResourceType("", "v1", "pods", "Pod", True, _READ | {"delete"})
# A ConfigMap can have 1 MiB, and all changes of the window are kept in memory.
CONFIG_MAPS = ResourceType("", "v1", "configmaps", "ConfigMap", True, _READ | _WRITE, window=64)
EVENTS = ResourceType("", "v1", "events", "Event", True, _READ)
NAMESPACES = ResourceType("", "v1", "namespaces", "Namespace", False, _READ)
RESOURCE_QUOTAS = ResourceType("", "v1", "resourcequotas", "ResourceQuota", True, _READ)
LIMIT_RANGES = ResourceType("", "v1", "limitranges", "LimitRange", True, _READ)
NETWORK_POLICIES = ResourceType("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, _READ)
NODES = ResourceType("", "v1", "nodes", "Node", False, _READ)
RUNTIME_CLASSES = ResourceType("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", False, _READ)

ALL = (
    JOBS,
    PODS,
    CONFIG_MAPS,
    EVENTS,
    NAMESPACES,
    NODES,
    RUNTIME_CLASSES,
    RESOURCE_QUOTAS,
    LIMIT_RANGES,
    NETWORK_POLICIES,
)


def find(group: str, version: str, plural: str) -> ResourceType | None:
    """Return the resource type, or None."""
    for resource in ALL:
        if (resource.group, resource.version, resource.plural) == (group, version, plural):
            return resource
    return None
