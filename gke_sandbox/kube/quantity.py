"""Kubernetes quantities (``500m``, ``1.5Gi``, ``1e3``), parsed and formatted as by the API server. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Quantity", "QuantityError", "parse_quantity"]

Format = Literal["DecimalSI", "BinarySI", "DecimalExponent"]

_NANO = 10**9
_MAX_BINARY = (1 << 63) - 1
_MAX_LENGTH = 256
_MAX_EXPONENT = 256
"""The server has no such limits. Longer or larger quantities only cost time to compute with."""

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = {exponent: suffix for suffix, exponent in _BINARY.items()}

_TEXT = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)")
_EXPONENT = re.compile(r"[eE]([-+]?[0-9]+)")


class QuantityError(ValueError):
    """The text is not a quantity. The message is that of the API server."""


@dataclass(frozen=True)
class Quantity:
    """An exact number of billionths, and the notation for formatting it.

    Finer values are rounded up, away from zero, as the server does.
    """

    nano: int
    format: Format = "DecimalSI"

    @property
    def value(self) -> int:
        """The integer, rounded away from zero: bytes of memory or storage."""
        return _divide(self.nano, _NANO)

    @property
    def milli(self) -> int:
        """Thousandths, rounded away from zero, in which the server compares the resources of containers."""
        return _divide(self.nano, _NANO // 1000)

    def rounded_to_milli(self) -> Quantity:
        """Return the value rounded as the server rounds requests and limits before storing them."""
        return Quantity(self.milli * (_NANO // 1000), self.format)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano + other.nano, self.format if self.nano else other.format)

    def __str__(self) -> str:
        """Return the canonical form: the largest suffix without a fraction and without loss of precision."""
        if self.nano == 0:
            return "0"
        whole = self.nano % _NANO == 0
        if self.format == "BinarySI" and whole and abs(self.nano) >= 1024 * _NANO:
            mantissa, exponent = self.nano // _NANO, 0
            while mantissa % 1024 == 0 and exponent < 60:
                mantissa, exponent = mantissa // 1024, exponent + 10
            return f"{mantissa}{_BINARY_SUFFIX[exponent] if exponent else ''}"
        mantissa, exponent = self.nano, -9
        highest = _MAX_EXPONENT * 3 if self.format == "DecimalExponent" else 18
        while mantissa % 1000 == 0 and exponent < highest:
            mantissa, exponent = mantissa // 1000, exponent + 3
        if self.format == "DecimalExponent":
            return f"{mantissa}e{exponent}" if exponent else str(mantissa)
        return f"{mantissa}{_DECIMAL_SUFFIX[exponent]}"


def parse_quantity(text: str) -> Quantity:
    """Parse a quantity by the rules of ``resource.ParseQuantity`` in apimachinery.

    Suffixes are ``n u m k M G T P E``, ``Ki Mi Gi Ti Pi Ei`` or a decimal exponent (``1e3``, ``1E-3``). A sign is
    allowed, and digits may be missing on one side of the point. Raise `QuantityError` with the message of the
    server, also for surrounding space, as the server's parser does (its JSON decoder strips it first). As an
    additional rule, raise it for more than 256 characters and for powers of 10 above 256.
    """
    found = _TEXT.fullmatch(text)
    if not text or found is None:
        raise QuantityError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    if len(text) > _MAX_LENGTH:
        raise QuantityError(f"is longer than {_MAX_LENGTH} characters")
    sign, whole, fraction, suffix = found.group(1), found.group(2), found.group(3) or "", found.group(4)
    exponent, notation = _interpret(suffix)
    digits = int(whole + fraction or "0")
    if digits == 0:
        return Quantity(0, notation)
    if notation == "BinarySI":
        nano = _shifted(digits << exponent, 9 - len(fraction))
        if nano < _NANO:
            notation = "DecimalSI"
        nano = min(nano, _MAX_BINARY * _NANO)
    else:
        if exponent > _MAX_EXPONENT:
            raise QuantityError(f"is larger than 10 to the power of {_MAX_EXPONENT}")
        nano = _shifted(digits, exponent + 9 - len(fraction))
    return Quantity(-nano if sign == "-" else nano, notation)


def _interpret(suffix: str) -> tuple[int, Format]:
    if suffix in _DECIMAL:
        return _DECIMAL[suffix], "DecimalSI"
    if suffix in _BINARY:
        return _BINARY[suffix], "BinarySI"
    exponent = _EXPONENT.fullmatch(suffix)
    if exponent is None or abs(int(exponent.group(1))) >= 1 << 63:
        raise QuantityError("unable to parse quantity's suffix")
    return int(exponent.group(1)), "DecimalExponent"


def _shifted(digits: int, places: int) -> int:
    """Return ``digits * 10**places``, rounded up; `digits` is positive."""
    if places < -2 * _MAX_LENGTH:
        return 1  # The result rounds up to 1 for every possible `digits`.
    power: int = 10 ** abs(places)
    return digits * power if places >= 0 else -(-digits // power)


def _divide(number: int, by: int) -> int:
    """Return ``number / by``, rounded away from zero."""
    return -(-number // by) if number > 0 else number // by
