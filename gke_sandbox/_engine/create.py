"""Make the Job and its ConfigMap, so that there is never a second Job and never an orphan.

The Job comes first and names the ConfigMap; the ConfigMap names the Job as its owner. Every name is new and
random, so an object of that name is ours, whoever's answer was lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel

from .._diagnosis import messages
from .._diagnosis.admission import RELEASE_FIELDS, Change, job_changes
from .._wire.manifests import CONTAINER, build
from .._wire.program import Program
from ..errors import AlreadyExists, Conflict, NetworkError, SandboxError, ServerError
from ..kube.client import KubeClient
from ..kube.resources import CONFIG_MAPS, JOBS, Resource
from ..kube.retry import Retry
from ..kube.status import RequestInfo
from ..settings import Settings

PATIENCE_SECONDS, TRIES = 60.0, 12
"""How long a server that is known to be there is given to get over its trouble, and in how many tries. Their
pauses take 31 to 62 s: it is the number that decides, as a rule, so that a recorded failure has as many in its
replay."""

STRANGER_TRIES = 4
"""How often one is tried that has never answered, a second or two: the address may be wrong."""

CONFLICT_TRIES, CONFLICT_DELAY, MAX_CONFLICT_DELAY = 5, 0.05, 0.2
"""Quick attempts of one creation, and their delays, when the server answers 409 Conflict: it creates nothing if it
cannot update the namespace's ResourceQuota, because too many objects are being created at once. The delays add up
to 0.55 s at most. A ConfigMap that is later than that can cost more than a new Job."""

# A round trip above this makes the ConfigMap so late that the kubelet's next look, 13 s later, finds it when
# it is taken in by environment (measured: `late-configmap`); a mounted one costs half a second.
_SLOW_ROUND_TRIP = 0.1


@dataclass
class Attempt:
    """One Job's name, and whether a Job of that name may be in the cluster.

    `unanswered`: a request to make it may still be on its way, so that a deletion that finds nothing may have
    come too early. `may_run`: its ConfigMap may be there, which is all that the program needs.
    """

    name: str
    may_exist: bool = False
    unanswered: bool = False
    may_run: bool = False
    job: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The Job as it is sent."""


async def create(
    client: KubeClient,
    settings: Settings,
    program: Program,
    session: str,
    new_name: Callable[[], str],
    begin: Callable[[Attempt], None],
    deadline: float,
    uniform: Callable[[], float] = random.random,
) -> None:
    """Create Job and ConfigMap; return when both are there.

    `begin` is called with each attempt before its first request. Nothing is waited for after `deadline`, by the
    event loop's clock; trouble that may pass is waited out until then, for a minute at most. `uniform` gives
    numbers from 0 to 1, for the pauses. Raises `SpecError` before any request, `StartError` before the ConfigMap's
    if admission made an unsafe change to the Job, and `ApiError` or `NetworkError` when the server or the network
    refuse; the attempt then says whether there is something to delete, and whether the program may have run.
    """
    patience = _Patience(client, deadline, uniform)
    while True:
        slow = client.round_trip is not None and client.round_trip > _SLOW_ROUND_TRIP
        manifests = build(settings, program, name=new_name(), session=session, slow_connection=slow)
        attempt = Attempt(manifests.name, job=manifests.job)
        begin(attempt)
        made = await _create_job(client, settings.namespace, manifests.job, attempt, patience)
        if changes := unsafe(job_changes(manifests.job, made, CONTAINER), settings, client):
            raise messages.unsafe_admission_change(changes, attempt.name, "", may_have_run=False)
        config_map = manifests.config_map(str(made["metadata"]["uid"]))
        post = _Post(client, CONFIG_MAPS, settings.namespace, config_map, patience)
        attempt.may_run = True
        answer = await post.send()
        if not isinstance(answer, SandboxError):
            return
        # The pod is already waiting for it: a late ConfigMap can cost more than a new Job does.
        attempt.may_run = False
        await patience.pause_or_raise(answer)


async def _create_job(
    client: KubeClient, namespace: str, body: dict[str, Any], attempt: Attempt, patience: _Patience
) -> dict[str, Any]:
    """POST the Job and return it as the server made it. A POST that surely did not arrive is simply sent again."""
    post = _Post(client, JOBS, namespace, body, patience)
    while True:
        # A run that is cancelled already has nothing to delete.
        await anyio.lowlevel.checkpoint_if_cancelled()
        attempt.may_exist = attempt.unanswered = True
        answer = await post.send()
        attempt.unanswered = False
        if not isinstance(answer, SandboxError):
            return answer
        attempt.may_exist = False
        await patience.pause_or_raise(answer)


def unsafe(changes: list[Change], settings: Settings, client: KubeClient) -> list[Change]:
    """Return the changes that the settings do not accept."""
    ignored = RELEASE_FIELDS if client.replays else ()
    return [
        each
        for each in changes
        if each.field not in settings.accept_admission_changes and each.field not in ignored
    ]


class _Patience:
    """When a request of one creation is sent again, and when its error is passed on.

    All of them have one budget, that begins with the first failure: `PATIENCE_SECONDS`, and never beyond
    `deadline`. The quick retries after a Conflict are not part of it.
    """

    def __init__(self, client: KubeClient, deadline: float, uniform: Callable[[], float]) -> None:
        self._client = client
        self._uniform = uniform
        self._retry: Retry | None = None
        self._conflicts = Retry(
            max_attempts=CONFLICT_TRIES,
            initial_delay=CONFLICT_DELAY,
            max_delay=MAX_CONFLICT_DELAY,
            deadline=deadline,
            uniform=uniform,
        )
        self.deadline = deadline

    async def pause_briefly(self, error: Conflict) -> bool:
        """Wait a moment before a quick retry; return False if there were enough of them."""
        pause = self._conflicts.record_failure(error)
        if pause is not None:
            await anyio.sleep(pause)
        return pause is not None

    async def pause_or_raise(self, error: SandboxError) -> None:
        """Wait for the next try, or raise `error`: see `Retry.wait_or_raise`."""
        if self._retry is None:
            until = min(self.deadline, anyio.current_time() + PATIENCE_SECONDS)
            self._retry = Retry(max_attempts=TRIES, deadline=until, uniform=self._uniform)
        if not self._client.has_responded and self._retry.failures + 1 >= STRANGER_TRIES:
            raise error
        await self._retry.wait_or_raise(error)


class _Post:
    """One object, posted; and posted again if the answer was lost.

    Once an answer was lost, the object may be there whatever later answers say: `may_have_arrived` stays True.
    """

    def __init__(
        self, client: KubeClient, resource: Resource, namespace: str, body: dict[str, Any], patience: _Patience
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._name = str(body["metadata"]["name"])
        self._call = RequestInfo("create", "POST", resource, namespace, self._name)
        self._body = body
        self._patience = patience
        self.may_have_arrived = False

    async def send(self) -> dict[str, Any] | SandboxError:
        """POST; retry a few times, quickly, after a Conflict, and while the response is lost.

        Return the error if the server did not create the object. After a lost response, raise an error that cannot
        pass, and any error when there is no patience left.
        """
        while True:
            try:
                return await self._in_time()
            except SandboxError as error:
                if isinstance(error, ServerError) or (isinstance(error, NetworkError) and error.sent):
                    self.may_have_arrived = True
                if isinstance(error, Conflict) and await self._patience.pause_briefly(error):
                    continue
                if not self.may_have_arrived:
                    return error
                await self._patience.pause_or_raise(error)

    async def _in_time(self) -> dict[str, Any]:
        sent = anyio.current_time() < self._patience.deadline
        if sent:
            with anyio.CancelScope(deadline=self._patience.deadline):
                return await self._once()
        raise NetworkError(
            f"{self._call}: {'no whole answer' if sent else 'not sent'} within startup_timeout",
            sent=sent,
            request=str(self._call),
        )

    async def _once(self) -> dict[str, Any]:
        """201, or 409 for an object of our own name after a lost answer, means that it is there."""
        try:
            made = await self._client.create(
                self._resource, self._namespace, self._body, field_validation="Strict"
            )
        except AlreadyExists:
            if not self.may_have_arrived:
                raise
            if self._resource is not JOBS:
                return self._body
            made = await self._client.get(JOBS, self._namespace, self._name)
        return self._whole(made)

    def _whole(self, made: dict[str, Any]) -> dict[str, Any]:
        """The object as it was made, if it is one: a proxy may answer 201, too."""
        metadata = made.get("metadata")
        if isinstance(metadata, dict) and metadata.get("name") == self._name and metadata.get("uid"):
            return made
        raise ServerError(
            f"{self._call}: the answer is not the object that was to be made",
            code=201,
            reason="",
            request=str(self._call),
        )
