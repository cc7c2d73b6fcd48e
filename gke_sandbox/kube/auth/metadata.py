"""Google access tokens from the metadata server of a machine or pod."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import httpx

from ...errors import ConfigError, NetworkError
from ..status import plain
from .google_base import METADATA_IP, SCOPES, Token
from .static import check_token

__all__ = ["MetadataServer"]

METADATA_HOST = "metadata.google.internal"
TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
HEADERS = {"Metadata-Flavor": "Google"}
# Seconds between attempts. The metadata server of a pod may need some seconds after the pod's start.
# https://cloud.google.com/kubernetes-engine/docs/concepts/workload-identity#limitations
PING_DELAYS = (0.5, 1.0)
TOKEN_DELAYS = (1.0, 2.0, 4.0, 8.0)
RETRYABLE_STATUS = {408, 429, 500, 502, 503, 504}


class MetadataServer:
    """The service account of this machine, or of this pod with Workload Identity.

    google-auth's own client cannot be imported without requests. `environ` may contain GCE_METADATA_HOST,
    GCE_METADATA_IP, GCE_METADATA_TIMEOUT (seconds) and NO_GCE_CHECK.
    """

    # https://cloud.google.com/compute/docs/metadata/querying-metadata

    def __init__(self, environ: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._configured = environ.get("GCE_METADATA_HOST") or environ.get("GCE_METADATA_ROOT") or ""
        self.host = self._configured or METADATA_HOST
        self.ip = environ.get("GCE_METADATA_IP") or METADATA_IP
        self.description = f"the service account of the metadata server {self.host}"
        self.quota_project: str | None = None
        self.enabled = environ.get("NO_GCE_CHECK", "").lower() != "true"
        self._sleep = sleep
        try:
            self._timeout = float(environ.get("GCE_METADATA_TIMEOUT") or 3)
        except ValueError:
            raise ConfigError("GCE_METADATA_TIMEOUT is not a number of seconds") from None

    def is_available(self) -> bool:
        """Return whether there is a metadata server. Outside Google Cloud this takes a few seconds."""
        if not self.enabled or self._configured:
            return self.enabled
        try:
            response = self._get(f"http://{self.ip}/", None, PING_DELAYS)
        except httpx.TransportError:
            return False
        # Other clouds have a metadata server at the same address.
        return response.is_success and response.headers.get("Metadata-Flavor") == "Google"

    def fetch(self) -> Token:
        """Return a new token. Retry for up to 15 seconds, not counting the time for the responses."""
        try:
            response = self._get(f"http://{self.host}{TOKEN_PATH}", {"scopes": ",".join(SCOPES)}, TOKEN_DELAYS)
        except httpx.TransportError as error:
            reason = plain(str(error), 300) or type(error).__name__
        else:
            if response.status_code not in RETRYABLE_STATUS:
                return self._token(response)
            reason = f"HTTP {response.status_code}"
        raise NetworkError(
            f"no Google token from the metadata server {self.host}: {reason}",
            sent=False,
            hint="Check that no NetworkPolicy blocks 169.254.169.254, ports 80 and 988.",
        )

    def _get(self, url: str, params: Mapping[str, str] | None, delays: Sequence[float]) -> httpx.Response:
        for delay in (*delays, None):
            try:
                with httpx.Client(timeout=self._timeout, trust_env=False, follow_redirects=False) as client:
                    response = client.get(url, params=params, headers=HEADERS)
            except httpx.InvalidURL:
                raise ConfigError(f"GCE_METADATA_HOST or GCE_METADATA_IP is not a host name: {url}") from None
            except httpx.TransportError:
                if delay is None:
                    raise
            else:
                if delay is None or response.status_code not in RETRYABLE_STATUS:
                    break
            self._sleep(delay)
        return response

    def _token(self, response: httpx.Response) -> Token:
        where = f"the metadata server {self.host}"
        if response.status_code == httpx.codes.NOT_FOUND:
            raise ConfigError(
                f"{where} has no service account for this machine or pod",
                hint="Attach a service account to it, or set up Workload Identity Federation for GKE.",
            )
        if not response.is_success:
            raise ConfigError(
                f"{where} returned no token: HTTP {response.status_code}: {plain(response.text, 300)}",
                hint="With Workload Identity, the Kubernetes service account needs roles/iam.workloadIdentityUser "
                "on the Google service account.",
            )
        try:
            body = response.json()
            value, seconds = str(body["access_token"]), float(body["expires_in"])
        except (ValueError, KeyError, TypeError):
            # Neither shown nor chained: the response may contain a token.
            raise ConfigError(f"{where} returned an invalid token response") from None
        check_token(value, f"{where}: its token")
        return Token(value, time.time() + seconds)
