"""Which cluster: a value that says how to reach one, and connects when a Sandbox opens."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .kube.client import KubeClient, Transport

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
    """Where code runs. Made by the class methods; reads no file and opens no connection until it is used."""

    kind: Literal["auto", "kubeconfig", "in-cluster", "local", "transport"] = "auto"
    path: str | None = None
    context: str | None = None
    isolation: Isolation = "auto"
    carrier: Transport | None = field(default=None, repr=False, compare=False)

    @classmethod
    def auto(cls) -> Cluster:
        """In a pod: its own cluster. Elsewhere: the one that kubectl would use."""
        return cls("auto")

    @classmethod
    def kubeconfig(cls, path: str | None = None, context: str | None = None) -> Cluster:
        """A cluster from a kubeconfig: `path`, else ``KUBECONFIG``, else ``~/.kube/config``.

        `context` names one of its contexts; without it the current one is used.
        """
        return cls("kubeconfig", path=path, context=context)

    @classmethod
    def in_cluster(cls) -> Cluster:
        """The cluster in whose pod this program runs, as the pod's service account."""
        return cls("in-cluster")

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

    def connect(self, namespace: str | None = None) -> Connection:
        """Find the cluster and return a connection to it, not yet opened.

        `namespace` is the one that will be used, if that is known; the embedded cluster then has it.
        Raises `ConfigError`.
        """
        if self.kind == "transport":
            return _embedded(self.carrier, lambda: None)
        if self.kind == "local":
            return self._connect_local(namespace)
        return self._connect_http()

    def _connect_http(self) -> Connection:
        from .errors import ConfigError
        from .kube.at_exit import delete_now
        from .kube.client import KubeClient
        from .kube.config import in_cluster, load_kubeconfig
        from .kube.resources import JOBS

        config = None
        if self.kind in ("auto", "in-cluster"):
            config = in_cluster(os.environ)
        if config is None and self.kind == "in-cluster":
            raise ConfigError(
                "this program does not run in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are "
                "not set, or there is no service account token",
                hint="outside a cluster use Cluster.kubeconfig() or Cluster.local()",
            )
        if config is None:
            config = load_kubeconfig(self.path, self.context, environ=os.environ)
        found = config

        def delete(namespace: str, jobs: Sequence[str]) -> None:
            delete_now(found, JOBS, namespace, jobs)

        return Connection(KubeClient(found), found.namespace, delete)

    def _connect_local(self, namespace: str | None) -> Connection:
        from .local import LocalTransport, choose_runtime

        runtime = choose_runtime(self.isolation)
        transport = LocalTransport(runtime, namespaces={"default", namespace or "default"})
        # At exit its cluster dies with the process: what must not be left are the processes of its pods.
        return _embedded(transport, runtime.kill_all)


def _embedded(transport: Transport | None, kill_all: Callable[[], None]) -> Connection:
    from .kube.client import KubeClient
    from .kube.config import ClusterConfig

    config = ClusterConfig(server="https://embedded.invalid", source="an embedded cluster")
    return Connection(KubeClient(config, transport=transport), None, lambda *_: kill_all())
