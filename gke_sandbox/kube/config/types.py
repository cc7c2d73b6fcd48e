"""What is known about a cluster: its address, how to verify it, and the credentials for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...errors import ConfigError

if TYPE_CHECKING:
    import httpx

    from ..auth.impersonation import Impersonation
    from ..auth.static import ClientCertificate
    from ..http.proxy import Proxy

__all__ = ["NO_OVERRIDES", "SYSTEM_CA", "ClusterConfig", "ConnectionOverrides", "is_https"]

SYSTEM_CA = "the system's certificates"


@dataclass(frozen=True, kw_only=True)
class ConnectionOverrides:
    """What comes before the configuration's own word; None and empty leave it as it is.

    `server` is an address (the certificate's other name, tls-server-name, is then forgotten), `token` a bearer
    token, `user` and `groups` who is to be impersonated, `namespace` the one that requests go to.
    """

    server: str | None = None
    token: str | None = field(default=None, repr=False)
    user: str | None = None
    groups: tuple[str, ...] = ()
    namespace: str | None = None


NO_OVERRIDES = ConnectionOverrides()


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A cluster's address, how to know that it is the right one, and who we are there. Its repr shows no secret.

    `server` is an http or https URL that may have a path, which is kept; `namespace` is the one that requests
    go to if nothing else says so; `ca_data` is PEM, and None means the system's certificates;
    `tls_server_name` is the name in the server's certificate when it is not that of the address; `auth` and
    `client_certificate` are used over https only; `impersonation` always; `proxy_url` is an http, https or socks5
    URL, and None leaves it to the environment; `disable_compression` asks for answers that are not compressed.

    The rest is for people: `source`, a phrase that says where all this was found, `context` and `file` as far as
    it came from a kubeconfig, `ca_source` and `credentials`, phrases that say what they are.

    Raises `ConfigError` when `server` or `proxy_url` is no such URL, or when there is a CA that is not to be
    looked at.
    """

    server: str
    namespace: str | None = None
    ca_data: bytes | None = field(default=None, repr=False)
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    auth: httpx.Auth | None = None
    client_certificate: ClientCertificate | None = None
    impersonation: Impersonation | None = None
    # It may hold a password.
    proxy_url: str | None = field(default=None, repr=False)
    disable_compression: bool = False
    source: str = "the configuration"
    context: str | None = None
    file: str | None = None
    ca_source: str = SYSTEM_CA
    credentials: str = "none"

    def __post_init__(self) -> None:
        _check_server(self.server, self.source)
        if self.proxy_url is not None:
            _check_proxy(self.proxy_url, self.source)
        if self.insecure_skip_tls_verify and self.ca_data is not None:
            raise ConfigError(
                f"{self.source}: insecure-skip-tls-verify and a certificate authority exclude each other"
            )

    @property
    def address(self) -> str:
        """`server` as the begin of every request's URL: without a slash at its end, query or fragment."""
        return self.server.partition("?")[0].partition("#")[0].rstrip("/")

    @property
    def secure(self) -> bool:
        """Whether the server proves who it is, so that it may be told who we are."""
        # As client-go: no credentials over plain http.
        return is_https(self.server)

    def proxy(self, environ: Mapping[str, str]) -> Proxy | None:
        """Return the proxy for requests to `server`: that of `proxy_url`, else that of the environment, if any."""
        from ..http.proxy import parse_proxy, proxy_for

        if self.proxy_url is not None:
            return parse_proxy(self.proxy_url, f"{self.source}: its proxy-url")
        return proxy_for(self.address, environ)


def is_https(server: str) -> bool:
    return server.lower().startswith("https:")


def _check_server(server: str, source: str) -> None:
    from ..status import plain

    try:
        parts = urlsplit(server)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{source}: the server's address is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        # Not shown: it may be a password.
        raise ConfigError(f"{source}: the server's address holds a user name or a password")
    if (
        parts.scheme not in {"http", "https"}
        or not host
        or not server.isascii()
        or not server.isprintable()
        or " " in server
    ):
        raise ConfigError(
            f"{source}: the server's address, {plain(server, 80)!r}, is not an http or https URL",
            hint="It looks like https://203.0.113.5:6443",
        )


def _check_proxy(url: str, source: str) -> None:
    from ..http.proxy import parse_proxy

    parse_proxy(url, f"{source}: its proxy-url")
    scheme = url.partition(":")[0].lower()
    if scheme not in {"http", "https", "socks5"}:
        raise ConfigError(f'{source}: its proxy-url has the scheme "{scheme}"; it must be http, https or socks5')
