"""Credentials that expire: one refresh at a time, shared by the threads and tasks that wait for it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx

from ...errors import NetworkError, SandboxError

__all__ = ["RefreshState", "RefreshingAuth"]

T = TypeVar("T")

# Seconds to wait for the refresh of another thread, which has shorter timeouts. That thread may have been stopped:
# at interpreter exit, daemon threads are.
TURN_TIMEOUT = 330.0


class RefreshState(Generic[T]):
    """The state of the refreshes of one set of credentials."""

    def __init__(self) -> None:
        self.refreshing = Lock()
        """Held during a refresh."""
        self.mutex = Lock()
        """Held while `waiting` changes."""
        self.waiting = 0
        """The number of requests that wait for a refresh."""
        self.refreshes = 0
        """The number of completed refreshes."""
        self.outcome: T | SandboxError | None = None
        """The result of the last refresh."""
        # The tasks of one event loop queue here, so that only one of them needs a thread. Older versions of anyio
        # identify such a variable by its name.
        self._queue: anyio.lowlevel.RunVar[anyio.Lock] = anyio.lowlevel.RunVar(f"refreshes {id(self)}")

    def queue(self) -> anyio.Lock:
        """Return the lock of the current event loop."""
        lock = self._queue.get(None)
        if lock is None:
            lock = anyio.Lock()
            self._queue.set(lock)
        return lock

    def outcome_since(self, refreshes: int) -> T | None:
        """Return the result of the last refresh, or None if `refreshes` is still the count. Raise its error."""
        if self.refreshes == refreshes:
            return None
        if isinstance(self.outcome, SandboxError):
            # A copy for each request: raising an error writes its traceback into it.
            raise copy.copy(self.outcome)
        return self.outcome


class RefreshingAuth(httpx.Auth, ABC, Generic[T]):
    """Authorize requests with credentials that are refreshed in time, and when the server answers 401.

    There is one refresh at a time, and all requests that wait for it get its result or its error. After a 401 the
    request is sent once more, if a refresh returned other credentials. The async flow refreshes in a thread and
    does not wait for it when it is cancelled.
    """

    @abstractmethod
    def _state(self) -> RefreshState[T]:
        """Return the state that all with the same credentials share."""

    @abstractmethod
    def _usable(self, rejected: T | None) -> T | None:
        """Return the current credentials, or None if they need a refresh or are those that were `rejected`."""

    @abstractmethod
    def _refresh(self, rejected: T | None, /) -> T:
        """Return new credentials. Blocks."""

    @abstractmethod
    def _authorize(self, request: httpx.Request, credentials: T) -> None:
        """Add the credentials to a request."""

    def _skip(self, _request: httpx.Request) -> bool:
        """Return whether to send a request without these credentials."""
        return False

    def _cancel(self) -> None:
        """Stop the refresh: no request waits for it any more. The state's `mutex` is held."""

    def _get(self, rejected: T | None = None) -> T:
        usable = self._usable(rejected)
        if usable is not None:
            return usable
        with self._waiting() as refreshes:
            return self._in_turn(rejected, refreshes)

    async def _get_async(self, rejected: T | None = None) -> T:
        usable = self._usable(rejected)
        if usable is not None:
            return usable
        with self._waiting() as refreshes:
            async with self._state().queue():
                shared = self._state().outcome_since(refreshes)
                if shared is not None:
                    return shared
                return await anyio.to_thread.run_sync(self._in_turn, rejected, refreshes, abandon_on_cancel=True)

    @contextmanager
    def _waiting(self) -> Iterator[int]:
        state = self._state()
        with state.mutex:
            state.waiting += 1
            refreshes = state.refreshes
        try:
            yield refreshes
        finally:
            with state.mutex:
                state.waiting -= 1
                if not state.waiting:
                    self._cancel()

    def _in_turn(self, rejected: T | None, refreshes: int) -> T:
        state = self._state()
        if not state.refreshing.acquire(timeout=TURN_TIMEOUT):
            raise NetworkError(f"no credentials within {TURN_TIMEOUT:.0f} s", sent=False)
        try:
            found = state.outcome_since(refreshes)
            if found is None:
                found = self._usable(rejected)
            if found is None:
                try:
                    found = state.outcome = self._refresh(rejected)
                except SandboxError as error:
                    state.outcome = copy.copy(error)
                    state.refreshes += 1
                    raise
                state.refreshes += 1
            return found
        finally:
            state.refreshing.release()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._skip(request):
            yield request
            return
        used = self._get()
        self._authorize(request, used)
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            renewed = self._get(used)
            if renewed != used:
                self._authorize(request, renewed)
                yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if self._skip(request):
            yield request
            return
        used = await self._get_async()
        self._authorize(request, used)
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            renewed = await self._get_async(used)
            if renewed != used:
                self._authorize(request, renewed)
                yield request
