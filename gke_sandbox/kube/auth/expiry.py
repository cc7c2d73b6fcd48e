"""Until when credentials hold, as they say it themselves. Nothing is verified here: it is for people to read."""

from __future__ import annotations

import base64
import binascii
import json
import re
import ssl
from datetime import datetime, timezone

__all__ = ["certificate_expiry", "token_expiry"]

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# Tags of DER: https://www.itu.int/rec/T-REC-X.690
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def token_expiry(token: str) -> datetime | None:
    """The ``exp`` of a JSON web token; None for a token of another kind. https://www.rfc-editor.org/rfc/rfc7519"""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        seconds = claims["exp"] if isinstance(claims, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            return None
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (binascii.Error, ValueError, KeyError, OverflowError, OSError, RecursionError):
        return None


def certificate_expiry(pem: bytes) -> datetime | None:
    """The ``notAfter`` of the first certificate; None if there is none that can be read."""
    # https://www.rfc-editor.org/rfc/rfc5280#section-4.1
    found = _PEM.search(pem.decode("ascii", "replace"))
    if found is None:
        return None
    try:
        _, certificate, _ = _element(ssl.PEM_cert_to_DER_cert(found[0]))
        tag, fields, _ = _element(certificate)
        if tag != _SEQUENCE:
            return None
        following = fields
        # The version may be left out; then the serial number, the signature's algorithm and the issuer.
        for _ in range(4 if fields[0] == _VERSION else 3):
            _, _, following = _element(following)
        _, validity, _ = _element(following)
        _, _, after = _element(validity)
        tag, text, _ = _element(after)
        return _time(tag, text.decode("ascii"))
    except (ValueError, IndexError):
        return None


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """The first element's tag and content, and what follows it."""
    tag, length, start = der[0], der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    if start + length > len(der):
        raise ValueError("cut off")
    return tag, der[start : start + length], der[start + length :]


def _time(tag: int, text: str) -> datetime | None:
    if tag == _UTC_TIME:
        # Two digits: 50 to 99 are of the twentieth century.
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        return None
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
