"""How an exchange may end, in the words of a cassette."""

from __future__ import annotations

import httpx

__all__ = ["ENDS", "ERRORS"]

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
"""What is recorded by its name, and raised again."""

ENDS = ("server", "client", *ERRORS)
"""All that may stand in a cassette: whose doing it was, or the error."""
