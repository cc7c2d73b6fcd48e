"""Application Default Credentials of Google, as an `httpx.Auth`.

They work without gcloud and without the package requests. No repr, log or error contains a token.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from ...errors import ConfigError, SandboxError
from ..config.files import read_file, read_file_if_there
from .google_base import Token, TokenSource
from .metadata import MetadataServer
from .refreshing import RefreshingAuth, RefreshState
from .static import check_token

__all__ = ["GoogleAuth", "find_credentials", "google_auth"]

logger = logging.getLogger(__name__)

# Seconds. The metadata server returns the same token until 4 minutes before it expires.
# https://cloud.google.com/compute/docs/access/authenticate-workloads#applications
REFRESH_EARLY = 225.0
# A token that expires within this many seconds is not sent, even if the refresh failed.
MIN_VALIDITY = 10.0
# Seconds from one refresh to the next one that is not urgent.
REFRESH_DELAY = 10.0


def find_credentials(environ: Mapping[str, str], *, extra_hint: str = "") -> TokenSource:
    """Return Application Default Credentials: GOOGLE_APPLICATION_CREDENTIALS, gcloud's file, the metadata server.

    If all are missing, raise `ConfigError` that lists what was tried. `extra_hint` is added to its hint.
    """
    # https://cloud.google.com/docs/authentication/application-default-credentials
    source = _from_file(environ)
    if source is None:
        server = MetadataServer(environ)
        if not server.is_available():
            why = "NO_GCE_CHECK is set" if not server.enabled else f"no metadata server responds at {server.ip}"
            hint = (
                "Run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to a "
                "credentials file (such as a service account key), or run this where there is a metadata server "
                "(GKE with Workload Identity, Compute Engine)."
            )
            raise ConfigError(
                "no Google credentials: GOOGLE_APPLICATION_CREDENTIALS is not set, there is no "
                f"{_gcloud_file(environ)}, and {why}",
                hint=f"{hint} {extra_hint}".rstrip(),
            )
        source = server
    source.quota_project = environ.get("GOOGLE_CLOUD_QUOTA_PROJECT") or source.quota_project
    return source


def _from_file(environ: Mapping[str, str]) -> TokenSource | None:
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
        raise ConfigError(f"{where} needs google-auth: {error}", hint="Run pip install google-auth.") from error
    return FileCredentials(content, where)


def _gcloud_file(environ: Mapping[str, str]) -> Path:
    folder = environ.get("CLOUDSDK_CONFIG")
    if folder:
        return Path(folder) / "application_default_credentials.json"
    home = environ.get("HOME")
    return (Path(home) if home else Path.home()) / ".config/gcloud/application_default_credentials.json"


class GoogleAuth(RefreshingAuth[Token]):
    """Authorize requests with a Google token. `find` looks for the credentials when the first token is needed.

    A token is refreshed 3 min 45 s before it expires; if that fails, the old token is used until it expires. A
    request without a token raises `ConfigError` or `NetworkError`.
    """

    def __init__(self, find: Callable[[], TokenSource], *, clock: Callable[[], float] = time.time) -> None:
        self._find = find
        self._clock = clock
        self._source: TokenSource | None = None
        self._token: Token | None = None
        self._next_refresh_at = 0.0
        self._refreshes: RefreshState[Token] = RefreshState()

    def __repr__(self) -> str:
        return f"GoogleAuth({self._source.description if self._source else 'credentials not loaded yet'})"

    @property
    def description(self) -> str:
        """Return a phrase for the credentials in use."""
        return self._source.description if self._source else "Google credentials"

    @property
    def quota_project(self) -> str | None:
        """Return the project that is billed for API calls; None if it is not set, or before the first token."""
        return self._source.quota_project if self._source else None

    def token(self) -> str:
        """Return a valid token. Blocks while it is fetched."""
        return self._get().value

    def _state(self) -> RefreshState[Token]:
        return self._refreshes

    def _authorize(self, request: httpx.Request, credentials: Token) -> None:
        request.headers["Authorization"] = f"Bearer {credentials.value}"

    def _usable(self, rejected: Token | None) -> Token | None:
        token = self._token
        if token is None or token == rejected:
            return None
        if token.expires_at is None:
            return token
        left = token.expires_at - self._clock()
        if left > REFRESH_EARLY or (left > MIN_VALIDITY and self._clock() < self._next_refresh_at):
            return token
        return None

    def _refresh(self, rejected: Token | None) -> Token:
        try:
            if self._source is None:
                self._source = self._find()
            token = self._source.fetch()
            check_token(token.value, f"the Google token of {self._source.description}")
        except SandboxError as error:
            # The credentials file may be a different one next time.
            self._source = None
            self._next_refresh_at = self._clock() + REFRESH_DELAY
            usable = self._usable(rejected)
            if usable is None:
                raise
            logger.warning(
                "the Google token could not be refreshed, the old one is still valid: %s", error.message
            )
            return usable
        self._token = token
        self._next_refresh_at = self._clock() + REFRESH_DELAY
        return token


def google_auth(*, environ: Mapping[str, str] | None = None) -> GoogleAuth:
    """Return Application Default Credentials. Nothing is read or sent before the first request."""
    found = os.environ if environ is None else environ
    return GoogleAuth(lambda: find_credentials(found))
