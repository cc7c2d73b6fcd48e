"""The API server: authorization, verbs and their responses.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

from ..._fakes.api_request import ApiRequest
from ..cluster import SERVER_VERSION, ClusterState
from ..controllers.gc import DeleteOptions, Propagation, delete
from ..faults import ExpireWatch, WatchAction
from ..objects import Json, Key
from .admission import create, job_warnings, used_quota
from .decoding import decode
from .errors import (
    StatusError,
    bad_request,
    expired,
    forbidden,
    invalid,
    method_not_allowed,
    no_such_path,
    not_found,
    not_supported,
    success,
)
from .pod_attach import pod_attach
from .pod_logs import pod_log
from .rbac import access_review, self_review
from .resources import CONFIG_MAPS, JOBS, PODS, RESOURCE_QUOTAS, ResourceType, find
from .responses import Reply, error_reply, json_reply
from .schema import ACCESS_REVIEW, CONFIG_MAP, DELETE_OPTIONS, JOB, SELF_REVIEW, Fields
from .selectors import Selector
from .watching import WatchStream

_SCHEMAS: dict[str, Fields] = {JOBS.plural: JOB, CONFIG_MAPS.plural: CONFIG_MAP}
_REVIEWS = {
    "selfsubjectaccessreviews": ("authorization.k8s.io", "SelfSubjectAccessReview", ACCESS_REVIEW, access_review),
    "selfsubjectreviews": ("authentication.k8s.io", "SelfSubjectReview", SELF_REVIEW, self_review),
}
_HEALTH = ("/healthz", "/livez", "/readyz")

# https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/get.go: --min-request-timeout
MIN_WATCH_TIMEOUT = 1800.0

_PROPAGATIONS: tuple[Propagation, ...] = ("Background", "Foreground")
_ORPHAN_WARNING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background "
    "to remove them or set propagationPolicy=Orphan to suppress this warning"
)


class ApiServer:
    """Handles requests with the objects in the store of the cluster."""

    def __init__(self, cluster: ClusterState) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._caller = cluster.caller

    def handle(self, request: ApiRequest, headers: Mapping[str, str]) -> Reply:
        """Process a request and return the response. Raises `StatusError`."""
        if not request.plural:
            return self._non_resource(request)
        if not self._caller.allowed(request.verb, request.group, request.resource, request.namespace):
            raise self.forbidden(request)
        if request.plural in _REVIEWS and _REVIEWS[request.plural][0] == request.group:
            return self._review(request)
        resource = find(request.group, request.version, request.plural)
        if resource is None:
            raise no_such_path()
        if request.subresource:
            if resource is PODS and request.subresource == "log" and request.verb == "get":
                return pod_log(self._cluster, request)
            if resource is PODS and request.subresource == "attach" and request.verb in ("get", "create"):
                return pod_attach(self._cluster, request, headers)
            raise no_such_path()
        verb = request.verb
        has_namespace = not resource.namespaced or request.namespace or verb in ("list", "watch")
        if verb not in resource.verbs or not has_namespace:
            raise method_not_allowed()
        if verb == "get":
            return json_reply(200, self._existing(resource, request))
        if verb == "list":
            return self._list(resource, request)
        if verb == "watch":
            return self._watch(resource, request)
        if verb == "create":
            return self._create(resource, request)
        return self._delete(resource, request)

    def forbidden(self, request: ApiRequest) -> StatusError:
        """Return the 403 for a caller who lacks the permission."""
        resource = find(request.group, request.version, request.plural) or ResourceType(
            request.group, request.version, request.plural, "", True, frozenset()
        )
        why = self._caller.denial(request.verb, request.group, request.resource, request.namespace)
        return forbidden(resource, request.name, why)

    def _non_resource(self, request: ApiRequest) -> Reply:
        """Handle the paths that are not resources: version and health."""
        path = request.path.rstrip("/")
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        if path == "/version":
            return json_reply(200, SERVER_VERSION)
        if path in _HEALTH:
            return Reply(200, b"ok", "text/plain; charset=utf-8")
        return Reply(404, b"404 page not found\n", "text/plain; charset=utf-8")

    def _review(self, request: ApiRequest) -> Reply:
        group, kind, schema, review = _REVIEWS[request.plural]
        if request.verb != "create":
            raise method_not_allowed()
        body, _ = decode(request.body, schema, kind, f"{group}/{request.version}")
        return json_reply(201, review(self._caller, body))

    # Reading.

    def _existing(self, resource: ResourceType, request: ApiRequest) -> Json:
        namespace = request.namespace if resource.namespaced else ""
        obj = self._store.get(Key(resource.plural, namespace, request.name))
        if obj is None:
            raise not_found(resource, request.name)
        return self._with_usage(resource, obj)

    def _with_usage(self, resource: ResourceType, obj: Json) -> Json:
        """Return a ResourceQuota with its current usage; other objects unchanged."""
        if resource is not RESOURCE_QUOTAS:
            return obj
        used, hard = used_quota(self._cluster, obj["metadata"]["namespace"]), obj["spec"]["hard"]
        return {**obj, "status": {"hard": hard, "used": {name: str(used.get(name, 0)) for name in hard}}}

    def _list(self, resource: ResourceType, request: ApiRequest) -> Reply:
        selector = _selector(request)
        limit = _number(request, "limit") or 0
        after, revision = ("", ""), 0
        if token := request.query.get("continue"):
            after, revision = _read_token(token)
            if revision < self._store.history(resource).expired_to:
                raise expired("The provided continue parameter is too old to display a consistent list result.")
        # A later page contains newer objects under the old revision; a watch from there repeats these changes.
        revision = revision or self._store.revision
        objects = [
            self._with_usage(resource, obj)
            for obj in self._store.select(resource, request.namespace if resource.namespaced else "")
            if _sort_key(obj) > after and selector.matches(obj)
        ]
        metadata: Json = {"resourceVersion": str(revision)}
        if 0 < limit < len(objects):
            metadata["continue"] = _write_token(_sort_key(objects[limit - 1]), revision)
            metadata["remainingItemCount"] = len(objects) - limit
            objects = objects[:limit]
        items = [
            {name: value for name, value in obj.items() if name not in ("kind", "apiVersion")} for obj in objects
        ]
        body = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
        return json_reply(200, {**body, "items": items})

    def _watch(self, resource: ResourceType, request: ApiRequest) -> Reply:
        faults = self._cluster.faults.for_request(WatchAction, request)
        for fault in faults:
            if isinstance(fault, ExpireWatch) and fault.status:
                version = request.query.get("resourceVersion", "")
                raise expired(f"too old resource version: {version} ({self._store.revision})")
        revision = _number(request, "resourceVersion")
        timeout = _number(request, "timeoutSeconds")
        random_timeout = self._cluster.ids.between(MIN_WATCH_TIMEOUT, 2 * MIN_WATCH_TIMEOUT)
        stream = WatchStream(
            self._cluster,
            resource,
            faults,
            namespace=request.namespace if resource.namespaced else "",
            selector=_selector(request),
            revision=None if not revision or request.flag("sendInitialEvents") else revision,
            timeout=float(timeout) if timeout else random_timeout,
            bookmarks=request.flag("allowWatchBookmarks"),
        )
        return Reply(200, source=stream)

    # Writing.

    def _create(self, resource: ResourceType, request: ApiRequest) -> Reply:
        if request.name:
            raise method_not_allowed()
        schema, strict = _SCHEMAS[resource.plural], request.query.get("fieldValidation") == "Strict"
        body, warnings = decode(request.body, schema, resource.kind, resource.api_version, strict=strict)
        dry_run = request.query.get("dryRun") == "All"
        created = create(self._cluster, resource, body, request.namespace, dry_run)
        if resource is JOBS:
            warnings += job_warnings(self._cluster, created)
        return json_reply(201, created, warnings)

    def _delete(self, resource: ResourceType, request: ApiRequest) -> Reply:
        body: Json = {}
        if request.body:
            body, _ = decode(request.body, DELETE_OPTIONS, "DeleteOptions", "v1")
        policy = request.query.get("propagationPolicy") or body.get("propagationPolicy")
        warnings = [_ORPHAN_WARNING] if resource is JOBS and policy is None else []
        try:
            self._existing(resource, request)
            uid = body.get("preconditions", {}).get("uid")
            options = DeleteOptions(_propagation(resource, policy), body.get("gracePeriodSeconds"), uid)
            key = Key(resource.plural, request.namespace, request.name)
            obj, removed = delete(self._cluster, key, options)
        except StatusError as error:
            return error_reply(error, warnings)
        # The response is a Status if the object was removed at once, else the object; for pods always the pod.
        whole = not removed or resource is PODS
        return json_reply(200, obj if whole else success(resource, request.name, obj["metadata"]["uid"]), warnings)


def _selector(request: ApiRequest) -> Selector:
    return Selector.parse(request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))


def _propagation(resource: ResourceType, text: str | None) -> Propagation:
    """Return the policy of a DELETE. Orphaning, the default of a real server for Jobs, is not supported."""
    text = text or ("Orphan" if resource is JOBS else "Background")
    for policy in _PROPAGATIONS:
        if text == policy:
            return policy
    errors = [not_supported("propagationPolicy", text, _PROPAGATIONS)]
    raise invalid("DeleteOptions", "meta.k8s.io", "", errors)


def _number(request: ApiRequest, name: str) -> int | None:
    """Return a number of the query, or None if it is missing. Raises `StatusError`."""
    text = request.query.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        why = f'strconv.ParseInt: parsing "{text}": invalid syntax'
        raise bad_request(f"invalid resource version: {why}" if name == "resourceVersion" else why) from None


def _sort_key(obj: Json) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _write_token(after: tuple[str, str], revision: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([*after, revision]).encode()).decode()


def _read_token(token: str) -> tuple[tuple[str, str], int]:
    try:
        namespace, name, revision = json.loads(base64.urlsafe_b64decode(token))
        return (str(namespace), str(name)), int(revision)
    except (binascii.Error, ValueError, TypeError):
        raise bad_request("continue key is not valid: unable to decode the token") from None
