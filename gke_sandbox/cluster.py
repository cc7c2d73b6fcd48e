"""Which cluster: a value that says how to reach one, and connects when a Sandbox opens."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from .kube.config.types import NO_OVERRIDES, ConnectionOverrides

if TYPE_CHECKING:
    from .cassette.handles import Recording, Replaying
    from .kube.client import KubeClient, Transport
    from .kube.config.types import ClusterConfig
    from .kube.gke import Endpoint, GkeName

Isolation = Literal["auto", "gvisor", "process"]


@dataclass(frozen=True)
class Connection:
    """An open way to a cluster.

    `client` is not entered yet. `namespace` is the context's or the pod's own, if it names one.
    `delete_now(namespace, jobs)` deletes Jobs without an event loop: it serves interpreter exit only.
    """

    client: KubeClient
    namespace: str | None
    delete_now: Callable[[str, Sequence[str]], None]


@dataclass(frozen=True)
class Cluster:
    """Where code runs. Made by the class methods; reads no file and opens no connection until it is used.

    `overrides` come before what is found: another address, token, user to impersonate or namespace.
    """

    kind: Literal["auto", "kubeconfig", "in-cluster", "gke", "local", "transport", "replay", "recording"] = "auto"
    path: str | None = None
    context: str | None = None
    overrides: ConnectionOverrides = NO_OVERRIDES
    isolation: Isolation = "auto"
    gke_name: GkeName | None = None
    endpoint: Endpoint = "auto"
    carrier: Transport | None = field(default=None, repr=False, compare=False)
    cassette: Replaying | Recording | None = None
    recorded: Cluster | None = None

    @classmethod
    def auto(
        cls, path: str | None = None, context: str | None = None, *, overrides: ConnectionOverrides = NO_OVERRIDES
    ) -> Cluster:
        """In a pod: its own cluster. Elsewhere: the one that kubectl would use.

        With a `path` or a `context`, in a pod too, it is `kubeconfig`.
        """
        return cls("auto", path=path, context=context, overrides=overrides)

    @classmethod
    def kubeconfig(
        cls, path: str | None = None, context: str | None = None, *, overrides: ConnectionOverrides = NO_OVERRIDES
    ) -> Cluster:
        """A cluster from a kubeconfig: `path`, else ``KUBECONFIG``, else ``~/.kube/config``.

        `context` names one of its contexts; without it the current one is used.
        """
        return cls("kubeconfig", path=path, context=context, overrides=overrides)

    @classmethod
    def in_cluster(cls, *, overrides: ConnectionOverrides = NO_OVERRIDES) -> Cluster:
        """The cluster in whose pod this program runs, as the pod's service account."""
        return cls("in-cluster", overrides=overrides)

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
        """A GKE cluster by its name, with Application Default Credentials: no kubeconfig, no gcloud.

        `location` is a region or a zone. `endpoint` is ``ip``, ``private`` (the IP address in the VPC), ``dns``
        or ``auto``: what gcloud would use. Raises `ConfigError` for what cannot be such a name.
        """
        from .kube.gke import check_gke

        which = check_gke(project, location, name, endpoint)
        return cls("gke", gke_name=which, endpoint=endpoint, overrides=overrides)

    @classmethod
    def local(cls, isolation: Isolation = "auto") -> Cluster:
        """The embedded cluster: no Kubernetes, the code runs on this machine, with its own Python.

        `isolation` is ``gvisor`` (runsc is a must), ``process`` (nothing isolates the code) or ``auto``:
        gVisor where runsc is on PATH and works, else a process, and then a line on stderr says so. Each
        Sandbox that connects gets an embedded cluster of its own.
        """
        return cls("local", isolation=isolation)

    @classmethod
    def transport(cls, transport: Transport) -> Cluster:
        """Whatever answers behind an httpx transport, such as a `gke_sandbox.local.LocalTransport` of your own.

        For tests. The Sandbox that connects enters the transport and closes it.
        """
        return cls("transport", carrier=transport)

    @classmethod
    def replay(
        cls,
        path: str | os.PathLike[str],
        *,
        scenario: str | None = None,
        strict: bool = False,
        timing: bool = False,
    ) -> Cluster:
        """A recording that stands for the cluster it was made of: no network, and no waiting.

        A run that is not the recorded one raises `ReplayMismatch`: for a request that was not recorded, and, when
        the Sandbox closes, for recorded ones that did not come. Requests match on what the caller chose (code,
        files, arguments, image, resources, timeout, namespace, ...), with `strict` on all that is sent. `timing`
        keeps the recorded pauses. `scenario`: the cassette must be of that one. A file that cannot be used raises
        `CassetteError` when a Sandbox opens.
        """
        from .cassette.handles import Replaying

        return cls("replay", cassette=Replaying(os.fspath(path), scenario, strict, timing))

    @classmethod
    def record(
        cls,
        path: str | os.PathLike[str],
        cluster: Cluster | None = None,
        *,
        scenario: str | None = None,
        notes: str = "",
    ) -> Cluster:
        """`cluster` (by default `auto`), with all that is asked of it and answered recorded for `replay`.

        The file is written, whole or not at all, when the Sandbox closes; that raises `CassetteError` if it cannot
        be, or if there is a secret in it. No headers with credentials are recorded. `scenario` is by default the
        file's name without its endings; `notes` are for the reader.
        """
        from .cassette.handles import Recording

        return cls("recording", cassette=Recording(os.fspath(path), scenario, notes), recorded=cluster or cls())

    @property
    def records(self) -> Recording | None:
        """What `record` writes; None for every other cluster."""
        from .cassette.handles import Recording

        return self.cassette if isinstance(self.cassette, Recording) else None

    def connect(self, namespace: str | None = None) -> Connection:
        """Find the cluster and return a connection to it, not yet opened.

        `namespace` is the one that will be used, if that is known; the embedded cluster then has it.
        Raises `ConfigError`.
        """
        if self.kind == "transport":
            return _embedded(self.carrier, lambda: None)
        if self.kind == "local":
            return self._connect_local(namespace)
        if self.cassette is not None:
            return self._connect_cassette(namespace)
        return self._connect_http()

    def _connect_cassette(self, namespace: str | None) -> Connection:
        from .cassette.handles import Replaying

        if isinstance(self.cassette, Replaying):
            transport, recorded = self.cassette.open()
            return replace(_embedded(transport, lambda: None), namespace=recorded)
        assert self.cassette is not None
        assert self.recorded is not None
        inner = self.recorded.connect(namespace)
        base = unquote(urlsplit(inner.client.config.address).path)
        around = partial(self.cassette.around, base=base)
        return replace(inner, client=inner.client.wrapped(around))

    def _connect_http(self) -> Connection:
        from .kube.client import KubeClient
        from .kube.http.sync_delete import delete_now
        from .kube.resources import JOBS

        found = self._find()

        def delete(namespace: str, jobs: Sequence[str]) -> None:
            delete_now(found, JOBS, namespace, jobs)

        return Connection(KubeClient(found), found.namespace, delete)

    def _find(self) -> ClusterConfig:
        from .errors import ConfigError
        from .kube.config.loader import find_cluster, in_cluster, load_kubeconfig, overridden

        if self.gke_name is not None:
            from .kube.gke import gke_config

            return overridden(gke_config(*self.gke_name, endpoint=self.endpoint), self.overrides)
        if self.kind == "kubeconfig":
            return load_kubeconfig(self.path, self.context, environ=os.environ, overrides=self.overrides)
        if self.kind == "auto":
            return find_cluster(self.path, self.context, environ=os.environ, overrides=self.overrides)
        config = in_cluster(os.environ, overrides=self.overrides)
        if config is None:
            raise ConfigError(
                "this program does not run in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are "
                "not set, or there is no service account token",
                hint="outside a cluster use Cluster.kubeconfig() or Cluster.local()",
            )
        return config

    def _connect_local(self, namespace: str | None) -> Connection:
        from .local import LocalTransport, choose_runtime

        runtime = choose_runtime(self.isolation)
        transport = LocalTransport(runtime, namespaces={"default", namespace or "default"})
        # At exit its cluster dies with the process: what must not be left are the processes of its pods.
        return _embedded(transport, runtime.kill_all)


def _embedded(transport: Transport | None, kill_all: Callable[[], None]) -> Connection:
    from .kube.client import KubeClient
    from .kube.config.types import ClusterConfig

    config = ClusterConfig(server="https://embedded.invalid", source="an embedded cluster")
    return Connection(KubeClient(config, transport=transport), None, lambda *_: kill_all())
