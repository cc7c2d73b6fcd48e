"""TLS settings of a connection: the trusted certificates, the expected server name, the client certificate."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import re
import socket
import ssl
import tempfile
from collections.abc import Iterator

from ...errors import ConfigError
from ..auth.static import ClientCertificate
from ..config.types import ClusterConfig
from ..status import plain

__all__ = ["load_certificate", "proxy_ssl_context", "ssl_context", "warn_if_insecure"]

logger = logging.getLogger(__name__)

_BLOCK = re.compile(
    rb"^-----BEGIN ([A-Z0-9 ]+)-----[ \t\r]*\n([A-Za-z0-9+/=\s]*?)^-----END \1-----[ \t\r]*$", re.MULTILINE
)
"""A PEM block without headers, as Go reads it: its type and its base64. Text between blocks is ignored."""


class _Context(ssl.SSLContext):
    """A context that checks the server's certificate for `server_name` instead of the host of the address.

    For a tunnel through a proxy there is no other way: httpcore always uses the address.
    """

    server_name: str | None = None

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        return super().wrap_socket(
            *(sock, server_side, do_handshake_on_connect, suppress_ragged_eofs),
            server_hostname=self._name(server_hostname),
            session=session,
        )

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        name = self._name(server_hostname)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname=name, session=session)

    def _name(self, host: str | bytes | None) -> str | bytes | None:
        if self.server_name is not None or host is None:
            return self.server_name
        # For a tunnel, an IPv6 address has brackets here; anyio passes bytes.
        return host.strip("[]") if isinstance(host, str) else host.strip(b"[]")


def ssl_context(config: ClusterConfig, certificate: ClientCertificate | None = None) -> ssl.SSLContext:
    """Return a context for TLS 1.2 or newer that trusts the CA of the cluster, or else the system's certificates.

    The server's certificate must match tls-server-name, or else the host of the address. `certificate` replaces
    the client certificate of `config`. Raise `ConfigError` for an invalid CA, name, certificate or key.
    """
    context = _new(config)
    if config.tls_server_name is not None:
        context.server_name = config.tls_server_name
        try:
            context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
        except (ValueError, TypeError):
            name = plain(config.tls_server_name, 80)
            raise ConfigError(f"{config.source}: tls-server-name must be a host name, got {name!r}") from None
    if config.ca_data is None and not config.insecure_skip_tls_verify:
        context.load_default_certs()
    certificate = certificate or config.client_certificate
    if certificate is not None:
        load_certificate(context, certificate, config.source)
    return context


def proxy_ssl_context(config: ClusterConfig) -> ssl.SSLContext:
    """Return a context for an https proxy that trusts the system's certificates and the cluster's CA.

    It never sends the client certificate to the proxy. client-go does, and trusts only the cluster's CA.
    """
    context = _new(config)
    if not config.insecure_skip_tls_verify:
        context.load_default_certs()
    return context


def warn_if_insecure(config: ClusterConfig) -> None:
    """Log a warning if the certificate of the server is not verified."""
    if config.insecure_skip_tls_verify and config.secure:
        logger.warning(
            "%s: insecure-skip-tls-verify: any server at %s receives your credentials and programs",
            config.source,
            config.address,
        )


def _new(config: ClusterConfig) -> _Context:
    """Return a context that trusts the cluster's CA, or every certificate with insecure-skip-tls-verify."""
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Like client-go, trust an intermediate certificate in the CA bundle without its root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if config.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif config.ca_data is not None:
        _load_authority(context, config.ca_data, config.source)
    return context


def _load_authority(context: ssl.SSLContext, bundle: bytes, source: str) -> None:
    """Trust each certificate in a CA bundle. Like Go, skip unreadable ones; it is an error if all are."""
    problem, loaded = "it contains no PEM certificate", False
    for kind, body in _BLOCK.findall(bundle):
        if kind == b"CERTIFICATE":
            try:
                context.load_verify_locations(cadata=_decoded(body))
            except (ssl.SSLError, ValueError) as error:
                problem = _reason(error)
            else:
                loaded = True
    if not loaded:
        raise ConfigError(f"{source}: the certificate authority is not valid: {problem}")


def _decoded(body: bytes) -> bytes:
    return base64.b64decode(b"".join(body.split()), validate=True)


def _normalized(pem: bytes) -> bytes:
    """Return `pem` without blank lines in the blocks: OpenSSL accepts none, unlike Go."""

    def block(found: re.Match[bytes]) -> bytes:
        with contextlib.suppress(ValueError):
            body = base64.encodebytes(_decoded(found[2]))
            return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (found[1], body, found[1])
        return found[0]

    return _BLOCK.sub(block, pem)


def load_certificate(context: ssl.SSLContext, certificate: ClientCertificate, source: str) -> None:
    """Set the client certificate of `context`. Raise `ConfigError` if it is not valid, or if TLS cannot use it."""
    try:
        with _as_file(_normalized(certificate.certificate + b"\n" + certificate.key)) as path:
            context.load_cert_chain(path, password=_no_password)
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain(path, password=_no_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise ConfigError(f"{source}: the client certificate or its key is not valid: {_reason(error)}") from error
    try:
        _try_handshake(server)
    except ssl.SSLError as error:
        # OpenSSL would connect without the certificate, and the requests would be anonymous.
        raise ConfigError(
            f"{source}: TLS cannot use the client certificate: {_reason(error)}",
            hint="Use a certificate with an RSA key (2048 bits or more) or an EC key on the curve P-256.",
        ) from error


def _try_handshake(server: ssl.SSLContext) -> None:
    """Do a handshake in memory. It fails if TLS does not support the algorithm or the curve of the key."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server)
    for side in (client_side, server_side, client_side, server_side):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Yield the path of a file with `content`: the ssl module reads private keys only from files.

    On Linux the file is in memory and accessible only to this process. Elsewhere it is a temporary file that only
    its owner can read, deleted on exit.
    """
    descriptor = _memory_file()
    with contextlib.ExitStack() as stack:
        if descriptor is not None:
            path = f"/proc/self/fd/{descriptor}"
            stack.callback(os.close, descriptor)
            os.write(descriptor, content)
        else:
            descriptor, path = tempfile.mkstemp(prefix="gke-sandbox-", suffix=".pem")
            stack.callback(os.unlink, path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        yield path


def _memory_file() -> int | None:
    if not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create("gke-sandbox")
    except OSError:
        return None
    if os.access(f"/proc/self/fd/{descriptor}", os.R_OK):
        return descriptor
    os.close(descriptor)
    return None


def _no_password() -> str:
    # Without this callback, OpenSSL would prompt for the password on the terminal.
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return str(error)
