"""Deleting without an event loop, for interpreter exit: an event loop can resolve no host name any more there."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import httpx

from .._version import __version__
from ..errors import ConfigError
from .config import ClusterConfig
from .resources import Resource
from .tls import ssl_context

__all__ = ["delete_now"]

logger = logging.getLogger("gke_sandbox")

# Seconds for each request: the user waits for the interpreter to end.
_TIMEOUT = 5.0


def delete_now(config: ClusterConfig, resource: Resource, namespace: str, names: Sequence[str]) -> None:
    """Delete objects in the background, each with one request; what fails is logged, nothing is raised.

    After the first request that gets no answer (5 s) the others are not tried.
    """
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    extensions = {"sni_hostname": config.tls_server_name} if config.tls_server_name is not None else {}
    left = list(names)
    try:
        with httpx.Client(
            verify=ssl_context(config) if config.secure else True,
            auth=config.auth if config.secure else None,
            headers={"Content-Type": "application/json", "User-Agent": f"gke-sandbox/{__version__}"},
            timeout=_TIMEOUT,
            trust_env=False,
        ) as client:
            while left:
                url = config.address + resource.path(namespace, left[0])
                answer = client.request("DELETE", url, content=json.dumps(options), extensions=extensions)
                if not (answer.is_success or answer.status_code == httpx.codes.NOT_FOUND):
                    logger.warning("%s %s was not deleted at exit: %s", resource.kind, left[0], answer.text[:200])
                del left[0]
    except (httpx.HTTPError, OSError, ConfigError) as error:
        logger.warning("%s %s may be left in namespace %s: %s", resource.kind, ", ".join(left), namespace, error)
