"""The kinds of object that this package speaks of, and where the API serves them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from ..errors import SpecError

__all__ = ["CONFIG_MAPS", "EVENTS", "JOBS", "NAMESPACES", "PODS", "RUNTIME_CLASSES", "Resource"]


@dataclass(frozen=True)
class Resource:
    """One resource of the API: ``group`` is empty for the core group, ``plural`` is its name in paths."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What stands in an object's ``apiVersion``: ``v1``, ``batch/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """Where the group and version begin: ``/api/v1``, ``/apis/batch/v1``."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of the collection, of one object, or of an object's subresource.

        `namespace` None means all namespaces (a collection only), and is the rule for resources that have
        none. Names are quoted. Raises `SpecError` for a name that cannot be one segment of a path, so that
        no name ever leads to another object's path.
        """
        # https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
        parts = [self.root]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", _segment("namespace", namespace)]
        elif self.namespaced and name is not None:
            raise SpecError("namespace", f"one of the {self.plural} is named within its namespace")
        parts.append(self.plural)
        if name is not None:
            parts.append(_segment("name", name))
            if subresource is not None:
                parts.append(_segment("subresource", subresource))
        return "/".join(parts)


def _segment(field: str, text: str) -> str:
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#path-segment-names
    # A name that is "." or ".." would be folded away before it is sent, "/" and "%" would mean something else.
    if not text or text in {".", ".."} or "/" in text or "%" in text:
        raise SpecError(
            field, f"{text!r} cannot be a name: it must be neither empty nor '.' nor '..', without '/' and '%'"
        )
    return quote(text, safe="")


JOBS = Resource("batch", "v1", "jobs", "Job")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
PODS = Resource("", "v1", "pods", "Pod")
EVENTS = Resource("", "v1", "events", "Event")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False)
