"""The answer to a request for a pod's log.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

from __future__ import annotations

import math
import re
from datetime import datetime

import anyio

from ..._fakes.api_request import ApiRequest
from ..cluster import ClusterState
from ..controllers.logs import LogOptions, LogStream
from ..controllers.pod_status import HOST_IP
from ..objects import Json, Key
from .errors import (
    FieldError,
    bad_request,
    invalid,
    invalid_value,
    kubelet_away,
    kubelet_starting,
    not_allowed,
    not_found,
)
from .resources import PODS
from .responses import Reply

_KUBELET = f"{HOST_IP}:10250"


def pod_log(cluster: ClusterState, request: ApiRequest) -> Reply:
    """Raises `StatusError`."""
    pod = cluster.store.get(Key(PODS.plural, request.namespace, request.name))
    if pod is None:
        raise not_found(PODS, request.name)
    options = _options(cluster, request)
    names = [container["name"] for container in pod["spec"]["containers"]]
    container = request.query.get("container") or names[0]
    if container not in names:
        raise bad_request(f"container {container} is not valid for pod {request.name}")
    if "nodeName" not in pod["spec"]:
        # There is nobody to ask yet (recorded).
        return Reply(204, content_type=None)
    log = cluster.logs.get(pod["metadata"]["uid"])
    if log is not None and anyio.current_time() < log.readable_from:
        if math.isfinite(log.readable_from):
            raise kubelet_starting(PODS, request.name, "log")
        path = f"containerLogs/{request.namespace}/{request.name}/{container}"
        raise kubelet_away(f"https://{_KUBELET}/{path}{'?follow=true' if options.follow else ''}", _KUBELET)
    _refuse_without_log(pod, container, request)
    if log is None:
        raise _not_started(container, request.name, "ContainerCreating")
    return Reply(200, content_type="text/plain", source=LogStream(log, options))


def _refuse_without_log(pod: Json, container: str, request: ApiRequest) -> None:
    """What the kubelet answers when there is nothing to read, by the container's state."""
    statuses = pod["status"].get("containerStatuses", ())
    status = next((one for one in statuses if one["name"] == container), None)
    if request.flag("previous"):
        # Containers are not restarted here.
        raise bad_request(f'previous terminated container "{container}" in pod "{request.name}" not found')
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


def _not_started(container: str, pod: str, why: str) -> Exception:
    return bad_request(f'container "{container}" in pod "{pod}" is waiting to start: {why}')


def _options(cluster: ClusterState, request: ApiRequest) -> LogOptions:
    errors: list[FieldError] = []
    tail = _number(request, "tailLines", 0, errors)
    limit = _number(request, "limitBytes", 1, errors)
    seconds = _number(request, "sinceSeconds", 1, errors)
    since = None if seconds is None else LogOptions.since_seconds(cluster.calendar, seconds)
    if text := request.query.get("sinceTime"):
        if seconds is not None:
            errors.append(not_allowed("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
        since = _time(text)
    if request.query.get("stream"):
        # https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates/PodLogsQuerySplitStreams
        errors.append(not_allowed("stream", "may not be specified"))
    if errors:
        raise invalid("PodLogOptions", "", request.name, errors)
    return LogOptions(request.flag("follow"), tail, limit, since, request.flag("timestamps"))


def _number(request: ApiRequest, name: str, least: int, errors: list[FieldError]) -> int | None:
    text = request.query.get(name, "")
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if value < least:
        why = f"must be greater than {least - 1}" if least else "must be greater than or equal to 0"
        errors.append(invalid_value(name, value, why))
    return value


def _time(text: str) -> datetime:
    # Nanoseconds are more than datetime takes.
    short = re.sub(r"\.(\d{1,6})\d*", lambda match: f".{match[1]:0<6}", text)
    try:
        return datetime.fromisoformat(short.replace("Z", "+00:00"))
    except ValueError:
        raise bad_request(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse') from None
