"""Google access tokens from the metadata server of a machine or pod."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import httpx

from ...errors import ConfigError, NetworkError
from ..status import plain
from .google_base import METADATA_IP, Token
from .static import check_token

__all__ = ["MetadataServer"]

METADATA_HOST = "metadata.google.internal"
METADATA_TOKEN = "/computeMetadata/v1/instance/service-accounts/default/token"
_METADATA_HEADERS = {"Metadata-Flavor": "Google"}
# A pod's metadata server may need some seconds after the pod's start. Seconds between the tries.
# https://cloud.google.com/kubernetes-engine/docs/concepts/workload-identity#limitations
_PING_PAUSES = (0.5, 1.0)
_TOKEN_PAUSES = (1.0, 2.0, 4.0, 8.0)
_AGAIN = {408, 429, 500, 502, 503, 504}


class MetadataServer:
    """The service account of this machine, or of this pod's Workload Identity.

    Asked directly: google-auth's own code for it cannot be imported without requests. `environ` may hold
    GCE_METADATA_HOST, GCE_METADATA_IP, GCE_METADATA_TIMEOUT (seconds) and NO_GCE_CHECK.
    """

    # https://cloud.google.com/compute/docs/metadata/querying-metadata

    def __init__(
        self, scopes: Sequence[str], environ: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._named = environ.get("GCE_METADATA_HOST") or environ.get("GCE_METADATA_ROOT") or ""
        self.host = self._named or METADATA_HOST
        self.ip = environ.get("GCE_METADATA_IP") or METADATA_IP
        self.description = f"the service account that the metadata server {self.host} tells"
        self.quota_project: str | None = None
        self.checked = environ.get("NO_GCE_CHECK", "").lower() != "true"
        self._scopes = ",".join(scopes)
        self._sleep = sleep
        try:
            self._timeout = float(environ.get("GCE_METADATA_TIMEOUT") or 3)
        except ValueError:
            raise ConfigError("GCE_METADATA_TIMEOUT is not a number of seconds") from None

    def __repr__(self) -> str:
        return f"MetadataServer({self.host!r})"

    def answers(self) -> bool:
        """Whether there is one. Somewhere else than on Google's machines this takes a few seconds."""
        if not self.checked:
            return False
        if self._named:
            return True
        for pause in (*_PING_PAUSES, None):
            try:
                answer = self._get(f"http://{self.ip}/")
            except httpx.TransportError:
                if pause is not None:
                    self._sleep(pause)
            else:
                # Other clouds have a metadata server of their own at this address.
                return answer.is_success and answer.headers.get("Metadata-Flavor") == "Google"
        return False

    def fetch(self) -> Token:
        """A new token; asks again, for up to 15 seconds besides the time for the answers, when there is none."""
        reason = ""
        for pause in (*_TOKEN_PAUSES, None):
            try:
                answer = self._get(f"http://{self.host}{METADATA_TOKEN}", {"scopes": self._scopes})
            except httpx.TransportError as error:
                reason = plain(str(error), 300) or type(error).__name__
            else:
                if answer.status_code not in _AGAIN:
                    return self._token(answer)
                reason = f"HTTP {answer.status_code}"
            if pause is not None:
                self._sleep(pause)
        raise NetworkError(
            f"no Google token from the metadata server {self.host}: {reason}",
            sent=False,
            hint="Does a NetworkPolicy forbid the way to 169.254.169.254, port 80 and 988?",
        )

    def _get(self, url: str, params: Mapping[str, str] | None = None) -> httpx.Response:
        try:
            with httpx.Client(timeout=self._timeout, trust_env=False, follow_redirects=False) as client:
                return client.get(url, params=params, headers=_METADATA_HEADERS)
        except httpx.InvalidURL:
            raise ConfigError(f"GCE_METADATA_HOST or GCE_METADATA_IP is not the name of a host: {url}") from None

    def _token(self, answer: httpx.Response) -> Token:
        where = f"the metadata server {self.host}"
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise ConfigError(
                f"{where} knows no service account for this machine or pod",
                hint="Attach a service account to it, or set up Workload Identity Federation for GKE.",
            )
        if not answer.is_success:
            raise ConfigError(
                f"{where} gives no token: HTTP {answer.status_code}: {plain(answer.text, 300)}",
                hint="With Workload Identity: may the Kubernetes service account act as the Google one "
                "(roles/iam.workloadIdentityUser)?",
            )
        try:
            told = answer.json()
            value, seconds = told["access_token"], float(told["expires_in"])
        except (ValueError, KeyError, TypeError):
            # Not shown, not chained: it may hold a token.
            raise ConfigError(f"{where} answered with something that is no token") from None
        check_token(str(value), f"{where}: its token")
        return Token(str(value), time.time() + seconds)
