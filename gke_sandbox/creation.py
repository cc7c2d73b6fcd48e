"""Make the Job and its ConfigMap, so that there is never a second Job and never an orphan.

The Job comes first and names the ConfigMap; the ConfigMap names the Job as its owner. Every name is new and
random, so an object of that name is ours, whoever's answer was lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from .errors import AlreadyExists, ApiError, NetworkError, SandboxError, ServerError, TooManyRequests
from .kube.client import KubeClient
from .kube.resources import CONFIG_MAPS, JOBS, Resource
from .manifests import build
from .settings import Program, Settings

TRIES = 4
"""How often one POST is sent, and how often a Job is begun anew, before the error is passed on."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0

# A round trip above this makes the ConfigMap so late that the kubelet's next look, 13 s later, finds it when
# it is taken in by environment (measured: `late-configmap`); a mounted one costs half a second.
_SLOW_ROUND_TRIP = 0.1


@dataclass
class Attempt:
    """One Job's name, and whether a Job of that name may be in the cluster."""

    name: str
    may_exist: bool = False


async def create(
    client: KubeClient,
    settings: Settings,
    program: Program,
    session: str,
    new_name: Callable[[], str],
    begin: Callable[[Attempt], None],
) -> None:
    """Create Job and ConfigMap; return when both are there.

    `begin` is called with each attempt before its first request. Raises `SpecError` before any request, and
    `ApiError` or `NetworkError` when the server or the network refuse; the attempt then says whether there
    is something to delete.
    """
    for tried in range(1, TRIES + 1):
        slow = client.round_trip is not None and client.round_trip > _SLOW_ROUND_TRIP
        manifests = build(settings, program, name=new_name(), session=session, slow_connection=slow)
        attempt = Attempt(manifests.name)
        begin(attempt)
        job = await _create_job(client, settings.namespace, manifests.job, attempt)
        config_map = manifests.config_map(str(job["metadata"]["uid"]))
        try:
            await _post(client, CONFIG_MAPS, settings.namespace, config_map)
        except (NetworkError, TooManyRequests) as error:
            # It surely did not arrive, and the pod is already waiting for it: a late ConfigMap can cost more
            # than a new Job does.
            if tried == TRIES or (isinstance(error, NetworkError) and error.sent):
                raise
            await anyio.sleep(_pause(tried, error))
        else:
            return


async def _create_job(
    client: KubeClient, namespace: str, body: dict[str, Any], attempt: Attempt
) -> dict[str, Any]:
    """POST the Job. A POST that surely did not arrive is simply sent again."""
    for tried in range(1, TRIES + 1):
        attempt.may_exist = True
        try:
            return await _post(client, JOBS, namespace, body)
        except (NetworkError, TooManyRequests) as error:
            if isinstance(error, TooManyRequests) or not error.sent:
                attempt.may_exist = False
            if tried == TRIES or attempt.may_exist:
                raise
            await anyio.sleep(_pause(tried, error))
        except ApiError as error:
            attempt.may_exist = isinstance(error, ServerError)
            raise
    raise AssertionError("the loop returns or raises")


async def _post(client: KubeClient, resource: Resource, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST, again if the answer was lost: 201, or 409 for an object of our own name, means that it is there."""
    for tried in range(1, TRIES + 1):
        try:
            return await client.create(resource, namespace, body, field_validation="Strict")
        except AlreadyExists:
            if tried == 1:
                raise
            if resource is JOBS:
                return await client.get(resource, namespace, str(body["metadata"]["name"]))
            return body
        except (NetworkError, ServerError) as error:
            lost = isinstance(error, ServerError) or error.sent
            if not lost or tried == TRIES:
                raise
            await anyio.sleep(_pause(tried, error))
    raise AssertionError("the loop returns or raises")


def _pause(tried: int, error: SandboxError) -> float:
    """Seconds until the next try: what the server asks for, else 0.2 s doubled each time, jittered."""
    if isinstance(error, ApiError) and error.retry_after is not None:
        return min(error.retry_after, _LONGEST_PAUSE)
    return min(_FIRST_PAUSE * 2.0 ** (tried - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
