"""The embedded cluster as an httpx transport.

::

    async with httpx.AsyncClient(transport=LocalTransport(ScriptedRuntime(Script(...)))) as http:
        await http.get("https://embedded.invalid/version")

A task group runs the controllers and the pods. Leaving the context stops them and kills all containers. A request
raises only exceptions of httpx.
"""

from __future__ import annotations

import random
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

import anyio
import httpx
from anyio.abc import TaskGroup

from .._fakes.api_request import ApiRequest, parse
from .._fakes.body import Body, Timeouts, UpgradedBody
from .apiserver.api import ApiServer
from .apiserver.errors import StatusError, failure
from .apiserver.rbac import Caller
from .apiserver.resources import ALL, CONFIG_MAPS, JOBS, PODS
from .apiserver.responses import Reply, error_reply, json_reply
from .cluster import ClusterState, Namespace
from .controllers.gc import GarbageCollector
from .controllers.jobs import JobController
from .controllers.kubelet import Kubelet
from .controllers.scheduler import Scheduler
from .faults import BodyAction, Delay, Drop, FaultPlan, Forbid, Refuse, RequestAction, Respond
from .faulty_body import FaultyBody, WholeBody
from .latency import Pace
from .objects import Json, Key
from .runtimes.base import Runtime

if TYPE_CHECKING:
    from .apiserver.attach_session import AttachSession

_GVISOR_LABELS = {"sandbox.gke.io/runtime": "gvisor"}
MAX_REQUESTS = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class SentRequest:
    """A request that reached the cluster. `at` is the time of the event loop."""

    at: float
    method: str
    path: str
    query: Mapping[str, str]
    verb: str
    resource: str
    namespace: str
    name: str


class LocalTransport(httpx.AsyncBaseTransport):
    """An API server, a scheduler, a Job controller, a garbage collector and a kubelet, all in this process.

    Enter it with ``async with``; an `httpx.AsyncClient` does so itself, and it can be entered twice. It works in
    one event loop and cannot be used again after it was closed. Arguments:

    - `runtime` starts the containers: see `choose_runtime` and `ScriptedRuntime`.
    - `namespaces` are names, or `Namespace` values with a Pod Security level and a quota.
    - `faults` makes the cluster misbehave, see `gke_sandbox.local.faults`.
    - `pace` is the latency of each step; by default none takes any time.
    - `node_labels` are the labels of the only node.
    - `objects` exist from the start and can be listed, but have no effect: nodes, LimitRanges, ...
    - `caller` is the user of all requests; by default an administrator.
    - `now` is the clock for timestamps (durations use the event loop's), and `rng` chooses names and uids.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        namespaces: Iterable[str | Namespace] = ("default",),
        faults: FaultPlan | None = None,
        pace: Pace | None = None,
        node_labels: Mapping[str, str] = _GVISOR_LABELS,
        objects: Iterable[Json] = (),
        caller: Caller | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        rng: random.Random | None = None,
    ) -> None:
        self.runtime = runtime
        self.faults = faults or FaultPlan()
        self.requests: deque[SentRequest] = deque(maxlen=MAX_REQUESTS)
        """The latest requests, oldest first, without those whose connection was refused."""
        self._new_cluster = partial(
            ClusterState,
            runtime=runtime,
            namespaces=tuple(namespaces),
            faults=self.faults,
            pace=pace or Pace(),
            node_labels=dict(node_labels),
            objects=tuple(objects),
            caller=caller or Caller.admin(),
            now=now,
            rng=rng or random.Random(),
        )
        self._now = now
        self._entered = 0
        self._tasks: TaskGroup | None = None
        self._cluster: ClusterState | None = None
        self._running = False
        self._in_flight: set[anyio.CancelScope] = set()
        self._bodies: set[Body] = set()
        self._sessions: WeakSet[AttachSession] = WeakSet()

    async def __aenter__(self) -> LocalTransport:
        if self._entered == 0:
            if self._tasks is not None:
                raise RuntimeError("a LocalTransport cannot be used again after it was closed")
            self._tasks = anyio.create_task_group()
            self._cluster = cluster = self._new_cluster(await self._tasks.__aenter__())
            for part in (Scheduler(cluster), Kubelet(cluster), JobController(cluster), GarbageCollector(cluster)):
                cluster.store.listen(part.on_change)
            self._running = True
        self._entered += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._entered -= 1
        if self._entered or self._tasks is None:
            return
        # A controller that fails cancels the group, and with it this task.
        failed = self._tasks.cancel_scope.cancel_called
        await self.aclose()
        if failed and isinstance(exc_value, anyio.get_cancelled_exc_class()):
            await self._tasks.__aexit__(exc_type, exc_value, traceback)
        else:
            # Do not wrap the caller's exception in an exception group. A cancellation may be that of another task.
            await self._tasks.__aexit__(None, None, None)

    async def aclose(self) -> None:
        """Stop all requests, controllers and containers; leaving the context waits for them."""
        self._running = False
        if self._cluster is not None:
            self._cluster.tasks.cancel_scope.cancel()
        for scope in self._in_flight:
            scope.cancel()
        for body in tuple(self._bodies):
            body.abort()
        for session in self._sessions:
            session.cut()

    # The content of the cluster, also after it was closed.

    def objects(self, plural: str) -> list[Json]:
        """Return all objects of one resource (``pods``). Do not change them."""
        resource = next(resource for resource in ALL if resource.plural == plural)
        return self._state().store.select(resource)

    def leftovers(self) -> list[str]:
        """Return the Jobs, pods and ConfigMaps that exist, such as ``jobs/default/x``."""
        store = self._state().store
        return [
            f"{resource.plural}/{obj['metadata']['namespace']}/{obj['metadata']['name']}"
            for resource in (JOBS, PODS, CONFIG_MAPS)
            for obj in store.select(resource)
        ]

    async def until(self, condition: Callable[[], T], seconds: float = 5.0) -> T:
        """Wait until `condition` returns a true value, and return that.

        It is called after each change in the cluster. Raises TimeoutError after `seconds`.
        """
        changed = self._state().store.changed
        with anyio.fail_after(seconds):
            while not (found := condition()):
                await changed.wait()
        return found

    def expire_watches(self) -> None:
        """Drop the history of changes: watches from earlier resourceVersions have expired (410)."""
        store = self._state().store
        for resource in ALL:
            store.history(resource).forget_all(store.revision)

    def resume_jobs(self) -> None:
        """Resume every suspended Job, as a queue does when it admits them."""
        self._set_suspend(False)

    def suspend_jobs(self) -> None:
        """Suspend every Job, which deletes its pods, as a queue does when it needs their place."""
        self._set_suspend(True)

    def _set_suspend(self, suspend: bool) -> None:
        store = self._state().store
        for job in store.select(JOBS):
            key = Key(JOBS.plural, job["metadata"]["namespace"], job["metadata"]["name"])
            store.update(key, {**job, "spec": {**job["spec"], "suspend": suspend}})

    def _state(self) -> ClusterState:
        if self._cluster is None:
            raise RuntimeError("enter the LocalTransport with `async with` first")
        return self._cluster

    # Requests.

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Handle one request, within the timeouts in its extensions."""
        if self._cluster is None or not self._running:
            raise httpx.ConnectError("the embedded cluster is not running", request=request)
        with anyio.CancelScope() as scope:
            self._in_flight.add(scope)
            try:
                return await self._handle(self._cluster, request)
            finally:
                self._in_flight.discard(scope)
        raise httpx.ReadError("the embedded cluster was closed", request=request)

    async def _handle(self, cluster: ClusterState, request: httpx.Request) -> httpx.Response:
        timeouts = Timeouts.of(request)
        parsed = await self._read(request, timeouts)
        faults = self.faults.for_request(RequestAction, parsed)
        await self._connect(faults, request, timeouts)
        self.requests.append(
            SentRequest(
                anyio.current_time(),
                parsed.method,
                parsed.path,
                parsed.query,
                parsed.verb,
                parsed.resource,
                parsed.namespace,
                parsed.name,
            )
        )
        with anyio.move_on_after(timeouts.read) as limit:
            reply = await self._reply(cluster, parsed, faults, request)
        if limit.cancelled_caught:
            raise httpx.ReadTimeout("no response within the read timeout", request=request)
        if reply.session is not None:
            return self._upgraded(reply, reply.session, cluster.tasks, request)
        return self._response(reply, parsed, timeouts, request)

    async def _read(self, request: httpx.Request, timeouts: Timeouts) -> ApiRequest:
        with anyio.move_on_after(timeouts.write) as limit:
            body = await request.aread()
        if limit.cancelled_caught:
            raise httpx.WriteTimeout("the request body did not arrive within the write timeout", request=request)
        return parse(request.method, request.url.path, dict(request.url.params), body)

    async def _connect(self, faults: list[RequestAction], request: httpx.Request, timeouts: Timeouts) -> None:
        with anyio.move_on_after(timeouts.connect) as limit:
            for fault in faults:
                if isinstance(fault, Refuse):
                    raise httpx.ConnectError("All connection attempts failed", request=request)
                if isinstance(fault, Delay) and fault.at == "connect":
                    await anyio.sleep(fault.seconds)
        if limit.cancelled_caught:
            raise httpx.ConnectTimeout("no connection within the connect timeout", request=request)

    async def _reply(
        self,
        cluster: ClusterState,
        parsed: ApiRequest,
        faults: list[RequestAction],
        request: httpx.Request,
    ) -> Reply:
        """Process the request, and apply the faults."""
        server = ApiServer(cluster)
        await anyio.sleep(cluster.pace.response)
        for fault in faults:
            if isinstance(fault, Delay) and fault.at == "request":
                await anyio.sleep(fault.seconds)
        replacement = next((fault for fault in faults if isinstance(fault, (Respond, Drop, Forbid))), None)
        reply = None
        if replacement is None or (isinstance(replacement, (Respond, Drop)) and replacement.carried_out):
            try:
                reply = server.handle(parsed, request.headers)
            except StatusError as error:
                reply = error_reply(error)
        for fault in faults:
            if isinstance(fault, Delay) and fault.at == "response":
                await anyio.sleep(fault.seconds)
        if replacement is not None and reply is not None and reply.session is not None:
            # The connection was made, and ends without the client.
            reply.session.start(cluster.tasks)
            reply.session.cut()
        if isinstance(replacement, Drop):
            raise httpx.ReadError("the connection broke before the response", request=request)
        if isinstance(replacement, Respond):
            return _fault_reply(replacement)
        if reply is None:
            return error_reply(server.forbidden(parsed))
        return reply

    def _response(
        self, reply: Reply, parsed: ApiRequest, timeouts: Timeouts, request: httpx.Request
    ) -> httpx.Response:
        headers = self._headers(reply)
        if reply.content_type is not None:
            headers.insert(0, ("content-type", reply.content_type))
        faults = self.faults.for_request(BodyAction, parsed)
        if reply.source is None and not faults:
            headers.append(("content-length", str(len(reply.body))))
            whole = httpx.ByteStream(reply.body)
            return httpx.Response(reply.code, headers=headers, stream=whole, request=request)
        source = reply.source or WholeBody(reply.body)
        for fault in faults:
            source = FaultyBody(source, fault)
        body = Body(source, timeouts.read, request, self._bodies.discard)
        self._bodies.add(body)
        headers.append(("transfer-encoding", "chunked"))
        return httpx.Response(reply.code, headers=headers, stream=body, request=request)

    def _headers(self, reply: Reply) -> list[tuple[str, str]]:
        date = format_datetime(self._now().astimezone(timezone.utc), usegmt=True)
        # A page in HTML is that of a proxy.
        is_own = reply.content_type != "text/html"
        audit_id = [("audit-id", str(uuid.UUID(int=len(self.requests))))] if is_own else []
        return [*reply.headers, *audit_id, ("date", date)]

    def _upgraded(
        self, reply: Reply, session: AttachSession, tasks: TaskGroup, request: httpx.Request
    ) -> httpx.Response:
        self._sessions.add(session)
        stream = session.start(tasks)
        return httpx.Response(
            reply.code,
            headers=self._headers(reply),
            stream=UpgradedBody(stream),
            extensions={"network_stream": stream},
            request=request,
        )


def _fault_reply(fault: Respond) -> Reply:
    if fault.text is not None:
        kind = "text/html" if fault.text.startswith("<") else "text/plain; charset=utf-8"
        reply = Reply(fault.code, fault.text.encode(), kind)
    else:
        details = {"kind": fault.kind} if fault.kind else None
        reply = json_reply(fault.code, failure(fault.code, fault.reason, fault.message, details))
    if fault.retry_after is not None:
        reply.headers.append(("retry-after", str(fault.retry_after)))
    return reply
