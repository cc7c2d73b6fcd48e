"""Explain error responses with what the client knows: its configuration, and whether it found a Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone

from ..errors import ApiError, Forbidden, NotFound, ServerError, TooManyRequests, Unauthorized
from .auth.expiry import credentials_expiry
from .config.types import ClusterConfig
from .status import is_rbac_denial, parse_object

__all__ = ["add_hints", "is_kubernetes"]

OWN_CLUSTER_HINT = (
    "This program runs in a pod and uses the cluster of that pod. To use the cluster of a kubeconfig, name it: "
    "Cluster.kubeconfig(), kubeconfig_path of GkeCodeExecutor, or --kubeconfig on the command line."
)


def is_kubernetes(headers: Mapping[str, str], content: bytes) -> bool:
    """Return whether a response is from a Kubernetes API, and not from a proxy or another program."""
    # An API server adds this header to each of its responses; cassettes do not contain it.
    if "audit-id" in headers:
        return True
    value = parse_object(content)
    return value is not None and any(name in value for name in ("apiVersion", "kind", "metadata"))


def add_hints(error: ApiError, config: ClusterConfig, *, found_kubernetes: bool, now: datetime | None) -> None:
    """Improve the hint of an error response.

    `found_kubernetes`: this or an earlier response was from a Kubernetes API. `now` is the server's time.
    """
    if not found_kubernetes:
        # Load balancers send 429 and 5xx while the API server is busy or starts.
        if isinstance(error, ServerError) and error.code < 500:
            error.retryable = False
        if error.code < 400 or not error.hint:
            error.set_hint(
                f"Is {config.address} ({config.source}) the address of a Kubernetes API server? A proxy in front "
                "of the server may require a login, or not reach it."
            )
        return
    if isinstance(error, (ServerError, TooManyRequests)) and not error.hint:
        error.set_hint(
            "The API server or a proxy in front of it is overloaded or has a problem. Try again later, with fewer "
            "requests at once."
        )
    if isinstance(error, Unauthorized):
        expires = credentials_expiry(config)
        if expires is not None and expires <= (now or datetime.now(timezone.utc)):
            text = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
            error.set_hint(f"The credentials ({config.credentials}) expired at {text}. Log in again.")
    denied = isinstance(error, Forbidden) and is_rbac_denial(error.server_message)
    missing = isinstance(error, NotFound) and error.details.get("kind") == "namespaces"
    if config.is_own_cluster and (denied or missing):
        error.set_hint(f"{error.hint} {OWN_CLUSTER_HINT}")
