"""An address that is not that of a Kubernetes API: one clear error, at once, and nothing about Jobs."""

from __future__ import annotations

import logging

import anyio
import httpx
import pytest

from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox.errors import ApiError, Forbidden, NotFound, ServerError
from gke_sandbox.local.faults import Fault, Match, Respond

from ..clock import mock_clock, run_on_mock_clock
from ..pods import out, pods, program

LOGIN = "<!doctype html><html><head><title>Sign in</title></head><body>Sign in to continue</body></html>"


def page(status: int, text: str, kind: str = "text/html", **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={"content-type": kind, **headers}, text=text)


RESPONSES = {
    "a redirect to a login": (lambda: page(302, "", location="https://sso.example/login"), ServerError),
    "a page with 200": (lambda: page(200, LOGIN), ServerError),
    "a page with 201": (lambda: page(201, LOGIN), ServerError),
    "an empty 200": (lambda: page(200, ""), ServerError),
    "other JSON": (lambda: page(200, '{"message": "hello"}', "application/json"), ServerError),
    "a JSON list": (lambda: page(200, "[]", "application/json"), ServerError),
    "a page with 404": (lambda: page(404, "<h1>404 page not found</h1>"), NotFound),
    "a text with 403": (lambda: page(403, "RBAC: access denied", "text/plain"), Forbidden),
    "other JSON with 400": (lambda: page(400, '{"error": "no"}', "application/json"), ApiError),
    "405": (lambda: page(405, "Method Not Allowed", "text/plain"), ApiError),
    "a page with 500": (lambda: page(500, "<h1>Internal Server Error</h1>"), ServerError),
    "502 of a load balancer": (lambda: page(502, "<h1>502 Bad Gateway</h1>"), ServerError),
    "503 of a proxy": (lambda: page(503, "no healthy upstream", "text/plain"), ServerError),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_another_server_is_one_clear_error_at_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    response, kind = RESPONSES[name]
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return response()

    async def run() -> None:
        async with AsyncSandbox(Cluster.transport(httpx.MockTransport(respond)), startup_timeout=300) as sandbox:
            began = anyio.current_time()
            with pytest.raises(kind) as caught:
                await sandbox.run("pass")
            # A load balancer in front of an API server sends 5xx, too: those are retried a few times.
            assert anyio.current_time() - began < (2 if response().status_code >= 500 else 0.1)
        assert anyio.current_time() - began < 2
        assert sandbox.leftovers == []
        error = caught.value
        assert error.may_have_run is False
        assert error.hint.startswith(
            "Is https://embedded.invalid (an embedded cluster) the address of a Kubernetes"
        )
        assert "login" in error.hint

    run_on_mock_clock(run)
    assert "DELETE" not in {request.method for request in requests}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@mock_clock
async def test_a_load_balancer_whose_server_comes_back_is_no_error() -> None:
    async with pods(program(out("x")), Fault(Respond.bad_gateway(), times=2)) as cluster:
        assert (await cluster.sandbox.run("pass")).stdout == "x"
        await anyio.sleep(20)
        assert cluster.left() == []


@mock_clock
async def test_a_job_that_a_gateway_created_and_did_not_confirm_runs_once() -> None:
    lost = Respond(504, "", "", text="<h1>504 Gateway Time-out</h1>", carried_out=True)
    faults = Fault(Respond.bad_gateway(), Match("list", "pods"), times=1), Fault(lost, Match("create", "jobs"))
    async with pods(program(out("x")), *faults) as cluster:
        assert (await cluster.sandbox.run("pass")).stdout == "x"
        await anyio.sleep(20)
        assert cluster.left() == []
        assert len(cluster.runtime.specs) == 1


@mock_clock
async def test_a_page_between_responses_of_the_api_is_retried() -> None:
    page = Respond(200, "", "", text=LOGIN)
    async with pods(program(out("x"))) as cluster:
        await cluster.sandbox.run("pass")
        cluster.transport.faults.add(Fault(page, Match("create", "jobs")))
        assert (await cluster.sandbox.run("pass")).stdout == "x"
        await anyio.sleep(20)
        assert cluster.left() == []
