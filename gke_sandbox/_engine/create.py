"""Create the Job and its ConfigMap without ever leaving a second Job or an orphan.

The Job is created first; the ConfigMap names the Job as its owner. Every name is new and random, so an object of
that name was created by this request even if the response to its creation was lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import anyio

from .._diagnosis import WaitReason, messages, rejection
from .._wire.manifests import Manifests, build, build_waiting
from .._wire.program import Program
from ..errors import AlreadyExists, Conflict, NetworkError, SandboxError, ServerError
from ..kube.client import KubeClient
from ..kube.resources import CONFIG_MAPS, JOBS, Resource
from ..kube.retry import Retry, is_retryable
from ..kube.status import RequestInfo
from ..settings import Settings
from .steps import ConfigMapCreated, CreateFailed, CreateRejected, Input, JobCreated, RetryCreate

RETRY_BUDGET, MAX_ATTEMPTS = 60.0, 12
"""How long, and how often, a request is retried if the server has responded before.

The delays add up to 31 to 62 s. Usually the number decides, so that a recorded failure has as many requests in its
replay.
"""

UNREACHED_ATTEMPTS = 4
"""Attempts if the server has never responded (one to two seconds): the address may be wrong."""

CONFLICT_ATTEMPTS, CONFLICT_DELAY, MAX_CONFLICT_DELAY = 5, 0.05, 0.2
"""Quick attempts of one creation, and their delays, when the server returns 409 Conflict: it creates nothing if it
cannot update the namespace's ResourceQuota, because too many objects are being created at once. The delays add up
to 0.55 s at most. A ConfigMap that is later than that can cost more than a new Job."""

ADMISSION_DELAY, MAX_ADMISSION_DELAY = 0.5, 5.0
"""Delays between attempts while admission rejects an object for a reason that can pass: a used-up quota."""

# With a longer round trip the ConfigMap is created so late that the kubelet finds it only at its next attempt, 13
# s later, if it is used as environment variables (measured: `late-configmap`); a mounted one costs half a second.
_SLOW_ROUND_TRIP = 0.1


class Creation:
    """Creates the objects of one execution: `prepare`, then `create_job`, then `create_config_map`.

    Without a program it creates the Job of a warm pod, which waits `idle_timeout` seconds for one.
    `send` is called with what happened. After `deadline`, by the event loop's clock, nothing is waited for;
    retryable errors are retried until then, for a minute at most. `uniform` returns numbers from 0 to 1, for the
    delays.
    """

    def __init__(
        self,
        client: KubeClient,
        settings: Settings,
        program: Program | None,
        session: str,
        deadline: float,
        send: Callable[[Input], None],
        uniform: Callable[[], float] = random.random,
        *,
        idle_timeout: float = 0.0,
    ) -> None:
        self._client = client
        self._settings = settings
        self._program = program
        self._idle_timeout = idle_timeout
        self._session = session
        self._send = send
        self._budget = _RetryBudget(client, deadline, uniform)
        self._manifests: Manifests | None = None
        # The last rejection by admission.
        self._rejected: SandboxError | None = None
        # Whether the object that is being created may exist: after a lost response, regardless of later ones.
        self._may_have_arrived = False

    def prepare(self, name: str) -> Mapping[str, Any]:
        """Build the objects under a new name, and return the Job. Raises `SpecError`."""
        if self._program is None:
            self._manifests = build_waiting(
                self._settings, name=name, session=self._session, idle_timeout=self._idle_timeout
            )
            return self._manifests.job
        slow = self._client.round_trip is not None and self._client.round_trip > _SLOW_ROUND_TRIP
        self._manifests = build(
            self._settings, self._program, name=name, session=self._session, slow_connection=slow
        )
        return self._manifests.job

    @property
    def request(self) -> bytes:
        """The bytes that the runner reads from its stdin, with delivery ``attach``."""
        assert self._manifests is not None
        return self._manifests.request

    async def create_job(self) -> None:
        assert self._manifests is not None
        made = await self._create(JOBS, self._manifests.job)
        if made is not None:
            # It is not sent again.
            self._manifests = replace(self._manifests, job={}, request=b"")
            self._send(JobCreated(made))

    async def create_config_map(self, uid: str) -> None:
        assert self._manifests is not None
        if await self._create(CONFIG_MAPS, self._manifests.config_map(uid)) is not None:
            self._manifests = None
            self._send(ConfigMapCreated())

    async def _create(self, resource: Resource, body: dict[str, Any]) -> dict[str, Any] | None:
        """Create one object and return it. If that fails, report it, wait before a retry, and return None."""
        name, self._may_have_arrived = body["metadata"]["name"], False
        call = RequestInfo("create", "POST", resource, self._settings.namespace, name)
        try:
            response = await self._post(resource, body, call)
            if not isinstance(response, SandboxError):
                return response
            reason = rejection(response)
            self._send(CreateRejected(reason))
            quickly = isinstance(response, Conflict) and await self._budget.wait_briefly(response)
            if reason is not None and self._program is None:
                # The pool tries again, with longer delays.
                raise response
            if reason is not None:
                self._rejected = response
                await self._budget.wait_for_admission(response, reason)
            elif not quickly:
                await self._budget.wait_or_raise(response)
        except SandboxError as error:
            waited = ""
            cut_off = resource is JOBS and self._budget.is_over
            if self._rejected is not None and (error is self._rejected or cut_off):
                # The reason is that of the earlier rejections, also if the last attempt was cut off.
                error, waited = self._rejected, f" within {self._settings.startup_timeout:g} s (startup_timeout)"
            # Without a single response of a Kubernetes API, this is another address.
            arrived = self._may_have_arrived and (self._client.has_responded or not isinstance(error, ServerError))
            self._send(CreateFailed(messages.rejected(error, name, waited), arrived))
        else:
            self._send(RetryCreate(same_job=quickly))
        return None

    async def _post(
        self, resource: Resource, body: dict[str, Any], call: RequestInfo
    ) -> dict[str, Any] | SandboxError:
        """Send the request, and again while the response is lost.

        Return the error if the server did not create the object. After a lost response, raise an error that is not
        retryable, and any error when the budget is used up.
        """
        while True:
            try:
                return await self._post_before_deadline(resource, body, call)
            except SandboxError as error:
                lost = is_retryable(error) and (not isinstance(error, NetworkError) or error.sent)
                # Admission comes before the object is stored.
                if lost and isinstance(error, (NetworkError, ServerError)) and rejection(error) is None:
                    self._may_have_arrived = True
                if not self._may_have_arrived:
                    return error
                if isinstance(error, Conflict) and await self._budget.wait_briefly(error):
                    continue
                await self._budget.wait_or_raise(error)

    async def _post_before_deadline(
        self, resource: Resource, body: dict[str, Any], call: RequestInfo
    ) -> dict[str, Any]:
        sent = not self._budget.is_over
        if sent:
            with anyio.CancelScope(deadline=self._budget.deadline):
                return await self._post_once(resource, body, call)
        what = "no complete response" if sent else "not sent"
        hint = "The API server or a proxy may be overloaded: raise startup_timeout if the cluster needs longer."
        raise NetworkError(f"{call}: {what} within startup_timeout", sent=sent, request=str(call), hint=hint)

    async def _post_once(self, resource: Resource, body: dict[str, Any], call: RequestInfo) -> dict[str, Any]:
        """Send the request once. 409 AlreadyExists after a lost response means that the object was created."""
        namespace, name = self._settings.namespace, body["metadata"]["name"]
        try:
            # The requests of programs that have a Job come first: its ConfigMap must not be late.
            made = await self._client.create(
                resource, namespace, body, field_validation="Strict", low_priority=resource is JOBS
            )
        except AlreadyExists:
            if not self._may_have_arrived:
                raise
            if resource is not JOBS:
                return body
            made = await self._client.get(JOBS, namespace, name)
        metadata = made.get("metadata")
        if isinstance(metadata, dict) and metadata.get("name") == name and metadata.get("uid"):
            return made
        # Some proxies also send 201.
        message = f"{call}: the response is not the object to create"
        error = ServerError(message, code=201, reason="", request=str(call))
        self._client.add_hints(error)
        raise error


class _RetryBudget:
    """When a request of one creation is sent again, and when its error is raised.

    All of them share one budget, which starts with the first failure: `RETRY_BUDGET`, and never beyond `deadline`.
    The quick retries after a Conflict are not part of it, nor are those after a rejection by admission.
    """

    def __init__(self, client: KubeClient, deadline: float, uniform: Callable[[], float]) -> None:
        self._client = client
        self._uniform = uniform
        self._retry: Retry | None = None
        self._conflicts = Retry(
            max_attempts=CONFLICT_ATTEMPTS,
            initial_delay=CONFLICT_DELAY,
            max_delay=MAX_CONFLICT_DELAY,
            deadline=deadline,
            uniform=uniform,
        )
        self._rejections = Retry(
            initial_delay=ADMISSION_DELAY, max_delay=MAX_ADMISSION_DELAY, deadline=deadline, uniform=uniform
        )
        self.deadline = deadline

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return anyio.current_time() >= self.deadline

    async def wait_briefly(self, error: Conflict) -> bool:
        """Wait a moment before a quick retry; return False if there were enough of them."""
        delay = self._conflicts.record_failure(error)
        if delay is not None:
            await anyio.sleep(delay)
        return delay is not None

    async def wait_for_admission(self, error: SandboxError, reason: WaitReason) -> None:
        """Wait for the next attempt after admission rejected an object, or raise `error` if that cannot help."""
        delay = None if reason.is_permanent else self._rejections.record_failure(error)
        if delay is None:
            raise error
        await anyio.sleep(delay)

    async def wait_or_raise(self, error: SandboxError) -> None:
        """Wait for the next attempt, or raise `error`: see `Retry.wait_or_raise`."""
        if self._retry is None:
            until = min(self.deadline, anyio.current_time() + RETRY_BUDGET)
            self._retry = Retry(max_attempts=MAX_ATTEMPTS, deadline=until, uniform=self._uniform)
        if not self._client.has_responded and self._retry.failures + 1 >= UNREACHED_ATTEMPTS:
            raise error
        await self._retry.wait_or_raise(error)
