"""Hints that depend on the client's configuration, and whether a response is from a Kubernetes API."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timezone

import httpx
import pytest

from gke_sandbox.errors import ApiError, Forbidden, NotFound, Unauthorized
from gke_sandbox.kube.auth.static import BearerToken
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.explain import OWN_CLUSTER_HINT, is_kubernetes
from gke_sandbox.kube.resources import JOBS

pytestmark = pytest.mark.anyio

EXPIRY = datetime(2026, 11, 27, 10, 0, tzinfo=timezone.utc)
DENIED = 'jobs.batch is forbidden: User "x" cannot get resource "jobs" in API group "batch" in the namespace "n"'


def token(expires: datetime) -> BearerToken:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": int(expires.timestamp())}).encode()).decode().rstrip("=")
    return BearerToken(f"h.{payload}.s")


def response(code: int, reason: str, message: str, date: str = "", **details: str) -> httpx.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    return httpx.Response(code, json=body, headers={"date": date} if date else {})


async def error_of(config: ClusterConfig, sent: httpx.Response) -> ApiError:
    async with KubeClient(config, transport=httpx.MockTransport(lambda _: sent)) as client:
        with pytest.raises(ApiError) as caught:
            await client.get(JOBS, "n", "x")
    return caught.value


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (
            "Fri, 27 Nov 2026 10:00:01 GMT",
            "The credentials (token) expired at 2026-11-27T10:00:00Z. Log in",
        ),
        ("Fri, 27 Nov 2026 09:59:59 GMT", "The server rejected the credentials"),
    ],
)
async def test_a_401_names_the_expiry_of_the_credentials_by_the_clock_of_the_server(
    date: str, expected: str
) -> None:
    config = ClusterConfig(server="https://c", auth=token(EXPIRY), credentials="token")
    error = await error_of(config, response(401, "Unauthorized", "Unauthorized", date))
    assert isinstance(error, Unauthorized)
    assert error.hint.startswith(expected)


@pytest.mark.parametrize(
    ("code", "reason"), [(429, "TooManyRequests"), (500, "InternalError"), (503, "ServiceUnavailable")]
)
async def test_an_overloaded_server_has_a_hint(code: int, reason: str) -> None:
    error = await error_of(ClusterConfig(server="https://c"), response(code, reason, "no"))
    assert error.hint.endswith("Try again later, with fewer requests at once.")


async def test_a_401_with_credentials_that_do_not_expire_has_the_general_hint() -> None:
    config = ClusterConfig(server="https://c", auth=BearerToken("opaque"))
    error = await error_of(config, response(401, "Unauthorized", "Unauthorized"))
    assert error.hint == "The server rejected the credentials: they are missing, wrong or expired. Log in again."


MISSING = response(404, "NotFound", 'namespaces "n" not found', name="n", kind="namespaces")


@pytest.mark.parametrize(
    ("sent", "kind"), [(response(403, "Forbidden", DENIED), Forbidden), (MISSING, NotFound)], ids=["403", "404"]
)
async def test_a_missing_permission_or_namespace_in_the_pods_own_cluster_names_the_option(
    sent: httpx.Response, kind: type[ApiError]
) -> None:
    for is_own_cluster in (True, False):
        config = ClusterConfig(server="https://c", is_own_cluster=is_own_cluster)
        error = await error_of(config, sent)
        assert isinstance(error, kind)
        assert (OWN_CLUSTER_HINT in error.hint) is is_own_cluster
        assert ("Add this rule" if kind is Forbidden else "Create the namespace") in error.hint
        notes = getattr(error, "__notes__", None)
        assert notes is None or notes == [f"hint: {error.hint}"]


@pytest.mark.parametrize(
    "sent",
    [
        response(404, "NotFound", 'jobs.batch "x" not found', name="x", kind="jobs"),
        response(403, "Forbidden", 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'),
    ],
    ids=["another object", "admission"],
)
async def test_other_errors_in_the_pods_own_cluster_do_not_name_the_option(sent: httpx.Response) -> None:
    error = await error_of(ClusterConfig(server="https://c", is_own_cluster=True), sent)
    assert OWN_CLUSTER_HINT not in error.hint


@pytest.mark.parametrize(
    ("headers", "content", "expected"),
    [
        ({}, b'{"kind": "Status"}', True),
        ({}, b'{"metadata": {}, "items": []}', True),
        ({"audit-id": "b8"}, b"Too many requests, please try again later.\n", True),
        ({}, b"Too many requests, please try again later.\n", False),
        ({}, b'{"message": "hello"}', False),
        ({}, b"[]", False),
        ({}, b"<html>", False),
        ({}, b"", False),
    ],
)
def test_a_response_of_a_kubernetes_api_is_an_object_or_has_its_header(
    headers: dict[str, str], content: bytes, expected: bool
) -> None:
    assert is_kubernetes(headers, content) is expected
