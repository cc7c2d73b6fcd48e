"""A list and a watch that is reopened whenever it ends, as client-go's reflector does."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio

from ..errors import ApiError, Expired, Forbidden, NetworkError, ServerError
from .client import KubeClient
from .resources import Resource
from .retry import Retry, is_retryable
from .status import RequestInfo, status_error
from .watch import WatchEvent

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Reflector", "list_and_watch"]

logger = logging.getLogger("gke_sandbox")

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
        self._exit_stack = AsyncExitStack()
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        self._pending: deque[WatchEvent] = deque()
        # When to list or to open a watch, at the earliest.
        self._not_before = 0.0
        self._retry = Retry(initial_delay=FIRST_BACKOFF, max_delay=MAX_BACKOFF, uniform=uniform)
        self._opened_at = 0.0
        self._no_events_yet = True
        self._may_poll = may_poll
        self._poll = MIN_POLL
        self.polling = False
        """Watching is forbidden: what happened is seen at the next list."""
        self.last_error: NetworkError | ApiError | None = None
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
        while not self._pending:
            try:
                if self._version is None or self.polling:
                    await self._list()
                elif self._watch is None:
                    await self._open_watch()
                else:
                    await self._read(self._watch)
            except (NetworkError, ApiError) as error:
                await self._close()
                self._recover(error)
            except BaseException:
                await self._close()
                raise
        return self._pending.popleft()

    async def _close(self) -> None:
        self._watch = None
        await self._exit_stack.aclose()

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
        self._emit_list([item for item in items if isinstance(item, dict)])
        if self.polling:
            self._next_poll()
        else:
            self._pending.append(WatchEvent("SYNCED", {"metadata": metadata}))
        self._version = version
        self.last_error = None

    def _next_poll(self) -> None:
        """Look again soon while something happens, and less often while nothing does."""
        self._retry.reset()
        self._poll = MIN_POLL if self._pending else min(self._poll * 1.25, MAX_POLL)
        self._not_before = anyio.current_time() + self._poll

    def _emit_list(self, items: list[dict[str, Any]]) -> None:
        seen = {_key(item) for item in items}
        for key in [key for key in self._known if key not in seen]:
            self._pending.append(WatchEvent("MISSING", self._known.pop(key)))
        for item in items:
            before = self._known.get(_key(item))
            if before is not None and _meta(before, "uid") != _meta(item, "uid"):
                # Another object under the same name.
                self._emit(WatchEvent("MISSING", before))
                before = None
            self._emit(WatchEvent("ADDED" if before is None else "MODIFIED", item))

    def _emit(self, event: WatchEvent) -> None:
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
        self._pending.append(event)

    async def _open_watch(self) -> None:
        await self._pause()
        self._opened_at = anyio.current_time()
        self._not_before = self._opened_at + MIN_INTERVAL
        self._no_events_yet = True
        self._watch = await self._exit_stack.enter_async_context(
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
            self._watch_ended()
            return
        if event.type == "ERROR":
            raise status_error(self._call, event.object)
        self._no_events_yet = False
        self._retry.reset()
        self.last_error = None
        version = _meta(event.object, "resourceVersion")
        if event.type != "BOOKMARK":
            self._emit(event)
        if version:
            self._version = version

    def _watch_ended(self) -> None:
        """A clean end is how every watch ends; one that comes at once, without an event, is not right."""
        if not self._no_events_yet or anyio.current_time() - self._opened_at >= MIN_INTERVAL:
            self._retry.reset()
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
        self.last_error = error
        if isinstance(error, Expired) or _too_new(error):
            self._version = None
            if self._retry.failures:
                self._back_off(error)
            else:
                # Nothing is wrong: the watch only slept too long. List at once.
                self._retry.record_failure(error)
        elif is_retryable(error):
            self._back_off(error)
        else:
            raise error
        logger.info("%s; trying again in %.1f s", error, max(0.0, self._not_before - anyio.current_time()))

    def _back_off(self, error: NetworkError | ApiError | None = None) -> None:
        wait = self._retry.record_failure(error) or 0.0
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
