"""Who we are: what proves it to the API server. Nothing here shows a secret in its repr or in an error.

Each class but `ClientCertificate` is an `httpx.Auth`; the client uses them over https only.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ...errors import ConfigError
from ..config.files import read_file

__all__ = ["BasicAuth", "BearerToken", "ClientCertificate", "TokenFile", "check_token"]

# A projected service account token is renewed long before it expires; client-go looks once a minute.
# https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#serviceaccount-token-volume-projection
TOKEN_FILE_PERIOD = 60.0


@dataclass(frozen=True)
class ClientCertificate:
    """A certificate and its private key, both PEM; they authenticate the TLS connection itself."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class BearerToken(httpx.Auth):
    """A token that stays the same. `source` says where it stands, for errors."""

    token: str = field(repr=False)
    source: str = "the token"

    def __post_init__(self) -> None:
        check_token(self.token, self.source)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self.token}"
        yield request


class TokenFile(httpx.Auth):
    """A token in a file that others renew: what is sent was read at most `TOKEN_FILE_PERIOD` seconds ago.

    White space around it is removed. When the file cannot be read, the last token that could be is used, and
    `initial` before there was one; without any, the request raises `ConfigError`.
    """

    def __init__(
        self, path: Path, *, source: str, initial: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self.source = source
        if initial:
            check_token(initial, source)
        self._token = initial
        self._clock = clock
        self._read_at: float | None = None

    def __repr__(self) -> str:
        return f"TokenFile({str(self.path)!r})"

    def token(self, *, refused: str | None = None) -> str:
        """The token as it stands in the file now, or did less than a minute ago.

        A token that the server `refused` is not taken from memory.
        """
        now = self._clock()
        if refused is not None and refused == self._token:
            self._read_at = None
        if self._read_at is None or now - self._read_at >= TOKEN_FILE_PERIOD:
            try:
                content = read_file(self.path, self.source).decode("utf-8", "replace").strip()
                check_token(content, f"{self.source}: the token in {self.path}")
            except ConfigError:
                if not self._token:
                    raise
            else:
                self._token = content
            self._read_at = now
        return self._token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        token = self.token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            newer = self.token(refused=token)
            if newer != token:
                request.headers["Authorization"] = f"Bearer {newer}"
                yield request


@dataclass(frozen=True)
class BasicAuth(httpx.Auth):
    """User name and password. https://www.rfc-editor.org/rfc/rfc7617"""

    username: str
    password: str = field(repr=False)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        pair = f"{self.username}:{self.password}".encode()
        request.headers["Authorization"] = f"Basic {base64.b64encode(pair).decode('ascii')}"
        yield request


def check_token(token: str, source: str) -> None:
    """Raise `ConfigError` for a token that cannot stand in a header, without showing it."""
    # The HTTP library would quote the whole header in its error.
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        what = "is empty" if not token else "holds white space or characters that no token has"
        raise ConfigError(f"{source} {what}")
