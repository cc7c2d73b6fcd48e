"""From a request's body to an object: JSON, then the types and names of its fields.

What the server calls strict errors (unknown and duplicate fields) is collected; whether they refuse the
request, only warn, or are ignored is `fieldValidation`'s to say.
https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...kube.quantity import QuantityError, parse_quantity
from ..objects import Json
from .errors import StatusError, bad_request, too_large
from .schema import ListOf, MapOf, Struct, Type

# https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/create.go (limitedReadBody)
BODY_LIMIT = 3 * 1024 * 1024

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_INT_LIMITS = {"int32": 2**31, "int64": 2**63}


@dataclass
class Decoded:
    """The object without its unknown fields, and what a strict decoder says about it."""

    object: Json
    complaints: list[str] = field(default_factory=list)


class _WrongType(Exception):
    """The JSON does not fit the Go type: the decoder's own sentence."""


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its names came twice."""

    duplicates: Sequence[str] = ()


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    if len(made) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        made.duplicates = [name for name, count in counts.items() if count > 1]
    return made


def check_size(body: bytes) -> None:
    """Raises `StatusError` (413) for a body over 3 MiB."""
    if len(body) > BODY_LIMIT:
        raise too_large(BODY_LIMIT)


def decode(body: bytes, struct: Struct, api_version: str) -> Decoded:
    """Read one object of the kind `struct` in the version `api_version`. Raises `StatusError` (400, 413)."""
    check_size(body)
    try:
        parsed = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise bad_request(
            f"the object provided is unrecognized (must be of type {struct.name}): couldn't get "
            f"version/kind; json parse error: {error} ({body[:30].hex()} ...)"
        ) from None
    kind = parsed.get("kind", "") if isinstance(parsed, dict) else ""
    given = parsed.get("apiVersion", "") if isinstance(parsed, dict) else ""
    if kind and given and given != api_version:
        raise bad_request(
            f"the API version in the data ({given}) does not match the expected API version ({api_version})"
        )
    version = api_version.rpartition("/")[2]
    if kind and kind != struct.name:
        why = f"converting ({version}.{kind}) to ({struct.name}): unknown conversion"
        raise _unhandled(kind, version, struct, why)
    decoded = Decoded({})
    try:
        decoded.object = _struct(parsed, struct, "", "", decoded.complaints)
    except _WrongType as error:
        raise _unhandled(struct.name, version, struct, str(error)) from None
    decoded.object = {**decoded.object, "kind": struct.name, "apiVersion": api_version}
    return decoded


def refuse_complaints(decoded: Decoded, struct: Struct, api_version: str) -> None:
    """What ``fieldValidation=Strict`` does. Raises `StatusError` (400) if there are complaints."""
    if decoded.complaints:
        why = f"strict decoding error: {', '.join(decoded.complaints)}"
        raise _unhandled(struct.name, api_version.rpartition("/")[2], struct, why)


def _unhandled(kind: str, version: str, struct: Struct, why: str) -> StatusError:
    return bad_request(f'{kind} in version "{version}" cannot be handled as a {struct.name}: {why}')


def decode_options(body: bytes, struct: Struct) -> Json:
    """DeleteOptions, which may name no kind and tolerate anything unknown. Raises `StatusError`."""
    check_size(body)
    try:
        return _struct(json.loads(body, object_pairs_hook=_object), struct, "", "", [])
    except (ValueError, RecursionError, _WrongType) as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None


def _value(value: object, kind: Type, at: str, path: str, owner: str, complaints: list[str]) -> object:
    """`at` is the field's path with indices, `path` the one without, as the two kinds of messages want."""
    if isinstance(kind, Struct):
        return _struct(value, kind, at, path, complaints, owner)
    if isinstance(kind, ListOf):
        if not isinstance(value, list):
            raise _mismatch(value, owner, path, f"[]{_go_name(kind.item)}")
        return [
            _value(item, kind.item, f"{at}[{index}]", path, owner, complaints) for index, item in enumerate(value)
        ]
    if isinstance(kind, MapOf):
        if not isinstance(value, dict):
            raise _mismatch(value, owner, path, f"map[string]{_go_name(kind.item)}")
        return {
            name: _value(item, kind.item, f"{at}.{name}", path, owner, complaints) for name, item in value.items()
        }
    return _scalar(value, kind, path, owner)


def _struct(value: object, struct: Struct, at: str, path: str, complaints: list[str], owner: str = "") -> Json:
    if not isinstance(value, dict):
        raise _mismatch(value, owner or struct.name, path, f"v1.{struct.name}")
    for name in getattr(value, "duplicates", ()):
        complaints.append(f'duplicate field "{_join(at, name)}"')
    decoded: Json = {}
    for name, item in value.items():
        known = struct.fields.get(name)
        if known is None:
            complaints.append(f'unknown field "{_join(at, name)}"')
        elif item is not None:
            inner = _value(item, known, _join(at, name), _join(path, name), struct.name, complaints)
            if inner or not isinstance(known, (ListOf, MapOf)):
                decoded[name] = inner
    return decoded


def _scalar(value: object, kind: str, path: str, owner: str) -> object:
    if kind == "any":
        return value
    if kind == "quantity":
        return _quantity(value)
    if kind == "bool":
        if not isinstance(value, bool):
            raise _mismatch(value, owner, path, "bool")
    elif kind in _INT_LIMITS:
        limit = _INT_LIMITS[kind]
        if not isinstance(value, int) or isinstance(value, bool) or not -limit <= value < limit:
            raise _mismatch(value, owner, path, kind)
    elif not isinstance(value, str):
        raise _mismatch(value, owner, path, "string")
    elif kind == "bytes":
        _check_base64(value)
    else:
        # An escape that is half a character: Go's decoder puts this in its place.
        return _HALF_CHARACTER.sub("\ufffd", value)
    return value


def _quantity(value: object) -> str:
    """In its canonical form, as the server gives it back. A JSON number is one, too."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        return str(parse_quantity(value.strip() if isinstance(value, str) else str(value) if number else ""))
    except QuantityError as error:
        raise _WrongType(str(error)) from None


def _check_base64(value: str) -> None:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        bad = re.search(r"[^A-Za-z0-9+/]", value)
        at = bad.start() if bad else len(value)
        raise _WrongType(f"illegal base64 data at input byte {at}") from None


def _mismatch(value: object, owner: str, path: str, wanted: str) -> _WrongType:
    if isinstance(value, bool):
        got = "bool"
    elif isinstance(value, (int, float)):
        got = f"number {value}" if wanted in _INT_LIMITS else "number"
    else:
        got = "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"
    where = f"Go struct field {owner}.{path}" if path else "Go value"
    return _WrongType(f"json: cannot unmarshal {got} into {where} of type {wanted}")


def _go_name(kind: Type) -> str:
    if isinstance(kind, Struct):
        return f"v1.{kind.name}"
    return {"quantity": "resource.Quantity", "bytes": "[]uint8"}.get(str(kind), str(kind))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
