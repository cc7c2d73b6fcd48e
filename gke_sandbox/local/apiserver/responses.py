"""What the API server answers, before it becomes an HTTP response."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from ..._fakes.body import Source
from ..objects import Json
from .errors import StatusError


@dataclass
class Reply:
    """One answer. `source` is the body if it is a stream, else `body` is."""

    code: int
    body: bytes = b""
    content_type: str | None = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)
    source: Source | None = None

    def warn(self, text: str) -> None:
        """Add a warning. https://www.rfc-editor.org/rfc/rfc7234#section-5.5"""
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        self.headers.append(("warning", f'299 - "{escaped}"'))


def json_reply(code: int, obj: Json) -> Reply:
    text = json.dumps(obj, ensure_ascii=False, separators=(",", ":"))
    return Reply(code, text.encode("utf-8", "replace") + b"\n")


def refused(refusal: StatusError) -> Reply:
    reply = json_reply(refusal.code, refusal.body())
    if refusal.retry_after is not None:
        reply.headers.append(("retry-after", str(refusal.retry_after)))
    return reply
