"""Delete Jobs without an event loop, at interpreter exit: event loops cannot resolve host names there."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import httpx

from ...errors import SandboxError
from ..config.types import ClusterConfig
from ..resources import JOBS
from .transport import request_headers, sync_transport

__all__ = ["delete_jobs_sync"]

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT = 5.0
"""Seconds. It is short because you wait for the interpreter to exit."""


def delete_jobs_sync(config: ClusterConfig, namespace: str, names: Sequence[str]) -> None:
    """Delete Jobs with background propagation, one request each. Log errors; raise nothing.

    Stop after the first request without a response (5 s).
    """
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    remaining = list(names)
    try:
        with httpx.Client(
            transport=sync_transport(config, config.proxy(os.environ)),
            auth=config.auth if config.secure else None,
            headers=request_headers(config),
            timeout=REQUEST_TIMEOUT,
            trust_env=False,
        ) as client:
            while remaining:
                url = config.address + JOBS.path(namespace, remaining[0])
                response = client.request("DELETE", url, json=options)
                if not (response.is_success or response.status_code == httpx.codes.NOT_FOUND):
                    logger.warning(
                        "%s %s was not deleted at exit: %s", JOBS.kind, remaining[0], response.text[:200]
                    )
                del remaining[0]
    except (httpx.HTTPError, OSError, SandboxError) as raised:
        error = raised.message if isinstance(raised, SandboxError) else raised
        logger.warning("%s %s may be left in namespace %s: %s", JOBS.kind, ", ".join(remaining), namespace, error)
