"""The resources of the API that this package uses, and their paths."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from ..errors import SpecError

__all__ = [
    "CONFIG_MAPS",
    "EVENTS",
    "JOBS",
    "LIMIT_RANGES",
    "NAMESPACES",
    "NETWORK_POLICIES",
    "NODES",
    "PODS",
    "RESOURCE_QUOTAS",
    "RUNTIME_CLASSES",
    "SELF_SUBJECT_ACCESS_REVIEWS",
    "SELF_SUBJECT_REVIEWS",
    "VERSION",
    "Resource",
]


@dataclass(frozen=True)
class Resource:
    """A resource of the API. `group` is empty for the core group; `plural` is the name in paths."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The value of an object's ``apiVersion``: ``v1``, ``batch/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of the collection, of one object, or of a subresource of an object.

        If `namespace` is None, the path is the collection of all namespaces, or it is for a resource without
        namespaces. Names are quoted. Raise `SpecError` for a name that is not a valid path segment, so that no
        name can result in the path of another object.
        """
        # https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
        parts = [f"/{'apis' if self.group else 'api'}/{self.api_version}" if self.version else ""]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", _segment("namespace", namespace)]
        elif self.namespaced and name is not None:
            raise SpecError("namespace", f"is required for {self.plural}")
        parts.append(self.plural)
        if name is not None:
            parts.append(_segment("name", name))
            if subresource is not None:
                parts.append(_segment("subresource", subresource))
        return "/".join(parts)


def _segment(field: str, text: str) -> str:
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#path-segment-names
    # The HTTP client would remove "." and ".." from the path; "/" and "%" would change its meaning.
    if not text or text in {".", ".."} or "/" in text or "%" in text:
        raise SpecError(field, f"must not be empty, '.' or '..', and must not contain '/' or '%', got {text!r}")
    return quote(text, safe="")


JOBS = Resource("batch", "v1", "jobs", "Job")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
PODS = Resource("", "v1", "pods", "Pod")
EVENTS = Resource("", "v1", "events", "Event")
RESOURCE_QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False)
SELF_SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
SELF_SUBJECT_REVIEWS = Resource(
    "authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False
)
VERSION = Resource("", "", "version", "", namespaced=False)
"""Not a resource, but the path ``/version``."""
