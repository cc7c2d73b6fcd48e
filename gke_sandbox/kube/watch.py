"""Watching: lines out of bytes, events out of lines, and a list and watch that resumes."""

from __future__ import annotations

import json
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import anyio

from ..errors import ApiError, Expired, Forbidden, NetworkError, ServerError
from .resources import Resource
from .retry import Retry, is_retryable
from .status import RequestInfo, plain, status_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from .client import KubeClient

__all__ = ["LineDecoder", "LineTooLong", "Reflector", "WatchEvent", "list_and_watch", "parse_event"]

logger = logging.getLogger("gke_sandbox")

# An object in etcd has at most 1.5 MiB; its JSON with managedFields is still far below.
MAX_LINE = 8 << 20


class LineTooLong(ValueError):
    """A line is longer than the decoder's limit. The decoder is of no use afterwards."""


class LineDecoder:
    """Splits bytes into lines, at ``\\n`` only: a carriage return or U+2028 inside of JSON ends no line.

    Linear in the bytes fed, however they are cut; holds at most one line of `max_line` bytes.
    """

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._begun = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` ends, without their ``\\n``. Raises `LineTooLong`."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            lines[0] = bytes(self._begun) + lines[0]
            self._begun.clear()
        self._begun += rest
        if len(self._begun) > self._max_line or any(len(line) > self._max_line for line in lines):
            raise LineTooLong(f"a line is longer than {self._max_line} bytes")
        return lines

    def finish(self) -> bytes | None:
        """What followed the last ``\\n``; None when there is nothing."""
        rest = bytes(self._begun)
        self._begun.clear()
        return rest or None


EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "SYNCED", "MISSING"]
_WIRE_TYPES = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"})


@dataclass(frozen=True)
class WatchEvent:
    """One change. `object` is the whole object after it; a Status for ERROR; its metadata alone for BOOKMARK.

    Two never come from a server: `list_and_watch` puts SYNCED after the events of a list, with its metadata, and
    tells MISSING of what is not in a new list any more, as it was last seen.
    https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
    """

    type: EventType
    object: dict[str, Any]


def parse_event(call: RequestInfo, line: bytes) -> WatchEvent:
    """The event in one line of a watch. Raises `ServerError` when it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        kind, body = value.get("type"), value.get("object")
        if isinstance(kind, str) and kind in _WIRE_TYPES and isinstance(body, dict):
            return WatchEvent(cast("EventType", kind), body)
    raise ServerError(
        f"{call}: not a watch event: '{plain(line[:200].decode('utf-8', 'replace'), 200)}'",
        code=200,
        reason="",
        request=str(call),
    )


# Seconds. A watch shorter than a server's own limit (30 to 60 minutes) ends where we expect it, and a random
# length keeps many clients from coming back at once.
MIN_WATCH, MAX_WATCH = 240, 300
MIN_INTERVAL = 1.0
FIRST_BACKOFF, MAX_BACKOFF = 1.0, 30.0
# How long a list that has to do for a watch is left alone: the first, after a change, and the longest.
MIN_POLL, MAX_POLL = 0.5, 2.0


def list_and_watch(
    client: KubeClient,
    resource: Resource,
    namespace: str | None,
    *,
    label_selector: str | None = None,
    field_selector: str | None = None,
    may_poll: bool = False,
    uniform: Callable[[], float] = random.random,
) -> Reflector:
    """Everything that happens to the chosen objects, from now on and for as long as one asks; see `Reflector`.

    `may_poll`: where watching is forbidden, and listing is not, list every second or two instead. `uniform` gives
    numbers from 0 to 1, for back-off and the length of a watch.
    """
    return Reflector(client, resource, namespace, label_selector, field_selector, may_poll, uniform)


class Reflector:
    """A list, and a watch from its resourceVersion that is opened again whenever it ends.

    ::

        async with list_and_watch(client, PODS, "default", label_selector="a=b") as changes:
            async for change in changes: ...

    Yields ADDED, MODIFIED, DELETED and MISSING, and SYNCED each time a list has been told in full (so the first
    SYNCED means that nothing can be missed any more). After a new list only differences are told: what is not in
    it any more has MISSING, and nobody knows what became of it before. An object comes at most once in each
    version.

    It never ends by itself. Network trouble, 5xx and 429 are waited out, with back-off, for ever: the deadline
    is the caller's, and `trouble` says meanwhile what is the matter. What waiting does not heal (401, 403, 404,
    400) is raised. It may be cancelled anywhere,
    and a cancelled ``anext`` loses nothing: the next one goes on from the last event told.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        namespace: str | None,
        label_selector: str | None,
        field_selector: str | None,
        may_poll: bool,
        uniform: Callable[[], float],
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._uniform = uniform
        self._call = RequestInfo("watch", "GET", resource, namespace)
        # Where we are: without a version, list; without an open watch, open one; else read it.
        self._version: str | None = None
        self._watch: AsyncIterator[WatchEvent] | None = None
        self._open = AsyncExitStack()
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        self._told: deque[WatchEvent] = deque()
        # When to list or to open a watch, at the earliest.
        self._not_before = 0.0
        self._retry = Retry(first=FIRST_BACKOFF, longest=MAX_BACKOFF, uniform=uniform)
        self._opened_at = 0.0
        self._quiet = True
        self._may_poll = may_poll
        self._poll = MIN_POLL
        self.polling = False
        """Watching is forbidden: what happened is seen at the next list."""
        self.trouble: NetworkError | ApiError | None = None
        """Why nothing is seen at the moment; it is being tried again."""

    async def __aenter__(self) -> Reflector:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    def __aiter__(self) -> Reflector:
        return self

    async def __anext__(self) -> WatchEvent:
        while not self._told:
            try:
                if self._version is None or self.polling:
                    await self._list()
                elif self._watch is None:
                    await self._start()
                else:
                    await self._read(self._watch)
            except (NetworkError, ApiError) as error:
                await self._close()
                self._recover(error)
            except BaseException:
                await self._close()
                raise
        return self._told.popleft()

    async def _close(self) -> None:
        self._watch = None
        await self._open.aclose()

    async def _pause(self) -> None:
        await anyio.sleep(max(0.0, self._not_before - anyio.current_time()))

    async def _list(self) -> None:
        await self._pause()
        answer = await self._client.list(
            self._resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        metadata, items = answer.get("metadata"), answer.get("items")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        # A Go server writes an empty list as null.
        items = [] if items is None else items
        if not isinstance(version, str) or not isinstance(items, list):
            raise ServerError(
                f"{self._call}: the list has no resourceVersion or no items",
                code=200,
                reason="",
                request=str(self._call),
            )
        self._tell_list([item for item in items if isinstance(item, dict)])
        if self.polling:
            self._next_poll()
        else:
            self._told.append(WatchEvent("SYNCED", {"metadata": metadata}))
        self._version = version
        self.trouble = None

    def _next_poll(self) -> None:
        """Look again soon while something happens, and less often while nothing does."""
        self._retry.succeeded()
        self._poll = MIN_POLL if self._told else min(self._poll * 1.25, MAX_POLL)
        self._not_before = anyio.current_time() + self._poll

    def _tell_list(self, items: list[dict[str, Any]]) -> None:
        seen = {_key(item) for item in items}
        for key in [key for key in self._known if key not in seen]:
            self._told.append(WatchEvent("MISSING", self._known.pop(key)))
        for item in items:
            before = self._known.get(_key(item))
            if before is not None and _meta(before, "uid") != _meta(item, "uid"):
                # Another object under the same name.
                self._tell(WatchEvent("MISSING", before))
                before = None
            self._tell(WatchEvent("ADDED" if before is None else "MODIFIED", item))

    def _tell(self, event: WatchEvent) -> None:
        key = _key(event.object)
        before = self._known.get(key)
        if event.type in ("DELETED", "MISSING"):
            self._known.pop(key, None)
        else:
            self._known[key] = event.object
            if (
                before is not None
                and _meta(before, "resourceVersion")
                and _meta(before, "resourceVersion") == _meta(event.object, "resourceVersion")
                and _meta(before, "uid") == _meta(event.object, "uid")
            ):
                return
        self._told.append(event)

    async def _start(self) -> None:
        await self._pause()
        self._opened_at = anyio.current_time()
        self._not_before = self._opened_at + MIN_INTERVAL
        self._quiet = True
        self._watch = await self._open.enter_async_context(
            self._client.watch(
                self._resource,
                self._namespace,
                resource_version=self._version,
                timeout_seconds=MIN_WATCH + round((MAX_WATCH - MIN_WATCH) * self._uniform()),
                label_selector=self._label_selector,
                field_selector=self._field_selector,
            )
        )

    async def _read(self, watch: AsyncIterator[WatchEvent]) -> None:
        event = await anext(watch, None)
        if event is None:
            await self._close()
            self._ended()
            return
        if event.type == "ERROR":
            raise status_error(self._call, event.object)
        self._quiet = False
        self._retry.succeeded()
        self.trouble = None
        version = _meta(event.object, "resourceVersion")
        if event.type != "BOOKMARK":
            self._tell(event)
        if version:
            self._version = version

    def _ended(self) -> None:
        """A clean end is how every watch ends; one that comes at once, without an event, is not right."""
        if not self._quiet or anyio.current_time() - self._opened_at >= MIN_INTERVAL:
            self._retry.succeeded()
            return
        # Some servers end a watch like this when the version is too old, so list again.
        # https://github.com/kubernetes/kubernetes/issues/104171
        self._version = None
        self._back_off()

    def _recover(self, error: NetworkError | ApiError) -> None:
        """Decide how to go on after an error, or raise it."""
        if isinstance(error, Forbidden) and self._may_poll and self._version is not None and not self.polling:
            self.polling = True
            plural = self._resource.plural
            logger.warning("%s; %s are listed every second or two instead. %s", error, plural, error.hint)
            return
        self.trouble = error
        if isinstance(error, Expired) or _too_new(error):
            self._version = None
            if self._retry.failures:
                self._back_off(error)
            else:
                # Nothing is wrong: the watch only slept too long. List at once.
                self._retry.failed(error)
        elif is_retryable(error):
            self._back_off(error)
        else:
            raise error
        logger.info("%s; trying again in %.1f s", error, max(0.0, self._not_before - anyio.current_time()))

    def _back_off(self, error: NetworkError | ApiError | None = None) -> None:
        wait = self._retry.failed(error) or 0.0
        # A watch is never opened twice within a second, however good the news.
        self._not_before = max(self._not_before, anyio.current_time() + wait)


def _too_new(error: NetworkError | ApiError) -> bool:
    # The server's state is older than ours (restored from a backup): waiting for that version may take for ever.
    return isinstance(error, ApiError) and any(c.reason == "ResourceVersionTooLarge" for c in error.causes)


def _key(body: dict[str, Any]) -> tuple[str, str]:
    return _meta(body, "namespace"), _meta(body, "name")


def _meta(body: dict[str, Any], field: str) -> str:
    metadata = body.get("metadata")
    value = metadata.get(field) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else ""
