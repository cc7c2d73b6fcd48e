"""Transports to a cluster, their timeouts, and the conversion of httpx exceptions to `NetworkError`."""

from __future__ import annotations

import math
import os
import re
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from functools import lru_cache, partial
from typing import Any

import anyio
import httpx

from ..._version import __version__
from ...errors import ConfigError, NetworkError
from ..auth.exec import ExecAuth
from ..auth.static import ClientCertificate
from ..config.types import ClusterConfig
from ..status import RequestInfo, plain
from .connections import IDLE_TIMEOUT, ConnectionStack
from .proxy import Proxy
from .tls import proxy_ssl_context, ssl_context

__all__ = [
    "NETWORK_EXCEPTIONS",
    "REQUEST_TIMEOUT",
    "NetworkErrors",
    "network_errors",
    "network_transport",
    "request_headers",
    "stream_timeout",
    "sync_transport",
    "trace_listener",
]

REQUEST_TIMEOUT = httpx.Timeout(connect=10.0, read=30.0, write=30.0, pool=None)
"""Seconds. Waiting for a connection has no limit, because the number of connections has none."""
CLOSE_TIMEOUT = 5.0
"""Seconds. The maximum time for closing a response if the server does not respond any more."""

_OUTSIDE_VALIDITY = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL."""
_REFUSED = (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL)
"""httpx raises these before it sends anything: the request is not valid."""
NETWORK_EXCEPTIONS = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, ssl.SSLError)
"""The exceptions that `network_errors` converts."""
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, *_REFUSED)


def request_headers(config: ClusterConfig) -> httpx.Headers:
    """Return the headers that all requests have."""
    # Compression delays the chunks of watches and logs, so only complete responses are compressed.
    headers = [
        ("Accept", "application/json, */*"),
        ("Accept-Encoding", "identity"),
        ("User-Agent", f"gke-sandbox/{__version__}"),
    ]
    if config.impersonation is not None:
        # Also over plain HTTP, as client-go does: these headers are not secret.
        headers += config.impersonation.headers()
    # Like client-go, send UTF-8; httpx accepts only ASCII text.
    return httpx.Headers([(name.encode("ascii"), value.encode()) for name, value in headers])


def stream_timeout(read: float | None) -> httpx.Timeout:
    """Return `REQUEST_TIMEOUT` with another limit, in seconds, on the silence between chunks (None: no limit)."""
    return httpx.Timeout(connect=10.0, read=read, write=30.0, pool=None)


def network_transport(config: ClusterConfig, proxy: Proxy | None = None) -> httpx.AsyncBaseTransport:
    """Return the transport to a real API server, directly or through `proxy`.

    Raise `ConfigError` for an invalid certificate, and for a socks5 proxy if its package is missing.

    The environment is ignored: httpx would read certificates (SSL_CERT_FILE) and passwords (.netrc) from it that
    are not meant for this cluster.
    """
    kind = _ProxiedTransport if _uses_http_proxy(proxy) else httpx.AsyncHTTPTransport
    context, httpx_proxy = lru_cache(maxsize=1)(partial(ssl_context, config)), _httpx_proxy(proxy, config)
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_TIMEOUT)
    certificate = partial(_plugin_certificate, config)
    context(certificate())

    def connect(certificate: ClientCertificate | None) -> httpx.AsyncBaseTransport:
        return kind(
            verify=context(certificate),
            trust_env=False,
            proxy=httpx_proxy,
            limits=limits,
            socket_options=_keepalive_options(),
        )

    return ConnectionStack(connect, certificate)


def sync_transport(config: ClusterConfig, proxy: Proxy | None = None) -> httpx.BaseTransport:
    """Return a transport like `network_transport`, for use without an event loop."""
    kind = _ProxiedSyncTransport if _uses_http_proxy(proxy) else httpx.HTTPTransport
    context = ssl_context(config, _plugin_certificate(config))
    return kind(verify=context, trust_env=False, proxy=_httpx_proxy(proxy, config))


def _plugin_certificate(config: ClusterConfig) -> ClientCertificate | None:
    """Return the certificate of an exec plugin, which httpx runs before the transport. None without one."""
    return config.auth.client_certificate() if isinstance(config.auth, ExecAuth) else None


def _uses_http_proxy(proxy: Proxy | None) -> bool:
    return proxy is not None and proxy.scheme != "socks5"


def _httpx_proxy(proxy: Proxy | None, config: ClusterConfig) -> httpx.Proxy | None:
    if proxy is None:
        return None
    if proxy.scheme == "socks5":
        try:
            import socksio  # noqa: F401 - checked here for a better message than that of httpx
        except ImportError:
            raise ConfigError(
                f"{proxy.source}: a socks5 proxy requires the package socksio, which is not installed",
                hint="Install it with: pip install 'httpx[socks]'.",
            ) from None
    return httpx.Proxy(
        str(proxy),
        auth=(proxy.username, proxy.password) if proxy.username or proxy.password else None,
        ssl_context=proxy_ssl_context(config) if proxy.scheme == "https" else None,
    )


class _ProxiedTransport(httpx.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await super().handle_async_request(_with_bracketed_host(request))


class _ProxiedSyncTransport(httpx.HTTPTransport):
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return super().handle_request(_with_bracketed_host(request))


class _BracketedURL(httpx.URL):
    @property
    def raw_host(self) -> bytes:
        return b"[" + super().raw_host + b"]"


def _with_bracketed_host(request: httpx.Request) -> httpx.Request:
    """Return the request with an IPv6 host in brackets. Proxies need them, and httpcore omits them."""
    # https://www.rfc-editor.org/rfc/rfc9110#name-connect
    if ":" not in request.url.host:
        return request
    bracketed = httpx.Request(
        request.method, request.url, headers=request.headers, stream=request.stream, extensions=request.extensions
    )
    bracketed.url = _BracketedURL(request.url)
    return bracketed


def _keepalive_options() -> list[tuple[int, int, int]]:
    # A followed log may be silent for hours, and HTTP/1.1 has no ping. TCP keepalive detects a dead peer after
    # 30 + 3 * 10 s.
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    # On macOS, TCP_KEEPIDLE is named TCP_KEEPALIVE.
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPALIVE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        option = getattr(socket, name, None)
        if option is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options


NetworkErrors = Callable[[], AbstractContextManager[None]]
"""Returns `network_errors` for one request."""


@contextmanager
def network_errors(info: RequestInfo, server: str, proxy: Proxy | None = None) -> Iterator[None]:
    """Raise exceptions of httpx as `NetworkError`. `proxy` is the proxy between client and server, if any."""
    handled = sys.exc_info()[1]
    try:
        yield
    except NETWORK_EXCEPTIONS as error:
        raise _network_error(error, info, server, proxy, handled) from error


def _network_error(
    error: Exception, info: RequestInfo, server: str, proxy: Proxy | None, handled: BaseException | None
) -> NetworkError:
    # Only without a connection, or if httpx refuses the request, is it certain that it was not sent.
    sent = not isinstance(error, _NOT_SENT)
    cause = _system_error(error, handled)
    hint = ""
    if isinstance(cause, ssl.SSLCertVerificationError):
        of = "server" if proxy is None else "server or the proxy"
        reason = f"the certificate of the {of} is not valid: {cause.verify_message or cause.reason}"
        hint = "Is this the right cluster? Its certificate authority, address or tls-server-name does not match."
        if cause.verify_code in _OUTSIDE_VALIDITY:
            now = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
            hint = f"On the clock of this machine it is {now}. If that is right, the certificate must be renewed."
    elif isinstance(error, httpx.ConnectTimeout):
        reason = "no connection within 10 s"
        hint = "Is the cluster reachable from here (private endpoint, VPN, authorized networks)?"
    elif isinstance(error, httpx.TimeoutException):
        reason = "the connection fell silent"
    elif isinstance(error, httpx.ProxyError):
        reason = f"the proxy rejected the request: {plain(str(error), 500)}"
        hint = f"The proxy is set by {proxy.source}." if proxy is not None else ""
    elif isinstance(error, _REFUSED):
        # The value that may follow in the text is not shown: it may be a header with a token.
        text = re.split(r" b['\"]", str(error))[0]
        return NetworkError(
            f"{info}: the request cannot be sent to {server}: {plain(text, 500)}",
            sent=False,
            request=str(info),
            hint="Check the address, the credentials and the user to impersonate for invalid characters.",
            retryable=False,
        )
    else:
        reason = plain(_error_text(cause) or str(error) or type(error).__name__, 500)
        if not sent:
            hint = "Is this the cluster's address, and is it reachable from here?"
    through = f" through the proxy {proxy}" if proxy is not None else ""
    return NetworkError(
        f"{info}: {'no complete response from' if sent else 'cannot reach'} {server}{through}: {reason}",
        sent=sent,
        request=str(info),
        hint=hint or "The network, a proxy or the API server may have a problem. Try again later.",
    )


def _system_error(error: BaseException, handled: BaseException | None) -> BaseException:
    """Return the error of the operating system or OpenSSL that caused `error`, or `error` itself.

    `handled` is the exception that the caller was already handling: it ends the chain and is not part of it.
    """
    current: BaseException | None = error
    while current is not None and current is not handled:
        if isinstance(current, ssl.SSLError) or (isinstance(current, OSError) and current.errno is not None):
            return current
        # After several addresses failed, use the first error. httpcore does not set `__cause__`.
        errors: tuple[BaseException, ...] = getattr(current, "exceptions", ())
        current = errors[0] if errors else current.__cause__ or current.__context__
    return error


def _error_text(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, (socket.gaierror, ssl.SSLError)) and error.errno:
        # asyncio sets `strerror` to another text.
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error)


def trace_listener(measured: Callable[[float], None]) -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
    """Return the ``trace`` extension for one request. It closes a connection that httpcore leaks.

    It calls `measured` with the seconds from sending the request on an open connection to its response headers.
    Only the network transport has these events: the embedded cluster and replays are not measured.
    """
    # https://www.encode.io/httpcore/extensions/#trace
    started = 0.0
    half_open: Any = None

    async def listen(event: str, info: Mapping[str, Any]) -> None:
        nonlocal started, half_open
        if event == "http11.send_request_headers.started":
            started = anyio.current_time()
            if info["request"].method == b"CONNECT":
                _limit_connect(info["request"])
                # The proxy responds to this request, so do not measure it.
                started = math.inf
        elif event == "http11.receive_response_headers.complete" and started != math.inf:
            measured(anyio.current_time() - started)
        elif event in ("connection.connect_tcp.complete", "socks.connect_tcp.complete"):
            half_open = info["return_value"]
            # httpcore sets the options of the transport on direct connections only.
            for option in _keepalive_options():
                half_open.get_extra_info("socket").setsockopt(*option)
        elif event == "connection.start_tls.complete":
            # This is the server or an https proxy; after a proxy, the handshake with the server follows.
            half_open = info["return_value"]
        elif event.endswith(".start_tls.failed") and half_open is not None:
            # httpcore 1.0 leaves the socket open when the task is cancelled during the handshake.
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await half_open.aclose()

    return listen


def _limit_connect(request: Any) -> None:
    """Limit the time for opening a tunnel: a followed log has no read timeout."""
    limits = request.extensions["timeout"]
    request.extensions = {**request.extensions, "timeout": {**limits, "read": limits["connect"]}}
