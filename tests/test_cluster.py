"""Cluster: which configuration each factory reads. The contents are tested in `tests/kube/`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gke_sandbox import AsyncSandbox, Cluster, Sandbox
from gke_sandbox.errors import ConfigError, SpecError
from gke_sandbox.kube.config.types import ClusterConfig, ConnectionOverrides


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with two kubeconfigs, one and two. KUBECONFIG is the first."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"""
            current-context: {name}
            clusters: [{{name: k, cluster: {{server: "https://{name}"}}}}]
            contexts:
            - {{name: {name}, context: {{cluster: k}}}}
            - {{name: {name}-spare, context: {{cluster: k, namespace: spare}}}}
        """)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "one"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return tmp_path


def found(cluster: Cluster) -> ClusterConfig:
    return cluster._connect().client.config


@pytest.mark.parametrize("make", [Cluster.auto, Cluster.kubeconfig])
def test_a_path_and_a_context_select_the_kubeconfig(files: Path, make: Callable[..., Cluster]) -> None:
    assert found(make()).server == "https://one"
    assert found(make(context="one-spare")).namespace == "spare"
    assert found(make(str(files / "two"))).server == "https://two"
    assert found(make(files / "two", "two-spare")).namespace == "spare"


@pytest.mark.parametrize("make", [Cluster.auto, Cluster.kubeconfig])
def test_overrides_replace_the_configuration(files: Path, make: Callable[..., Cluster]) -> None:
    given = ConnectionOverrides(server="https://other", token="t0ken-s3cret", user="me", namespace="mine")
    cluster = make(overrides=given)
    config = found(cluster)
    assert (config.server, config.namespace, config.credentials) == ("https://other", "mine", "token")
    assert config.impersonation is not None
    assert config.impersonation.user == "me"
    assert cluster._connect().namespace == "mine"
    assert not any("s3cret" in repr(value) for value in (cluster, config, config.auth, given))


def test_without_a_configured_cluster_an_error_names_the_places_that_were_searched(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG")
    with pytest.raises(ConfigError, match=r"no cluster was found: this is not a pod .*kube/config does not exist"):
        found(Cluster.auto())
    with pytest.raises(ConfigError, match=r"no kubeconfig: .*kube/config does not exist"):
        found(Cluster.kubeconfig())
    with pytest.raises(ConfigError, match="does not run in a pod"):
        found(Cluster.in_cluster())


def test_without_a_configured_cluster_the_hint_names_the_embedded_cluster(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(files / "none"))
    for cluster in (Cluster.auto(), Cluster.kubeconfig()):
        with pytest.raises(ConfigError) as raised:
            found(cluster)
        assert raised.value.hint.endswith("Cluster.local() needs no cluster.")
    for chosen in (
        Cluster.kubeconfig(files / "none"),
        Cluster.auto(context="none"),
        Cluster.auto(overrides=ConnectionOverrides(user="me")),
    ):
        with pytest.raises(ConfigError) as raised:
            found(chosen)
        assert "Cluster.local()" not in raised.value.hint


def test_a_relative_path_in_a_directory_that_was_deleted_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.chdir(directory)
    with pytest.raises(ConfigError, match="cannot read one: the current directory does not exist"):
        found(Cluster.kubeconfig("one"))


def test_no_file_is_read_before_the_cluster_is_used(files: Path) -> None:
    cluster = Cluster.kubeconfig(str(files / "three"))
    with pytest.raises(ConfigError, match="cannot read"):
        found(cluster)


@pytest.mark.parametrize("wrong", ["local", "/home/me/.kube/config", "", Path("config"), Cluster.local, Cluster()])
@pytest.mark.parametrize("make", [Sandbox, AsyncSandbox, lambda cluster: Cluster.record("run.yaml", cluster)])
def test_a_value_that_is_not_a_cluster_is_refused_at_once(make: Callable[..., object], wrong: object) -> None:
    with pytest.raises(SpecError, match="cluster: must be made by a class method of Cluster, got") as raised:
        make(wrong)
    assert "Cluster.local()" in raised.value.hint
    assert "Cluster.kubeconfig(path)" in raised.value.hint


def test_wrong_arguments_of_a_cluster_are_refused_at_once() -> None:
    for make in (Cluster.auto, Cluster.kubeconfig):
        with pytest.raises(SpecError, match=r"path: must be the path of a kubeconfig file, got 3 \(int\)"):
            make(3)  # type: ignore[arg-type]
        with pytest.raises(SpecError, match=r"path: must be the path of a kubeconfig file, got 'a.x00b'"):
            make("a\0b")
        for wrong in (0, False, b"", []):
            with pytest.raises(SpecError, match="path: must be the path of a kubeconfig file, got "):
                make(wrong)  # type: ignore[arg-type]
    for make in (Cluster.auto, Cluster.kubeconfig, Cluster.in_cluster):
        with pytest.raises(SpecError, match="overrides: must be ConnectionOverrides, got dict"):
            make(overrides={"server": "https://other"})  # type: ignore[arg-type]
    for given, message in (
        ({"server": 1}, r"overrides.server: must be text \(str\), got 1"),
        ({"token": b"t0ken"}, r"overrides.token: must be text \(str\), got bytes$"),
        ({"user": "me", "groups": "abc"}, "overrides.groups: must be a list, got str"),
        ({"user": "me", "groups": [1]}, r"overrides.groups\[0\]: must be text"),
    ):
        with pytest.raises(SpecError, match=message):
            Cluster.auto(overrides=ConnectionOverrides(**given))  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"location: must be text \(str\), got 3 \(int\)"):
        Cluster.gke("my-project", 3, "name")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"transport: must be an httpx.AsyncBaseTransport, got str"):
        Cluster.transport("local")  # type: ignore[arg-type]
