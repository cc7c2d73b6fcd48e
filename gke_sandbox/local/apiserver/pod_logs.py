"""Responses to requests for the log of a pod.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

from __future__ import annotations

import math

import anyio

from ..._fakes.api_request import ApiRequest
from ..cluster import ClusterState
from ..controllers.logs import LogBody
from ..controllers.pod_status import HOST_IP
from ..objects import Json, Key
from .errors import StatusError, bad_request, kubelet_away, kubelet_starting, not_found
from .resources import PODS
from .responses import Reply

KUBELET = f"{HOST_IP}:10250"
"""The address of the kubelet."""


def pod_log(cluster: ClusterState, request: ApiRequest) -> Reply:
    """Return the response with the log. Raises `StatusError`."""
    pod = cluster.store.get(Key(PODS.plural, request.namespace, request.name))
    if pod is None:
        raise not_found(PODS, request.name)
    follow = request.flag("follow")
    container = requested_container(pod, request)
    if "nodeName" not in pod["spec"]:
        # The pod is not bound to a node (recorded).
        return Reply(204, content_type=None)
    log = cluster.logs.get(pod["metadata"]["uid"])
    if log is not None and anyio.current_time() < log.readable_from:
        if math.isfinite(log.readable_from):
            raise kubelet_starting(PODS, request.name, "log")
        path = f"containerLogs/{request.namespace}/{request.name}/{container}"
        raise kubelet_away(f"https://{KUBELET}/{path}{'?follow=true' if follow else ''}", KUBELET)
    _check_has_log(pod, container, request)
    if log is None:
        raise _not_started(container, request.name, "ContainerCreating")
    return Reply(200, content_type="text/plain", source=LogBody(log, follow=follow))


def requested_container(pod: Json, request: ApiRequest) -> str:
    """Return the container that a request names, or else the first one of the pod. Raises `StatusError`."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    container: str = request.query.get("container") or names[0]
    if container not in names:
        raise bad_request(f"container {container} is not valid for pod {request.name}")
    return container


def _check_has_log(pod: Json, container: str, request: ApiRequest) -> None:
    """Raise the error of the kubelet for a container without a log."""
    statuses = pod["status"].get("containerStatuses", ())
    status = next((one for one in statuses if one["name"] == container), None)
    if status is None:
        raise _not_started(container, request.name, "ContainerCreating")
    state, last = status["state"], status["lastState"]
    if "running" in state or state.get("terminated", {}).get("containerID"):
        return
    if "terminated" in state or "terminated" in last:
        raise bad_request(f'container "{container}" in pod "{request.name}" is terminated')
    reason = state["waiting"]["reason"]
    why = {
        "ErrImagePull": "image can't be pulled",
        "ImagePullBackOff": "trying and failing to pull image",
    }.get(reason, reason)
    raise _not_started(container, request.name, why)


def _not_started(container: str, pod: str, why: str) -> StatusError:
    return bad_request(f'container "{container}" in pod "{pod}" is waiting to start: {why}')
