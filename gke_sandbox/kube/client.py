"""The client: one method a verb, over one httpx client; answers become values or errors in `status`."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import httpx

from .._version import __version__
from ..errors import ServerError
from .auth.static import ClientCertificate
from .config.types import ClusterConfig
from .http.body import ResponseBody
from .http.proxy import Proxy
from .http.rotating import RotatingTransport, plugin_certificate
from .http.tls import proxy_ssl_context, ssl_context, warn_if_insecure
from .http.transport import (
    REQUEST_TIMEOUT,
    RoundTrip,
    network_errors,
    network_transport,
    stream_timeout,
    trace_listener,
)
from .resources import PODS, Resource
from .status import RequestInfo, error_from_response, json_response, plain, warning_texts
from .watch import LineDecoder, LineTooLong, WatchEvent, parse_event

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["KubeClient", "PropagationPolicy", "Transport"]

logger = logging.getLogger("gke_sandbox")

PropagationPolicy = Literal["Background", "Foreground", "Orphan"]
Transport = httpx.AsyncBaseTransport

# A list of a thousand pods is about 10 MB.
MAX_ANSWER = 256 << 20
MAX_REFUSAL = 1 << 20
# BOOKMARKs come about once a minute, so a watch that is silent for longer than this is dead. Seconds.
WATCH_SILENCE = 120.0
# What a watch without bookmarks may take beyond the end that it asked for.
WATCH_MARGIN = 30.0
MAX_WARNINGS = 1000


class KubeClient:
    """A Kubernetes API server. ``async with``; safe to be used by many tasks at once.

    `transport` is what carries the requests instead of the network: any `httpx.AsyncBaseTransport`,
    entered and closed with the client. `transport_wrapper` puts another one around it, or around the network's.

    Every method raises `ApiError` (its subclasses) for a refused request, `NetworkError` without a whole answer,
    `SpecError` for a name that cannot stand in a path. Nothing is sent twice, but after a 401 with credentials
    that could be renewed, once.
    """

    def __init__(
        self,
        config: ClusterConfig,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        transport_wrapper: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport] | None = None,
    ) -> None:
        self.config = config
        self._transport_wrapper = transport_wrapper
        self._server = config.address
        self._transport = transport
        self._http: httpx.AsyncClient | None = None
        self._proxy: Proxy | None = None
        self._round_trip = RoundTrip()
        self._warned: set[str] = set()
        self._has_responded = False

    def __repr__(self) -> str:
        return f"KubeClient({self._server!r})"

    async def __aenter__(self) -> KubeClient:
        transport = self._transport
        if transport is None:
            warn_if_insecure(self.config)
            self._proxy = self.config.proxy(os.environ)
            transport = RotatingTransport(self._network, lambda: plugin_certificate(self.config.auth))
        if self._transport_wrapper is not None:
            transport = self._transport_wrapper(transport)
        # Compressed watches and logs come late: only what is read whole may be compressed.
        headers = httpx.Headers(
            {
                "Accept": "application/json, */*",
                "Accept-Encoding": "identity",
                "User-Agent": f"gke-sandbox/{__version__}",
            }
        )
        if self.config.impersonation is not None:
            # Over plain http too, as client-go: they prove nothing.
            self.config.impersonation.add_to(headers)
        http = httpx.AsyncClient(
            transport=transport,
            auth=self.config.auth if self.config.secure else None,
            headers=headers,
            timeout=REQUEST_TIMEOUT,
            follow_redirects=False,
            trust_env=False,
        )
        self._http = await http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.__aexit__(exc_type, exc_value, traceback)

    def with_wrapper(self, wrapper: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport]) -> KubeClient:
        """A client for the same cluster with a transport around this one's. This one must not be entered."""
        return KubeClient(self.config, transport=self._transport, transport_wrapper=wrapper)

    def _network(self, certificate: ClientCertificate | None) -> httpx.AsyncBaseTransport:
        context = ssl_context(self.config, certificate)
        return network_transport(context, self._proxy, proxy_ssl_context(self.config))

    def warn_once(self, text: str, key: str = "") -> None:
        """Log a warning, unless one with the same `key` (the text itself by default) was logged before."""
        key = key or text
        if key not in self._warned:
            if len(self._warned) >= MAX_WARNINGS:
                self._warned.clear()
            self._warned.add(key)
            logger.warning("%s", text)

    @property
    def has_responded(self) -> bool:
        """Whether there was any answer yet, a refusal or a proxy's page included: there is a server."""
        return self._has_responded

    @property
    def replays(self) -> bool:
        """Whether responses come from a cassette: its Jobs may be those of another release of this package."""
        return bool(getattr(self._transport, "replays", False))

    @property
    def round_trip(self) -> float | None:
        """Seconds from sending a request on an open connection to its answer's headers, the least of the last few.

        None before the first answer, and on transports that are not a network.
        """
        return self._round_trip.seconds

    async def create(
        self,
        resource: Resource,
        namespace: str | None,
        body: Mapping[str, Any],
        *,
        field_validation: Literal["Strict", "Warn", "Ignore"] | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """POST `body` and return the object as the server made it.

        `field_validation` Strict refuses unknown and duplicate fields; `dry_run` has all checked and nothing made.
        """
        # https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation and #dry-run
        metadata = body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, Mapping) else None
        call = RequestInfo("create", "POST", resource, namespace, name if isinstance(name, str) else None)
        query = {"fieldValidation": field_validation, "dryRun": "All" if dry_run else None}
        return await self._request(call, query, body)

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
        resource_version: str | None = None,
        limit: int | None = None,
        continue_: str | None = None,
    ) -> dict[str, Any]:
        """GET a collection: an object with ``metadata.resourceVersion`` and ``items``, which carry no kind.

        `namespace` None lists all namespaces. Without `resource_version` the newest state is told; with `limit`,
        ``metadata.continue`` says that there is more, and is `continue_` of the next call; after some minutes the
        server does not know it any more (`Expired`).
        """
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "resourceVersion": resource_version,
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
        grace_period_seconds: int | None = None,
        preconditions: Mapping[Literal["uid", "resourceVersion"], str] | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """DELETE one object: a Status, or the object when something still holds it.

        With `preconditions` it is deleted only if its uid or resourceVersion is that one; else `Conflict`.
        """
        # https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/delete-options/
        options: dict[str, Any] = {}
        if propagation_policy is not None:
            options["propagationPolicy"] = propagation_policy
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        if preconditions:
            options["preconditions"] = dict(preconditions)
        if dry_run:
            options["dryRun"] = ["All"]
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options} if options else None
        return await self._request(RequestInfo("delete", "DELETE", resource, namespace, name), {}, body)

    @asynccontextmanager
    async def log(
        self,
        namespace: str,
        pod: str,
        *,
        container: str | None = None,
        follow: bool = False,
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
        read_timeout: float | None = None,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A container's log as the chunks in which it comes, cut anywhere; none at all for a pod without a node.

        ``async with client.log(...) as chunks: async for chunk in chunks``. With `follow` it goes on until the
        container has ended. `read_timeout` is the longest silence in seconds: None is no limit when following (a
        program may be quiet; TCP's keepalive finds a dead connection), else 30 s.

        `BadRequest` means that the container has not started yet. A connection that breaks raises `NetworkError`
        from the iteration. Leaving the block closes the stream.
        """
        # https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
        call = RequestInfo("get", "GET", PODS, namespace, pod, "log")
        query = {
            "container": container,
            "follow": "true" if follow else None,
            "tailLines": tail_lines,
            "limitBytes": limit_bytes,
        }
        timeout = stream_timeout(read_timeout if follow or read_timeout is not None else REQUEST_TIMEOUT.read)
        async with self._send(call, query, timeout=timeout) as (response, body):
            await _raise_for_status(call, response, body)
            yield body

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int = 300,
        allow_bookmarks: bool = True,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """The changes after `resource_version`, as the server tells them: ERROR and BOOKMARK events included.

        ``async with client.watch(...) as events: async for event in events``. The server ends it after
        `timeout_seconds`; `follow` opens it again. Raises `NetworkError` when the connection breaks, or is silent
        for longer than bookmarks allow, and `ServerError` for what is no event.
        """
        # https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
        call = RequestInfo("watch", "GET", resource, namespace)
        query = {
            "watch": "true",
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true" if allow_bookmarks else None,
            "timeoutSeconds": timeout_seconds,
        }
        silence = WATCH_SILENCE if allow_bookmarks else timeout_seconds + WATCH_MARGIN
        async with self._send(call, query, timeout=stream_timeout(silence)) as (response, body):
            await _raise_for_status(call, response, body)
            yield _Events(call, body)

    async def _request(
        self, call: RequestInfo, query: Mapping[str, str | int | None], content: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        async with self._send(call, query, content, measured=True) as (response, body):
            answer, whole = await body.read(MAX_ANSWER)
        if not whole:
            raise _bad_response(call, response.status_code, f"it is longer than {MAX_ANSWER >> 20} MiB")
        return json_response(call, response.status_code, response.headers, answer)

    @asynccontextmanager
    async def _send(
        self,
        call: RequestInfo,
        query: Mapping[str, str | int | None],
        content: Mapping[str, Any] | None = None,
        *,
        timeout: httpx.Timeout = REQUEST_TIMEOUT,
        measured: bool = False,
    ) -> AsyncIterator[tuple[httpx.Response, ResponseBody]]:
        """Send one request; its answer is closed when the block is left, whatever happens."""
        if self._http is None:
            raise RuntimeError("a KubeClient is used inside of `async with`")
        extensions: dict[str, Any] = {"trace": trace_listener(self._round_trip if measured else None)}
        headers = {} if content is None else {"Content-Type": "application/json"}
        if measured and not self.config.disable_compression:
            headers["Accept-Encoding"] = "gzip"
        url = self._server + call.path
        with network_errors(call, self._server, self._proxy):
            request = self._http.build_request(
                call.method,
                url,
                params={key: value for key, value in query.items() if value is not None},
                content=None if content is None else json.dumps(content, separators=(",", ":")).encode(),
                headers=headers,
                timeout=timeout,
                extensions=extensions,
            )
            response = await self._http.send(request, stream=True)
        self._has_responded = True
        body = ResponseBody(response, call, self._server, self._proxy)
        try:
            self._log_warnings(call, response.headers.get_list("warning"))
            encoding = response.headers.get("content-encoding", "identity")
            if encoding not in ("identity", headers.get("Accept-Encoding")):
                raise _bad_response(call, response.status_code, f"it is compressed ({plain(encoding, 50)})")
            yield response, body
        finally:
            await body.aclose()

    def _log_warnings(self, call: RequestInfo, fields: Iterable[str]) -> None:
        for text in warning_texts(fields):
            # Every execution has names of its own; a warning that differs in the name alone is not news.
            key = text.replace(call.name, "") if call.name else text
            self.warn_once(f"{call}: the server warns: {text}", key)


def _bad_response(call: RequestInfo, status: int, why: str) -> ServerError:
    return ServerError(f"{call}: the answer cannot be read: {why}", code=status, reason="", request=str(call))


async def _raise_for_status(call: RequestInfo, response: httpx.Response, body: ResponseBody) -> None:
    """Raise what an answer outside 2xx stands for."""
    if not response.is_success:
        content, _whole = await body.read(MAX_REFUSAL)
        raise error_from_response(call, response.status_code, response.headers, content)


class _Events:
    """A watch's body as events."""

    def __init__(self, call: RequestInfo, body: ResponseBody) -> None:
        self._call = call
        self._body = body
        self._decoder = LineDecoder()
        self._lines: deque[bytes] = deque()

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> WatchEvent:
        while True:
            while self._lines:
                line = self._lines.popleft()
                if line.strip():
                    return parse_event(self._call, line)
            # What follows the last line break when the stream ends was cut off; the next watch tells it again.
            chunk = await anext(self._body)
            try:
                self._lines.extend(self._decoder.feed(chunk))
            except LineTooLong as error:
                raise _bad_response(self._call, 200, str(error)) from error
