"""The TLS settings of a connection: whom we trust, which name we ask for, and the certificate that we show."""

from __future__ import annotations

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

__all__ = ["load_certificate", "proxy_ssl_context", "ssl_context", "warn_if_insecure"]

logger = logging.getLogger("gke_sandbox")

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class _Context(ssl.SSLContext):
    """A context that knows the name which the server's certificate must have.

    A tunnel through a proxy has no other way to be told: httpcore takes the address there.
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
        # An IPv6 address comes in brackets out of a tunnel, and names come as bytes from anyio.
        return host.strip("[]") if isinstance(host, str) else host.strip(b"[]")


def ssl_context(config: ClusterConfig, certificate: ClientCertificate | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer, trusting the cluster's CA and nothing else; the system's certificates if it names none.

    The server is asked for the cluster's tls-server-name, and must prove to be it; without one, for the name in
    its address. `certificate` is shown in the place of the configuration's own.
    Raises `ConfigError` for a CA, certificate or key that cannot be used.
    """
    context = _new(config)
    context.server_name = config.tls_server_name
    if config.ca_data is None and not config.insecure_skip_tls_verify:
        context.load_default_certs()
    certificate = certificate or config.client_certificate
    if certificate is not None:
        load_certificate(context, certificate, config.source)
    return context


def proxy_ssl_context(config: ClusterConfig) -> ssl.SSLContext:
    """For the connection to an https proxy: the system's certificates are trusted, and the cluster's CA besides.

    client-go trusts the cluster's CA alone there, and shows the proxy the client certificate, which we do not.
    """
    context = _new(config)
    if not config.insecure_skip_tls_verify:
        context.load_default_certs()
    return context


def warn_if_insecure(config: ClusterConfig) -> None:
    """Say that the server is not verified, where it is not."""
    if config.insecure_skip_tls_verify and config.secure:
        logger.warning(
            "%s: insecure-skip-tls-verify: whoever answers at %s gets the credentials and the programs",
            config.source,
            config.address,
        )


def _new(config: ClusterConfig) -> _Context:
    """A context that trusts the cluster's CA, or anybody if that is what the cluster says."""
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A CA bundle may hold an intermediate alone, and client-go trusts it as it stands there.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if config.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif config.ca_data is not None:
        try:
            # What stands between the certificates (comments) need not be ASCII.
            context.load_verify_locations(
                cadata="\n".join(found.decode("ascii") for found in _CERTIFICATE.findall(config.ca_data))
            )
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"{config.source}: the certificate authority cannot be used: {_reason(error)}"
            ) from error
    return context


def load_certificate(context: ssl.SSLContext, certificate: ClientCertificate, source: str) -> None:
    """Have `context` show the certificate. Raises `ConfigError` for one that cannot be used."""
    try:
        with _as_file(certificate.certificate + b"\n" + certificate.key) as path:
            context.load_cert_chain(path, password=_no_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise ConfigError(
            f"{source}: the client certificate and its key cannot be used: {_reason(error)}"
        ) from error


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path under which OpenSSL can read `content`: the ssl module takes a private key in no other form.

    It is in memory where the system can do that (Linux), and only this process can open it. Elsewhere it is a
    file that its owner alone can read, and gone at once.
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
    # Without this, OpenSSL would ask for it on the terminal.
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return str(error)
