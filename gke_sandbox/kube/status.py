"""What an answer of the API server means: pure functions from (status, headers, body) to a value or an error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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

__all__ = ["RequestInfo", "error_from_response", "json_response", "plain", "status_error", "warning_texts"]

# How much of a server's text is quoted, as client-go does: enough to recognise a proxy's page.
QUOTED_BYTES = 2048


@dataclass(frozen=True)
class RequestInfo:
    """One request, in the words that messages and hints need.

    `verb` is RBAC's: get, list, watch, create, delete.
    """

    verb: str
    method: str
    resource: Resource
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None

    @property
    def path(self) -> str:
        """The request's path, without the prefix of the server's address.

        Raises `SpecError` when namespace or name cannot stand in a path.
        """
        # A create goes to the collection: the new object's name is in its body.
        name = None if self.verb == "create" else self.name
        return self.resource.path(self.namespace, name, self.subresource)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


# https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go, StatusReason
_BY_REASON: dict[str, type[ApiError]] = {
    "BadRequest": BadRequest,
    "Unauthorized": Unauthorized,
    "Forbidden": Forbidden,
    "NotFound": NotFound,
    "AlreadyExists": AlreadyExists,
    "Conflict": Conflict,
    "Expired": Expired,
    "Gone": Expired,
    "Invalid": Invalid,
    "RequestEntityTooLarge": RequestEntityTooLarge,
    "TooManyRequests": TooManyRequests,
    "InternalError": ServerError,
    "ServerTimeout": ServerError,
    "ServiceUnavailable": ServerError,
    "StorageReadError": ServerError,
    "Timeout": ServerError,
}

# The reason that an answer without one stands for; 409 depends on the request.
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


def json_response(call: RequestInfo, status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The object in an answer. Raises the `ApiError` that a refusal stands for.

    Raises `ServerError` for a success whose body is not a JSON object (truncated, a proxy's page, nothing): the
    request may have been carried out.
    """
    if not 200 <= status < 300:
        raise error_from_response(call, status, headers, body)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ServerError(
            f"{call}: the answer, {status}, is not a JSON object but {_quoted(body)}",
            code=status,
            reason="",
            request=str(call),
            hint="Is this the address of a Kubernetes API server, or was the answer cut short on its way?",
        )
    return value


def error_from_response(call: RequestInfo, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error that an answer outside 2xx stands for; its body may be a Status or anything."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    after = _seconds(headers.get("retry-after"))
    if isinstance(value, dict) and value.get("kind") == "Status":
        return status_error(call, value, code=status, retry_after=after)
    if 300 <= status < 400:
        target = plain(headers.get("location", "nowhere"), 200)
        return ServerError(
            f"{call}: the server answered with a redirect ({status}) to {target}",
            code=status,
            reason="",
            request=str(call),
            hint="This is not the address of a Kubernetes API server, or a proxy wants a login.",
        )
    return _error(
        call,
        code=status,
        reason=_reason(call, status),
        text=f"the answer is not Kubernetes' but {_quoted(body)}",
        retry_after=after,
    )


def status_error(
    call: RequestInfo, status: Mapping[str, Any], *, code: int = 0, retry_after: float | None = None
) -> ApiError:
    """The error that a Status object stands for, from a refusal's body or from a watch's ERROR event.

    `code` is the HTTP status, used when the object has none; `retry_after`, in seconds, comes from the
    header and is used when ``details.retryAfterSeconds`` is missing. The class follows from the reason, and
    from the code only where there is no reason that is known.
    """
    # https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
    stated = status.get("code")
    if isinstance(stated, int) and not isinstance(stated, bool) and 100 <= stated < 600:
        code = stated
    details = status.get("details")
    details = details if isinstance(details, dict) else {}
    causes = details.get("causes")
    wait = details.get("retryAfterSeconds")
    if isinstance(wait, int) and not isinstance(wait, bool) and wait > 0:
        retry_after = float(wait)
    return _error(
        call,
        code=code or 500,
        reason=_text(status, "reason") or _reason(call, code or 500),
        text=_text(status, "message") or "the server gave no message",
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
    call: RequestInfo,
    *,
    code: int,
    reason: str,
    text: str,
    retry_after: float | None,
    details: dict[str, object] | None = None,
    causes: tuple[StatusCause, ...] = (),
) -> ApiError:
    kind = _BY_REASON.get(reason) or _BY_REASON.get(_reason(call, code))
    if kind is None:
        kind = ServerError if code >= 500 else ApiError
    said = plain(text, QUOTED_BYTES)
    return kind(
        f"{call}: {said} ({code} {reason})" if reason else f"{call}: {said} ({code})",
        code=code,
        reason=reason,
        causes=causes,
        details=details,
        retry_after=retry_after,
        request=str(call),
        hint=_hint(call, kind, said, details or {}, causes),
    )


def _reason(call: RequestInfo, code: int) -> str:
    if code == 409:
        return "AlreadyExists" if call.method == "POST" else "Conflict"
    return _REASON_OF_CODE.get(code, "")


def _hint(
    call: RequestInfo,
    kind: type[ApiError],
    text: str,
    details: Mapping[str, object],
    causes: Iterable[StatusCause],
) -> str:
    if kind is Unauthorized:
        return "The server does not accept these credentials: they are missing, wrong or expired. Log in again."
    if kind is Forbidden:
        return _forbidden_hint(call, text)
    if kind is NotFound and (details.get("kind") == "namespaces" or text.startswith("namespaces ")):
        name = details.get("name") or call.namespace or call.name
        return f"Create the namespace (kubectl create namespace {name}) or name one that exists."
    if kind is Invalid:
        fields = [cause.field for cause in causes if cause.field and cause.field != "[]"]
        return f"The server refuses: {', '.join(dict.fromkeys(fields))}." if fields else ""
    if kind is Conflict and call.method == "POST":
        # https://github.com/kubernetes/kubernetes/issues/67761
        return "Nothing was created. Try again later, with fewer requests at once."
    return ""


def _forbidden_hint(call: RequestInfo, text: str) -> str:
    # RBAC says: User "x" cannot create resource "jobs" in API group "batch" in the namespace "y". Admission (Pod
    # Security, quota, a RuntimeClass) says something else under the same reason, and no Role helps against it.
    if " cannot " not in text:
        return ""
    what = f"{call.resource.plural}/{call.subresource}" if call.subresource else call.resource.plural
    rule = f'apiGroups: ["{call.resource.group}"], resources: ["{what}"], verbs: ["{call.verb}"]'
    if call.namespace is None:
        return f"Add this rule to a ClusterRole that is bound to this user: {rule}."
    # The server answers the same when the namespace does not exist: it asks RBAC first.
    where = f'a Role in the namespace "{call.namespace}" (does it exist?)'
    return f"Add this rule to {where} that is bound to this user: {rule}."


def _seconds(header: str | None) -> float | None:
    # Only the integer form counts, as in client-go; a date would need the server's clock.
    # https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    text = (header or "").strip()
    return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    return text if isinstance(text, str) else ""


def _quoted(body: bytes) -> str:
    if not body.strip():
        return "empty"
    return f"'{plain(body[:QUOTED_BYTES].decode('utf-8', 'replace'), QUOTED_BYTES)}'"


def plain(text: str, limit: int) -> str:
    """`text` on one line, at most `limit` long, without control characters: it may end on a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


# warn-code SP warn-agent SP warn-text [SP warn-date], several to a field, a comma between.
# https://www.rfc-editor.org/rfc/rfc7234#section-5.5
_WARNING = re.compile(r'[\s,]*([0-9]{3}) ([^\s"]+) "((?:[^"\\]|\\.)*)"(?: "[^"]*")?\s*(?=,|$)')


def warning_texts(fields: Iterable[str]) -> list[str]:
    """The texts of an answer's ``Warning`` fields with the code that Kubernetes uses, 299, in their order.

    What does not follow the grammar is left out, with the rest of its field.
    """
    # https://kubernetes.io/blog/2020/09/03/warnings/
    texts = []
    for field in fields:
        position = 0
        while found := _WARNING.match(field, position):
            code, _agent, text = found.groups()
            if code == "299":
                texts.append(plain(re.sub(r"\\(.)", r"\1", text), QUOTED_BYTES))
            position = found.end()
    return texts
