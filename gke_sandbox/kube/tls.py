"""The TLS settings of a connection: whom we trust, and the certificate that we show."""

from __future__ import annotations

import os
import re
import ssl
import tempfile

from ..errors import ConfigError
from .config import ClusterConfig
from .credentials import ClientCertificate

__all__ = ["ssl_context"]

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def ssl_context(config: ClusterConfig) -> ssl.SSLContext:
    """TLS 1.2 or newer, trusting the cluster's CA and nothing else; the system's certificates if it names none.

    Raises `ConfigError` for a CA, certificate or key that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A CA bundle may hold an intermediate alone, and client-go trusts it as it stands there.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if config.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif config.ca_data is None:
        context.load_default_certs()
    else:
        try:
            # What stands between the certificates (comments) need not be ASCII.
            context.load_verify_locations(
                cadata="\n".join(found.decode("ascii") for found in _CERTIFICATE.findall(config.ca_data))
            )
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"{config.source}: the certificate authority cannot be used: {_reason(error)}"
            ) from error
    if config.client_certificate is not None:
        _load(context, config.client_certificate, config.source)
    return context


def _load(context: ssl.SSLContext, certificate: ClientCertificate, source: str) -> None:
    # The ssl module reads a private key from a file only: one that its owner alone can read, gone at once.
    descriptor, path = tempfile.mkstemp(prefix="gke-sandbox-", suffix=".pem")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(certificate.certificate + b"\n" + certificate.key)
        context.load_cert_chain(path, password=_no_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise ConfigError(
            f"{source}: the client certificate and its key cannot be used: {_reason(error)}"
        ) from error
    finally:
        os.unlink(path)


def _no_password() -> str:
    # Without this, OpenSSL would ask for it on the terminal.
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return str(error)
