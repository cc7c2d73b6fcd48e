"""Checks of arguments. Each raises `SpecError` with the path of the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import SpecError
from .kube.quantity import Quantity, QuantityError, parse_quantity

_MAX_SECONDS = 7 * 24 * 3600
MAX_WARM = 1000
_MAX_INT64 = (1 << 63) - 1
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) ?([kmgtpe])i?b?(?:ytes?)?", re.ASCII | re.IGNORECASE)
"""A size as people write it. Kubernetes accepts ``1G`` and ``1Gi``, not ``1GB``."""

Rule = Callable[[str], list[str]]
"""Return the errors of a name, as `kube.names` does; an empty list if it is valid."""


def entry_path(path: str, key: object) -> str:
    """Return the path of an entry: ``env['X']``."""
    return f"{path}[{shorten(key)}]"


def shorten(value: object) -> str:
    """Return a value for a message, with at most 200 characters.

    Python raises an error if it formats an integer of thousands of digits.
    """
    if isinstance(value, int) and abs(value) > _MAX_INT64:
        return "a number of more than 64 bits"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def describe(value: object) -> str:
    """Return a value of a wrong type for a message: only its type if the value could be large or secret."""
    kind = type(value).__name__
    return f"{shorten(value)} ({kind})" if isinstance(value, (bool, int, float)) else kind


def check_text(path: str, value: object) -> str:
    """Return `value` if it is text that UTF-8 can encode."""
    if not isinstance(value, str):
        raise SpecError(path, f"must be text (str), got {describe(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SpecError(path, "cannot be encoded as UTF-8 (it contains a lone surrogate)") from None
    return value


def check_content(path: str, value: object) -> bytes:
    """Return text or bytes as bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str):
        raise SpecError(path, f"must be text or bytes, got {describe(value)}")
    return check_text(path, value).encode()


def check_name(path: str, value: object, rule: Rule, *, what: str = "", hint: str = "") -> None:
    """Check text with a rule of `kube.names`. `what` names the checked part in the message: ``the key ``."""
    text = check_text(path, value)
    errors = rule(text)
    if errors:
        raise SpecError(path, f"{what}{shorten(text)} is not valid: {'; '.join(errors)}", hint=hint)


def check_choice(path: str, value: object, allowed: tuple[str, ...]) -> None:
    """Check that `value` is one of the allowed words."""
    if value not in allowed:
        raise SpecError(path, f"must be one of {', '.join(allowed)}, got {shorten(value)}")


def check_integer(path: str, value: object, low: int, high: int) -> None:
    """Check an integer between `low` and `high`, both included."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(path, f"must be a whole number, got {describe(value)}")
    if not low <= value <= high:
        raise SpecError(path, f"must be between {low} and {high}, got {shorten(value)}")


def check_seconds(path: str, value: object) -> float:
    """Return a number of seconds as a float: more than 0, at most 7 days."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SpecError(path, f"must be a number of seconds, got {describe(value)}")
    if not 0 < value <= _MAX_SECONDS:  # Also refuses NaN.
        raise SpecError(
            path, f"must be more than 0 and at most {_MAX_SECONDS} seconds (7 days), got {shorten(value)}"
        )
    return float(value)


def check_warm(
    warm: object, idle_timeout: object, *, delivery: str, idle_name: str = "warm_idle_timeout"
) -> tuple[int, float]:
    """Return a number of warm pods and their idle time.

    Raises `ConfigError` if they, or the delivery, need the package for WebSockets and it is missing.
    """
    check_integer("warm", warm, 0, MAX_WARM)
    assert isinstance(warm, int)
    seconds = check_seconds(idle_name, idle_timeout)
    if warm or delivery == "attach":
        from .kube.attach import require_websockets

        require_websockets()
    return warm, seconds


def check_quantity(path: str, value: object) -> Quantity:
    """Return the Kubernetes quantity that a text contains: more than zero, and within the server's 64 bits."""
    if isinstance(value, (int, float)):
        raise SpecError(path, f"must be a quantity as text, such as '500m' or '1Gi', got {describe(value)}")
    text = check_text(path, value)
    try:
        quantity = parse_quantity(text)
    except QuantityError as error:
        raise SpecError(
            path,
            f"{shorten(text)} is not a quantity: {error}",
            hint=suggest_size(text) or "Use a quantity such as 500m, 2, 1.5Gi or 128Mi.",
        ) from None
    if quantity.nano <= 0:
        raise SpecError(path, f"must be more than zero, got {text!r}")
    if quantity.milli > _MAX_INT64:
        raise SpecError(path, f"{text!r} is too large")
    return quantity


def suggest_size(text: str) -> str:
    """Return the hint for a size in other units: ``1GB`` is ``1G`` or ``1Gi``. Return "" for other text."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return ""
    number, unit = match[1], match[2].upper()
    return f"Did you mean {number}{'k' if unit == 'K' else unit} or {number}{unit}i?"


def check_sequence(path: str, value: object) -> tuple[Any, ...]:
    """Return a list (or another sequence, but not text or bytes) as a tuple."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise SpecError(path, f"must be a list, got {describe(value)}")
    return tuple(value)


def check_strings(path: str, value: object) -> dict[str, str]:
    """Return a copy of a mapping of text to text."""
    if not isinstance(value, Mapping):
        raise SpecError(path, f"must be a mapping of text to text, got {describe(value)}")
    return {
        check_text(entry_path(path, key), key): check_text(entry_path(path, key), item)
        for key, item in value.items()
    }
