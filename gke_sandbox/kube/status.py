"""Responses of the API server: turn status, headers and body into a value or an error. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from ..errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    RequestEntityTooLarge,
    ServerError,
    StatusCause,
    TooManyRequests,
    Unauthorized,
)
from .resources import Resource

__all__ = [
    "RequestInfo",
    "bad_response",
    "error_from_response",
    "is_rbac_denial",
    "json_response",
    "parse_date",
    "parse_object",
    "plain",
    "rule_hint",
    "status_error",
    "warning_texts",
]

MAX_QUOTED_BYTES = 2048
"""How much of a server's text is quoted, as in client-go: enough to recognize the page of a proxy."""


@dataclass(frozen=True)
class RequestInfo:
    """The parts of a request in messages and hints. `verb` is an RBAC verb, such as get or create."""

    verb: str
    method: str
    resource: Resource
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None

    @property
    def path(self) -> str:
        """The path of the request, without the prefix of the server's address.

        Raise `SpecError` for a namespace or name that is not valid in a path.
        """
        # A create goes to the collection: the new object's name is in its body.
        name = None if self.verb == "create" else self.name
        return self.resource.path(self.namespace, name, self.subresource)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


# https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go, StatusReason
_NAMED_AFTER_REASON = (
    *(AlreadyExists, BadRequest, Conflict, Expired, Forbidden),
    *(Invalid, NotFound, RequestEntityTooLarge, TooManyRequests, Unauthorized),
)
_BY_REASON: dict[str, type[ApiError]] = {
    **{kind.__name__: kind for kind in _NAMED_AFTER_REASON},
    **dict.fromkeys(
        ("InternalError", "ServerTimeout", "ServiceUnavailable", "StorageReadError", "Timeout"), ServerError
    ),
    "Gone": Expired,
}

# The reason for a response without one; for 409 it depends on the method.
_REASON_OF_CODE = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    410: "Gone",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def parse_object(content: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `content`, or None if it is anything else.

    Like Go, replace invalid UTF-8 with U+FFFD: one bad byte in one object must not make a whole list unreadable.
    """
    try:
        value = json.loads(content.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def json_response(info: RequestInfo, status: int, body: bytes) -> dict[str, Any]:
    """Return the object in a 2xx response.

    Raise `ServerError` for a body that is not a JSON object (truncated, the page of a proxy, empty): the server
    may have processed the request.
    """
    value = parse_object(body)
    if value is None:
        raise bad_response(
            info,
            status,
            f"it is not a JSON object but {_quoted(body)}",
            hint="Is this the address of a Kubernetes API server? A proxy may also have truncated the response.",
        )
    return value


def error_from_response(info: RequestInfo, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Return the error of a response that is not 2xx, whether or not its body is a Status."""
    value = parse_object(body)
    after = _seconds(headers.get("retry-after"))
    if value is not None and value.get("kind") == "Status":
        return status_error(info, value, code=status, retry_after=after)
    if 300 <= status < 400:
        target = plain(headers.get("location", "nowhere"), 200)
        hint = "This is not the address of a Kubernetes API server, or a proxy requires a login."
        return bad_response(info, status, f"it is a redirect to {target}", hint=hint)
    return _error(
        info,
        code=status,
        reason=_reason(info, status),
        text=f"the response is not a Kubernetes Status but {_quoted(body)}",
        retry_after=after,
    )


def bad_response(info: RequestInfo, status: int, why: str, *, hint: str = "") -> ServerError:
    """Return the error for a response that cannot be read."""
    message = f"{info}: cannot read the response ({status}): {why}"
    return ServerError(message, code=status, reason="", request=str(info), hint=hint)


def parse_date(text: str) -> datetime | None:
    """Return the time in a ``Date`` header, or None if it is not valid."""
    try:
        date = parsedate_to_datetime(text)
        # The result has no time zone for "-0000".
        return date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date.astimezone(timezone.utc)
    except (TypeError, ValueError, OverflowError):
        return None


def status_error(
    info: RequestInfo, status: Mapping[str, Any], *, code: int = 0, retry_after: float | None = None
) -> ApiError:
    """Return the error of a Status object: the body of a response, or the object of an ERROR event.

    `code` is the HTTP status, used if the object has none. `retry_after`, in seconds, is the value of the header,
    used if ``details.retryAfterSeconds`` is missing. The class depends on the reason, or on the code if the reason
    is missing or unknown.
    """
    # https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
    own_code = status.get("code")
    if isinstance(own_code, int) and not isinstance(own_code, bool) and 100 <= own_code < 600:
        code = own_code
    details = status.get("details")
    details = details if isinstance(details, dict) else {}
    causes = details.get("causes")
    message = _text(status, "message")
    wait = details.get("retryAfterSeconds")
    if isinstance(wait, int) and not isinstance(wait, bool) and wait > 0:
        retry_after = float(wait)
    return _error(
        info,
        code=code or 500,
        reason=_text(status, "reason") or _reason(info, code or 500),
        text=message or "the server sent no message",
        server_message=message,
        retry_after=retry_after,
        details=details,
        causes=tuple(
            StatusCause(
                reason=_text(cause, "reason"), message=_text(cause, "message"), field=_text(cause, "field")
            )
            for cause in (causes if isinstance(causes, list) else ())
            if isinstance(cause, dict)
        ),
    )


def _error(
    info: RequestInfo,
    *,
    code: int,
    reason: str,
    text: str,
    server_message: str = "",
    retry_after: float | None,
    details: dict[str, object] | None = None,
    causes: tuple[StatusCause, ...] = (),
) -> ApiError:
    kind = _BY_REASON.get(reason) or _BY_REASON.get(_reason(info, code))
    if kind is None:
        kind = ServerError if code >= 500 else ApiError
    message = plain(text, MAX_QUOTED_BYTES)
    return kind(
        f"{info}: {message} ({code} {reason})" if reason else f"{info}: {message} ({code})",
        code=code,
        reason=reason,
        causes=causes,
        details=details,
        retry_after=retry_after,
        request=str(info),
        server_message=plain(server_message, MAX_QUOTED_BYTES),
        hint=_hint(info, kind, message, details or {}, causes),
    )


def _reason(info: RequestInfo, code: int) -> str:
    if code == 409:
        return "AlreadyExists" if info.method == "POST" else "Conflict"
    return _REASON_OF_CODE.get(code, "")


def _hint(
    info: RequestInfo,
    kind: type[ApiError],
    text: str,
    details: Mapping[str, object],
    causes: Iterable[StatusCause],
) -> str:
    if kind is Unauthorized:
        return "The server rejected the credentials: they are missing, wrong or expired. Log in again."
    if info.subresource == "attach" and (hint := _attach_hint(info, kind, text)):
        return hint
    if kind is Forbidden:
        return rule_hint(info, f'"{info.verb}"') if is_rbac_denial(text) else ""
    if kind is NotFound and (details.get("kind") == "namespaces" or text.startswith("namespaces ")):
        name = details.get("name") or info.namespace or info.name
        return f"Create the namespace (kubectl create namespace {name}) or use one that exists."
    if kind is Invalid:
        fields = [cause.field for cause in causes if cause.field and cause.field != "[]"]
        return f"The server rejected these fields: {', '.join(dict.fromkeys(fields))}." if fields else ""
    if kind is Conflict and info.method == "POST":
        # https://github.com/kubernetes/kubernetes/issues/67761
        return "Nothing was created. Try again later, with fewer requests at once."
    return ""


def is_rbac_denial(message: str) -> bool:
    """Return whether the message of a 403 is that of authorization: a Role is missing.

    Admission (Pod Security, quota, a webhook) has the same code and reason, and a Role does not help there.
    """
    # https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/responsewriters/errors.go
    # The message for a missing "create" on pods/attach ends after "is forbidden:".
    return re.search(r'(?:^|\bforbidden: )User ".*" cannot | is forbidden:$', message.rstrip()) is not None


def _attach_hint(info: RequestInfo, kind: type[ApiError], text: str) -> str:
    """Return the hint for a rejected attach, or an empty string if the general one applies."""
    if kind is Forbidden and text.endswith(" is forbidden:"):
        # The server checks create after get.
        return "The verb create is missing. " + rule_hint(info, '"get", "create"')
    if kind is Forbidden and is_rbac_denial(text):
        return rule_hint(info, '"get", "create"')
    if kind is Forbidden and text.endswith(" empty"):
        return "The server rejected the version of the protocol. Attaching requires Kubernetes 1.30 or newer."
    if "Upgrade request required" in text:
        return "The request arrived as a plain GET. Is there a proxy that does not support WebSockets?"
    if kind is ServerError and " not found in pod " in text:
        return "The container does not run: it has not started yet, or it has ended."
    return ""


def rule_hint(info: RequestInfo, verbs: str) -> str:
    """Return the hint for a missing permission. `verbs` are in quotes, separated by commas."""
    what = f"{info.resource.plural}/{info.subresource}" if info.subresource else info.resource.plural
    if not info.resource.version:
        return f'Add this rule to a ClusterRole of this user: nonResourceURLs: ["{info.path}"], verbs: [{verbs}].'
    rule = f'apiGroups: ["{info.resource.group}"], resources: ["{what}"], verbs: [{verbs}]'
    if info.namespace is None:
        return f"Add this rule to a ClusterRole of this user: {rule}."
    # The server checks RBAC first, so the response is the same if the namespace does not exist.
    return f'Add this rule to a Role of this user in the namespace "{info.namespace}" (does it exist?): {rule}.'


def _seconds(header: str | None) -> float | None:
    # Only the integer form is supported, as in client-go; a date depends on the server's clock.
    # https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    text = (header or "").strip()
    return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    return text if isinstance(text, str) else ""


def _quoted(body: bytes) -> str:
    if not body.strip():
        return "empty"
    return f"'{plain(body[:MAX_QUOTED_BYTES].decode('utf-8', 'replace'), MAX_QUOTED_BYTES)}'"


def plain(text: str, limit: int) -> str:
    """Return `text` on one line of at most `limit` characters, without control characters, for terminals."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


# warn-code SP warn-agent SP warn-text [SP warn-date]; a field may contain several, separated by commas.
# https://www.rfc-editor.org/rfc/rfc7234#section-5.5
_WARNING = re.compile(r'[\s,]*([0-9]{3}) ([^\s"]+) "((?:[^"\\]|\\.)*)"(?: "[^"]*")?\s*(?=,|$)')


def warning_texts(fields: Iterable[str]) -> list[str]:
    """Return the texts of the ``Warning`` headers with code 299 (the one that Kubernetes uses), in order.

    Ignore the rest of a header from the first invalid part on.
    """
    # https://kubernetes.io/blog/2020/09/03/warnings/
    texts = []
    for field in fields:
        position = 0
        while found := _WARNING.match(field, position):
            code, _agent, text = found.groups()
            if code == "299":
                texts.append(plain(re.sub(r"\\(.)", r"\1", text), MAX_QUOTED_BYTES))
            position = found.end()
    return texts
