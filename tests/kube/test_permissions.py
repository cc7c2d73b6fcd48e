"""Whether a 403 may pass in a moment."""

from __future__ import annotations

from gke_sandbox.kube.permissions import FORBIDDEN_GRACE, OUTAGE_WINDOW, Permissions
from gke_sandbox.kube.resources import CONFIG_MAPS, JOBS, PODS
from gke_sandbox.kube.status import RequestInfo

CREATE = RequestInfo("create", "POST", JOBS, "a", "x")


def granted(info: RequestInfo) -> Permissions:
    permissions = Permissions()
    permissions.record_grant(info)
    return permissions


def test_a_403_of_an_unknown_permission_does_not_pass() -> None:
    assert Permissions().record_denial(CREATE, 100.0) is False


def test_a_permission_that_was_granted_may_come_back_for_a_few_seconds() -> None:
    permissions = granted(RequestInfo("create", "POST", JOBS, "a", "another name"))
    assert permissions.record_denial(CREATE, 100.0)
    assert permissions.record_denial(CREATE, 100.0 + FORBIDDEN_GRACE - 0.1)
    assert not permissions.record_denial(CREATE, 100.0 + FORBIDDEN_GRACE)
    assert not permissions.record_denial(CREATE, 900.0)
    permissions.record_grant(CREATE)
    assert permissions.record_denial(CREATE, 901.0)


def test_another_verb_resource_subresource_or_namespace_is_another_permission() -> None:
    for other in (
        RequestInfo("delete", "DELETE", JOBS, "a", "x"),
        RequestInfo("create", "POST", CONFIG_MAPS, "a", "x"),
        RequestInfo("create", "POST", JOBS, "b", "x"),
        RequestInfo("create", "POST", JOBS, None, "x"),
    ):
        assert not granted(other).record_denial(CREATE, 100.0)
    log = RequestInfo("get", "GET", PODS, "a", "x", "log")
    assert not granted(RequestInfo("get", "GET", PODS, "a", "x")).record_denial(log, 100.0)


def test_every_permission_may_come_back_after_an_outage_for_a_few_seconds() -> None:
    permissions = Permissions()
    permissions.record_denial(CREATE, 50.0)
    permissions.record_outage(100.0)
    assert permissions.record_denial(CREATE, 101.0)
    assert not permissions.record_denial(CREATE, 100.0 + FORBIDDEN_GRACE)
    assert permissions.record_denial(RequestInfo("list", "GET", PODS, "a"), 100.0 + OUTAGE_WINDOW - 0.1)
    assert not permissions.record_denial(RequestInfo("watch", "GET", PODS, "a"), 100.0 + OUTAGE_WINDOW)
