"""Who we are to Google: a token from Application Default Credentials, as an `httpx.Auth`.

Without gcloud and without the library requests. Nothing here shows a token in its repr, in a log or in an error.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx

from ...errors import ConfigError, NetworkError, SandboxError
from ..config.files import read_file, read_file_if_there
from .google_base import SCOPES, Token, TokenSource
from .metadata import MetadataServer
from .static import check_token

__all__ = ["GoogleAuth", "find_credentials", "google_auth"]

logger = logging.getLogger("gke_sandbox")

# Seconds. The metadata server hands out the same token until 4 minutes before its end: asking earlier is in vain.
# https://cloud.google.com/compute/docs/access/authenticate-workloads#applications
REFRESH_EARLY = 225.0
# What is left of a token that is still sent when a new one cannot be had.
LAST_SECONDS = 10.0
# After a refresh ahead of time, the next one.
REFRESH_PAUSE = 10.0
# How long to wait for another thread's refresh, which has limits of its own.
TURN_SECONDS = 90.0


def find_credentials(scopes: Sequence[str], environ: Mapping[str, str], *, otherwise: str = "") -> TokenSource:
    """Application Default Credentials: GOOGLE_APPLICATION_CREDENTIALS, gcloud's file, the metadata server.

    Raises `ConfigError` that lists what was tried; `otherwise` is one more way out for its hint, a sentence.
    """
    # https://cloud.google.com/docs/authentication/application-default-credentials
    source = _from_file(scopes, environ)
    if source is None:
        server = MetadataServer(scopes, environ)
        if not server.answers():
            why = "NO_GCE_CHECK is set" if not server.checked else f"no metadata server answers at {server.ip}"
            hint = (
                "Run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to a "
                "credentials file, or run where there is a metadata server (GKE with Workload Identity, Compute "
                "Engine)."
            )
            raise ConfigError(
                "no Google credentials: GOOGLE_APPLICATION_CREDENTIALS is not set, there is no "
                f"{_gcloud_file(environ)}, and {why}",
                hint=f"{hint} {otherwise}".rstrip(),
            )
        source = server
    source.quota_project = environ.get("GOOGLE_CLOUD_QUOTA_PROJECT") or source.quota_project
    return source


def _from_file(scopes: Sequence[str], environ: Mapping[str, str]) -> TokenSource | None:
    named = environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    content: bytes | None
    if named:
        where = f"GOOGLE_APPLICATION_CREDENTIALS ({named})"
        content = read_file(Path(named), "GOOGLE_APPLICATION_CREDENTIALS")
    else:
        file = _gcloud_file(environ)
        where = str(file)
        content = read_file_if_there(file, "Google credentials")
    if content is None:
        return None
    try:
        from .google_adc import FileCredentials
    except ImportError as error:
        raise ConfigError(f"{where} needs google-auth: {error}", hint="pip install google-auth") from error
    return FileCredentials(content, where, scopes)


def _gcloud_file(environ: Mapping[str, str]) -> Path:
    folder = environ.get("CLOUDSDK_CONFIG")
    if folder:
        return Path(folder) / "application_default_credentials.json"
    home = environ.get("HOME")
    return (Path(home) if home else Path.home()) / ".config/gcloud/application_default_credentials.json"


class GoogleAuth(httpx.Auth):
    """Sends a Google token; `find` looks for the credentials when the first one is needed.

    There is one refresh at a time, however many threads and tasks wait for it, 3 min 45 s before the token's end;
    if it fails then, the old token is used while it holds. When the server answers 401, a new token is fetched and
    the request sent once more. A request raises `ConfigError` or `NetworkError` when there is no token. The async
    flow refreshes in a thread, and does not wait for it when it is cancelled.
    """

    def __init__(self, find: Callable[[], TokenSource], *, clock: Callable[[], float] = time.time) -> None:
        self._find = find
        self._clock = clock
        self._source: TokenSource | None = None
        self._token: Token | None = None
        self._not_before = 0.0
        self._refreshing = threading.Lock()
        # Tasks queue here, so that they do not occupy a thread each. A lock belongs to one event loop.
        self._queue: anyio.lowlevel.RunVar[anyio.Lock] = anyio.lowlevel.RunVar("gke_sandbox_google_auth")

    def __repr__(self) -> str:
        return f"GoogleAuth({self._source.description if self._source else 'not looked for yet'})"

    @property
    def description(self) -> str:
        """Whose tokens these are, once that is known."""
        return self._source.description if self._source else "Google credentials"

    @property
    def quota_project(self) -> str | None:
        """The project that pays for calls of Google's APIs, once that is known and if there is one."""
        return self._source.quota_project if self._source else None

    def token(self, rejected: str | None = None) -> str:
        """A token that holds; never `rejected`, unless there is no other. Blocks while it is fetched."""
        usable = self._usable(rejected)
        if usable is not None:
            return usable
        # With a limit: at interpreter exit the thread that refreshes may be one that will not go on.
        if not self._refreshing.acquire(timeout=TURN_SECONDS):
            raise NetworkError(f"no Google token within {TURN_SECONDS:.0f} s", sent=False)
        try:
            return self._usable(rejected) or self._refresh(rejected)
        finally:
            self._refreshing.release()

    async def token_async(self, rejected: str | None = None) -> str:
        """As `token`, without blocking the event loop."""
        usable = self._usable(rejected)
        if usable is not None:
            return usable
        async with self._queue_here():
            usable = self._usable(rejected)
            if usable is not None:
                return usable
            return await anyio.to_thread.run_sync(self.token, rejected, abandon_on_cancel=True)

    def _queue_here(self) -> anyio.Lock:
        lock = self._queue.get(None)
        if lock is None:
            lock = anyio.Lock()
            self._queue.set(lock)
        return lock

    def _usable(self, rejected: str | None) -> str | None:
        token = self._token
        if token is None or token.value == rejected:
            return None
        if token.expires_at is None:
            return token.value
        left = token.expires_at - self._clock()
        if left > REFRESH_EARLY or (left > LAST_SECONDS and self._clock() < self._not_before):
            return token.value
        return None

    def _refresh(self, rejected: str | None) -> str:
        try:
            if self._source is None:
                self._source = self._find()
            token = self._source.fetch()
            check_token(token.value, f"the Google token of {self._source.description}")
        except SandboxError as error:
            # The file may be another one next time.
            self._source = None
            self._not_before = self._clock() + REFRESH_PAUSE
            usable = self._usable(rejected)
            if usable is None:
                raise
            logger.warning("the Google token could not be refreshed, the old one still holds: %s", error)
            return usable
        self._token = token
        self._not_before = self._clock() + REFRESH_PAUSE
        return token.value

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        token = self.token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            renewed = self.token(rejected=token)
            if renewed != token:
                request.headers["Authorization"] = f"Bearer {renewed}"
                yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        token = await self.token_async()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            renewed = await self.token_async(rejected=token)
            if renewed != token:
                request.headers["Authorization"] = f"Bearer {renewed}"
                yield request


def google_auth(
    scopes: Sequence[str] = SCOPES,
    *,
    environ: Mapping[str, str] | None = None,
    otherwise: str = "",
    clock: Callable[[], float] = time.time,
) -> GoogleAuth:
    """Application Default Credentials for `scopes`. Nothing is read or sent before the first request.

    `otherwise` is one more way out, a sentence, for the hint of the `ConfigError` when there are none.
    """
    found = os.environ if environ is None else environ
    return GoogleAuth(lambda: find_credentials(scopes, found, otherwise=otherwise), clock=clock)
