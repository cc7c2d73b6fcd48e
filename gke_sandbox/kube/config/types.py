"""A cluster's configuration, and the values that override it."""

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

__all__ = ["NO_OVERRIDES", "SYSTEM_CA", "ClusterConfig", "ConnectionOverrides"]

SYSTEM_CA = "the system's certificates"


@dataclass(frozen=True, kw_only=True)
class ConnectionOverrides:
    """Values that replace those of the cluster's configuration. None and empty values replace nothing."""

    server: str | None = None
    """The address of the server. The configuration's tls-server-name is ignored if you set it."""
    token: str | None = field(default=None, repr=False)
    """A bearer token, used instead of all configured credentials."""
    user: str | None = None
    """The user to impersonate."""
    groups: tuple[str, ...] = ()
    """The groups to impersonate."""
    namespace: str | None = None
    """The default namespace of requests."""


NO_OVERRIDES = ConnectionOverrides()


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A cluster's address, how to verify it, and the credentials for it. Its repr shows no secret.

    Raise `ConfigError` for an invalid `server` or `proxy_url`, and for a CA together with
    `insecure_skip_tls_verify`.
    """

    server: str
    """An http or https URL. It may have a path, which is kept."""
    namespace: str | None = None
    """The default namespace of requests."""
    ca_data: bytes | None = field(default=None, repr=False)
    """The cluster's CA certificates, as PEM; None means the system's certificates."""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    """The name in the server's certificate, if it differs from that in the address."""
    auth: httpx.Auth | None = None
    """Used over https only."""
    client_certificate: ClientCertificate | None = None
    """Used over https only."""
    impersonation: Impersonation | None = None
    proxy_url: str | None = field(default=None, repr=False)
    """An http, https or socks5 URL, possibly with a password; None means the environment's proxy."""
    disable_compression: bool = False
    """Whether to request uncompressed responses."""
    is_own_cluster: bool = False
    """Whether this program runs in a pod of the cluster, which was therefore chosen."""
    source: str = "the configuration"
    """Where this configuration comes from, for messages."""
    context: str | None = None
    """The context in the kubeconfig; None without a kubeconfig."""
    file: str | None = None
    """The path of the kubeconfig; None without one."""
    ca_source: str = SYSTEM_CA
    """Where the CA certificates come from, for messages."""
    credentials: str = "none"
    """The kind of credentials, for messages."""

    def __post_init__(self) -> None:
        _check_server(self.server, self.source)
        if self.proxy_url is not None:
            self.proxy({})
            if self.proxy_url.lower().startswith("socks5h:"):
                # As in client-go: it is only allowed in the environment.
                raise ConfigError(f"{self.source}: its proxy-url must be http, https or socks5, got socks5h")
        if self.insecure_skip_tls_verify and self.ca_data is not None:
            raise ConfigError(
                f"{self.source}: insecure-skip-tls-verify cannot be combined with a certificate authority"
            )

    @property
    def address(self) -> str:
        """The prefix of every request's URL: `server` without a trailing slash, query or fragment."""
        return self.server.partition("?")[0].partition("#")[0].rstrip("/")

    @property
    def secure(self) -> bool:
        """Whether to use TLS. As in client-go, credentials are not sent over plain http."""
        return self.server.lower().startswith("https:")

    def proxy(self, environ: Mapping[str, str]) -> Proxy | None:
        """Return the proxy for requests to `server`: that of `proxy_url`, else that of the environment, if any."""
        from ..http.proxy import parse_proxy, proxy_for

        if self.proxy_url is not None:
            return parse_proxy(self.proxy_url, f"{self.source}: its proxy-url")
        return proxy_for(self.address, environ)


def _check_server(server: str, source: str) -> None:
    from ..status import plain

    try:
        parts = urlsplit(server)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{source}: the server's address is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        # Not shown: it may be a password.
        raise ConfigError(f"{source}: the server's address contains a user name or a password")
    printable = server.isascii() and server.isprintable() and " " not in server
    if parts.scheme not in {"http", "https"} or not host or not printable:
        raise ConfigError(
            f"{source}: the server's address, {plain(server, 80)!r}, is not an http or https URL",
            hint="It must look like https://203.0.113.5:6443.",
        )
