"""The data that a client writes to the standard input of a runner, in a form for people. Pure.

`payload.Payload.attach_request` makes such a request: a line with two lengths, the request as JSON, and contents.
Here each content is in its place in the JSON::

    {"protocol": 1, "timeout": 30, "args": [], "code": "print(1)", "stdin": null,
     "files": {"a.csv": "1,2", "b.bin": {"base64": "/w=="}}, "env": [{"name": "A", "value": "1"}], ...}
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["content_of", "readable_stdin", "request_length"]

_LENGTHS = re.compile(rb"(\d{1,12}) (\d{1,12})\n")
_INCOMPLETE_LENGTHS = re.compile(rb"\d{1,12}(?: \d{0,12})?")


def request_length(data: bytes | bytearray) -> int | None:
    """Return the length of the request that starts with `data`.

    Return None if more data is needed to know it, and 0 if it is not a request.
    """
    found = _LENGTHS.match(data)
    if found is not None:
        return found.end() + int(found[1]) + int(found[2])
    return None if not data or _INCOMPLETE_LENGTHS.fullmatch(data) else 0


def readable_stdin(data: bytes) -> Any:
    """Return data for stdin as it is written: a request as a mapping, other text as text, other bytes as base64.

    The start of a request that was never completed is ``<any>``, which matches everything.
    """
    length = request_length(data)
    if not data or length == 0:
        return _text(data)
    if length is None or length > len(data):
        return "<any>"
    try:
        return _readable_request(data)
    except (ValueError, TypeError, KeyError, AttributeError):
        return _text(data)


def content_of(value: str | Mapping[str, str]) -> bytes:
    """Return the bytes of a content."""
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])


def _readable_request(data: bytes) -> dict[str, Any]:
    found = _LENGTHS.match(data)
    assert found is not None
    position = found.end() + int(found[1])
    request = dict[str, Any](json.loads(data[found.end() : position]).items())

    def take(entry: Any) -> str | dict[str, str]:
        nonlocal position
        encoding, (length,) = entry
        if encoding != "raw" or type(length) is not int:
            raise ValueError(encoding)
        position += length
        return _text(data[position - length : position])

    for name in [name for name in request if name in ("code", "stdin", "files")]:
        if name == "files":
            request[name] = {path: take(entry) for path, entry in request[name].items()}
        elif request[name] is not None:
            request[name] = take(request[name])
    if position != len(data):
        raise ValueError("the contents have another length")
    if "env" in request:
        # In the form of a container's environment, in which secrets are found.
        request["env"] = [{"name": name, "value": value} for name, value in request["env"].items()]
    return request


def _text(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
