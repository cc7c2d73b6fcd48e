"""Responses of the API server as values and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gke_sandbox.errors import (
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
from gke_sandbox.kube.resources import CONFIG_MAPS, JOBS, NAMESPACES, PODS, VERSION
from gke_sandbox.kube.status import RequestInfo, error_from_response, json_response, status_error, warning_texts

from .recordings import recorded, recorded_errors

CREATE = RequestInfo("create", "POST", JOBS, "agent-sandbox", "x")
GET = RequestInfo("get", "GET", PODS, "agent-sandbox", "x")
LOG = RequestInfo("get", "GET", PODS, "agent-sandbox", "x", "log")
WATCH = RequestInfo("watch", "GET", PODS, "agent-sandbox")


def status(code: int, reason: str, message: str = "failed", **more: object) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": message, **more}  # fmt: skip


@pytest.mark.parametrize(
    ("scenario", "number", "kind", "code", "reason"),
    [
        ("forbidden", 0, Forbidden, 403, "Forbidden"),
        ("unauthorized", 0, Unauthorized, 401, "Unauthorized"),
        ("namespace-missing", 0, Forbidden, 403, "Forbidden"),
        ("already-exists", 0, AlreadyExists, 409, "AlreadyExists"),
        ("already-exists", 2, NotFound, 404, "NotFound"),
        ("invalid-job", 0, BadRequest, 400, "BadRequest"),
        ("invalid-job", 1, Invalid, 422, "Invalid"),
        ("configmap-too-large", 0, Invalid, 422, "Invalid"),
        ("configmap-too-large", 1, RequestEntityTooLarge, 413, "RequestEntityTooLarge"),
        ("log-errors", 0, BadRequest, 400, "BadRequest"),
        ("log-errors", 2, NotFound, 404, "NotFound"),
        ("watch-expired", 0, ServerError, 504, "Timeout"),
    ],
)
def test_a_recorded_error_response_has_its_own_class(
    scenario: str, number: int, kind: type[ApiError], code: int, reason: str
) -> None:
    exchange = recorded_errors(scenario)[number]
    error = error_from_response(CREATE, exchange.status, exchange.headers, exchange.body)
    assert (type(error), error.code, error.reason) == (kind, code, reason)
    assert json.loads(exchange.body)["message"][:1000] in error.message
    assert error.request == "POST /apis/batch/v1/namespaces/agent-sandbox/jobs"
    assert error.request in error.message
    assert "\n" not in error.message


def test_causes_contain_the_field() -> None:
    error = error_from_response(CREATE, 422, {}, recorded_errors("invalid-job")[1].body)
    assert error.causes == (
        StatusCause(
            reason="FieldValueInvalid",
            message='Invalid value: "64Mi": must be less than or equal to memory limit of 1Mi',
            field="spec.template.spec.containers[0].resources.requests",
        ),
    )
    assert error.details["group"] == "batch"
    assert error.hint == "The server rejected these fields: spec.template.spec.containers[0].resources.requests."


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (410, "Expired", Expired),
        (410, "Gone", Expired),
        (429, "TooManyRequests", TooManyRequests),
        (500, "InternalError", ServerError),
        (500, "ServerTimeout", ServerError),
        (500, "StorageReadError", ServerError),
        (503, "ServiceUnavailable", ServerError),
        (504, "Timeout", ServerError),
        # The reason takes precedence; the code counts if the reason is unknown.
        (500, "NotFound", NotFound),
        (404, "SomethingNew", NotFound),
        (409, "", AlreadyExists),
        (507, "SomethingNew", ServerError),
        (405, "MethodNotAllowed", ApiError),
        (418, "", ApiError),
    ],
)
def test_the_class_depends_on_the_reason_then_on_the_code(code: int, reason: str, kind: type[ApiError]) -> None:
    assert type(status_error(CREATE, status(code, reason))) is kind


def test_a_409_without_a_reason_is_a_conflict_unless_the_request_was_a_post() -> None:
    assert type(status_error(GET, status(409, ""))) is Conflict


@pytest.mark.parametrize(
    ("details", "headers", "expected"),
    [
        ({"retryAfterSeconds": 7}, {}, 7.0),
        ({}, {"retry-after": "3"}, 3.0),
        ({"retryAfterSeconds": 7}, {"retry-after": "3"}, 7.0),
        ({"retryAfterSeconds": 0}, {"retry-after": "3"}, 3.0),
        ({"retryAfterSeconds": "soon"}, {}, None),
        ({"retryAfterSeconds": True}, {}, None),
        ({}, {"retry-after": "Sun, 22 Nov 2026 21:00:00 GMT"}, None),
        ({}, {"retry-after": "-1"}, None),
        ({}, {"retry-after": "1" * 5000}, None),
        ({}, {"retry-after": "²"}, None),
    ],
)
def test_retry_after(details: dict[str, object], headers: dict[str, str], expected: float | None) -> None:
    body = json.dumps(status(429, "TooManyRequests", details=details)).encode()
    assert error_from_response(CREATE, 429, headers, body).retry_after == expected


def test_retry_after_counts_without_a_status_object() -> None:
    error = error_from_response(CREATE, 503, {"retry-after": "2"}, b"upstream is down")
    assert (type(error), error.retry_after) == (ServerError, 2.0)
    assert "upstream is down" in error.message


@pytest.mark.parametrize(
    ("code", "kind"),
    [(400, BadRequest), (401, Unauthorized), (403, Forbidden), (404, NotFound), (409, AlreadyExists),
     (410, Expired), (413, RequestEntityTooLarge), (422, Invalid), (429, TooManyRequests), (500, ServerError),
     (502, ServerError), (418, ApiError)],
)  # fmt: skip
def test_without_a_status_object_the_class_depends_on_the_code(code: int, kind: type[ApiError]) -> None:
    error = error_from_response(CREATE, code, {}, b"<html>\r\n<b>no</b>\x1b[31m</html>")
    assert type(error) is kind
    assert "'<html> <b>no</b> [31m</html>'" in error.message


def test_an_unknown_body_is_quoted_up_to_2048_bytes() -> None:
    error = error_from_response(CREATE, 502, {}, b"x" * 100_000)
    assert 2048 <= len(error.message) < 2300


def test_a_redirect_is_a_server_error_with_its_location() -> None:
    error = error_from_response(GET, 302, {"location": "https://login.example/"}, b"")
    assert type(error) is ServerError
    assert "https://login.example/" in error.message


@pytest.mark.parametrize(
    "body",
    [
        {"message": 5, "reason": ["x"], "code": "no", "details": "no"},
        {"details": {"causes": "no"}},
        {"details": {"causes": [1, {"field": 2}]}},
        {},
    ],
)
def test_a_malformed_status_is_still_an_error(body: dict[str, Any]) -> None:
    error = error_from_response(GET, 404, {}, json.dumps({"kind": "Status", **body}).encode())
    assert type(error) is NotFound
    assert error.code == 404


@pytest.mark.parametrize("body", [b"", b'{"kind": "Po', b"[]", b"hello", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_2xx_response_without_a_json_object_is_a_server_error(body: bytes) -> None:
    with pytest.raises(ServerError) as caught:
        json_response(CREATE, 201, body)
    assert caught.value.code == 201
    assert "POST /apis/batch/v1/namespaces/agent-sandbox/jobs" in caught.value.message


def test_a_2xx_response_is_its_object() -> None:
    assert json_response(GET, 200, b'{"kind": "Pod"}') == {"kind": "Pod"}


@pytest.mark.parametrize(
    ("number", "info", "rule"),
    [
        (0, RequestInfo("create", "POST", JOBS, "agent-sandbox", "x"),
         'apiGroups: ["batch"], resources: ["jobs"], verbs: ["create"]'),
        (1, RequestInfo("create", "POST", CONFIG_MAPS, "agent-sandbox", "x"),
         'apiGroups: [""], resources: ["configmaps"], verbs: ["create"]'),
        (2, WATCH, 'apiGroups: [""], resources: ["pods"], verbs: ["watch"]'),
        (3, LOG, 'apiGroups: [""], resources: ["pods/log"], verbs: ["get"]'),
        (4, RequestInfo("delete", "DELETE", JOBS, "agent-sandbox", "x"),
         'apiGroups: ["batch"], resources: ["jobs"], verbs: ["delete"]'),
    ],
)  # fmt: skip
def test_the_hint_of_a_forbidden_request_is_the_missing_rule(number: int, info: RequestInfo, rule: str) -> None:
    exchange = recorded_errors("forbidden")[number]
    assert (info.method, info.path) == (
        exchange.method,
        exchange.path.replace("gke-sandbox-forbidden", "x"),
    )
    hint = error_from_response(info, 403, {}, exchange.body).hint
    assert rule in hint
    assert '"agent-sandbox"' in hint


def test_the_rule_for_a_path_that_is_not_a_resource_names_the_path() -> None:
    text = 'forbidden: User "system:anonymous" cannot get path "/version"'
    body = json.dumps({"kind": "Status", "reason": "Forbidden", "message": text}).encode()
    error = error_from_response(RequestInfo("get", "GET", VERSION), 403, {}, body)
    assert error.message.startswith("GET /version: ")
    assert 'nonResourceURLs: ["/version"], verbs: ["get"]' in error.hint


def test_a_rejection_by_admission_has_no_hint_about_roles() -> None:
    text = 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'
    assert status_error(CREATE, status(403, "Forbidden", text)).hint == ""


def test_a_cluster_wide_request_requires_a_cluster_role() -> None:
    text = 'User "x" cannot get resource "namespaces"'
    error = status_error(RequestInfo("get", "GET", NAMESPACES, None, "x"), status(403, "Forbidden", text))
    assert "ClusterRole" in error.hint


def test_the_hint_for_a_missing_namespace_is_the_command_that_creates_it() -> None:
    body = status(404, "NotFound", 'namespaces "nope" not found', details={"name": "nope", "kind": "namespaces"})
    assert "kubectl create namespace nope" in status_error(CREATE, body).hint


def test_a_401_has_a_hint_about_credentials() -> None:
    assert "credentials" in status_error(GET, status(401, "Unauthorized")).hint


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], []),
        (['299 - "plain"'], ["plain"]),
        (['299 - "one", 299 - "two"', '299 - "three"'], ["one", "two", "three"]),
        (['299 - "a, b", 299 apiserver "c"'], ["a, b", "c"]),
        (['299 - "say \\"hi\\" and \\\\", 299 - "x"'], ['say "hi" and \\', "x"]),
        (['299 - "dated" "Sun, 22 Nov 2026 21:00:00 GMT", 299 - "x"'], ["dated", "x"]),
        (['110 - "stale", 299 - "x"'], ["x"]),
        (['299 - ""'], [""]),
        (["nonsense"], []),
        (['299 - "never closed'], []),
        (['299 - "good", nonsense, 299 - "bad"'], ["good"]),
        (['299 - "red \x1b[31m"'], ["red [31m"]),
    ],
)
def test_warnings_follow_the_grammar_of_the_rfc(fields: list[str], expected: list[str]) -> None:
    assert warning_texts(fields) == expected


def test_recorded_warnings_are_parsed() -> None:
    field = next(e for e in recorded("pod-security-violation") if "warning" in e.headers).headers["warning"]
    assert warning_texts([field]) == [
        'would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "code-runner"'
        " must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container"
        ' "code-runner" must set securityContext.capabilities.drop=["ALL"])'
    ]
    field = next(e for e in recorded("already-exists") if "warning" in e.headers).headers["warning"]
    assert warning_texts([field]) == [
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove"
        " them or set propagationPolicy=Orphan to suppress this warning"
    ]


def test_invalid_utf_8_in_an_error_response_is_replaced() -> None:
    body = json.dumps(status(404, "NotFound", "no pod ?")).encode().replace(b"?", b"\xe9")
    error = error_from_response(GET, 404, {}, body)
    assert isinstance(error, NotFound)
    assert "no pod \ufffd (404 NotFound)" in error.message
