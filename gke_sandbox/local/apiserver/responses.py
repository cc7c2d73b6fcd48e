"""Responses of the API server before they become HTTP responses."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..._fakes.body import Source
from ..objects import Json
from .errors import StatusError

if TYPE_CHECKING:
    from .attach_session import AttachSession


@dataclass
class Reply:
    """A response. `source` is a streamed body; without it, `body` is the body. 101 has a session to start."""

    code: int
    body: bytes = b""
    content_type: str | None = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)
    source: Source | None = None
    session: AttachSession | None = None


def json_reply(code: int, obj: Json, warnings: Iterable[str] = ()) -> Reply:
    """Return a response with a JSON body.

    https://www.rfc-editor.org/rfc/rfc7234#section-5.5 is about warnings.
    """
    text = json.dumps(obj, ensure_ascii=False, separators=(",", ":"))
    escaped = (warning.replace("\\", "\\\\").replace('"', '\\"') for warning in warnings)
    headers = [("warning", f'299 - "{warning}"') for warning in escaped]
    return Reply(code, text.encode("utf-8", "replace") + b"\n", headers=headers)


def error_reply(error: StatusError, warnings: Iterable[str] = ()) -> Reply:
    """Return the response for an error."""
    return json_reply(error.code, error.body(), warnings)
