"""Cluster: how to reach the cluster where programs run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from ._checks import check_sequence, check_text, describe, shorten
from .errors import ConfigError, SpecError
from .kube.config.types import NO_OVERRIDES, ConnectionOverrides

if TYPE_CHECKING:
    from .cassette.handles import RecordHandle, ReplayHandle
    from .kube.client import KubeClient, Transport
    from .kube.config.types import ClusterConfig
    from .kube.gke import Endpoint, GkeName

__all__ = ["Cluster", "ConnectionOverrides", "Isolation"]

LOCAL_HINT = "Cluster.local() needs no cluster."
"""Part of the hint if no cluster is configured. The command line names its option instead."""
Isolation = Literal["auto", "gvisor", "process"]


@dataclass(frozen=True)
class _Connection:
    """A client of a cluster, not entered yet."""

    client: KubeClient
    namespace: str | None
    """Namespace of the context or of the pod. None if neither has one."""
    delete_jobs_sync: Callable[[str, Sequence[str]], None]
    """Delete Jobs (namespace, names) without an event loop. Only for interpreter exit."""
    starts_warm: Callable[[str], bool | None] | None = None
    """For replays: whether the program with this digest was started in a warm pod, None if it was not recorded.

    Which pods are ready depends on time, and a replay has other times.
    """


class Cluster:
    """How to reach a cluster. Create one with the class methods, and pass it to a Sandbox.

    A value: no file is read and no connection is opened until a Sandbox opens. `overrides` replace what the
    configuration contains: the server, the token, the namespace, or the user to impersonate.
    """

    _connects_at_once: ClassVar[bool] = False
    """Whether `_connect` reads no file and starts no process, so that it may run on the event loop."""

    @classmethod
    def auto(
        cls,
        path: str | os.PathLike[str] | None = None,
        context: str | None = None,
        *,
        overrides: ConnectionOverrides = NO_OVERRIDES,
    ) -> Cluster:
        """Return the cluster of this pod or, outside a cluster, the one that kubectl would use.

        With `path` or `context` this is the same as `kubeconfig`, in a pod too.
        """
        return _Kubeconfig(_kubeconfig_path(path), context, overrides, pod_first=True)

    @classmethod
    def kubeconfig(
        cls,
        path: str | os.PathLike[str] | None = None,
        context: str | None = None,
        *,
        overrides: ConnectionOverrides = NO_OVERRIDES,
    ) -> Cluster:
        """Return a cluster from a kubeconfig file.

        `path` is by default ``KUBECONFIG``, else ``~/.kube/config``. `context` is by default the current context.
        """
        return _Kubeconfig(_kubeconfig_path(path), context, overrides)

    @classmethod
    def in_cluster(cls, *, overrides: ConnectionOverrides = NO_OVERRIDES) -> Cluster:
        """Return the cluster whose pod runs this program, with the service account of the pod."""
        return _InCluster(overrides)

    @classmethod
    def gke(
        cls,
        project: str,
        location: str,
        name: str,
        *,
        endpoint: Endpoint = "auto",
        overrides: ConnectionOverrides = NO_OVERRIDES,
    ) -> Cluster:
        """Return a GKE cluster by its name, with Application Default Credentials and without a kubeconfig.

        `location` is a region or a zone. `endpoint` is ``ip``, ``private`` (the IP address in the VPC), ``dns`` or
        ``auto``: the endpoint that gcloud would use. Raises `ConfigError` if a name is invalid.
        """
        from .kube.gke import check_gke

        given = {"project": project, "location": location, "name": name}
        for field_name, value in given.items():
            check_text(field_name, value)
        return _Gke(check_gke(project, location, name, endpoint), endpoint, overrides)

    @classmethod
    def local(cls, isolation: Isolation = "auto") -> Cluster:
        """Return the embedded cluster: programs run on this machine, with its Python, without Kubernetes.

        `isolation` is ``gvisor`` (requires runsc), ``process`` (no isolation) or ``auto``: gVisor if runsc is on
        PATH and works, else a process, with a warning on stderr. Each Sandbox has a separate embedded cluster.
        """
        return _Local(isolation)

    @classmethod
    def transport(cls, transport: Transport) -> Cluster:
        """Return a cluster behind an httpx transport, such as a `gke_sandbox.local.LocalTransport`. For tests.

        The Sandbox that opens enters the transport and closes it.
        """
        if not hasattr(transport, "handle_async_request"):
            raise SpecError("transport", f"must be an httpx.AsyncBaseTransport, got {describe(transport)}")
        return _Transport(transport)

    @classmethod
    def replay(
        cls,
        path: str | os.PathLike[str],
        *,
        scenario: str | None = None,
        strict: bool = False,
        timing: bool = False,
    ) -> Cluster:
        """Return a recorded cluster: no network, and no pauses.

        A run that differs from the recorded one raises `ReplayMismatch`: for a request that was not recorded and,
        when the Sandbox closes, for recorded requests that were not made. Requests match on what the caller chose
        (code, files, arguments, image, resources, timeout, namespace, ...), with `strict` on everything that is
        sent. `timing` keeps the recorded pauses. If `scenario` is set, the cassette must be a recording of it. An
        unusable file raises `CassetteError` when a Sandbox opens.
        """
        from .cassette.handles import ReplayHandle

        if scenario is not None:
            check_text("scenario", scenario)
        return _Replay(ReplayHandle(_check_path(path, "cassette"), scenario, strict, timing))

    @classmethod
    def record(
        cls,
        path: str | os.PathLike[str],
        cluster: Cluster | None = None,
        *,
        scenario: str | None = None,
        notes: str = "",
    ) -> Cluster:
        """Return `cluster` (default: `auto`), with all requests and responses recorded for `replay`.

        The file is written atomically when the Sandbox closes. Closing raises `CassetteError` if the file cannot
        be written or if it would contain a secret. Headers with credentials are not recorded. `scenario` is by
        default the name of the file without its suffixes; `notes` are for readers of the file.
        """
        from .cassette.handles import RecordHandle

        recorded = Cluster.auto() if cluster is None else _check_cluster(cluster)
        if scenario is not None:
            check_text("scenario", scenario)
        check_text("notes", notes)
        return _Record(RecordHandle(_check_path(path, "cassette"), scenario, notes), recorded)

    @property
    def _is_local(self) -> bool:
        """Whether programs run with the Python of this process, and not with that of an image."""
        return False

    def _connect(self, namespace: str | None = None) -> _Connection:
        """Find the cluster and return a connection to it. Raises `ConfigError`.

        `namespace` is the one that will be used, if it is known; the embedded cluster creates it.
        """
        raise NotImplementedError


def _check_cluster(value: object) -> Cluster:
    """Return `value` if a class method of `Cluster` made it."""
    if not isinstance(value, Cluster) or type(value) is Cluster:
        raise SpecError(
            "cluster",
            f"must be made by a class method of Cluster, got {describe(value)}",
            hint="Use Cluster.local() to run on this machine, or Cluster.kubeconfig(path) for a kubeconfig file.",
        )
    return value


def _check_path(path: object, what: str) -> str:
    found = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(found, str) or not found or "\0" in found:
        got = shorten(found) if isinstance(found, str) else describe(found)
        raise SpecError("path", f"must be the path of a {what}, got {got}")
    return found


def _kubeconfig_path(path: object) -> str | None:
    return None if path is None or path == "" else _check_path(path, "kubeconfig file")


class _Http(Cluster):
    """A cluster that is reached over the network."""

    overrides: ConnectionOverrides

    def __post_init__(self) -> None:
        given = self.overrides
        if not isinstance(given, ConnectionOverrides):
            raise SpecError("overrides", f"must be ConnectionOverrides, got {describe(given)}")
        for name in ("server", "token", "user", "namespace"):
            if getattr(given, name) is not None:
                check_text(f"overrides.{name}", getattr(given, name))
        for i, group in enumerate(check_sequence("overrides.groups", given.groups)):
            check_text(f"overrides.groups[{i}]", group)

    def _find(self) -> ClusterConfig:
        raise NotImplementedError

    def _connect(self, namespace: str | None = None) -> _Connection:  # noqa: ARG002
        from .kube.client import KubeClient
        from .kube.http.sync_delete import delete_jobs_sync

        config = self._find()
        return _Connection(KubeClient(config), config.namespace, partial(delete_jobs_sync, config))


@dataclass(frozen=True)
class _Kubeconfig(_Http):
    path: str | None
    context: str | None
    overrides: ConnectionOverrides
    pod_first: bool = False
    """Whether the cluster of this pod comes first, if there is one."""

    def _find(self) -> ClusterConfig:
        from .kube.config.loader import find_cluster, load_kubeconfig

        find = find_cluster if self.pod_first else load_kubeconfig
        try:
            return find(self.path, self.context, environ=os.environ, overrides=self.overrides)
        except ConfigError as error:
            if self.path is not None or self.context is not None or self.overrides != NO_OVERRIDES:
                raise  # The caller chose a cluster.
            raise ConfigError(error.message, hint=f"{error.hint} {LOCAL_HINT}".strip()) from error.__cause__


@dataclass(frozen=True)
class _InCluster(_Http):
    overrides: ConnectionOverrides

    def _find(self) -> ClusterConfig:
        from .kube.config.loader import in_cluster

        config = in_cluster(os.environ, overrides=self.overrides)
        if config is None:
            raise ConfigError(
                "this program does not run in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are "
                "not set, or there is no service account token",
                hint="Outside a cluster use Cluster.kubeconfig() or Cluster.local().",
            )
        return config


@dataclass(frozen=True)
class _Gke(_Http):
    name: GkeName
    endpoint: Endpoint
    overrides: ConnectionOverrides

    def _find(self) -> ClusterConfig:
        from .kube.config.loader import apply_overrides
        from .kube.gke import gke_config

        return apply_overrides(gke_config(*self.name, endpoint=self.endpoint), self.overrides)


@dataclass(frozen=True)
class _Local(Cluster):
    isolation: Isolation

    @property
    def _is_local(self) -> bool:
        return True

    def _connect(self, namespace: str | None = None) -> _Connection:
        from .local import LocalTransport, Namespace, choose_runtime
        from .local.runtimes.gvisor import GVisorRuntime

        runtime = choose_runtime(self.isolation)
        isolated = isinstance(runtime, GVisorRuntime)
        names = {"default", namespace or "default"}
        transport = LocalTransport(
            runtime, namespaces=[Namespace(name, network_policy=isolated) for name in names]
        )
        # The cluster ends with this process, but the processes of its pods do not.
        return _embedded(transport, runtime.kill_all)


@dataclass(frozen=True)
class _Transport(Cluster):
    httpx_transport: Transport = field(repr=False, compare=False)
    _connects_at_once = True

    def _connect(self, namespace: str | None = None) -> _Connection:  # noqa: ARG002
        return _embedded(self.httpx_transport)


@dataclass(frozen=True)
class _Replay(Cluster):
    cassette: ReplayHandle

    def _connect(self, namespace: str | None = None) -> _Connection:  # noqa: ARG002
        transport, recorded = self.cassette.open()
        return replace(_embedded(transport), namespace=recorded)


@dataclass(frozen=True)
class _Record(Cluster):
    cassette: RecordHandle
    cluster: Cluster

    @property
    def _is_local(self) -> bool:
        return self.cluster._is_local

    def _connect(self, namespace: str | None = None) -> _Connection:
        inner = self.cluster._connect(namespace)
        base = unquote(urlsplit(inner.client.config.address).path)
        around = partial(self.cassette.wrap, base=base)
        return replace(inner, client=inner.client.with_wrapper(around))


def _embedded(transport: Transport, kill_all: Callable[[], None] = lambda: None) -> _Connection:
    from .kube.client import KubeClient
    from .kube.config.types import ClusterConfig

    config = ClusterConfig(server="https://embedded.invalid", source="an embedded cluster")
    starts_warm = getattr(transport, "starts_warm", None)
    return _Connection(KubeClient(config, transport=transport), None, lambda *_: kill_all(), starts_warm)
