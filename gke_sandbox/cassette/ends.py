"""How an exchange may end other than well: the errors that are recorded by their names, and raised again."""

from __future__ import annotations

import httpx

__all__ = ["ERRORS"]

ERRORS: dict[str, type[httpx.TransportError]] = {
    kind.__name__: kind
    for kind in (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.PoolTimeout,
        httpx.ProxyError,
        httpx.ReadError,
        httpx.ReadTimeout,
        httpx.RemoteProtocolError,
        httpx.LocalProtocolError,
        httpx.WriteError,
        httpx.WriteTimeout,
    )
}
