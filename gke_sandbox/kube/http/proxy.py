"""Which proxy a request goes through: the kubeconfig's proxy-url, or the environment's, as Go reads it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ...errors import ConfigError

__all__ = ["Proxy", "bypassed", "parse_proxy", "proxy_for"]

_PORTS = {"http": 80, "https": 443, "socks5": 1080}


@dataclass(frozen=True)
class Proxy:
    """A proxy server. Neither its repr nor its str shows the credentials.

    `scheme` is http, https or socks5; `host` is without brackets; `source` says where it was named.
    """

    scheme: str
    host: str
    port: int
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    source: str = "the proxy"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_proxy(text: str, source: str) -> Proxy:
    """A proxy's URL, with credentials or without. Raises `ConfigError`, which does not quote it."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{source} is not a URL") from None
    # As in Go, socks5 too leaves names to the proxy to resolve: what curl calls socks5h.
    scheme = "socks5" if parts.scheme == "socks5h" else parts.scheme
    if not scheme or not host:
        raise ConfigError(f"{source} is not a URL", hint="It looks like http://proxy.example.com:3128")
    if scheme not in _PORTS:
        raise ConfigError(f'{source} has the scheme "{scheme}"; it must be http, https or socks5')
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f"{source} is not a URL: it holds characters that no URL has")
    return Proxy(
        scheme,
        host,
        port if port is not None else _PORTS[scheme],
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        source,
    )


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that the environment names for `url`; None if requests go directly.

    It is HTTPS_PROXY's or HTTP_PROXY's, after the scheme of `url`, in capitals or not, unless NO_PROXY names the
    host or the host is this machine. Raise `ConfigError` for a proxy that is not a URL.
    """
    parts = urlsplit(url)
    # https://pkg.go.dev/golang.org/x/net/http/httpproxy#FromEnvironment
    name, text = _first(environ, "HTTPS_PROXY" if parts.scheme == "https" else "HTTP_PROXY")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if not text or bypassed(host, port, _first(environ, "NO_PROXY")[1]):
        return None
    if name == "HTTP_PROXY" and environ.get("REQUEST_METHOD"):
        # In a CGI program, whoever sends it a request sets this variable: https://httpoxy.org
        return None
    if "://" not in text:
        text = f"http://{text}"
    return parse_proxy(text, name)


def _first(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable of that name that is set, and its value; the name in capitals comes before the other."""
    for spelling in (name, name.lower()):
        if environ.get(spelling):
            return spelling, environ[spelling]
    return name, ""


def bypassed(host: str, port: int, no_proxy: str) -> bool:
    """Whether the environment means this host to be reached directly: it is loopback, or `no_proxy` names it.

    `no_proxy` has hosts (which stand for what is below them too), ``.domain`` and ``*.domain`` (for what is below
    alone), addresses and CIDR blocks, with commas between; names and addresses may end in ``:port``, and ``*``
    is everything.
    """
    # https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config
    host = host.lower()
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_names(entry.strip().lower(), host, port, address) for entry in no_proxy.split(","))


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _names(entry: str, host: str, port: int, address: _Address | None) -> bool:
    """Whether this entry of NO_PROXY names the host."""
    if entry == "*":
        return True
    if "/" in entry:
        return _in_block(entry, address)
    name, only = _split_port(entry)
    if only and only != str(port):
        return False
    wanted = _address(name)
    if wanted is not None:
        return wanted == address
    if name.startswith("*."):
        name = name[1:]
    if name.startswith("."):
        return len(name) > 1 and host.endswith(name)
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _in_block(entry: str, address: _Address | None) -> bool:
    try:
        block = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
    return address is not None and address in block


def _split_port(entry: str) -> tuple[str, str]:
    """``host:port`` and ``[IPv6]:port`` in two; an IPv6 address without brackets has no port."""
    name, colon, port = entry.rpartition(":")
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1], port
    if colon and ":" not in name:
        return name, port
    return entry, ""
