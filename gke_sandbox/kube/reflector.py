"""A list and a watch that is reopened whenever it ends, as client-go's reflector does."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio

from ..errors import ApiError, Expired, Forbidden, NetworkError
from .client import KubeClient
from .resources import Resource
from .retry import Retry, is_retryable
from .status import RequestInfo, bad_response, status_error
from .watch import WatchEvent

__all__ = ["Reflector"]

logger = logging.getLogger(__name__)

MIN_WATCH_TIMEOUT, MAX_WATCH_TIMEOUT = 240, 300
"""Seconds. This is shorter than the limit of servers (30 to 60 minutes), so that watches end when expected. The
length is random, so that many clients do not reconnect at the same time."""
MIN_WATCH_INTERVAL = 1.0
INITIAL_BACKOFF, MAX_BACKOFF = 1.0, 30.0
MIN_POLL_INTERVAL, MAX_POLL_INTERVAL = 0.5, 2.0
"""Seconds between lists if watching is forbidden: right after a change, and at most."""


class Reflector:
    """A list, and a watch from its resourceVersion that is reopened whenever it ends.

    ::

        async with Reflector(client, PODS, "default", label_selector="a=b") as events:
            async for event in events: ...

    Yields ADDED, MODIFIED, DELETED and MISSING, and SYNCED after the events of each list: from the first SYNCED
    on, no change is missed. A repeated list yields only differences: objects that it no longer contains are
    MISSING, and their last state is unknown. Each version of an object is yielded at most once.

    Iteration never ends. After network errors, 5xx and 429 it retries with back-off, without a limit: set a
    deadline yourself, and see `last_error`. Errors that a retry does not resolve (400, 401, 403, 404) are raised.
    Cancelling ``anext`` loses no event: the next call continues after the last one.

    With `may_poll`, if listing is allowed and watching is forbidden, list every second or two instead. `keep`
    returns the part of an object to remember, with at least its name, uid and version; MISSING contains no more.
    `uniform` returns numbers from 0 to 1, for the back-off and the length of a watch.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str | None = None,
        may_poll: bool = False,
        keep: Callable[[dict[str, Any]], dict[str, Any]] = lambda known: known,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._label_selector = label_selector
        self._uniform = uniform
        self._info = RequestInfo("watch", "GET", resource, namespace)
        # The state: without a version, list; without an open watch, open one; else read it.
        self._version: str | None = None
        self._watch: AsyncIterator[WatchEvent] | None = None
        self._watch_stack = AsyncExitStack()
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        self._pending: deque[WatchEvent] = deque()
        # The earliest time to list or to open a watch.
        self._not_before = 0.0
        self._retry = Retry(initial_delay=INITIAL_BACKOFF, max_delay=MAX_BACKOFF, uniform=uniform)
        self._opened_at = 0.0
        self._no_events_yet = True
        self._may_poll = may_poll
        self._keep = keep
        self._poll_interval = MIN_POLL_INTERVAL
        self.polling = False
        """Whether it lists at intervals because watching is forbidden."""
        self.last_error: NetworkError | ApiError | None = None
        """The error that it is retrying after; None while it receives events."""

    async def __aenter__(self) -> Reflector:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
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
        await self._watch_stack.aclose()

    async def _pause(self) -> None:
        await anyio.sleep(max(0.0, self._not_before - anyio.current_time()))

    async def _list(self) -> None:
        await self._pause()
        response = await self._client.list(self._resource, self._namespace, label_selector=self._label_selector)
        metadata, items = response.get("metadata"), response.get("items")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        # Go servers may serialize an empty list as null.
        items = [] if items is None else items
        if not isinstance(version, str) or not isinstance(items, list):
            raise bad_response(self._info, 200, "the list has no resourceVersion or no items")
        self._emit_list([item for item in items if isinstance(item, dict)])
        if self.polling:
            self._schedule_poll()
        else:
            self._pending.append(WatchEvent("SYNCED", {"metadata": metadata}))
        self._version = version
        self.last_error = None

    def _schedule_poll(self) -> None:
        """Schedule the next list: soon after a change, and later and later without one."""
        self._retry.reset()
        self._poll_interval = (
            MIN_POLL_INTERVAL if self._pending else min(self._poll_interval * 1.25, MAX_POLL_INTERVAL)
        )
        self._not_before = anyio.current_time() + self._poll_interval

    def _emit_list(self, items: list[dict[str, Any]]) -> None:
        seen = {_key(item) for item in items}
        for key in [key for key in self._known if key not in seen]:
            self._pending.append(WatchEvent("MISSING", self._known.pop(key)))
        for item in items:
            before = self._known.get(_key(item))
            if before is not None and _meta(before, "uid") != _meta(item, "uid"):
                # Another object with the same name.
                self._emit(WatchEvent("MISSING", before))
                before = None
            self._emit(WatchEvent("ADDED" if before is None else "MODIFIED", item))

    def _emit(self, event: WatchEvent) -> None:
        key = _key(event.object)
        before = self._known.get(key)
        if event.type in ("DELETED", "MISSING"):
            self._known.pop(key, None)
        else:
            self._known[key] = self._keep(event.object)
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
        self._not_before = self._opened_at + MIN_WATCH_INTERVAL
        self._no_events_yet = True
        length = MAX_WATCH_TIMEOUT - MIN_WATCH_TIMEOUT
        self._watch = await self._watch_stack.enter_async_context(
            self._client.watch(
                self._resource,
                self._namespace,
                resource_version=self._version,
                timeout_seconds=MIN_WATCH_TIMEOUT + round(length * self._uniform()),
                label_selector=self._label_selector,
            )
        )

    async def _read(self, watch: AsyncIterator[WatchEvent]) -> None:
        event = await anext(watch, None)
        if event is None:
            await self._close()
            self._watch_ended()
            return
        if event.type == "ERROR":
            raise status_error(self._info, event.object)
        self._no_events_yet = False
        self._retry.reset()
        self.last_error = None
        version = _meta(event.object, "resourceVersion")
        if event.type != "BOOKMARK":
            self._emit(event)
        if version:
            self._version = version

    def _watch_ended(self) -> None:
        """Continue after a watch ended normally, or back off if it ended immediately without an event."""
        if not self._no_events_yet or anyio.current_time() - self._opened_at >= MIN_WATCH_INTERVAL:
            self._retry.reset()
            return
        # Some servers do this if the version is too old, so list again.
        # https://github.com/kubernetes/kubernetes/issues/104171
        self._version = None
        self._back_off()

    def _recover(self, error: NetworkError | ApiError) -> None:
        """Schedule the retry after an error, or raise the error."""
        may_poll = self._may_poll and self._version is not None and not self.polling
        if isinstance(error, Forbidden) and may_poll and not error.retryable:
            self.polling = True
            plural = self._resource.plural
            logger.warning("%s; listing %s every second or two instead. %s", error.message, plural, error.hint)
            return
        self.last_error = error
        if isinstance(error, Expired) or _too_new(error):
            self._version = None
            if self._retry.failures:
                self._back_off(error)
            else:
                # This is normal after a long break between two watches. List immediately.
                self._retry.record_failure(error)
        elif is_retryable(error):
            self._back_off(error)
        else:
            raise error
        logger.info("%s; retrying in %.1f s", error.message, max(0.0, self._not_before - anyio.current_time()))

    def _back_off(self, error: NetworkError | ApiError | None = None) -> None:
        delay = self._retry.record_failure(error) or 0.0
        # Keep MIN_WATCH_INTERVAL, even if the delay is shorter.
        self._not_before = max(self._not_before, anyio.current_time() + delay)


def _too_new(error: NetworkError | ApiError) -> bool:
    # The server's state is older than this version (restored from a backup), and may never reach it.
    return isinstance(error, ApiError) and any(c.reason == "ResourceVersionTooLarge" for c in error.causes)


def _key(body: dict[str, Any]) -> tuple[str, str]:
    return _meta(body, "namespace"), _meta(body, "name")


def _meta(body: dict[str, Any], field: str) -> str:
    metadata = body.get("metadata")
    value = metadata.get(field) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else ""
