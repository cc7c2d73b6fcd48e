"""Deleting without an event loop, for interpreter exit: an event loop can resolve no host name any more there."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence

import httpx

from ..._version import __version__
from ...errors import SandboxError
from ..config.types import ClusterConfig
from ..resources import JOBS
from .rotating import plugin_certificate
from .tls import proxy_ssl_context, ssl_context
from .transport import sync_transport

__all__ = ["delete_jobs_sync"]

logger = logging.getLogger("gke_sandbox")

# Seconds for each request: the user waits for the interpreter to end.
_TIMEOUT = 5.0


def delete_jobs_sync(config: ClusterConfig, namespace: str, names: Sequence[str]) -> None:
    """Delete objects in the background, each with one request; what fails is logged, nothing is raised.

    After the first request that gets no answer (5 s) the others are not tried.
    """
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    headers = httpx.Headers(
        {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"gke-sandbox/{__version__}",
        }
    )
    if config.impersonation is not None:
        config.impersonation.add_to(headers)
    left = list(names)
    try:
        with httpx.Client(
            transport=_transport(config),
            auth=config.auth if config.secure else None,
            headers=headers,
            timeout=_TIMEOUT,
            trust_env=False,
        ) as client:
            while left:
                url = config.address + JOBS.path(namespace, left[0])
                answer = client.request("DELETE", url, content=json.dumps(options))
                if not (answer.is_success or answer.status_code == httpx.codes.NOT_FOUND):
                    logger.warning("%s %s was not deleted at exit: %s", JOBS.kind, left[0], answer.text[:200])
                del left[0]
    except (httpx.HTTPError, OSError, SandboxError) as error:
        logger.warning("%s %s may be left in namespace %s: %s", JOBS.kind, ", ".join(left), namespace, error)


def _transport(config: ClusterConfig) -> httpx.BaseTransport:
    """The way that the cluster's other requests take."""
    proxy = config.proxy(os.environ)
    context = ssl_context(config, plugin_certificate(config.auth))
    return sync_transport(context, proxy, proxy_ssl_context(config))
