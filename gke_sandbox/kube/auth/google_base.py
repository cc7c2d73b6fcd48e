"""Values that all kinds of Google credentials share, and the HTTP client for Google's APIs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from ..._version import __version__
from ...errors import ConfigError

__all__ = ["METADATA_IP", "SCOPES", "Token", "TokenSource", "google_http"]

# The scopes that gke-gcloud-auth-plugin requests. Without the second one, the cluster identifies a service account
# by a number, and role bindings to its email address have no effect.
# https://github.com/kubernetes/cloud-provider-gcp/tree/master/cmd/gke-gcloud-auth-plugin
SCOPES = (
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/userinfo.email",
)
HTTP_TIMEOUT = httpx.Timeout(connect=10.0, read=20.0, write=20.0, pool=None)
METADATA_IP = "169.254.169.254"


@dataclass(frozen=True)
class Token:
    """An access token. Two with the same value are equal."""

    value: str = field(repr=False)
    expires_at: float | None = field(default=None, compare=False)
    """Seconds since 1970; None if the token does not expire."""


class TokenSource(Protocol):
    """Google credentials that return tokens."""

    description: str
    """A phrase for error messages."""
    quota_project: str | None
    """The project that is billed for API calls."""

    def fetch(self) -> Token:
        """Return a new token. Blocks. Raise `ConfigError`, or `NetworkError` without a response."""


def google_http(auth: httpx.Auth | None = None) -> httpx.Client:
    """Return a client for Google's APIs that uses the system's certificates and the proxy of the environment.

    Raise `ConfigError` for a proxy that httpx cannot use.
    """
    try:
        return httpx.Client(
            verify=ssl.create_default_context(),
            auth=auth,
            headers={"User-Agent": f"gke-sandbox/{__version__}"},
            timeout=HTTP_TIMEOUT,
            follow_redirects=False,
            # The metadata server of any cloud is local: never use a proxy.
            mounts={f"http://{METADATA_IP}": httpx.HTTPTransport(trust_env=False)},
        )
    except (ImportError, ValueError, httpx.InvalidURL):
        # ImportError: SOCKS without its package. The address is not shown, because it may contain a password.
        raise ConfigError(
            "the proxy in the environment (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY) cannot be used to reach Google",
            hint="It must look like http://proxy.example.com:3128; for socks5://, install httpx[socks].",
        ) from None
