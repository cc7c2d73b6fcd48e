"""The errors of the API server: ``Status`` bodies, and errors of single fields.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..objects import Json
from .resources import ResourceType


class StatusError(Exception):
    """A request failed; the attributes are those of the response."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Json | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def body(self) -> Json:
        """Return the Status."""
        return failure(self.code, self.reason, self.message, self.details)


def failure(code: int, reason: str, message: str, details: Json | None = None) -> Json:
    """Return a Status for a failure."""
    status: Json = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
    }
    if reason:
        status["reason"] = reason
    if details is not None:
        status["details"] = details
    status["code"] = code
    return status


def success(resource: ResourceType, name: str, uid: str) -> Json:
    """Return the Status of a DELETE that removed the object."""
    details = {**_details(resource, name), "uid": uid}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def not_found(resource: ResourceType, name: str) -> StatusError:
    message = f'{resource.qualified} "{name}" not found'
    return StatusError(404, "NotFound", message, details=_details(resource, name))


def kubelet_away(url: str, address: str) -> StatusError:
    """Return the error of a request that the API server forwards to an unreachable kubelet."""
    return StatusError(500, "", f'Get "{url}": dial tcp {address}: connect: connection refused')


def kubelet_starting(resource: ResourceType, name: str, subresource: str) -> StatusError:
    """Return the error of a request to a kubelet that has just started and does not serve the path yet."""
    kind = f"{resource.plural}/{subresource}"
    message = f"the server could not find the requested resource ( {kind} {name})"
    return StatusError(404, "NotFound", message, details={"name": name, "kind": kind})


def no_such_path() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource", details={})


def method_not_allowed() -> StatusError:
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, details={})


def already_exists(resource: ResourceType, name: str) -> StatusError:
    message = f'{resource.qualified} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, details=_details(resource, name))


def conflict(resource: ResourceType, name: str, why: str) -> StatusError:
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return StatusError(409, "Conflict", message, details=_details(resource, name))


def forbidden(resource: ResourceType, name: str, why: str) -> StatusError:
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    return StatusError(403, "Forbidden", f"{subject} is forbidden: {why}", details=_details(resource, name))


def expired(message: str) -> StatusError:
    return StatusError(410, "Expired", message)


def too_large(limit: int) -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def _details(resource: ResourceType, name: str) -> Json:
    details: Json = {}
    if name:
        details["name"] = name
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.plural
    return details


@dataclass(frozen=True)
class FieldError:
    """An error of one field. `detail` is the text after the path of the field."""

    field: str
    reason: str
    detail: str


def invalid_value(field: str, value: object, why: str) -> FieldError:
    return FieldError(field, "FieldValueInvalid", f"Invalid value: {_quoted(value)}: {why}")


def required(field: str) -> FieldError:
    return FieldError(field, "FieldValueRequired", "Required value")


def not_supported(field: str, value: object, supported: Sequence[str]) -> FieldError:
    listed = ", ".join(f'"{one}"' for one in supported)
    detail = f"Unsupported value: {_quoted(value)}: supported values: {listed}"
    return FieldError(field, "FieldValueNotSupported", detail)


def too_long(field: str, limit: int) -> FieldError:
    return FieldError(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def value_not_found(field: str, value: str) -> FieldError:
    return FieldError(field, "FieldValueNotFound", f"Not found: {_quoted(value)}")


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def invalid(kind: str, group: str, name: str, errors: Iterable[FieldError]) -> StatusError:
    """Return 422 with all errors; there must be at least one."""
    listed = list(dict.fromkeys(errors))
    texts = [f"{error.field}: {error.detail}" for error in listed]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    subject = f"{kind}.{group}" if group else kind
    details: Json = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = kind
    details["causes"] = [
        {"reason": error.reason, "message": error.detail, "field": error.field} for error in listed
    ]
    return StatusError(422, "Invalid", f'{subject} "{name}" is invalid: {text}', details=details)
