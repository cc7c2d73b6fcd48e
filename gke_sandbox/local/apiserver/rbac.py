"""Who may do what: the caller's name and the rules of one Role.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..objects import Json

# One entry for each default role that opens paths to everybody.
_OPEN_PATHS = (
    (
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ),
    ("/.well-known", "/.well-known/*"),
    ("/healthz", "/livez", "/readyz", "/version", "/version/"),
    (
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/",
        "/openid/v1/jwks",
        "/openid/v1/jwks/",
    ),
)


@dataclass(frozen=True)
class Rule:
    """Verbs on resources (with subresources, as in ``pods/log``) of API groups; ``*`` is all of them."""

    verbs: Sequence[str]
    groups: Sequence[str]
    resources: Sequence[str]

    def allows(self, verb: str, group: str, resource: str) -> bool:
        return _in(verb, self.verbs) and _in(group, self.groups) and _in(resource, self.resources)

    def to_json(self) -> Json:
        return {"verbs": list(self.verbs), "apiGroups": list(self.groups), "resources": list(self.resources)}


def _in(value: str, allowed: Iterable[str]) -> bool:
    return any(one in ("*", value) for one in allowed)


# What every authenticated caller may do.
# https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings
_BASIC = (
    Rule(("create",), ("authorization.k8s.io",), ("selfsubjectaccessreviews", "selfsubjectrulesreviews")),
    Rule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",)),
)


@dataclass(frozen=True)
class Caller:
    """The one who sends all requests, with a Role in one namespace (None: in all, and beyond them)."""

    user: str
    role: str
    namespace: str | None
    rules: tuple[Rule, ...]

    @classmethod
    def admin(cls) -> Caller:
        """May do everything."""
        return cls("kubernetes-admin", "cluster-admin", None, (Rule(("*",), ("*",), ("*",)),))

    @classmethod
    def service_account(cls, namespace: str, name: str, rules: Iterable[Rule] = ()) -> Caller:
        """A service account whose Role and RoleBinding are called as it is."""
        return cls(f"system:serviceaccount:{namespace}:{name}", name, namespace, tuple(rules))

    def allowed(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """`resource` with its subresource; `namespace` is empty for what has none."""
        if any(rule.allows(verb, group, resource) for rule in _BASIC):
            return True
        if self.namespace is not None and namespace != self.namespace:
            return False
        return any(rule.allows(verb, group, resource) for rule in self.rules)

    def refusal(self, verb: str, group: str, resource: str, namespace: str) -> str:
        """What a 403 says after ``is forbidden:``."""
        scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        return f'User "{self.user}" cannot {verb} resource "{resource}" in API group "{group}" {scope}'

    def why(self) -> str:
        """The reason that an access review gives."""
        if self.namespace is None:
            return (
                f'RBAC: allowed by ClusterRoleBinding "{self.role}" of ClusterRole "{self.role}" to User '
                f'"{self.user}"'
            )
        bound = f"{self.role}/{self.namespace}"
        return f'RBAC: allowed by RoleBinding "{bound}" of Role "{self.role}" to ServiceAccount "{bound}"'


def access_review(caller: Caller, review: Json) -> Json:
    """SelfSubjectAccessReview: may I?"""
    spec = review.get("spec", {})
    if "nonResourceAttributes" in spec:
        asked = spec["nonResourceAttributes"]
        path = asked.get("path", "")
        allowed = asked.get("verb") == "get" and any(path in paths for paths in _OPEN_PATHS)
        return _reviewed("SelfSubjectAccessReview", {"nonResourceAttributes": asked}, {"allowed": allowed})
    asked = {name: value for name, value in spec.get("resourceAttributes", {}).items() if value}
    resource = asked.get("resource", "")
    if asked.get("subresource"):
        resource += f"/{asked['subresource']}"
    allowed = caller.allowed(asked.get("verb", ""), asked.get("group", ""), resource, asked.get("namespace", ""))
    status: Json = {"allowed": allowed}
    if allowed:
        status["reason"] = caller.why()
    return _reviewed("SelfSubjectAccessReview", {"resourceAttributes": asked}, status)


def rules_review(caller: Caller, review: Json) -> Json:
    """SelfSubjectRulesReview: what may I in this namespace?"""
    namespace = review.get("spec", {}).get("namespace", "")
    rules = list(_BASIC)
    if caller.namespace in (None, namespace):
        rules.extend(caller.rules)
    status = {
        "resourceRules": [rule.to_json() for rule in rules],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": list(paths)} for paths in _OPEN_PATHS],
        "incomplete": False,
    }
    return _reviewed("SelfSubjectRulesReview", {}, status)


def self_review(caller: Caller) -> Json:
    """SelfSubjectReview: who am I?"""
    groups = ["system:authenticated"]
    if caller.user.startswith("system:serviceaccount:"):
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{caller.namespace}", *groups]
    return {
        "kind": "SelfSubjectReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {},
        "status": {"userInfo": {"username": caller.user, "groups": groups}},
    }


def _reviewed(kind: str, spec: Json, status: Json) -> Json:
    return {
        "kind": kind,
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": spec,
        "status": status,
    }
