"""Decoding of request bodies: from JSON to an object with known fields.

Unknown and duplicate fields are collected. The query parameter `fieldValidation` decides whether they are an
error, a warning or ignored. Fields that the embedded cluster does not support count as unknown.
https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...kube.quantity import QuantityError, parse_quantity
from ..objects import Json
from .errors import StatusError, bad_request, too_large
from .schema import Schema

# https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/create.go (limitedReadBody)
MAX_BODY = 3 * 1024 * 1024

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class Decoded:
    """An object without its unknown fields, and the errors of strict decoding."""

    object: Json
    strict_errors: list[str] = field(default_factory=list)


class _WrongType(Exception):
    """A value does not have the type of its field; the message is the server's."""


class _Object(dict[str, Any]):
    """A JSON object that remembers its duplicate keys."""

    duplicates: Sequence[str] = ()


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    result = _Object(pairs)
    if len(result) != len(pairs):
        result.duplicates = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    return result


def decode(body: bytes, schema: Mapping[str, Schema], kind: str, api_version: str) -> Decoded:
    """Decode one object of this kind and version. Raises `StatusError` (400, 413)."""
    parsed = _parse(body, kind)
    given_kind = parsed.get("kind") or kind
    given_version = parsed.get("apiVersion") or api_version
    if given_version != api_version:
        raise bad_request(
            f"the API version in the data ({given_version}) does not match the expected API version "
            f"({api_version})"
        )
    version = api_version.rpartition("/")[2]
    if given_kind != kind:
        raise _cannot_handle(kind, version, f"converting ({version}.{given_kind}) to ({kind}): unknown conversion")
    decoded = Decoded({})
    try:
        decoded.object = _decode_object(parsed, schema, kind, "", decoded.strict_errors)
    except _WrongType as error:
        raise _cannot_handle(kind, version, str(error)) from None
    decoded.object = {**decoded.object, "kind": kind, "apiVersion": api_version}
    return decoded


def raise_strict_errors(decoded: Decoded) -> None:
    """Raise `StatusError` (400) if there are unknown or duplicate fields."""
    if decoded.strict_errors:
        kind, version = decoded.object["kind"], decoded.object["apiVersion"].rpartition("/")[2]
        raise _cannot_handle(kind, version, f"strict decoding error: {', '.join(decoded.strict_errors)}")


def _parse(body: bytes, kind: str) -> _Object:
    if len(body) > MAX_BODY:
        raise too_large(MAX_BODY)
    try:
        parsed, problem = json.loads(body, object_pairs_hook=_object), "not an object"
    except (ValueError, RecursionError) as error:
        parsed, problem = None, str(error)
    if isinstance(parsed, _Object):
        return parsed
    raise bad_request(
        f"the object provided is unrecognized (must be of type {kind}): couldn't get "
        f"version/kind; json parse error: {problem} ({body[:30].hex()} ...)"
    )


def _cannot_handle(kind: str, version: str, why: str) -> StatusError:
    return bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')


def _decode_object(
    value: _Object, schema: Mapping[str, Schema], kind: str, path: str, strict_errors: list[str]
) -> Json:
    prefix = path and f"{path}."
    strict_errors += [f'duplicate field "{prefix}{name}"' for name in value.duplicates]
    decoded: Json = {}
    for name, item in value.items():
        known = schema.get(name) or schema.get("*")
        if known is None:
            strict_errors.append(f'unknown field "{prefix}{name}"')
        elif item is not None:
            result = _decode(item, known, kind, f"{prefix}{name}", strict_errors)
            if result or (not isinstance(known, list) and "*" not in known):
                decoded[name] = result
    return decoded


def _decode(value: object, schema: Schema, kind: str, path: str, strict_errors: list[str]) -> object:
    if isinstance(schema, list) and isinstance(value, list):
        items = enumerate(value)
        return [_decode(item, schema[0], kind, f"{path}[{index}]", strict_errors) for index, item in items]
    if isinstance(schema, dict) and isinstance(value, _Object):
        return _decode_object(value, schema, kind, path, strict_errors)
    if schema == "quantity":
        return _quantity(value)
    if schema == "bool" and isinstance(value, bool):
        return value
    if schema == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if schema in ("string", "bytes") and isinstance(value, str):
        if schema == "bytes":
            _check_base64(value)
        # Go replaces half a surrogate pair.
        return _SURROGATE.sub("\ufffd", value)
    wanted = schema if isinstance(schema, str) else "array" if isinstance(schema, list) else "object"
    types = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
    actual = types.get(type(value), "object")
    raise _WrongType(f"json: cannot unmarshal {actual} into Go struct field {kind}.{path} of type {wanted}")


def _quantity(value: object) -> str:
    """Return a quantity in its canonical form, as the server does. JSON numbers are valid quantities."""
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
        offset = bad.start() if bad else len(value)
        raise _WrongType(f"illegal base64 data at input byte {offset}") from None
