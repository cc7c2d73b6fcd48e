"""List the runs of this library that a cluster contains: each is a Job, usually with a pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from .._diagnosis import read_pod
from .._diagnosis.pod_resources import pod_resources
from .._wire.manifests import CONTAINER, PROGRAM_ANNOTATION
from ..kube.client import KubeClient
from ..kube.resources import PODS
from . import orphans
from .orphans import Leftover, list_ours

RunStatus = Literal["suspended", "starting", "running", "warm", "finished", "leftover"]


@dataclass(frozen=True)
class Run:
    """A Job of this library, and its pod.

    `status` is ``suspended`` (by a queue), ``starting``, ``running``, ``finished``, ``leftover`` (past its
    deadline, so no client waits for it), or ``warm``: a running warm pod. The cluster does not show whether that
    waits for a program or runs one. `cpu` and `memory` are the requests of the pod, `age` is in seconds.
    """

    namespace: str
    job: str
    session: str
    age: float
    status: RunStatus
    pod: str
    node: str
    cpu: str
    memory: str


async def find(client: KubeClient, namespace: str | None, now: datetime) -> list[Run]:
    """Return the runs in a namespace, or in all, the oldest first. `now`: see `list_ours`."""
    pods = dict(await list_ours(client, PODS, namespace, now, lambda pod, _: (_owner(pod), pod)))
    # The Jobs are listed second: those that ended meanwhile are missing, instead of shown without a pod.
    return [_run(job, pods.get(job.uid)) for job in await orphans.find(client, namespace, now)]


def _owner(pod: Mapping[str, Any]) -> str:
    owners = pod["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")


def _run(job: Leftover, pod: Mapping[str, Any] | None) -> Run:
    metadata, spec = job.object["metadata"], job.object.get("spec") or {}
    template = (spec.get("template") or {}).get("spec") or {}
    requests = pod_resources(template if pod is None else pod.get("spec") or {}, "requests")
    return Run(
        namespace=metadata.get("namespace", ""),
        job=job.job,
        session=job.session,
        age=job.age,
        status=_status(job, pod),
        pod="" if pod is None else pod["metadata"]["name"],
        node="" if pod is None else (pod.get("spec") or {}).get("nodeName") or "",
        cpu=str(requests.get("cpu", "")),
        memory=str(requests.get("memory", "")),
    )


def _status(job: Leftover, pod: Mapping[str, Any] | None) -> RunStatus:
    spec = job.object.get("spec") or {}
    if spec.get("suspend"):
        return "suspended"
    if job.age >= job.deadline:
        return "leftover"
    state = None if pod is None else read_pod(pod, CONTAINER)
    if job.finished or (state is not None and state.termination is not None):
        return "finished"
    if state is None or not state.running:
        return "starting"
    # The Job of a warm pod is created before its program is known.
    is_warm = PROGRAM_ANNOTATION not in (job.object["metadata"].get("annotations") or {})
    return "warm" if is_warm else "running"
