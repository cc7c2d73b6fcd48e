"""Decoding of request bodies: from JSON to an object with known fields.

Unknown fields are an error or a warning, as the query parameter `fieldValidation` says. Fields that the embedded
cluster does not support count as unknown.
https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ...kube.quantity import QuantityError, parse_quantity
from ..objects import Json
from .errors import bad_request, too_large
from .schema import Schema

# https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/create.go (limitedReadBody)
MAX_BODY = 3 * 1024 * 1024

_TYPES = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}


def decode(
    body: bytes, schema: Mapping[str, Schema], kind: str, api_version: str, *, strict: bool = False
) -> tuple[Json, list[str]]:
    """Return one object of this kind and version without its unknown fields, and a warning about each of them.

    Raises `StatusError` (400, 413), with `strict` also for unknown fields.
    """
    decoder = _Decoder(kind)
    try:
        decoded = decoder.fields(_parse(body, kind), schema, "")
        why = f"strict decoding error: {', '.join(decoder.unknown)}" if strict and decoder.unknown else ""
    except _DecodingError as error:
        decoded, why = {}, str(error)
    if why:
        version = api_version.rpartition("/")[2]
        raise bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')
    return {**decoded, "kind": kind, "apiVersion": api_version}, decoder.unknown


def _parse(body: bytes, kind: str) -> Json:
    if len(body) > MAX_BODY:
        raise too_large(MAX_BODY)
    try:
        parsed, problem = json.loads(body), "not an object"
    except (ValueError, RecursionError) as error:
        parsed, problem = None, str(error)
    if isinstance(parsed, dict):
        return parsed
    raise bad_request(
        f"the object provided is unrecognized (must be of type {kind}): couldn't get "
        f"version/kind; json parse error: {problem} ({body[:30].hex()} ...)"
    )


class _DecodingError(Exception):
    """The body is not such an object; the message is the server's."""


class _Decoder:
    """Decodes values with their schemas. `unknown` has the texts about unknown fields."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.unknown: list[str] = []

    def fields(self, value: Json, schema: Mapping[str, Schema], path: str) -> Json:
        prefix = path and f"{path}."
        decoded: Json = {}
        for name, item in value.items():
            known = schema.get(name) or schema.get("*")
            if known is None:
                self.unknown.append(f'unknown field "{prefix}{name}"')
            elif item is not None:
                result = self._value(item, known, f"{prefix}{name}")
                if result or (not isinstance(known, list) and "*" not in known):
                    decoded[name] = result
        return decoded

    def _value(self, value: object, schema: Schema, path: str) -> object:
        if isinstance(schema, list) and isinstance(value, list):
            return [self._value(item, schema[0], f"{path}[{index}]") for index, item in enumerate(value)]
        if isinstance(schema, dict) and isinstance(value, dict):
            return self.fields(value, schema, path)
        actual = _TYPES.get(type(value), "object")
        if schema == "quantity":
            return _quantity(str(value) if actual in ("number", "string") else "")
        if schema == actual or (schema == "int" and isinstance(value, int) and actual == "number"):
            return value
        wanted = schema if isinstance(schema, str) else "array" if isinstance(schema, list) else "object"
        raise _DecodingError(
            f"json: cannot unmarshal {actual} into Go struct field {self._kind}.{path} of type {wanted}"
        )


def _quantity(text: str) -> str:
    """Return a quantity in its canonical form, as the server does. JSON numbers are valid quantities."""
    try:
        return str(parse_quantity(text.strip()))
    except QuantityError as error:
        raise _DecodingError(str(error)) from None
