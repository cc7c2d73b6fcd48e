"""The proxy for a request: proxy-url of the kubeconfig, or the environment, by the rules of Go."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ...errors import ConfigError

__all__ = ["Proxy", "is_bypassed", "parse_proxy", "proxy_for"]

_PORTS = {"http": 80, "https": 443, "socks5": 1080}


@dataclass(frozen=True)
class Proxy:
    """A proxy server. Its repr and str do not contain the credentials.

    `scheme` is http, https or socks5; `host` has no brackets; `source` is where it was set, for messages.
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
    """Parse the URL of a proxy. Raise `ConfigError` without the URL, which may contain credentials."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{source} is not a URL") from None
    # As in Go, the proxy resolves names with socks5 too (curl does so only with socks5h).
    scheme = "socks5" if parts.scheme == "socks5h" else parts.scheme
    if not scheme or not host:
        raise ConfigError(f"{source} is not a URL", hint="Use the form http://proxy.example.com:3128.")
    if scheme not in _PORTS:
        raise ConfigError(f'{source}: the scheme must be http, https or socks5, got "{scheme}"')
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f"{source} is not a URL: it contains invalid characters")
    return Proxy(
        scheme,
        host,
        port if port is not None else _PORTS[scheme],
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        source,
    )


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that the environment sets for `url`, or None for a direct connection.

    It is HTTPS_PROXY or HTTP_PROXY, depending on the scheme of `url`, in upper or lower case, unless NO_PROXY
    contains the host or the host is this machine. Raise `ConfigError` for a proxy that is not a URL.
    """
    parts = urlsplit(url)
    # https://pkg.go.dev/golang.org/x/net/http/httpproxy#FromEnvironment
    name, text = _first(environ, "HTTPS_PROXY" if parts.scheme == "https" else "HTTP_PROXY")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if not text or is_bypassed(host, port, _first(environ, "NO_PROXY")[1]):
        return None
    if name == "HTTP_PROXY" and environ.get("REQUEST_METHOD"):
        # In a CGI program, every client can set this variable: https://httpoxy.org
        return None
    if "://" not in text:
        text = f"http://{text}"
    return parse_proxy(text, name)


def _first(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return the name and value of a variable; the name in upper case takes precedence over lower case."""
    for spelling in (name, name.lower()):
        if environ.get(spelling):
            return spelling, environ[spelling]
    return name, ""


def is_bypassed(host: str, port: int, no_proxy: str) -> bool:
    """Whether to connect to a host directly: it is a loopback address, or `no_proxy` matches it.

    `no_proxy` is a comma-separated list of hosts (including their subdomains), ``.domain`` and ``*.domain`` (only
    subdomains), addresses, CIDR blocks, and ``*`` for every host. Names and addresses may end in ``:port``.
    """
    # https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config
    host = host.lower()
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_matches(entry.strip().lower(), host, port, address) for entry in no_proxy.split(","))


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _matches(entry: str, host: str, port: int, address: _Address | None) -> bool:
    """Whether an entry of NO_PROXY matches the host."""
    if entry == "*":
        return True
    if "/" in entry:
        return _in_block(entry, address)
    name, entry_port = _split_port(entry)
    if entry_port and entry_port != str(port):
        return False
    entry_address = _address(name)
    if entry_address is not None:
        return entry_address == address
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
    """Split ``host:port`` and ``[IPv6]:port``. An IPv6 address without brackets has no port."""
    name, colon, port = entry.rpartition(":")
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1], port
    if colon and ":" not in name:
        return name, port
    return entry, ""
