"""Responses to requests that attach to a running container over WebSocket.

The order of the checks is that of the API server, then the kubelet, then the container runtime.
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-connect-get-requests-to-attach-of-pod
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import anyio

from ..._fakes.api_request import ApiRequest
from ...kube.attach import SUBPROTOCOL, accept_header
from ..cluster import ClusterState
from ..faults import AttachAction
from ..objects import Key
from .errors import StatusError, bad_request, forbidden, not_found
from .pod_logs import KUBELET, requested_container
from .resources import PODS
from .responses import Reply

# The newest first: the server prefers it, whatever the order of the client (recorded).
PROTOCOLS = (SUBPROTOCOL, "v4.channel.k8s.io")


def pod_attach(cluster: ClusterState, request: ApiRequest, headers: Mapping[str, str]) -> Reply:
    """Return the response: 101 with a session that has not started, or a refusal. Raises `StatusError`."""
    upgrade = request.method == "GET" and _is_upgrade(headers)
    # A WebSocket needs the verbs get and create; the 403 for the second one has no reason (recorded).
    if upgrade and not cluster.caller.allowed("create", "", request.resource, request.namespace):
        raise forbidden(PODS, request.name, "")
    pod = cluster.store.get(Key(PODS.plural, request.namespace, request.name))
    if pod is None:
        raise not_found(PODS, request.name)
    container = requested_container(pod, request)
    if "nodeName" not in pod["spec"]:
        raise bad_request(f"pod {request.name} does not have a host assigned")
    if not upgrade:
        raise bad_request("Upgrade request required")
    uid = pod["metadata"]["uid"]
    if (log := cluster.logs.get(uid)) is not None and anyio.current_time() < log.readable_from:
        if math.isfinite(log.readable_from):
            return _text(404, "404 page not found\n")
        raise StatusError(500, "", f"error dialing backend: dial tcp {KUBELET}: connect: connection refused")
    stdin, stdout, stderr = (request.flag(name) for name in ("stdin", "stdout", "stderr"))
    if not (stdin or stdout or stderr):
        return _text(400, "you must specify at least 1 of stdin, stdout, stderr")
    streams = cluster.streams.get(uid)
    if streams is None or not streams.running:
        return _text(500, f"container {container} not found in pod {request.name}_{request.namespace}")
    offered = [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",")]
    protocol = next((name for name in PROTOCOLS if name in offered), None)
    if protocol is None:
        return Reply(403, content_type=None)
    from .attach_session import AttachSession  # wsproto is an optional dependency

    attach = partial(streams.attach, stdin=stdin, stdout=stdout, stderr=stderr)
    faults = cluster.faults.for_request(AttachAction, request)
    session = AttachSession(attach, "stdout" if stdout else "stderr" if stderr else None, protocol, faults)
    return Reply(
        101,
        content_type=None,
        headers=[
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-accept", accept_header(headers["sec-websocket-key"])),
            ("sec-websocket-protocol", protocol),
        ],
        session=session,
    )


def _is_upgrade(headers: Mapping[str, str]) -> bool:
    connection = [token.strip().lower() for token in headers.get("connection", "").split(",")]
    return (
        "upgrade" in connection
        and headers.get("upgrade", "").lower() == "websocket"
        and headers.get("sec-websocket-version") == "13"
        and "sec-websocket-key" in headers
    )


def _text(code: int, text: str) -> Reply:
    return Reply(code, text.encode(), "text/plain; charset=utf-8")
