"""Make the Job and its ConfigMap, so that there is never a second Job and never an orphan.

The Job comes first and names the ConfigMap; the ConfigMap names the Job as its owner. Every name is new and
random, so an object of that name is ours, whoever's answer was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio.lowlevel

from .errors import AlreadyExists, NetworkError, SandboxError, ServerError
from .kube.client import KubeClient
from .kube.resources import CONFIG_MAPS, JOBS, Resource
from .kube.retry import Retry, may_pass
from .manifests import build
from .settings import Program, Settings

TRIES = 4
"""How often one POST is sent, and how often a Job is begun anew, before the error is passed on."""

# A round trip above this makes the ConfigMap so late that the kubelet's next look, 13 s later, finds it when
# it is taken in by environment (measured: `late-configmap`); a mounted one costs half a second.
_SLOW_ROUND_TRIP = 0.1


@dataclass
class Attempt:
    """One Job's name, and whether a Job of that name may be in the cluster.

    `unanswered`: a request to make it may still be on its way, so that a deletion that finds nothing may have
    come too early.
    """

    name: str
    may_exist: bool = False
    unanswered: bool = False


async def create(
    client: KubeClient,
    settings: Settings,
    program: Program,
    session: str,
    new_name: Callable[[], str],
    begin: Callable[[Attempt], None],
    deadline: float,
) -> None:
    """Create Job and ConfigMap; return when both are there.

    `begin` is called with each attempt before its first request. Nothing is tried again after `deadline`, by the
    event loop's clock. Raises `SpecError` before any request, and `ApiError` or `NetworkError` when the server or
    the network refuse; the attempt then says whether there is something to delete.
    """
    retry = Retry(tries=TRIES, deadline=deadline)
    while True:
        slow = client.round_trip is not None and client.round_trip > _SLOW_ROUND_TRIP
        manifests = build(settings, program, name=new_name(), session=session, slow_connection=slow)
        attempt = Attempt(manifests.name)
        begin(attempt)
        job = await _create_job(client, settings.namespace, manifests.job, attempt, deadline)
        config_map = manifests.config_map(str(job["metadata"]["uid"]))
        post = _Post(client, CONFIG_MAPS, settings.namespace, config_map, deadline)
        try:
            await post.send()
        except SandboxError as error:
            # It surely did not arrive, and the pod is already waiting for it: a late ConfigMap can cost more
            # than a new Job does. Had any of its requests arrived, the program may run, and must not run twice.
            if post.may_have_arrived:
                raise
            await retry.pause_or_raise(error)
        else:
            return


async def _create_job(
    client: KubeClient, namespace: str, body: dict[str, Any], attempt: Attempt, deadline: float
) -> dict[str, Any]:
    """POST the Job. A POST that surely did not arrive is simply sent again."""
    post = _Post(client, JOBS, namespace, body, deadline)
    retry = Retry(tries=TRIES, deadline=deadline)
    while True:
        # A run that is cancelled already has nothing to delete.
        await anyio.lowlevel.checkpoint_if_cancelled()
        attempt.may_exist = attempt.unanswered = True
        try:
            job = await post.send()
        except SandboxError as error:
            attempt.may_exist = attempt.unanswered = post.may_have_arrived
            if attempt.may_exist:
                raise
            await retry.pause_or_raise(error)
        else:
            attempt.unanswered = False
            return job


class _Post:
    """One object, posted; and posted again if the answer was lost.

    Once an answer was lost, the object may be there whatever later answers say: `may_have_arrived` stays True.
    """

    def __init__(
        self, client: KubeClient, resource: Resource, namespace: str, body: dict[str, Any], deadline: float
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._body = body
        self._deadline = deadline
        self.may_have_arrived = False

    async def send(self) -> dict[str, Any]:
        """POST. Raises at once what surely did not arrive, and a lost answer after `TRIES` times."""
        retry = Retry(tries=TRIES, deadline=self._deadline)
        while True:
            try:
                return await self._once()
            except SandboxError as error:
                if isinstance(error, ServerError) or (isinstance(error, NetworkError) and error.sent):
                    self.may_have_arrived = True
                if not (self.may_have_arrived and may_pass(error)):
                    raise
                await retry.pause_or_raise(error)

    async def _once(self) -> dict[str, Any]:
        """201, or 409 for an object of our own name after a lost answer, means that it is there."""
        try:
            return await self._client.create(
                self._resource, self._namespace, self._body, field_validation="Strict"
            )
        except AlreadyExists:
            if not self.may_have_arrived:
                raise
            if self._resource is not JOBS:
                return self._body
            return await self._client.get(JOBS, self._namespace, str(self._body["metadata"]["name"]))
