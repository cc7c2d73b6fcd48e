"""Real proxies on loopback: http and https (CONNECT, or absolute URLs for plain http), and socks5."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any, Literal

CONNECTION_TIMEOUT = 10.0


@dataclass
class ProxyRequests:
    """The requests that a proxy received (request lines, or ``host:port`` for socks5), and their credentials."""

    port: int
    requests: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)


@contextmanager
def proxy(
    routes: Mapping[str, int],
    *,
    kind: Literal["http", "socks5"] = "http",
    context: ssl.SSLContext | None = None,
    credentials: str | None = None,
    silent: bool = False,
) -> Iterator[ProxyRequests]:
    """Run a proxy that connects the targets of `routes` (``host:port``) to ports of 127.0.0.1, and rejects others.

    With `context` it uses TLS. With `credentials` (``user:password``) it requires them. With `silent` it reads
    requests and never responds.
    """
    received = ProxyRequests(0)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            # In some tests, the client disconnects early.
            with contextlib.suppress(OSError, ssl.SSLError, EOFError):
                self.request.settimeout(CONNECTION_TIMEOUT)
                if context is None:
                    self._serve(self.request)
                    return
                with context.wrap_socket(self.request, server_side=True) as connection:
                    self._serve(connection)

        def _serve(self, connection: socket.socket) -> None:
            if kind == "socks5":
                _socks5(connection, routes, received, credentials)
            else:
                _http(connection, routes, received, credentials, silent)

    class Server(ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        received.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


def _http(
    client: socket.socket,
    routes: Mapping[str, int],
    received: ProxyRequests,
    credentials: str | None,
    silent: bool,
) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += _receive(client)
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines)}
    received.requests.append(first)
    if silent:
        client.recv(1)
        return
    given = base64.b64decode(headers.get("proxy-authorization", "").removeprefix("Basic ")).decode()
    if given:
        received.credentials.append(given)
    method, target, _version = first.split(" ")
    port = routes.get(target if method == "CONNECT" else target.split("/")[2])
    if credentials is not None and credentials != given:
        client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    elif port is None:
        client.sendall(b"HTTP/1.1 403 Not on the list\r\nContent-Length: 0\r\n\r\n")
    else:
        with socket.create_connection(("127.0.0.1", port), CONNECTION_TIMEOUT) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = "/" + target.split("/", 3)[3]
                server.sendall(head.replace(target.encode(), path.encode(), 1))
            _relay(client, server)


def _socks5(
    client: socket.socket, routes: Mapping[str, int], received: ProxyRequests, credentials: str | None
) -> None:
    # https://www.rfc-editor.org/rfc/rfc1928 and rfc1929
    _version, count = _receive_exactly(client, 2)
    methods = _receive_exactly(client, count)
    wanted = 0 if credentials is None else 2
    if wanted not in methods:
        client.sendall(b"\x05\xff")
        return
    client.sendall(bytes([5, wanted]))
    if credentials is not None:
        _receive_exactly(client, 1)
        user = _receive_exactly(client, _receive_exactly(client, 1)[0]).decode()
        password = _receive_exactly(client, _receive_exactly(client, 1)[0]).decode()
        received.credentials.append(f"{user}:{password}")
        client.sendall(b"\x01\x00" if received.credentials[-1] == credentials else b"\x01\x01")
    *_, kind = _receive_exactly(client, 4)
    if kind == 3:
        host = _receive_exactly(client, _receive_exactly(client, 1)[0]).decode()
    else:
        family, length = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
        host = socket.inet_ntop(family, _receive_exactly(client, length))
    target = f"{host}:{struct.unpack('!H', _receive_exactly(client, 2))[0]}"
    received.requests.append(target)
    port = routes.get(target)
    client.sendall(bytes([5, 0 if port else 2, 0, 1, 0, 0, 0, 0, 0, 0]))
    if port:
        with socket.create_connection(("127.0.0.1", port), CONNECTION_TIMEOUT) as server:
            _relay(client, server)


def _relay(client: Any, server: socket.socket) -> None:
    while True:
        # select does not see data that TLS has already decrypted.
        ready = (
            [client]
            if getattr(client, "pending", int)()
            else select.select([client, server], [], [], CONNECTION_TIMEOUT)[0]
        )
        for source in ready:
            (server if source is client else client).sendall(_receive(source))
        if not ready:
            return


def _receive(source: socket.socket) -> bytes:
    data = source.recv(65536)
    if not data:
        raise EOFError
    return data


def _receive_exactly(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = source.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data
