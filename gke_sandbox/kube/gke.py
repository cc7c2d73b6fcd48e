"""Find the endpoint and the CA of a GKE cluster by its name, with Google's API."""

from __future__ import annotations

import base64
import difflib
import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import httpx

from ..errors import ConfigError, NetworkError, SandboxError
from .auth.google import GoogleAuth, google_auth
from .auth.google_base import google_http
from .status import plain

if TYPE_CHECKING:
    from .config.types import ClusterConfig

__all__ = ["Endpoint", "GkeName", "check_gke", "gke_config", "parse_gke"]

logger = logging.getLogger(__name__)

Endpoint = Literal["auto", "ip", "private", "dns"]

API = "https://container.googleapis.com"
_FORMAT_HINT = "Use the form PROJECT/LOCATION/NAME, such as my-project/europe-west1/my-cluster."
RETRY_DELAYS = (0.5, 2.0)
"""Seconds before each retry if Google's API is busy."""
RETRYABLE_STATUS = {429, 500, 502, 503, 504}
MAX_LISTED = 10


class GkeName(NamedTuple):
    """The name of a cluster; as text ``PROJECT/LOCATION/NAME``."""

    project: str
    location: str
    name: str

    def __str__(self) -> str:
        return "/".join(self)

    @property
    def path(self) -> str:
        """The resource name of the cluster in Google's API."""
        return f"projects/{self.project}/locations/{self.location}/clusters/{self.name}"


def parse_gke(text: str) -> GkeName:
    """Parse ``PROJECT/LOCATION/NAME`` or ``projects/P/locations/L/clusters/C``. Raise `ConfigError`."""
    parts = text.strip().split("/")
    if len(parts) == 6 and parts[0::2] in (
        ["projects", "locations", "clusters"],
        ["projects", "zones", "clusters"],
    ):
        parts = parts[1::2]
    if len(parts) == 3:
        return check_gke(*parts)
    shown = plain(repr(text), 200)
    context = text.strip().split("_")
    if len(context) == 4 and context[0] == "gke":
        raise ConfigError(
            f"{shown} is the name of a context in a kubeconfig, not of a GKE cluster",
            hint=f"Use {'/'.join(context[1:])}, or use the context with its kubeconfig.",
        )
    raise ConfigError(
        f"{shown} is not the name of a GKE cluster: it must have 3 parts, got {len(parts)}", hint=_FORMAT_HINT
    )


def check_gke(project: str, location: str, name: str, endpoint: str = "auto") -> GkeName:
    """Return a `GkeName`. Raise `ConfigError` for an invalid project, location, name or endpoint."""
    if endpoint not in get_args(Endpoint):
        raise ConfigError(f"endpoint: must be one of {', '.join(get_args(Endpoint))}, got {endpoint!r}")
    for kind, value in (("project", project), ("location", location), ("name", name)):
        if not value:
            raise ConfigError(f"the {kind} of the GKE cluster is empty", hint=_FORMAT_HINT)
        # A project may have a domain (example.com:my-project); "-" would mean every location.
        allowed = r"[a-z0-9][a-z0-9.:-]*" if kind == "project" else r"[a-z0-9][a-z0-9-]*"
        if len(value) > 100 or not re.fullmatch(allowed, value):
            raise ConfigError(
                f"{plain(repr(value), 120)} is not a valid {kind} of a GKE cluster", hint=_FORMAT_HINT
            )
    return GkeName(project, location, name)


def gke_config(
    project: str,
    location: str,
    name: str,
    *,
    endpoint: Endpoint = "auto",
    auth: GoogleAuth | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> ClusterConfig:
    """Get the endpoint and CA of a cluster from Google's API. Blocks for one request, or two if the first fails.

    `endpoint` is ``ip``, ``private`` (the IP address within the VPC), ``dns``, or ``auto``: the IP endpoint, as in
    gcloud, or the DNS endpoint if IP endpoints are disabled. `auth` defaults to Application Default Credentials.
    Raise `ConfigError` if the cluster does not exist, is not accessible or running, or does not have this
    endpoint; `NetworkError` if Google does not respond.
    """
    which = check_gke(project, location, name, endpoint)
    auth = auth or google_auth()
    with google_http(auth) as http:
        try:
            cluster = _get(http, auth, f"/v1/{which.path}", sleep)
        except _GoogleError as error:
            raise _error_for(error, which, partial(_clusters, http, auth, which.project, sleep)) from None
    return _cluster_config(cluster, which, endpoint, auth)


# -- requests to Google's API -------------------------------------------------------------------------------


class _GoogleError(Exception):
    """An error response of Google's API; https://cloud.google.com/apis/design/errors."""

    def __init__(self, code: int, message: str, reason: str) -> None:
        super().__init__(message)
        self.code, self.message, self.reason = code, message, reason


def _get(http: httpx.Client, auth: GoogleAuth, path: str, sleep: Callable[[float], None]) -> Mapping[str, Any]:
    # The quota project is known once there is a token.
    auth.token()
    headers = {"X-Goog-User-Project": auth.quota_project} if auth.quota_project else {}
    host = API.removeprefix("https://")
    for delay in (*RETRY_DELAYS, None):
        try:
            response = http.get(API + path, headers=headers)
        except httpx.HTTPError as error:
            reason = plain(str(error), 300) or type(error).__name__
            raise NetworkError(
                f"cannot reach Google's API at {host}: {reason}",
                sent=not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)),
                request=f"GET {API}{path}",
                hint="Check that you can reach Google's APIs (DNS, proxy, firewall, Private Google Access).",
            ) from error
        if delay is None or response.status_code not in RETRYABLE_STATUS:
            break
        sleep(delay)
    return _parse(response, host)


def _parse(response: httpx.Response, host: str) -> Mapping[str, Any]:
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise NetworkError(
            f"{host} sent HTTP {response.status_code} with a body that is not JSON",
            sent=True,
            hint="A proxy or a login page may have sent this response.",
        )
    if response.is_success:
        return content
    error = _part(content, "error")
    reasons = [str(detail["reason"]) for detail in _parts(error, "details") if detail.get("reason")]
    message = plain(str(error.get("message") or f"HTTP {response.status_code}"), 500)
    raise _GoogleError(response.status_code, message, reasons[0] if reasons else str(error.get("status") or ""))


def _clusters(
    http: httpx.Client, auth: GoogleAuth, project: str, sleep: Callable[[float], None]
) -> list[str] | None:
    """Return the names of all clusters of a project, or None if they cannot be listed."""
    try:
        content = _get(http, auth, f"/v1/projects/{project}/locations/-/clusters", sleep)
    except (_GoogleError, SandboxError):
        return None
    return [f"{project}/{each.get('location')}/{each.get('name')}" for each in _parts(content, "clusters")]


def _error_for(error: _GoogleError, which: GkeName, clusters: Callable[[], list[str] | None]) -> SandboxError:
    details = f"{which}: {error.message}"
    if error.code == 401:
        return ConfigError(
            f"Google rejected the credentials for the cluster {details}",
            hint="Log in again (gcloud auth application-default login), or check the file in "
            "GOOGLE_APPLICATION_CREDENTIALS.",
        )
    if error.code == 403:
        return _forbidden(error, which, details)
    if error.code == 404 or (error.code == 400 and "ocation" in error.message):
        return ConfigError(f"no such GKE cluster: {details}", hint=_similar_clusters(which, clusters()))
    if error.code in RETRYABLE_STATUS:
        return NetworkError(f"Google's API failed with HTTP {error.code}: {details}", sent=True)
    return ConfigError(f"Google's API rejected the request, HTTP {error.code}: {details}")


def _forbidden(error: _GoogleError, which: GkeName, details: str) -> ConfigError:
    message = error.message.lower()
    if "quota project" in message or error.reason == "USER_PROJECT_DENIED":
        return ConfigError(
            f"no usable quota project for the cluster {details}",
            hint=f"Run: gcloud auth application-default set-quota-project {which.project} (or another project "
            "where you have roles/serviceusage.serviceUsageConsumer).",
        )
    if error.reason in {"SERVICE_DISABLED", "accessNotConfigured"} or "api is not enabled" in message:
        return ConfigError(
            f"the Kubernetes Engine API is not enabled for the cluster {details}",
            hint=f"Run: gcloud services enable container.googleapis.com --project {which.project}.",
        )
    if error.reason == "ACCESS_TOKEN_SCOPE_INSUFFICIENT" or "authentication scopes" in message:
        return ConfigError(
            f"the access scopes of the credentials are not sufficient for the cluster {details}",
            hint="Add the scope cloud-platform to the machine or the login, or use Workload Identity.",
        )
    return ConfigError(
        f"access denied to the GKE cluster {details}",
        hint=f"You need the permission container.clusters.get in the project {which.project} (does it exist?). "
        "roles/container.clusterViewer contains it; roles/container.developer also lets you use the cluster.",
    )


def _similar_clusters(which: GkeName, clusters: list[str] | None) -> str:
    if clusters is None:
        return f"List the clusters with: gcloud container clusters list --project {which.project}."
    if not clusters:
        return f"The project {which.project} has no GKE clusters, or you have no access to them."
    similar = difflib.get_close_matches(str(which), clusters, n=MAX_LISTED, cutoff=0.0)
    more = f" and {len(clusters) - MAX_LISTED} more" if len(clusters) > MAX_LISTED else ""
    return f"The clusters are: {', '.join(plain(cluster, 200) for cluster in similar)}{more}."


# -- the cluster resource ------------------------------------------------------------------------------------


def _cluster_config(
    cluster: Mapping[str, Any], which: GkeName, endpoint: Endpoint, auth: GoogleAuth
) -> ClusterConfig:
    from .config.types import ClusterConfig

    _check_status(cluster, which)
    control_plane = _part(cluster, "controlPlaneEndpointsConfig")
    # Clusters that are older than this field have an IP endpoint.
    ip_enabled = _part(control_plane, "ipEndpointsConfig").get("enabled", True) is not False
    has_dns_only = _text(cluster, "endpoint") is None and "dnsEndpointConfig" in control_plane
    if endpoint == "dns" or (endpoint == "auto" and (has_dns_only or not ip_enabled)):
        # As in gcloud: a public authority signed the certificate of this endpoint.
        host, ca_data, kind = _dns_endpoint(control_plane, which, ip_enabled), None, "DNS endpoint"
    else:
        host = _ip_endpoint(cluster, which, endpoint, ip_enabled)
        ca_data = _certificate_authority(cluster, which)
        kind = "private IP endpoint" if endpoint == "private" else "IP endpoint"
    return ClusterConfig(
        server=f"https://[{host}]" if ":" in host else f"https://{host}",
        ca_data=ca_data,
        auth=auth,
        source=f"the {kind} of the GKE cluster {which}",
        context="_".join(("gke", *which)),
        ca_source="the system's certificates" if ca_data is None else "the GKE cluster",
        credentials=f"Google credentials: {auth.description}",
    )


def _check_status(cluster: Mapping[str, Any], which: GkeName) -> None:
    # https://cloud.google.com/kubernetes-engine/docs/reference/rest/v1/projects.locations.clusters#status
    status = cluster.get("status")
    details = _conditions(cluster)
    if status == "PROVISIONING":
        raise ConfigError(f"the GKE cluster {which} is still being created", hint="Try again in a few minutes.")
    if status == "STOPPING":
        raise ConfigError(f"the GKE cluster {which} is being deleted")
    if status == "ERROR":
        raise ConfigError(
            f"the GKE cluster {which} has the status ERROR{details}",
            hint=f"Run: gcloud container clusters describe {which.name} --location {which.location} "
            f"--project {which.project}.",
        )
    if status == "DEGRADED":
        logger.warning("the GKE cluster %s is degraded%s", which, details)


def _conditions(cluster: Mapping[str, Any]) -> str:
    messages = [str(each["message"]) for each in _parts(cluster, "conditions") if each.get("message")]
    # statusMessage is the older field.
    text = "; ".join(messages) or str(cluster.get("statusMessage") or "")
    return f": {plain(text, 500)}" if text else ""


def _dns_endpoint(control_plane: Mapping[str, Any], which: GkeName, ip_enabled: bool) -> str:
    dns = _part(control_plane, "dnsEndpointConfig")
    host = _text(dns, "endpoint")
    others = "" if ip_enabled else ", and its IP endpoints are disabled"
    update = (
        f"gcloud container clusters update {which.name} --location {which.location} --project {which.project} "
        "--enable-dns-access"
    )
    if host is None:
        raise ConfigError(f"the GKE cluster {which} has no DNS endpoint{others}", hint=f"Enable it: {update}.")
    if dns.get("allowExternalTraffic") is not True:
        raise ConfigError(
            f"the DNS endpoint of the GKE cluster {which} does not allow external traffic{others}",
            hint=f"Allow it: {update}.",
        )
    return host


def _ip_endpoint(cluster: Mapping[str, Any], which: GkeName, endpoint: Endpoint, enabled: bool) -> str:
    if not enabled:
        raise ConfigError(
            f"the IP endpoints of the GKE cluster {which} are disabled", hint="Use the endpoint dns."
        )
    addresses = _part(_part(cluster, "controlPlaneEndpointsConfig"), "ipEndpointsConfig")
    if endpoint == "private":
        older = _part(cluster, "privateClusterConfig")
        host = _text(addresses, "privateEndpoint") or _text(older, "privateEndpoint")
        if host is None:
            raise ConfigError(f"the GKE cluster {which} has no private endpoint", hint="Use the endpoint ip.")
        return host
    host = _text(cluster, "endpoint")
    if host is None:
        raise ConfigError(
            f"the GKE cluster {which} has no IP endpoint; its status: {plain(str(cluster.get('status')), 40)}",
            hint="Try again in a few minutes.",
        )
    return host


def _certificate_authority(cluster: Mapping[str, Any], which: GkeName) -> bytes:
    encoded = _text(_part(cluster, "masterAuth"), "clusterCaCertificate") or ""
    try:
        pem = base64.b64decode(encoded, validate=True)
    except ValueError:
        pem = b""
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        # Without a CA, any certificate that the system trusts would be accepted.
        raise ConfigError(f"Google returned no certificate authority for the GKE cluster {which}")
    return pem


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = whole.get(name)
    return part if isinstance(part, dict) else {}


def _parts(whole: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    parts = whole.get(name)
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _text(whole: Mapping[str, Any], name: str) -> str | None:
    value = whole.get(name)
    return value if isinstance(value, str) and value else None
