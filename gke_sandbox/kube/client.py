"""The client of the API: one method for each verb. `status` turns responses into values or errors."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from datetime import datetime
from functools import partial
from typing import Any, Literal

import anyio
import httpx

from ..errors import ApiError, Forbidden, NetworkError, ServerError, TooManyRequests
from .attach import AttachConnection, require_websockets, upgrade_headers, upgrade_problem
from .config.types import ClusterConfig
from .explain import add_hints, is_kubernetes
from .http.body import ResponseBody
from .http.proxy import Proxy
from .http.request_queue import RequestQueue
from .http.tls import warn_if_insecure
from .http.transport import (
    REQUEST_TIMEOUT,
    network_errors,
    network_transport,
    request_headers,
    stream_timeout,
    trace_listener,
)
from .permissions import Permissions
from .resources import PODS, VERSION, Resource
from .status import (
    RequestInfo,
    bad_response,
    error_from_response,
    is_rbac_denial,
    json_response,
    parse_date,
    plain,
    warning_texts,
)
from .watch import EventStream, WatchEvent

__all__ = ["KubeClient", "PropagationPolicy", "Transport"]

logger = logging.getLogger(__name__)

PropagationPolicy = Literal["Background", "Foreground", "Orphan"]
Transport = httpx.AsyncBaseTransport

MAX_RESPONSE = 256 << 20
"""Bytes. A list of a thousand pods is about 10 MB."""
MAX_ERROR_RESPONSE = 1 << 20
WATCH_READ_TIMEOUT = 120.0
"""Seconds. Servers send a BOOKMARK about once a minute, so a longer silence means a lost connection."""
MAX_WARNINGS = 1000
"""Number of logged warnings to remember."""
_GATEWAY_ERRORS = (502, 503, 504)
"""Status codes if there is no API server behind a load balancer, or it has not started."""

TransportWrapper = Callable[[Transport], Transport]


class KubeClient:
    """A client for one API server. Use it with ``async with``; many tasks can share it.

    `transport` replaces the network: any `httpx.AsyncBaseTransport`, entered and closed with the client.
    `transport_wrapper` is called with this transport, or with the network's, and returns the one to use.

    Every method raises `ApiError` (or a subclass) if the server rejects the request, `NetworkError` without a
    complete response, and `SpecError` for a name that is not valid in a path. No request is sent twice, except
    once after a 401 if the credentials could be renewed.
    """

    def __init__(
        self,
        config: ClusterConfig,
        *,
        transport: Transport | None = None,
        transport_wrapper: TransportWrapper | None = None,
    ) -> None:
        self.config = config
        self._transport_wrapper = transport_wrapper
        self._server = config.address
        self._transport = transport
        self._http: httpx.AsyncClient | None = None
        self._proxy: Proxy | None = None
        self._round_trips: deque[float] = deque(maxlen=8)
        self._queue = RequestQueue()
        self._warned: set[str] = set()
        self._permissions = Permissions()
        self._has_responded = False
        self._server_time: datetime | None = None

    def __repr__(self) -> str:
        return f"KubeClient({self._server!r})"

    async def __aenter__(self) -> KubeClient:
        transport = self._transport
        if transport is None:
            warn_if_insecure(self.config)
            self._proxy = self.config.proxy(os.environ)
            transport = network_transport(self.config, self._proxy)
        if self._transport_wrapper is not None:
            transport = self._transport_wrapper(transport)
        http = httpx.AsyncClient(
            transport=transport,
            auth=self.config.auth if self.config.secure else None,
            headers=request_headers(self.config),
            timeout=REQUEST_TIMEOUT,
            follow_redirects=False,
            trust_env=False,
        )
        self._http = await http.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.__aexit__(*exc_info)

    def with_wrapper(self, wrapper: TransportWrapper) -> KubeClient:
        """Return a client for the same cluster whose transport is wrapped. Do not enter this one then."""
        return KubeClient(self.config, transport=self._transport, transport_wrapper=wrapper)

    def warn_once(self, text: str, key: str = "") -> None:
        """Log a warning, unless one with the same `key` (by default the text) was logged before."""
        key = key or text
        if key not in self._warned:
            if len(self._warned) >= MAX_WARNINGS:
                self._warned.clear()
            self._warned.add(key)
            logger.warning("%s", text)

    @property
    def has_responded(self) -> bool:
        """Whether a Kubernetes API has responded yet, also with an error. The pages of proxies do not count."""
        return self._has_responded

    def add_hints(self, error: ApiError) -> None:
        """Add what this client knows to the hint of the error of a response."""
        add_hints(error, self.config, found_kubernetes=self._has_responded, now=self._server_time)

    @property
    def server_time(self) -> datetime | None:
        """The time in the ``Date`` header of the last response. None if it had no valid one."""
        return self._server_time

    @property
    def replays(self) -> bool:
        """Whether responses come from a cassette: another release of this package may have recorded its Jobs."""
        return bool(getattr(self._transport, "replays", False))

    @property
    def is_recorded(self) -> bool:
        """Whether a cassette is recorded or replayed: the requests of a run must not depend on other runs."""
        return self.replays or self._transport_wrapper is not None

    @property
    def round_trip(self) -> float | None:
        """Seconds from sending a request on an open connection to its response headers: the minimum of the last
        eight, to exclude most of the processing time of the server.

        None before the first response, and on transports other than the network.
        """
        return min(self._round_trips, default=None)

    async def create(
        self,
        resource: Resource,
        namespace: str | None,
        body: Mapping[str, Any],
        *,
        field_validation: Literal["Strict", "Warn", "Ignore"] | None = None,
        dry_run: bool = False,
        low_priority: bool = False,
    ) -> dict[str, Any]:
        """POST `body` and return the created object.

        With `field_validation` "Strict" the server rejects unknown and duplicate fields. With `dry_run` it makes
        all checks and creates nothing. With `low_priority`, other requests that wait are sent first.
        """
        # https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation and #dry-run
        metadata = body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, Mapping) else None
        info = RequestInfo("create", "POST", resource, namespace, name if isinstance(name, str) else None)
        query = {"fieldValidation": field_validation, "dryRun": "All" if dry_run else None}
        return await self._request(info, query, body, low_priority=low_priority)

    async def version(self) -> dict[str, Any]:
        """GET /version, such as ``{"gitVersion": "v1.36.2", ...}``. Every user may do this by default."""
        return await self._request(RequestInfo("get", "GET", VERSION), {})

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """GET one object."""
        return await self._request(RequestInfo("get", "GET", resource, namespace, name), {})

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        continue_: str | None = None,
    ) -> dict[str, Any]:
        """GET a collection: an object with ``metadata.resourceVersion`` and ``items``, which have no kind.

        If `namespace` is None, list all namespaces. With `limit`, pass ``metadata.continue`` of the response, if
        it is set, as `continue_` of the next request. It expires after some minutes (`Expired`).
        """
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": limit,
            "continue": continue_,
        }
        return await self._request(RequestInfo("list", "GET", resource, namespace), query)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        propagation_policy: PropagationPolicy | None = None,
        preconditions: Mapping[Literal["uid", "resourceVersion"], str] | None = None,
        low_priority: bool = False,
    ) -> dict[str, Any]:
        """DELETE one object. Return a Status, or the object if finalizers delay its deletion.

        With `preconditions`, raise `Conflict` if the object has another uid or resourceVersion. With
        `low_priority`, other requests that wait are sent first.
        """
        # https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/delete-options/
        options: dict[str, Any] = {}
        if propagation_policy is not None:
            options["propagationPolicy"] = propagation_policy
        if preconditions:
            options["preconditions"] = dict(preconditions)
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options} if options else None
        info = RequestInfo("delete", "DELETE", resource, namespace, name)
        return await self._request(info, {}, body, low_priority=low_priority)

    @asynccontextmanager
    async def log(
        self,
        namespace: str,
        pod: str,
        *,
        container: str | None = None,
        follow: bool = False,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open the log of a container: the chunks as they arrive, split anywhere. Empty for a pod without a node.

        ``async with client.log(...) as chunks: async for chunk in chunks``. With `follow`, iteration continues
        until the container has ended, without a limit on silence: a program may be quiet, and TCP keepalive
        detects a dead connection.

        `BadRequest` means that the container has not started yet. Iteration raises `NetworkError` if the
        connection breaks. Leaving the block closes the stream.
        """
        # https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
        info = RequestInfo("get", "GET", PODS, namespace, pod, "log")
        query = {"container": container, "follow": "true" if follow else None}
        timeout = stream_timeout(None) if follow else REQUEST_TIMEOUT
        async with self._send(info, query, timeout=timeout) as (response, body):
            await self._raise_for_status(info, response, body)
            yield body

    @asynccontextmanager
    async def attach(self, namespace: str, pod: str, *, container: str) -> AsyncIterator[AttachConnection]:
        """Attach to stdin and stdout of a running container.

        ``async with client.attach(...) as connection``, then ``await connection.send(...)`` and ``async for chunk
        in connection``. The server requires the verbs get and create on pods/attach. Raise `ConfigError` if the
        package for WebSockets is missing. For a container that does not run, the error is `ServerError` or
        `BadRequest`.

        Attach once: the output goes to every connection, and stdin comes from all of them. Output from before the
        attach is only in the log. Leaving the block closes the connection.
        """
        # https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/, Operations
        require_websockets()
        info = RequestInfo("get", "GET", PODS, namespace, pod, "attach")
        query = {"container": container, "stdin": "true", "stdout": "true", "stderr": "true"}
        upgrade = upgrade_headers()
        async with self._send(info, query, headers=upgrade) as (response, body):
            if response.status_code != 101:
                await self._raise_for_status(info, response, body)
            if problem := upgrade_problem(upgrade, response.status_code, response.headers):
                raise bad_response(
                    info,
                    response.status_code,
                    problem,
                    hint="Is there a proxy that does not support WebSockets?",
                )
            stream = response.extensions["network_stream"]
            connection = AttachConnection(stream, info, partial(self._network_errors, info))
            try:
                yield connection
            finally:
                await connection.aclose()

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        resource_version: str | None = None,
        label_selector: str | None = None,
        timeout_seconds: int = 300,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Watch the changes after `resource_version`, including ERROR and BOOKMARK events.

        ``async with client.watch(...) as events: async for event in events``. The server ends the watch after
        `timeout_seconds`; a `Reflector` reopens it. Iteration raises `NetworkError` if the connection breaks or is
        silent for longer than the interval of bookmarks, and `ServerError` for a line that is not an event.
        """
        # https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
        info = RequestInfo("watch", "GET", resource, namespace)
        query = {
            "watch": "true",
            "labelSelector": label_selector,
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": timeout_seconds,
        }
        async with self._send(info, query, timeout=stream_timeout(WATCH_READ_TIMEOUT)) as (response, body):
            await self._raise_for_status(info, response, body)
            yield EventStream(info, body)

    async def _request(
        self,
        info: RequestInfo,
        query: Mapping[str, str | int | None],
        content: Mapping[str, Any] | None = None,
        *,
        low_priority: bool = False,
    ) -> dict[str, Any]:
        async with self._turn(info, low_priority=low_priority):
            async with self._send(info, query, content, stream=False) as (response, body):
                read, complete = await body.read(MAX_RESPONSE)
            if not complete:
                raise bad_response(info, response.status_code, f"it is larger than {MAX_RESPONSE >> 20} MiB")
            if not response.is_success:
                raise self._error(info, response, read)
        self._recognize(response, read)
        try:
            return json_response(info, response.status_code, read)
        except ServerError as error:
            self.add_hints(error)
            raise

    async def _raise_for_status(self, info: RequestInfo, response: httpx.Response, body: ResponseBody) -> None:
        """Raise the error of a response that is not 2xx."""
        if response.is_success:
            self._has_responded = True
        else:
            content, _ = await body.read(MAX_ERROR_RESPONSE)
            raise self._error(info, response, content)

    def _error(self, info: RequestInfo, response: httpx.Response, content: bytes) -> ApiError:
        """Return the error of a response that is not 2xx."""
        error = error_from_response(info, response.status_code, response.headers, content)
        if error.code in _GATEWAY_ERRORS:
            self._record_outage()
        if isinstance(error, TooManyRequests):
            self._queue.record_throttled(info, error.retry_after)
        if isinstance(error, Forbidden) and is_rbac_denial(error.server_message):
            error.retryable = self._permissions.record_denial(info, anyio.current_time())
        self._recognize(response, content)
        self.add_hints(error)
        return error

    def _recognize(self, response: httpx.Response, content: bytes) -> None:
        self._has_responded = self._has_responded or is_kubernetes(response.headers, content)

    def _record_outage(self) -> None:
        self._permissions.record_outage(anyio.current_time())

    @contextmanager
    def _network_errors(self, info: RequestInfo) -> Iterator[None]:
        """Raise exceptions of httpx as `NetworkError`, and record them: the server may be starting."""
        try:
            with network_errors(info, self._server, self._proxy):
                yield
        except NetworkError as error:
            if error.retryable:
                self._record_outage()
            raise

    def _turn(self, info: RequestInfo, *, low_priority: bool = False) -> AbstractAsyncContextManager[None]:
        # In a replay, a response can depend on a request that would wait.
        return nullcontext() if self.replays else self._queue.turn(info, low_priority=low_priority)

    @asynccontextmanager
    async def _send(
        self,
        info: RequestInfo,
        query: Mapping[str, str | int | None],
        content: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout = REQUEST_TIMEOUT,
        stream: bool = True,
    ) -> AsyncIterator[tuple[httpx.Response, ResponseBody]]:
        """Send one request. Leaving the block closes the response.

        With `stream` the round trip is not measured, the response must not be compressed, and the request waits
        for its turn.
        """
        if self._http is None:
            raise RuntimeError("enter the KubeClient with `async with` first")
        extensions = {"trace": trace_listener((lambda _: None) if stream else self._round_trips.append)}
        headers = dict(headers or {})
        if content is not None:
            headers["Content-Type"] = "application/json"
        if not stream and not self.config.disable_compression:
            headers["Accept-Encoding"] = "gzip"
        with self._network_errors(info):
            # httpx would parse a string again in each of its steps.
            url = httpx.URL(
                self._server + info.path,
                params={key: value for key, value in query.items() if value is not None},
            )
            request = self._http.build_request(
                info.method,
                url,
                content=None if content is None else _encoded(content),
                headers=headers,
                timeout=timeout,
                extensions=extensions,
            )
            if stream:
                async with self._turn(info):
                    response = await self._http.send(request, stream=True)
            else:
                response = await self._http.send(request, stream=True)
        if response.is_success or response.status_code == 101:
            self._permissions.record_grant(info)
        if response.status_code != 429:
            self._queue.record_success()
        self._server_time = parse_date(response.headers.get("date", ""))
        body = ResponseBody(response, partial(self._network_errors, info))
        try:
            self._log_warnings(info, response.headers.get_list("warning"))
            encoding = response.headers.get("content-encoding", "identity")
            if encoding not in ("identity", headers.get("Accept-Encoding")):
                raise bad_response(info, response.status_code, f"it is compressed ({plain(encoding, 50)})")
            yield response, body
        finally:
            await body.aclose()

    def _log_warnings(self, info: RequestInfo, fields: Iterable[str]) -> None:
        for text in warning_texts(fields):
            # Every execution has new names: log a warning that differs only in the name once.
            key = text.replace(info.name, "") if info.name else text
            self.warn_once(f"{info}: the server warns: {text}", key)


def _encoded(content: Mapping[str, Any]) -> bytes:
    # UTF-8, as the server counts it: an escape such as \u00e9 takes three times the bytes of its character.
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")
