"""The edge to httpx: its settings, its exceptions turned into ours, streams that close whatever happens."""

from __future__ import annotations

import math
import os
import socket
import ssl
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import httpx

from ...errors import ConfigError, NetworkError
from ..status import RequestInfo, plain
from .proxy import Proxy

__all__ = [
    "REQUEST_TIMEOUT",
    "RoundTrip",
    "network_errors",
    "network_transport",
    "stream_timeout",
    "sync_transport",
    "trace_listener",
]

# Seconds. There is no limit on waiting for a connection: there is always room for another one (below).
REQUEST_TIMEOUT = httpx.Timeout(connect=10.0, read=30.0, write=30.0, pool=None)

# How long closing an answer may take when the other side has stopped answering, seconds.
CLOSE_TIMEOUT = 5.0

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.InvalidURL, httpx.ProxyError)


def stream_timeout(read: float | None) -> httpx.Timeout:
    """As `REQUEST_TIMEOUT`, with another limit in seconds on the silence between two chunks; None: no limit."""
    return httpx.Timeout(connect=10.0, read=read, write=30.0, pool=None)


def network_transport(
    context: ssl.SSLContext, proxy: Proxy | None = None, proxy_context: ssl.SSLContext | None = None
) -> httpx.AsyncBaseTransport:
    """The transport to a real API server, directly or through `proxy`.

    `proxy_context` is for the connection to an https proxy; without it, the system's certificates are trusted.
    Raises `ConfigError` for a socks5 proxy when the package that speaks it is missing.

    Nothing of the environment is used here: httpx would read certificates (SSL_CERT_FILE) and passwords (.netrc)
    from it that were not meant for this cluster.
    """
    kind = _ProxiedTransport if _by_http(proxy) else httpx.AsyncHTTPTransport
    return kind(
        verify=context,
        trust_env=False,
        proxy=_httpx_proxy(proxy, proxy_context),
        # Every followed log and every watch holds a connection of its own. An API server closes idle ones after
        # 90 s; we do it before.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=60.0),
        socket_options=_keepalive(),
    )


def sync_transport(
    context: ssl.SSLContext, proxy: Proxy | None = None, proxy_context: ssl.SSLContext | None = None
) -> httpx.BaseTransport:
    """As `network_transport`, without an event loop."""
    kind = _ProxiedSyncTransport if _by_http(proxy) else httpx.HTTPTransport
    return kind(verify=context, trust_env=False, proxy=_httpx_proxy(proxy, proxy_context))


def _by_http(proxy: Proxy | None) -> bool:
    return proxy is not None and proxy.scheme != "socks5"


def _httpx_proxy(proxy: Proxy | None, context: ssl.SSLContext | None) -> httpx.Proxy | None:
    if proxy is None:
        return None
    if proxy.scheme == "socks5":
        try:
            import socksio  # noqa: F401 - httpx asks for it too, with an error of its own
        except ImportError:
            raise ConfigError(
                f"{proxy.source}: a socks5 proxy needs the package socksio, which is not installed",
                hint="pip install 'httpx[socks]'",
            ) from None
    if proxy.scheme == "https" and context is None:
        context = ssl.create_default_context()
    return httpx.Proxy(
        str(proxy),
        auth=(proxy.username, proxy.password) if proxy.username or proxy.password else None,
        ssl_context=context if proxy.scheme == "https" else None,
    )


class _ProxiedTransport(httpx.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await super().handle_async_request(_in_brackets(request))


class _ProxiedSyncTransport(httpx.HTTPTransport):
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return super().handle_request(_in_brackets(request))


class _Bracketed(httpx.URL):
    @property
    def raw_host(self) -> bytes:
        return b"[" + super().raw_host + b"]"


def _in_brackets(request: httpx.Request) -> httpx.Request:
    """The same request; an IPv6 address in its URL in brackets, which httpcore does not tell a proxy."""
    # https://www.rfc-editor.org/rfc/rfc9110#name-connect
    if ":" not in request.url.host:
        return request
    bracketed = httpx.Request(
        request.method, request.url, headers=request.headers, stream=request.stream, extensions=request.extensions
    )
    bracketed.url = _Bracketed(request.url)
    return bracketed


def _keepalive() -> list[tuple[int, int, int]]:
    # A followed log may be silent for hours, and HTTP/1.1 has no ping: TCP tells a dead peer from a quiet program,
    # here after 30 + 3 * 10 s.
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    # TCP_KEEPALIVE is what macOS calls TCP_KEEPIDLE.
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPALIVE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        option = getattr(socket, name, None)
        if option is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options


@contextmanager
def network_errors(call: RequestInfo, server: str, proxy: Proxy | None = None) -> Iterator[None]:
    """Turn every exception of httpx into a `NetworkError`. `proxy` is what lies between."""
    handled = sys.exc_info()[1]
    try:
        yield
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, ssl.SSLError) as error:
        raise _network_error(error, call, server, proxy, handled) from error


def _network_error(
    error: Exception, call: RequestInfo, server: str, proxy: Proxy | None, handled: BaseException | None
) -> NetworkError:
    # The request surely did not arrive only when there was no connection to send it on.
    sent = not isinstance(error, _NOT_SENT)
    cause = _system_error(error, handled)
    hint = ""
    if isinstance(cause, ssl.SSLCertVerificationError):
        who = "the server's certificate" if proxy is None else "the server's certificate, or the proxy's,"
        reason = f"{who} was refused: {cause.verify_message or cause.reason}"
        hint = "Is this the right cluster? Its certificate authority, address or tls-server-name does not fit."
    elif isinstance(error, httpx.ConnectTimeout):
        reason = "no connection within 10 s"
        hint = "Is the cluster reachable from here (private endpoint, VPN, authorized networks)?"
    elif isinstance(error, httpx.TimeoutException):
        reason = "the connection fell silent"
    elif isinstance(error, httpx.ProxyError):
        reason = f"the proxy refused: {plain(str(error), 500)}"
        hint = f"The proxy is named by {proxy.source}." if proxy is not None else ""
    elif isinstance(error, httpx.LocalProtocolError):
        # Its text may quote a header, and the header a token.
        reason = "the request cannot be sent"
    else:
        reason = plain(_words(cause) or str(error) or type(error).__name__, 500)
        if not sent:
            hint = "Is this the cluster's address, and is it reachable from here?"
    through = f" through the proxy {proxy}" if proxy is not None else ""
    return NetworkError(
        f"{call}: {'no whole answer from' if sent else 'cannot reach'} {server}{through}: {reason}",
        sent=sent,
        request=str(call),
        hint=hint,
    )


def _system_error(error: BaseException, handled: BaseException | None) -> BaseException:
    """The operating system's or OpenSSL's own error behind one of httpx's, or `error` itself.

    `handled` is what the caller was handling before: it ends the chain but does not belong to it.
    """
    following: BaseException | None = error
    while following is not None and following is not handled:
        if isinstance(following, ssl.SSLError) or (isinstance(following, OSError) and following.errno is not None):
            return following
        # Several addresses were tried: one of them will do. httpcore hides its cause from `__cause__`.
        tried: tuple[BaseException, ...] = getattr(following, "exceptions", ())
        following = tried[0] if tried else following.__cause__ or following.__context__
    return error


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, (socket.gaierror, ssl.SSLError)) and error.errno:
        # asyncio puts words of its own into `strerror`.
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error)


class RoundTrip:
    """How long an answer's headers take on an open connection.

    It is told by the transport's own account of a request (`trace_listener`), so that setting up a connection does
    not count, and a transport that is not a network (the embedded cluster, replay) is not measured at all.
    """

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=8)

    def add(self, seconds: float) -> None:
        """One more request took so long."""
        self._samples.append(seconds)

    @property
    def seconds(self) -> float | None:
        """The shortest of the last eight: what the server needed for itself is mostly out of it."""
        return min(self._samples, default=None)


def trace_listener(round_trip: RoundTrip | None) -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
    """One request's ``trace`` extension for httpcore: it measures, and closes what httpcore forgets."""
    # https://www.encode.io/httpcore/extensions/#trace
    started = 0.0
    half_open: Any = None

    async def listen(event: str, info: Mapping[str, Any]) -> None:
        nonlocal started, half_open
        if event == "http11.send_request_headers.started":
            started = anyio.current_time()
            if info["request"].method == b"CONNECT":
                _limit_connect(info["request"])
                # It is the proxy that answers this, not the server: not measured.
                started = math.inf
        elif event == "http11.receive_response_headers.complete" and round_trip is not None:
            if started != math.inf:
                round_trip.add(anyio.current_time() - started)
        elif event in ("connection.connect_tcp.complete", "socks.connect_tcp.complete"):
            half_open = info["return_value"]
            # httpcore gives the transport's options to direct connections only.
            for option in _keepalive():
                half_open.get_extra_info("socket").setsockopt(*option)
        elif event == "connection.start_tls.complete":
            # To the server, or to an https proxy, and then the server's handshake follows inside of it.
            half_open = info["return_value"]
        elif event.endswith(".start_tls.failed") and half_open is not None:
            # httpcore 1.0 leaves the socket open when the task is cancelled during the handshake.
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await half_open.aclose()

    return listen


def _limit_connect(request: Any) -> None:
    """Opening a tunnel may take as long as a connection; a followed log's own reads have no limit."""
    limits = request.extensions["timeout"]
    request.extensions = {**request.extensions, "timeout": {**limits, "read": limits["connect"]}}
