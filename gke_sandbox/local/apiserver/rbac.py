"""Authorization: the caller and the rules of one Role.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..objects import Json


@dataclass(frozen=True)
class Rule:
    """Verbs on resources (``pods``, ``pods/log``) of API groups; ``*`` means all."""

    verbs: Sequence[str]
    groups: Sequence[str]
    resources: Sequence[str]

    def allows(self, verb: str, group: str, resource: str) -> bool:
        """Return whether the rule allows this request."""
        return _in(verb, self.verbs) and _in(group, self.groups) and _in(resource, self.resources)


def _in(value: str, allowed: Iterable[str]) -> bool:
    return any(one in ("*", value) for one in allowed)


# The rules for every authenticated caller.
# https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings
_BASIC = (
    Rule(("create",), ("authorization.k8s.io",), ("selfsubjectaccessreviews",)),
    Rule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",)),
)


@dataclass(frozen=True)
class Caller:
    """The user of all requests, with a Role in one namespace, or a ClusterRole if `namespace` is None."""

    user: str
    role: str
    namespace: str | None
    rules: tuple[Rule, ...]

    @classmethod
    def admin(cls) -> Caller:
        """Return a caller that may do everything."""
        return cls("kubernetes-admin", "cluster-admin", None, (Rule(("*",), ("*",), ("*",)),))

    @classmethod
    def service_account(cls, namespace: str, name: str, rules: Iterable[Rule] = ()) -> Caller:
        """Return a service account; its Role and RoleBinding have the same name."""
        return cls(f"system:serviceaccount:{namespace}:{name}", name, namespace, tuple(rules))

    def allowed(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Return whether the request is allowed. `resource` includes the subresource; `namespace` can be empty."""
        if any(rule.allows(verb, group, resource) for rule in _BASIC):
            return True
        if self.namespace is not None and namespace != self.namespace:
            return False
        return any(rule.allows(verb, group, resource) for rule in self.rules)

    def denial(self, verb: str, group: str, resource: str, namespace: str) -> str:
        """Return the text of a 403 after ``is forbidden:``."""
        scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        return f'User "{self.user}" cannot {verb} resource "{resource}" in API group "{group}" {scope}'

    def reason(self) -> str:
        """Return the reason in an access review."""
        if self.namespace is None:
            return (
                f'RBAC: allowed by ClusterRoleBinding "{self.role}" of ClusterRole "{self.role}" to User '
                f'"{self.user}"'
            )
        bound = f"{self.role}/{self.namespace}"
        return f'RBAC: allowed by RoleBinding "{bound}" of Role "{self.role}" to ServiceAccount "{bound}"'


def access_review(caller: Caller, review: Json) -> Json:
    """Return the response to a SelfSubjectAccessReview."""
    spec = review.get("spec", {})
    attributes = {name: value for name, value in spec.get("resourceAttributes", {}).items() if value}
    resource = attributes.get("resource", "")
    if attributes.get("subresource"):
        resource += f"/{attributes['subresource']}"
    allowed = caller.allowed(
        attributes.get("verb", ""), attributes.get("group", ""), resource, attributes.get("namespace", "")
    )
    status: Json = {"allowed": allowed}
    if allowed:
        status["reason"] = caller.reason()
    return {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": {"resourceAttributes": attributes},
        "status": status,
    }


def self_review(caller: Caller, _review: Json) -> Json:
    """Return the response to a SelfSubjectReview."""
    groups = ["system:authenticated"]
    if caller.user.startswith("system:serviceaccount:"):
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{caller.namespace}", *groups]
    return {
        "kind": "SelfSubjectReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {},
        "status": {"userInfo": {"username": caller.user, "groups": groups}},
    }
