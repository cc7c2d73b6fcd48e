"""Read the expiry of credentials, to show it. Nothing is verified."""

from __future__ import annotations

import base64
import json
import re
import ssl
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config.types import ClusterConfig

__all__ = ["certificate_expiry", "credentials_expiry", "token_expiry"]

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# The validity of a certificate: two times in DER, each UTCTime (two-digit year) or GeneralizedTime. The groups
# match `notAfter`. https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.5
_VALIDITY = re.compile(rb"(?:\x17\x0d\d{12}Z|\x18\x0f\d{14}Z)(?:\x17\x0d(\d{12}Z)|\x18\x0f(\d{14}Z))")


def credentials_expiry(config: ClusterConfig) -> datetime | None:
    """Return when the credentials of a cluster expire, or None if they do not contain an expiry."""
    from .static import BearerToken, TokenFile

    times = []
    if isinstance(config.auth, BearerToken):
        times.append(token_expiry(config.auth.token))
    if isinstance(config.auth, TokenFile):
        times.append(token_expiry(config.auth.token()))
    if config.client_certificate is not None:
        times.append(certificate_expiry(config.client_certificate.certificate))
    return min((time for time in times if time is not None), default=None)


def token_expiry(token: str) -> datetime | None:
    """Return the ``exp`` of a JSON web token, or None for another token. https://www.rfc-editor.org/rfc/rfc7519"""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        seconds = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))["exp"]
        return None if isinstance(seconds, bool) else datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return None


def certificate_expiry(pem: bytes) -> datetime | None:
    """Return the ``notAfter`` of the first certificate, or None if `pem` contains no valid certificate."""
    found = _PEM.search(pem.decode("ascii", "replace"))
    try:
        validity = _VALIDITY.search(ssl.PEM_cert_to_DER_cert(found[0])) if found else None
        if validity is None:
            return None
        short, full = (group.decode() if group else "" for group in validity.groups())
        # A two-digit year of 50 or more is in the twentieth century.
        text = full or ("19" if short >= "50" else "20") + short
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
