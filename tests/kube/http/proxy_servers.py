"""Real proxies on loopback: http and https (CONNECT, and whole requests for plain http), and socks5."""

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

#: Seconds after which a forgotten connection ends.
PATIENCE = 10.0


@dataclass
class ProxySeen:
    """What a proxy was asked: the first lines (or for socks5 ``host:port``), and the credentials it was given."""

    port: int
    asked: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)


@contextmanager
def proxy(
    routes: Mapping[str, int],
    *,
    kind: Literal["http", "socks5"] = "http",
    context: ssl.SSLContext | None = None,
    credentials: str | None = None,
    silent: bool = False,
) -> Iterator[ProxySeen]:
    """A proxy that leads the targets of `routes` (``host:port``) to a port of 127.0.0.1, and refuses others.

    With `context` it speaks TLS. With `credentials` (``user:password``) it refuses who has not got them. A
    `silent` one takes what it is asked and never answers.
    """
    seen = ProxySeen(0)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            # Whoever goes away in the middle is what some tests are about.
            with contextlib.suppress(OSError, ssl.SSLError, EOFError):
                self.request.settimeout(PATIENCE)
                if context is None:
                    self._speak(self.request)
                    return
                with context.wrap_socket(self.request, server_side=True) as connection:
                    self._speak(connection)

        def _speak(self, connection: socket.socket) -> None:
            if kind == "socks5":
                _socks5(connection, routes, seen, credentials)
            else:
                _http(connection, routes, seen, credentials, silent)

    class Server(ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        seen.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()


def _http(
    client: socket.socket, routes: Mapping[str, int], seen: ProxySeen, credentials: str | None, silent: bool
) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += _some(client)
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines)}
    seen.asked.append(first)
    if silent:
        client.recv(1)
        return
    given = base64.b64decode(headers.get("proxy-authorization", "").removeprefix("Basic ")).decode()
    if given:
        seen.credentials.append(given)
    method, target, _version = first.split(" ")
    port = routes.get(target if method == "CONNECT" else target.split("/")[2])
    if credentials is not None and credentials != given:
        client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    elif port is None:
        client.sendall(b"HTTP/1.1 403 Not on the list\r\nContent-Length: 0\r\n\r\n")
    else:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = "/" + target.split("/", 3)[3]
                server.sendall(head.replace(target.encode(), path.encode(), 1))
            _relay(client, server)


def _socks5(client: socket.socket, routes: Mapping[str, int], seen: ProxySeen, credentials: str | None) -> None:
    # https://www.rfc-editor.org/rfc/rfc1928 and rfc1929
    _version, count = _exactly(client, 2)
    methods = _exactly(client, count)
    wanted = 0 if credentials is None else 2
    if wanted not in methods:
        client.sendall(b"\x05\xff")
        return
    client.sendall(bytes([5, wanted]))
    if credentials is not None:
        _exactly(client, 1)
        user = _exactly(client, _exactly(client, 1)[0]).decode()
        password = _exactly(client, _exactly(client, 1)[0]).decode()
        seen.credentials.append(f"{user}:{password}")
        client.sendall(b"\x01\x00" if seen.credentials[-1] == credentials else b"\x01\x01")
    *_, kind = _exactly(client, 4)
    if kind == 3:
        host = _exactly(client, _exactly(client, 1)[0]).decode()
    else:
        family, length = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
        host = socket.inet_ntop(family, _exactly(client, length))
    target = f"{host}:{struct.unpack('!H', _exactly(client, 2))[0]}"
    seen.asked.append(target)
    port = routes.get(target)
    client.sendall(bytes([5, 0 if port else 2, 0, 1, 0, 0, 0, 0, 0, 0]))
    if port:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as server:
            _relay(client, server)


def _relay(client: Any, server: socket.socket) -> None:
    while True:
        # What TLS has unpacked already is not seen by select.
        ready = (
            [client] if getattr(client, "pending", int)() else select.select([client, server], [], [], PATIENCE)[0]
        )
        for source in ready:
            (server if source is client else client).sendall(_some(source))
        if not ready:
            return


def _some(source: socket.socket) -> bytes:
    data = source.recv(65536)
    if not data:
        raise EOFError
    return data


def _exactly(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = source.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data
