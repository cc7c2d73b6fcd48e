"""Values that all kinds of Google credentials share, and the HTTP client for Google's APIs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from ..._version import __version__
from ...errors import ConfigError

__all__ = ["METADATA_IP", "SCOPES", "Token", "TokenSource", "google_http"]

# Without the second one, a service account is known to the cluster by a number, and role bindings to its e-mail
# do not hold. They are gke-gcloud-auth-plugin's own.
SCOPES = (
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/userinfo.email",
)

TIMEOUT = httpx.Timeout(connect=10.0, read=20.0, write=20.0, pool=None)
METADATA_IP = "169.254.169.254"


@dataclass(frozen=True)
class Token:
    """An access token. `expires_at` is calendar time, in seconds since 1970; None: it does not expire."""

    value: str = field(repr=False)
    expires_at: float | None = None


class TokenSource(Protocol):
    """What gives tokens. `description` is a phrase for people; `quota_project` is who pays for API calls."""

    description: str
    quota_project: str | None

    def fetch(self) -> Token:
        """A new token. Blocks. Raises `ConfigError`, or `NetworkError` if nobody answered."""


def google_http(auth: httpx.Auth | None = None) -> httpx.Client:
    """A client for Google's APIs: the system's certificates, and the proxy that the environment names.

    Raises `ConfigError` for a proxy that httpx cannot use.
    """
    try:
        return httpx.Client(
            verify=ssl.create_default_context(),
            auth=auth,
            headers={"User-Agent": f"gke-sandbox/{__version__}"},
            timeout=TIMEOUT,
            follow_redirects=False,
            # There a cloud's machine learns who it is: never behind a proxy.
            mounts={f"http://{METADATA_IP}": httpx.HTTPTransport(trust_env=False)},
        )
    except (ImportError, ValueError, httpx.InvalidURL):
        # ImportError: SOCKS without its package. The address is not shown: it may hold a password.
        raise ConfigError(
            "the proxy in the environment (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY) cannot be used to reach Google",
            hint="It looks like http://proxy.example.com:3128; for socks5:// install httpx[socks].",
        ) from None
