"""The API server: permissions, verbs, and what they answer.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import base64
import binascii
import json

import anyio

from ..._fakes.api_request import ApiRequest
from ..cluster import SERVER_VERSION, ClusterState
from ..controllers.gc import DeleteOptions, Propagation, delete
from ..faults import Action, ExpireWatch
from ..objects import Json, Key
from .admission import create, job_warnings, update
from .decoding import Decoded, check_size, decode, decode_options, refuse_complaints
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
    too_new,
    unsupported_media_type,
)
from .pod_logs import pod_log
from .rbac import access_review, rules_review, self_review
from .resources import ALL, CONFIG_MAPS, JOBS, PODS, ResourceType, find
from .responses import Reply, json_reply, refused
from .schema import ACCESS_REVIEW, CONFIG_MAP, DELETE_OPTIONS, JOB, POD, RULES_REVIEW, SELF_REVIEW, Struct
from .selectors import Selector, parse
from .watching import WatchOptions, WatchStream

_STRUCTS: dict[str, Struct] = {JOBS.plural: JOB, PODS.plural: POD, CONFIG_MAPS.plural: CONFIG_MAP}
_REVIEWS = {
    "selfsubjectaccessreviews": ("authorization.k8s.io", ACCESS_REVIEW),
    "selfsubjectrulesreviews": ("authorization.k8s.io", RULES_REVIEW),
    "selfsubjectreviews": ("authentication.k8s.io", SELF_REVIEW),
}
_HEALTH = ("/healthz", "/livez", "/readyz")

# How long the server waits for a resourceVersion that is still to come.
_FRESHNESS_WAIT = 3.0
# https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/get.go: --min-request-timeout
_SHORTEST_WATCH = 1800.0

_PROPAGATIONS: tuple[Propagation, ...] = ("Background", "Foreground", "Orphan")
_MERGE_PATCH = "application/merge-patch+json"


class ApiServer:
    """Answers requests out of the cluster's store."""

    def __init__(self, cluster: ClusterState) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._caller = cluster.settings.caller

    async def handle(self, request: ApiRequest, content_type: str, watch_faults: list[Action]) -> Reply:
        """Carry a request out. Raises `StatusError`."""
        if not request.plural:
            return self._outside(request)
        self._authorize(request)
        if request.plural in _REVIEWS and _REVIEWS[request.plural][0] == request.group:
            return self._review(request)
        served = find(request.group, request.version, request.plural)
        if served is None:
            raise no_such_path()
        if request.subresource:
            if served is PODS and request.subresource == "log" and request.verb == "get":
                return pod_log(self._cluster, request)
            raise no_such_path()
        verb = request.verb
        placed = not served.namespaced or request.namespace or verb in ("list", "watch")
        if verb not in served.verbs or not placed:
            raise method_not_allowed()
        if verb == "get":
            return json_reply(200, self._existing(served, request))
        if verb == "list":
            return await self._list(served, request)
        if verb == "watch":
            return self._watch(served, request, watch_faults)
        if verb == "create":
            return self._create(served, request, content_type)
        if verb in ("update", "patch"):
            return self._update(served, request, content_type)
        if verb == "delete":
            return self._delete(served, request)
        return self._delete_collection(served, request)

    def _authorize(self, request: ApiRequest) -> None:
        caller = self._caller
        if caller.allowed(request.verb, request.group, request.resource, request.namespace):
            return
        raise self.forbidden(request)

    def forbidden(self, request: ApiRequest) -> StatusError:
        """The 403 for a caller who may not do this."""
        served = find(request.group, request.version, request.plural) or ResourceType(
            request.group, request.version, request.plural, "", True, frozenset()
        )
        why = self._caller.refusal(request.verb, request.group, request.resource, request.namespace)
        return forbidden(served, request.name, why)

    def _outside(self, request: ApiRequest) -> Reply:
        """What is no resource: version, health, discovery."""
        path = request.path.rstrip("/")
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        if path == "/version":
            return json_reply(200, SERVER_VERSION)
        if path in _HEALTH:
            return Reply(200, b"ok", "text/plain; charset=utf-8")
        if path == "/api":
            return json_reply(200, {"kind": "APIVersions", "versions": ["v1"]})
        if path == "/apis":
            groups = sorted({(served.group, served.version) for served in ALL if served.group})
            return json_reply(200, _group_list(groups))
        group, _, version = path.removeprefix("/apis/").removeprefix("/api/").rpartition("/")
        known = [served for served in ALL if (served.group, served.version) == (group, version)]
        if known and path.startswith("/apis/" if group else "/api/"):
            return json_reply(200, _resource_list(known))
        return Reply(404, b"404 page not found\n", "text/plain; charset=utf-8")

    def _review(self, request: ApiRequest) -> Reply:
        group, struct = _REVIEWS[request.plural]
        if request.verb != "create":
            raise method_not_allowed()
        review = decode(request.body, struct, f"{group}/{request.version}").object
        if struct is ACCESS_REVIEW:
            return json_reply(201, access_review(self._caller, review))
        if struct is RULES_REVIEW:
            return json_reply(201, rules_review(self._caller, review))
        return json_reply(201, self_review(self._caller))

    # Reading.

    def _existing(self, served: ResourceType, request: ApiRequest) -> Json:
        namespace = request.namespace if served.namespaced else ""
        obj = self._store.get(Key(served.plural, namespace, request.name))
        if obj is None:
            raise not_found(served, request.name)
        return obj

    async def _list(self, served: ResourceType, request: ApiRequest) -> Reply:
        selector = self._selector(served, request)
        limit = _number(request, "limit") or 0
        after, revision = ("", ""), 0
        if token := request.query.get("continue"):
            after, revision = _read_token(token)
            if revision < self._store.history(served).expired_to:
                raise expired("The provided continue parameter is too old to display a consistent list result.")
        else:
            await self._await_revision(_number(request, "resourceVersion") or 0)
        # A page begun at an older revision shows newer objects; a watch from that revision repeats them.
        revision = revision or self._store.revision
        objects = [
            obj
            for obj in self._store.select(served, request.namespace if served.namespaced else "")
            if _place(obj) > after and selector.matches(obj)
        ]
        metadata: Json = {"resourceVersion": str(revision)}
        if 0 < limit < len(objects):
            metadata["continue"] = _write_token(_place(objects[limit - 1]), revision)
            metadata["remainingItemCount"] = len(objects) - limit
            objects = objects[:limit]
        items = [
            {name: value for name, value in obj.items() if name not in ("kind", "apiVersion")} for obj in objects
        ]
        listed = {"kind": f"{served.kind}List", "apiVersion": served.api_version, "metadata": metadata}
        return json_reply(200, {**listed, "items": items})

    async def _await_revision(self, revision: int) -> None:
        with anyio.move_on_after(_FRESHNESS_WAIT):
            while self._store.revision < revision:
                await self._store.changed.wait()
        if self._store.revision < revision:
            raise too_new(revision, self._store.revision)

    def _watch(self, served: ResourceType, request: ApiRequest, faults: list[Action]) -> Reply:
        for fault in faults:
            if isinstance(fault, ExpireWatch) and fault.status:
                version = request.query.get("resourceVersion", "")
                raise expired(f"too old resource version: {version} ({self._store.revision})")
        revision = _number(request, "resourceVersion")
        timeout = _number(request, "timeoutSeconds")
        initial = request.query.get("sendInitialEvents")
        names = self._cluster.ids
        options = WatchOptions(
            namespace=request.namespace if served.namespaced else "",
            selector=self._selector(served, request),
            revision=None if not revision or initial == "true" else revision,
            timeout=float(timeout) if timeout else names.between(_SHORTEST_WATCH, 2 * _SHORTEST_WATCH),
            bookmarks=request.flag("allowWatchBookmarks"),
            mark_initial=initial != "false",
        )
        return Reply(200, source=WatchStream(self._cluster, served, options, faults))

    def _selector(self, served: ResourceType, request: ApiRequest) -> Selector:
        return parse(served, request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))

    # Writing.

    def _create(self, served: ResourceType, request: ApiRequest, content_type: str) -> Reply:
        if request.name:
            raise method_not_allowed()
        decoded = self._decoded(served, request, content_type)
        dry_run = _dry_run(request, "CreateOptions")
        stored = create(self._cluster, served, decoded.object, request.namespace, dry_run)
        reply = json_reply(201, stored)
        self._warn(reply, request, decoded)
        if served is JOBS:
            for text in job_warnings(self._cluster, stored):
                reply.warn(text)
        return reply

    def _update(self, served: ResourceType, request: ApiRequest, content_type: str) -> Reply:
        existing = self._existing(served, request)
        body = request.body
        if request.verb == "patch":
            if content_type != _MERGE_PATCH:
                raise unsupported_media_type()
            check_size(body)
            body = json.dumps(_merged(existing, _json(body))).encode()
            content_type = "application/json"
        decoded = self._decoded(served, request, content_type, body)
        dry_run = _dry_run(request, "UpdateOptions" if request.verb == "update" else "PatchOptions")
        reply = json_reply(200, update(self._cluster, served, existing, decoded.object, dry_run))
        self._warn(reply, request, decoded)
        return reply

    def _decoded(
        self, served: ResourceType, request: ApiRequest, content_type: str, body: bytes | None = None
    ) -> Decoded:
        if content_type not in ("", "application/json"):
            raise unsupported_media_type()
        struct = _STRUCTS[served.plural]
        decoded = decode(request.body if body is None else body, struct, served.api_version)
        mode = request.query.get("fieldValidation", "Warn")
        if mode not in ("Ignore", "Strict", "Warn"):
            error = not_supported("fieldValidation", mode, ("Ignore", "Strict", "Warn"))
            raise invalid("CreateOptions", "meta.k8s.io", "", [error])
        if mode == "Strict":
            refuse_complaints(decoded, struct, served.api_version)
        return decoded

    def _warn(self, reply: Reply, request: ApiRequest, decoded: Decoded) -> None:
        if request.query.get("fieldValidation", "Warn") == "Warn":
            for complaint in decoded.complaints:
                reply.warn(complaint)

    def _delete(self, served: ResourceType, request: ApiRequest) -> Reply:
        options, dry_run, warning = self._delete_options(served, request)
        try:
            existing = self._existing(served, request)
            key = Key(served.plural, existing["metadata"]["namespace"], request.name)
            obj, gone = delete(self._cluster, key, options, dry_run=dry_run)
        except StatusError as refusal:
            reply = refused(refusal)
        else:
            uid = obj["metadata"]["uid"]
            # What goes at once is answered with a Status, but for pods; what is still there with itself.
            whole = not gone or served is PODS
            reply = json_reply(200, obj if whole else success(served, request.name, uid))
        if warning:
            reply.warn(warning)
        return reply

    def _delete_options(self, served: ResourceType, request: ApiRequest) -> tuple[DeleteOptions, bool, str]:
        given = decode_options(request.body, DELETE_OPTIONS) if request.body.strip() else {}
        policy = _propagation(request.query.get("propagationPolicy") or given.get("propagationPolicy"))
        if "orphanDependents" in given and policy is None:
            policy = "Orphan" if given["orphanDependents"] else "Background"
        grace = _number(request, "gracePeriodSeconds")
        conditions = given.get("preconditions", {})
        options = DeleteOptions(
            policy,
            given.get("gracePeriodSeconds") if grace is None else grace,
            conditions.get("uid"),
            conditions.get("resourceVersion"),
        )
        warning = ""
        if served is JOBS and policy is None:
            warning = (
                "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background "
                "to remove them or set propagationPolicy=Orphan to suppress this warning"
            )
        dry_run = _dry_run(request, "DeleteOptions") or given.get("dryRun") == ["All"]
        return options, dry_run, warning

    def _delete_collection(self, served: ResourceType, request: ApiRequest) -> Reply:
        options, dry_run, _ = self._delete_options(served, request)
        selector = self._selector(served, request)
        found = [obj for obj in self._store.select(served, request.namespace) if selector.matches(obj)]
        for obj in found:
            metadata = obj["metadata"]
            key = Key(served.plural, metadata["namespace"], metadata["name"])
            delete(self._cluster, key, options, dry_run=dry_run)
        listed = {"kind": f"{served.kind}List", "apiVersion": served.api_version}
        metadata = {"resourceVersion": str(self._store.revision)}
        return json_reply(200, {**listed, "metadata": metadata, "items": found})


def _propagation(text: str | None) -> Propagation | None:
    for policy in _PROPAGATIONS:
        if text == policy:
            return policy
    if text is None:
        return None
    error = not_supported("propagationPolicy", text, _PROPAGATIONS)
    raise invalid("DeleteOptions", "meta.k8s.io", "", [error])


def _group_list(groups: list[tuple[str, str]]) -> Json:
    listed = []
    for group, version in groups:
        preferred = {"groupVersion": f"{group}/{version}", "version": version}
        listed.append({"name": group, "versions": [preferred], "preferredVersion": preferred})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def _resource_list(known: list[ResourceType]) -> Json:
    resources: list[Json] = []
    for served in known:
        resource = {"name": served.plural, "singularName": served.kind.lower(), "namespaced": served.namespaced}
        resources.append({**resource, "kind": served.kind, "verbs": sorted(served.verbs)})
        if served is PODS:
            log = {"name": "pods/log", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get"]}
            resources.append(log)
    group_version = known[0].api_version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }


def _number(request: ApiRequest, name: str) -> int | None:
    """A number from the query; None: not given."""
    text = request.query.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        why = f'strconv.ParseInt: parsing "{text}": invalid syntax'
        raise bad_request(f"invalid resource version: {why}" if name == "resourceVersion" else why) from None


def _dry_run(request: ApiRequest, options: str) -> bool:
    value = request.query.get("dryRun", "")
    if value not in ("", "All"):
        raise invalid(options, "meta.k8s.io", "", [not_supported("dryRun", value, ("All",))])
    return value == "All"


def _place(obj: Json) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _write_token(after: tuple[str, str], revision: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([*after, revision]).encode()).decode()


def _read_token(token: str) -> tuple[tuple[str, str], int]:
    try:
        namespace, name, revision = json.loads(base64.urlsafe_b64decode(token))
        return (str(namespace), str(name)), int(revision)
    except (binascii.Error, ValueError, TypeError):
        raise bad_request("continue key is not valid: unable to decode the token") from None


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from None


def _merged(target: object, patch: object) -> object:
    """https://www.rfc-editor.org/rfc/rfc7386"""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged
