"""The verb, resource, namespace and name of an API request. Pure.

https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ApiRequest:
    """One request to the Kubernetes API.

    `verb` and `resource` are empty for a path that is not the path of a resource.
    """

    method: str
    path: str
    query: Mapping[str, str]
    verb: str = ""
    group: str = ""
    version: str = ""
    plural: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    body: bytes = field(default=b"", repr=False)

    @property
    def resource(self) -> str:
        """The resource with its subresource, as in ``pods/log``."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural

    def flag(self, name: str) -> bool:
        """Return whether a parameter of the query is true."""
        return self.query.get(name, "").lower() in ("true", "1")


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


def parse(method: str, path: str, query: Mapping[str, str], body: bytes) -> ApiRequest:
    """Return the parsed request."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return ApiRequest(method, path, query, body=body)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        return ApiRequest(method, path, query, body=body)
    plural, name, subresource = (*rest, "", "", "")[:3]
    if plural == "namespaces":
        # For permissions, a namespace is in itself.
        namespace = name
    return ApiRequest(
        method,
        path,
        query,
        _verb(method, name, query),
        group,
        version,
        plural,
        subresource,
        namespace,
        name,
        body,
    )


def _verb(method: str, name: str, query: Mapping[str, str]) -> str:
    if method in ("GET", "HEAD"):
        if name:
            return "get"
        return "watch" if query.get("watch", "").lower() in ("true", "1") else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    return _VERBS.get(method, method.lower())
