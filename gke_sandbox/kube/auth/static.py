"""Fixed credentials: tokens and client certificates. No repr or error contains a secret.

Each class except `ClientCertificate` is an `httpx.Auth`; the client uses them over https only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ...errors import ConfigError
from ..config.files import read_file

__all__ = ["BearerToken", "ClientCertificate", "TokenFile", "check_token"]

# Seconds. A projected service account token is renewed long before it expires; client-go reads it once a minute.
# https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#serviceaccount-token-volume-projection
TOKEN_FILE_INTERVAL = 60.0


@dataclass(frozen=True)
class ClientCertificate:
    """A certificate and its private key, both PEM, for TLS client authentication."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class BearerToken(httpx.Auth):
    """A token that does not change. `source` names its origin in errors."""

    token: str = field(repr=False)
    source: str = "the token"

    def __post_init__(self) -> None:
        check_token(self.token, self.source)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self.token}"
        yield request


class TokenFile(httpx.Auth):
    """A token in a file that another program renews. The file is read every `TOKEN_FILE_INTERVAL` seconds.

    Surrounding white space is removed. If the file cannot be read, the last token is used, at first `initial`. A
    request without a token raises `ConfigError`.
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
        """Return the token. Read the file again after a minute, or if the server `refused` the token."""
        now = self._clock()
        if refused is not None and refused == self._token:
            self._read_at = None
        if self._read_at is None or now - self._read_at >= TOKEN_FILE_INTERVAL:
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


def check_token(token: str, source: str) -> None:
    """Raise `ConfigError` for a token that is not valid in a header, without showing it."""
    # The error of the HTTP library would contain the whole header.
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        problem = "is empty" if not token else "contains white space or characters that are not allowed in a token"
        raise ConfigError(f"{source} {problem}")
