"""The paths of resources."""

from __future__ import annotations

import pytest

from gke_sandbox.errors import SpecError
from gke_sandbox.kube.resources import CONFIG_MAPS, EVENTS, JOBS, NAMESPACES, PODS, RUNTIME_CLASSES


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (JOBS.path("ns"), "/apis/batch/v1/namespaces/ns/jobs"),
        (JOBS.path("ns", "a"), "/apis/batch/v1/namespaces/ns/jobs/a"),
        (PODS.path("ns", "a", "log"), "/api/v1/namespaces/ns/pods/a/log"),
        (PODS.path(None), "/api/v1/pods"),
        (CONFIG_MAPS.path("ns", "a b"), "/api/v1/namespaces/ns/configmaps/a%20b"),
        (EVENTS.path("ns", "ü?#"), "/api/v1/namespaces/ns/events/%C3%BC%3F%23"),
        (NAMESPACES.path(None, "ns"), "/api/v1/namespaces/ns"),
        (RUNTIME_CLASSES.path("ignored", "gvisor"), "/apis/node.k8s.io/v1/runtimeclasses/gvisor"),
    ],
)
def test_the_path_of_a_resource(path: str, expected: str) -> None:
    assert path == expected


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../secrets", "a%2Fb"])
def test_a_name_that_is_not_a_path_segment_is_rejected(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        PODS.path("ns", name)
    assert caught.value.field == "name"
    with pytest.raises(SpecError) as caught:
        PODS.path(name)
    assert caught.value.field == "namespace"


def test_the_path_of_an_object_requires_its_namespace() -> None:
    with pytest.raises(SpecError):
        PODS.path(None, "a")


def test_the_api_version_includes_the_group() -> None:
    assert (PODS.api_version, JOBS.api_version) == ("v1", "batch/v1")
