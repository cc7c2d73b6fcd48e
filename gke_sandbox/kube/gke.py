"""A GKE cluster by its name: where it is, from Google's API, and who we are there."""

from __future__ import annotations

import base64
import binascii
import difflib
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import httpx

from ..errors import ConfigError, NetworkError, SandboxError
from .auth.google import GoogleAuth, google_auth
from .auth.google_base import SCOPES, google_http
from .status import plain

if TYPE_CHECKING:
    from .config.types import ClusterConfig

__all__ = ["SCOPES", "Endpoint", "GkeName", "GoogleAuth", "check_gke", "gke_config", "google_auth", "parse_gke"]

logger = logging.getLogger("gke_sandbox")

Endpoint = Literal["auto", "ip", "private", "dns"]

API = "https://container.googleapis.com"
_LOOKS = "It is PROJECT/LOCATION/NAME, such as my-project/europe-west1/my-cluster."
# Seconds between the tries when Google is busy.
_PAUSES = (0.5, 2.0)
_AGAIN = {429, 500, 502, 503, 504}
MAX_LISTED = 10


class GkeName(NamedTuple):
    """Which cluster. Its text is ``PROJECT/LOCATION/NAME``."""

    project: str
    location: str
    name: str

    def __str__(self) -> str:
        return "/".join(self)

    @property
    def path(self) -> str:
        """The cluster's resource name in Google's API."""
        return f"projects/{self.project}/locations/{self.location}/clusters/{self.name}"


def parse_gke(text: str) -> GkeName:
    """``PROJECT/LOCATION/NAME``, or Google's own ``projects/P/locations/L/clusters/C``. Raises `ConfigError`."""
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
            f"{shown} is the name of a kubeconfig's context, not of a GKE cluster",
            hint=f"The cluster's is {'/'.join(context[1:])}; a context is used with its kubeconfig.",
        )
    raise ConfigError(f"{shown} does not name a GKE cluster: it has {len(parts)} parts, not 3", hint=_LOOKS)


def check_gke(project: str, location: str, name: str, endpoint: str = "auto") -> GkeName:
    """The three as a `GkeName`. Raises `ConfigError` for what can be no project, location, cluster or endpoint."""
    if endpoint not in get_args(Endpoint):
        raise ConfigError(f"endpoint is {endpoint!r}, not one of {', '.join(get_args(Endpoint))}")
    for kind, value in (("project", project), ("location", location), ("cluster's name", name)):
        if not value:
            raise ConfigError(f"the {kind} of the GKE cluster is empty", hint=_LOOKS)
        # A project may be of a domain (example.com:my-project); "-" would mean every location.
        allowed = r"[a-z0-9][a-z0-9.:-]*" if kind == "project" else r"[a-z0-9][a-z0-9-]*"
        if len(value) > 100 or not re.fullmatch(allowed, value):
            raise ConfigError(f"{plain(repr(value), 120)} cannot be the {kind} of a GKE cluster", hint=_LOOKS)
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
    """Ask Google where the cluster is. Blocks; one request, and one more for the words of an error.

    `endpoint` is ``ip``, ``private`` (the IP address within the VPC), ``dns``, or ``auto``: the IP endpoint that
    gcloud would use, and the DNS endpoint where IP endpoints are switched off. `auth` are Application Default
    Credentials if not given. Raises `ConfigError` for a cluster that does not exist, cannot be looked at, does not
    run or cannot be reached so; `NetworkError` when Google does not answer.
    """
    which = check_gke(project, location, name, endpoint)
    auth = auth or google_auth()
    with google_http(auth) as http:
        found = _get(http, auth, which, f"/v1/{which.path}", sleep)
    return _cluster_config(found, which, endpoint, auth)


# -- asking Google ------------------------------------------------------------------------------------------


class _Refused(Exception):
    """Google's answer is an error; https://cloud.google.com/apis/design/errors."""

    def __init__(self, code: int, message: str, reason: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason


def _get(
    http: httpx.Client, auth: GoogleAuth, which: GkeName, path: str, sleep: Callable[[float], None]
) -> Mapping[str, Any]:
    try:
        return _ask(http, auth, path, sleep)
    except _Refused as refused:
        error = refused
    raise _explained(error, which, lambda: _clusters(http, auth, which.project, sleep))


def _ask(http: httpx.Client, auth: GoogleAuth, path: str, sleep: Callable[[float], None]) -> Mapping[str, Any]:
    # Known only when the credentials have been found.
    auth.token()
    headers = {"X-Goog-User-Project": auth.quota_project} if auth.quota_project else {}
    host = API.removeprefix("https://")
    for pause in (*_PAUSES, None):
        try:
            answer = http.get(API + path, headers=headers)
        except httpx.HTTPError as error:
            reason = plain(str(error), 300) or type(error).__name__
            raise NetworkError(
                f"cannot reach Google's API at {host}: {reason}",
                sent=not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)),
                request=f"GET {API}{path}",
                hint="Is there a way to Google's APIs from here (DNS, proxy, firewall, Private Google Access)?",
            ) from error
        if pause is None or answer.status_code not in _AGAIN:
            break
        sleep(pause)
    return _understood(answer, host)


def _understood(answer: httpx.Response, host: str) -> Mapping[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise NetworkError(
            f"{host} answered with HTTP {answer.status_code} and something that is not JSON",
            sent=True,
            hint="Is there a proxy or a log-in page between here and Google?",
        )
    if answer.is_success:
        return content
    error = content.get("error")
    error = error if isinstance(error, dict) else {}
    details = error.get("details")
    reasons = [
        str(detail["reason"])
        for detail in (details if isinstance(details, list) else [])
        if isinstance(detail, dict) and detail.get("reason")
    ]
    message = plain(str(error.get("message") or f"HTTP {answer.status_code}"), 500)
    raise _Refused(answer.status_code, message, reasons[0] if reasons else str(error.get("status") or ""))


def _clusters(
    http: httpx.Client, auth: GoogleAuth, project: str, sleep: Callable[[float], None]
) -> list[GkeName] | None:
    """All clusters of a project; None if they cannot be listed."""
    try:
        content = _ask(http, auth, f"/v1/projects/{project}/locations/-/clusters", sleep)
    except (_Refused, SandboxError):
        return None
    listed = content.get("clusters")
    return [
        GkeName(project, str(cluster.get("location")), str(cluster.get("name")))
        for cluster in (listed if isinstance(listed, list) else [])
        if isinstance(cluster, dict)
    ]


def _explained(error: _Refused, which: GkeName, clusters: Callable[[], list[GkeName] | None]) -> SandboxError:
    said = f"{which}: {error.message}"
    if error.code == 401:
        return ConfigError(
            f"Google does not accept the credentials for the cluster {said}",
            hint="Log in again (gcloud auth application-default login), or check what "
            "GOOGLE_APPLICATION_CREDENTIALS names.",
        )
    if error.code == 403:
        return _forbidden(error, which, said)
    if error.code == 404 or (error.code == 400 and "ocation" in error.message):
        return _absent(error, which, clusters())
    if error.code in _AGAIN:
        return NetworkError(f"Google's API is in trouble, HTTP {error.code}: {said}", sent=True)
    return ConfigError(f"Google refuses to tell where the cluster is, HTTP {error.code}: {said}")


def _forbidden(error: _Refused, which: GkeName, said: str) -> ConfigError:
    words = error.message.lower()
    if "quota project" in words or error.reason == "USER_PROJECT_DENIED":
        return ConfigError(
            f"no usable quota project for the cluster {said}",
            hint=f"gcloud auth application-default set-quota-project {which.project} (or another project in which "
            "you have roles/serviceusage.serviceUsageConsumer)",
        )
    if error.reason in {"SERVICE_DISABLED", "accessNotConfigured"} or "api is not enabled" in words:
        return ConfigError(
            f"the Kubernetes Engine API is not enabled for the cluster {said}",
            hint=f"gcloud services enable container.googleapis.com --project {which.project}",
        )
    if error.reason == "ACCESS_TOKEN_SCOPE_INSUFFICIENT" or "authentication scopes" in words:
        return ConfigError(
            f"the credentials' access scopes do not reach the cluster {said}",
            hint="Give the machine, or the log-in, the scope cloud-platform, or use Workload Identity.",
        )
    return ConfigError(
        f"may not look at the GKE cluster {said}",
        hint=f"The permission container.clusters.get is missing in the project {which.project} (or there is no "
        "such project): roles/container.clusterViewer has it, and roles/container.developer lets you use the "
        "cluster too.",
    )


def _absent(error: _Refused, which: GkeName, clusters: list[GkeName] | None) -> ConfigError:
    message = f"there is no GKE cluster {which}: {error.message}"
    if clusters is None:
        return ConfigError(message, hint=f"See gcloud container clusters list --project {which.project}")
    if not clusters:
        return ConfigError(message, hint=f"The project {which.project} has no GKE cluster that you may see.")
    nearest = sorted(
        clusters, key=lambda cluster: (-_alike(cluster.name, which.name), -_alike(cluster, which), cluster)
    )
    shown = ", ".join(plain(str(cluster), 200) for cluster in nearest[:MAX_LISTED])
    more = f" and {len(nearest) - MAX_LISTED} more" if len(nearest) > MAX_LISTED else ""
    return ConfigError(message, hint=f"There is: {shown}{more}")


def _alike(one: object, other: object) -> float:
    return difflib.SequenceMatcher(None, str(one), str(other)).ratio()


# -- what Google says ---------------------------------------------------------------------------------------


def _cluster_config(
    cluster: Mapping[str, Any], which: GkeName, endpoint: Endpoint, auth: GoogleAuth
) -> ClusterConfig:
    from .config.types import ClusterConfig

    _check_status(cluster, which)
    control_plane = _part(cluster, "controlPlaneEndpointsConfig")
    # Clusters older than the field have an IP endpoint.
    ip_enabled = _part(control_plane, "ipEndpointsConfig").get("enabled", True) is not False
    has_dns_only = _text(cluster, "endpoint") is None and "dnsEndpointConfig" in control_plane
    if endpoint == "dns" or (endpoint == "auto" and (has_dns_only or not ip_enabled)):
        # As gcloud: this endpoint's certificate is signed by a public authority.
        host, ca_data, phrase = _dns_endpoint(control_plane, which, ip_enabled), None, "DNS endpoint"
    else:
        host = _ip_endpoint(cluster, which, endpoint, ip_enabled)
        ca_data = _certificate_authority(cluster, which)
        phrase = "private IP endpoint" if endpoint == "private" else "IP endpoint"
    return ClusterConfig(
        server=f"https://[{host}]" if ":" in host else f"https://{host}",
        ca_data=ca_data,
        auth=auth,
        source=f"the {phrase} of the GKE cluster {which}",
        context="_".join(("gke", *which)),
        ca_source="the system's certificates" if ca_data is None else "the GKE cluster's own",
        credentials=f"Google credentials: {auth.description}",
    )


def _check_status(cluster: Mapping[str, Any], which: GkeName) -> None:
    # https://cloud.google.com/kubernetes-engine/docs/reference/rest/v1/projects.locations.clusters#status
    status = cluster.get("status")
    trouble = _trouble(cluster)
    if status == "PROVISIONING":
        raise ConfigError(f"the GKE cluster {which} is still being made", hint="Try again in some minutes.")
    if status == "STOPPING":
        raise ConfigError(f"the GKE cluster {which} is being deleted")
    if status == "ERROR":
        raise ConfigError(
            f"the GKE cluster {which} is broken, status ERROR{trouble}",
            hint=f"See gcloud container clusters describe {which.name} --location {which.location} "
            f"--project {which.project}",
        )
    if status == "DEGRADED":
        logger.warning("the GKE cluster %s is degraded%s", which, trouble)


def _trouble(cluster: Mapping[str, Any]) -> str:
    conditions = cluster.get("conditions")
    messages = [
        str(condition["message"])
        for condition in (conditions if isinstance(conditions, list) else [])
        if isinstance(condition, dict) and condition.get("message")
    ]
    # The older field, superseded by the conditions.
    words = "; ".join(messages) or str(cluster.get("statusMessage") or "")
    return f": {plain(words, 500)}" if words else ""


def _dns_endpoint(control_plane: Mapping[str, Any], which: GkeName, ip_enabled: bool) -> str:
    dns = _part(control_plane, "dnsEndpointConfig")
    host = _text(dns, "endpoint")
    others = "" if ip_enabled else ", and its IP endpoints are switched off"
    update = (
        f"gcloud container clusters update {which.name} --location {which.location} --project {which.project} "
        "--enable-dns-access"
    )
    if host is None:
        raise ConfigError(f"the GKE cluster {which} has no DNS endpoint{others}", hint=f"Switch one on: {update}")
    if dns.get("allowExternalTraffic") is not True:
        raise ConfigError(
            f"the DNS endpoint of the GKE cluster {which} lets no traffic in from outside of Google{others}",
            hint=f"Open it: {update}",
        )
    return host


def _ip_endpoint(cluster: Mapping[str, Any], which: GkeName, endpoint: Endpoint, enabled: bool) -> str:
    if not enabled:
        raise ConfigError(
            f"the IP endpoints of the GKE cluster {which} are switched off", hint="Use the endpoint dns."
        )
    addresses = _part(_part(cluster, "controlPlaneEndpointsConfig"), "ipEndpointsConfig")
    if endpoint == "private":
        host = _text(addresses, "privateEndpoint") or _text(
            _part(cluster, "privateClusterConfig"), "privateEndpoint"
        )
        if host is None:
            raise ConfigError(f"the GKE cluster {which} has no private endpoint", hint="Use the endpoint ip.")
        return host
    host = _text(cluster, "endpoint")
    if host is None:
        raise ConfigError(
            f"the GKE cluster {which} has no IP endpoint; its status: {plain(str(cluster.get('status')), 40)}",
            hint="Try again in some minutes.",
        )
    return host


def _certificate_authority(cluster: Mapping[str, Any], which: GkeName) -> bytes:
    encoded = _text(_part(cluster, "masterAuth"), "clusterCaCertificate") or ""
    try:
        pem = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        pem = b""
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        # Without it, any certificate of the system's authorities would do.
        raise ConfigError(f"Google names no certificate authority for the GKE cluster {which}")
    return pem


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = whole.get(name)
    return part if isinstance(part, dict) else {}


def _text(whole: Mapping[str, Any], name: str) -> str | None:
    value = whole.get(name)
    return value if isinstance(value, str) and value else None
