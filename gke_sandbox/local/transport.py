"""The embedded cluster as an httpx transport: requests in, the API server's answers out.

::

    async with httpx.AsyncClient(transport=LocalTransport(ScriptedRuntime(Script(...)))) as http:
        await http.get("https://embedded.invalid/version")

Its task group runs the controllers and the pods; leaving it ends them all and kills every container. Only
httpx's exceptions come out of a request.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import Literal, TypeVar

import anyio
import httpx
from anyio.abc import TaskGroup

from .._fakes.api_request import ApiRequest, parse
from .._fakes.body import Body, Timeouts
from .apiserver.api import ApiServer
from .apiserver.errors import StatusError, failure
from .apiserver.rbac import Caller
from .apiserver.resources import ALL, CONFIG_MAPS, JOBS, PODS
from .apiserver.responses import Reply, json_reply, refused
from .cluster import ClusterOptions, ClusterState, Namespace, as_namespaces
from .controllers.gc import GarbageCollector
from .controllers.jobs import JobController
from .controllers.kubelet import Kubelet
from .controllers.scheduler import Scheduler
from .faults import Action, Delay, Drop, FaultPlan, Forbid, Refuse, Respond
from .faulty_body import Whole, with_faults
from .latency import Pace
from .objects import Json
from .runtimes.base import Runtime

_GVISOR_LABELS = {"sandbox.gke.io/runtime": "gvisor"}
_KEPT_REQUESTS = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class SentRequest:
    """A request that reached the cluster: for tests that count them. `at` is the event loop's time."""

    at: float
    method: str
    path: str
    query: Mapping[str, str]
    verb: str
    resource: str
    namespace: str
    name: str


class LocalTransport(httpx.AsyncBaseTransport):
    """An API server, a scheduler, a Job controller, a garbage collector and a kubelet, all in one process.

    Use it as ``async with`` (a client that is entered enters it, too; entering it twice is all right). It
    serves one event loop, once. `namespaces` are names, or `Namespace` values with a Pod Security level and a
    quota. `caller` is who all requests come from. `now` is calendar time, `rng` chooses names and uids; time
    that passes is the event loop's.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        namespaces: Iterable[str | Namespace] = ("default",),
        faults: FaultPlan | None = None,
        pace: Pace | None = None,
        runtime_classes: Iterable[str] = ("gvisor",),
        node_labels: Mapping[str, str] = _GVISOR_LABELS,
        priority_classes: Mapping[str, int] | None = None,
        caller: Caller | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        rng: random.Random | None = None,
    ) -> None:
        self.runtime = runtime
        self.faults = faults or FaultPlan()
        self.requests: deque[SentRequest] = deque(maxlen=_KEPT_REQUESTS)
        """The latest requests, oldest first; those that were refused a connection are not among them."""
        self._settings = ClusterOptions(
            namespaces=as_namespaces(namespaces),
            runtime_classes=tuple(runtime_classes),
            node_labels=dict(node_labels),
            priority_classes=dict(priority_classes or {}),
            caller=caller or Caller.admin(),
            pace=pace or Pace(),
        )
        self._now = now
        self._rng = rng or random.Random()
        self._entered = 0
        self._tasks: TaskGroup | None = None
        self._open: _Open | None = None
        self._running = False
        self._in_flight: set[anyio.CancelScope] = set()
        self._bodies: set[Body] = set()

    async def __aenter__(self) -> LocalTransport:
        if self._entered == 0:
            if self._tasks is not None:
                raise RuntimeError("a LocalTransport cannot be used again after it was closed")
            self._tasks = anyio.create_task_group()
            tasks = await self._tasks.__aenter__()
            cluster = ClusterState(self.runtime, self._settings, self.faults, self._now, self._rng, tasks)
            self._open = _Open(cluster)
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
        await self.aclose()
        if isinstance(exc_value, anyio.get_cancelled_exc_class()):
            # It may be the task group's own doing, because a controller has failed: the group knows.
            await self._tasks.__aexit__(exc_type, exc_value, traceback)
        else:
            # The caller's own exception goes on as it is, not in a group.
            await self._tasks.__aexit__(None, None, None)

    async def aclose(self) -> None:
        """End every request, every controller and every container; leaving the context waits for them."""
        self._running = False
        if self._open is not None:
            self._open.cluster.tasks.cancel_scope.cancel()
        for scope in self._in_flight:
            scope.cancel()
        for body in tuple(self._bodies):
            body.abort()

    # What is in the cluster, for tests and messages. After the end: as it was left.

    def objects(self, plural: str) -> list[Json]:
        """All objects of one resource, as they are now; not to be changed."""
        served = next(served for served in ALL if served.plural == plural)
        return self._state().cluster.store.select(served)

    def leftovers(self) -> list[str]:
        """What an execution may leave behind: ``jobs/default/x``; empty when all was cleaned up."""
        store = self._state().cluster.store
        return [
            f"{served.plural}/{obj['metadata']['namespace']}/{obj['metadata']['name']}"
            for served in (JOBS, PODS, CONFIG_MAPS)
            for obj in store.select(served)
        ]

    async def until(self, what: Callable[[], T], seconds: float = 5.0) -> T:
        """Wait until `what` gives something true, looking again after each change in the cluster; return that.

        Raises TimeoutError after `seconds`.
        """
        changed = self._state().cluster.store.changed
        with anyio.fail_after(seconds):
            while not (found := what()):
                await changed.wait()
        return found

    def expire_watches(self) -> None:
        """Forget the history: a watch from any earlier resourceVersion is answered with 410 from now on."""
        store = self._state().cluster.store
        for served in ALL:
            store.history(served).forget_all(store.revision)

    def _state(self) -> _Open:
        if self._open is None:
            raise RuntimeError("a LocalTransport is used as `async with`")
        return self._open

    # Requests.

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, within the timeouts of its extensions."""
        if self._open is None or not self._running:
            raise httpx.ConnectError("the embedded cluster is not running", request=request)
        with anyio.CancelScope() as scope:
            self._in_flight.add(scope)
            try:
                return await self._handle(self._open, request)
            finally:
                self._in_flight.discard(scope)
        raise httpx.ReadError("the embedded cluster was closed", request=request)

    async def _handle(self, opened: _Open, request: httpx.Request) -> httpx.Response:
        timeouts = Timeouts.of(request)
        parsed = await self._read(request, timeouts)
        faults = list(self._faults("request", parsed))
        await self._connect(faults, request, timeouts)
        self.requests.append(_sent(parsed))
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        with anyio.move_on_after(timeouts.read) as limit:
            reply = await self._answer(opened, parsed, content_type, faults, request)
        if limit.cancelled_caught:
            raise httpx.ReadTimeout("no answer within the read timeout", request=request)
        return self._response(reply, parsed, timeouts, request)

    async def _read(self, request: httpx.Request, timeouts: Timeouts) -> ApiRequest:
        with anyio.move_on_after(timeouts.write) as limit:
            body = await request.aread()
        if limit.cancelled_caught:
            raise httpx.WriteTimeout("the request's body did not come", request=request)
        return parse(request.method, request.url.path, dict(request.url.params), body)

    def _faults(self, point: Literal["request", "body", "watch"], parsed: ApiRequest) -> Iterable[Action]:
        return self.faults.actions_for(point, parsed.verb, parsed.resource, parsed.namespace, parsed.name)

    async def _connect(self, faults: list[Action], request: httpx.Request, timeouts: Timeouts) -> None:
        with anyio.move_on_after(timeouts.connect) as limit:
            for fault in faults:
                if isinstance(fault, Refuse):
                    raise httpx.ConnectError("All connection attempts failed", request=request)
                if isinstance(fault, Delay) and fault.at == "connect":
                    await anyio.sleep(fault.seconds)
        if limit.cancelled_caught:
            raise httpx.ConnectTimeout("no connection within the connect timeout", request=request)

    async def _answer(
        self, opened: _Open, parsed: ApiRequest, content_type: str, faults: list[Action], request: httpx.Request
    ) -> Reply:
        """Carry the request out, with all that is to go wrong about it."""
        await anyio.sleep(opened.cluster.pace.answer)
        for fault in faults:
            if isinstance(fault, Delay) and fault.at == "request":
                await anyio.sleep(fault.seconds)
        instead = next((fault for fault in faults if isinstance(fault, (Respond, Drop, Forbid))), None)
        reply = None
        if instead is None or (isinstance(instead, (Respond, Drop)) and instead.carried_out):
            watch_faults = list(self._faults("watch", parsed))
            try:
                reply = await opened.server.handle(parsed, content_type, watch_faults)
            except StatusError as refusal:
                reply = refused(refusal)
        for fault in faults:
            if isinstance(fault, Delay) and fault.at == "response":
                await anyio.sleep(fault.seconds)
        if isinstance(instead, Drop):
            raise httpx.ReadError("the connection broke before there was an answer", request=request)
        if isinstance(instead, Respond):
            return _instead(instead)
        if reply is None:
            return refused(opened.server.forbidden(parsed))
        return reply

    def _response(
        self, reply: Reply, parsed: ApiRequest, timeouts: Timeouts, request: httpx.Request
    ) -> httpx.Response:
        headers = list(reply.headers)
        if reply.content_type is not None:
            headers.insert(0, ("content-type", reply.content_type))
        faults = list(self._faults("body", parsed))
        if reply.source is None and not faults:
            headers.append(("content-length", str(len(reply.body))))
            whole = httpx.ByteStream(reply.body)
            return httpx.Response(reply.code, headers=headers, stream=whole, request=request)
        source = with_faults(reply.source or Whole(reply.body), faults)
        body = Body(source, timeouts.read, request, self._bodies.discard)
        self._bodies.add(body)
        headers.append(("transfer-encoding", "chunked"))
        return httpx.Response(reply.code, headers=headers, stream=body, request=request)


class _Open:
    """A cluster that runs."""

    def __init__(self, cluster: ClusterState) -> None:
        self.cluster = cluster
        self.server = ApiServer(cluster)
        self.kubelet = Kubelet(cluster)
        for part in (Scheduler(cluster), self.kubelet, JobController(cluster), GarbageCollector(cluster)):
            cluster.store.listen(part.changed)


def _sent(parsed: ApiRequest) -> SentRequest:
    return SentRequest(
        anyio.current_time(),
        parsed.method,
        parsed.path,
        parsed.query,
        parsed.verb,
        parsed.resource,
        parsed.namespace,
        parsed.name,
    )


def _instead(answer: Respond) -> Reply:
    if answer.text is not None:
        kind = "text/html" if answer.text.startswith("<") else "text/plain; charset=utf-8"
        reply = Reply(answer.code, answer.text.encode(), kind)
    else:
        details = {"kind": answer.kind} if answer.kind else None
        reply = json_reply(answer.code, failure(answer.code, answer.reason, answer.message, details))
    if answer.retry_after is not None:
        reply.headers.append(("retry-after", str(answer.retry_after)))
    return reply
