"""Where the cluster is: from a kubeconfig, or from inside a pod, to a `ClusterConfig`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ..auth.impersonation import Impersonation
from ..auth.static import BearerToken, TokenFile, check_token
from .auth_info import data_or_file, identify, impersonated
from .files import read_file, read_file_if_there
from .kubeconfig import Entry, Kubeconfig, merge, parse, quoted
from .types import NO_OVERRIDES, SYSTEM_CA, ClusterConfig, ConnectionOverrides, is_https

if TYPE_CHECKING:
    from ..auth.exec import ClusterInfo

__all__ = ["find_cluster", "in_cluster", "load_kubeconfig", "overridden"]

logger = logging.getLogger("gke_sandbox")

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# https://kubernetes.io/docs/reference/config-api/client-authentication.v1/#client-authentication-k8s-io-v1-Cluster
EXEC_EXTENSION = "client.authentication.k8s.io/exec"
# How many contexts an error names.
MAX_NAMES = 20


def find_cluster(
    path: str | os.PathLike[str] | None = None,
    context: str | None = None,
    *,
    environ: Mapping[str, str],
    overrides: ConnectionOverrides = NO_OVERRIDES,
    root: Path = SERVICE_ACCOUNT,
) -> ClusterConfig:
    """The cluster that is meant when little is said: in a pod its own, elsewhere the kubeconfig's.

    With a `path` or a `context` it is always the kubeconfig's. Raises `ConfigError` for what is broken wherever it
    is found first; if there is nothing anywhere, the error lists what was tried.
    """
    if path or context:
        return load_kubeconfig(path, context, environ=environ, overrides=overrides, root=root)
    config = in_cluster(environ, root=root, overrides=overrides)
    if config is not None:
        return config
    try:
        return load_kubeconfig(environ=environ, overrides=overrides, root=root)
    except _NoKubeconfig as error:
        raise ConfigError(
            f"no cluster was found: {_why_no_pod(environ, root)}, and {error.missing}",
            hint="Name a kubeconfig, a server or a GKE cluster, or run inside a cluster's pod.",
        ) from None


def _why_no_pod(environ: Mapping[str, str], root: Path) -> str:
    if not all(_pod_address(environ)):
        return "this is not a pod (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set)"
    return f"this pod has no service account token ({root / 'token'})"


class _NoKubeconfig(ConfigError):
    """None of the files is there; `missing` says so in words."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"no kubeconfig: {missing}", hint="Name a kubeconfig, or run inside a cluster's pod.")
        self.missing = missing


def load_kubeconfig(
    path: str | os.PathLike[str] | None = None,
    context: str | None = None,
    *,
    environ: Mapping[str, str],
    overrides: ConnectionOverrides = NO_OVERRIDES,
    root: Path = SERVICE_ACCOUNT,
) -> ClusterConfig:
    """The cluster that a kubeconfig's context names: `context`, or its current one.

    `path` means that file alone. Without it KUBECONFIG (several, with colons between; those that do not exist are
    skipped) is read, and without that ``~/.kube/config``. What `overrides` says comes before what the files say;
    with a server there, files and contexts need not be. In a pod, its namespace stands in for one that the context
    does not name. Raises `ConfigError` naming the file and the entry.
    """
    # https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
    if path:
        # An explicit file must exist, and nothing is merged with it.
        file = _absolute(os.path.expanduser(path))
        config, where = parse(read_file(file, "kubeconfig"), file), str(file)
    else:
        files, where = _default_files(environ)
        contents = [(file, read_file_if_there(file, "kubeconfig")) for file in files]
        configs = [parse(content, file) for file, content in contents if content is not None]
        if not configs and (context or not overrides.server):
            raise _NoKubeconfig(f"{where} does not exist")
        config = merge(configs)
    named = _context(config, context, where, overrides)
    return _resolve(config, named, overrides, environ=environ, root=root)


def _absolute(name: str) -> Path:
    # A token file is read again later, when the process may stand in another directory.
    return Path(os.path.abspath(name))


def _default_files(environ: Mapping[str, str]) -> tuple[list[Path], str]:
    listed = environ.get("KUBECONFIG", "")
    if listed:
        names = dict.fromkeys(name for name in listed.split(os.pathsep) if name)
        return [_absolute(name) for name in names], f"KUBECONFIG ({listed})"
    home = environ.get("HOME")
    file = (Path(home) if home else Path.home()) / ".kube" / "config"
    return [file], str(file)


def _context(config: Kubeconfig, wanted: str | None, where: str, overrides: ConnectionOverrides) -> Entry | None:
    name = wanted or config.current_context
    if name:
        if name not in config.contexts:
            raise ConfigError(f"{where} has no context {quoted(name)}", hint=_known(config))
        return config.contexts[name]
    if not overrides.server:
        raise ConfigError(f"{where} has no current-context", hint=f"Name a context. {_known(config)}")
    return None


def _known(config: Kubeconfig) -> str:
    names = [quoted(name) for name in config.contexts]
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"There is: {', '.join(names[:MAX_NAMES]) or 'none'}{more}"


def _resolve(
    config: Kubeconfig,
    context: Entry | None,
    overrides: ConnectionOverrides,
    *,
    environ: Mapping[str, str],
    root: Path,
) -> ClusterConfig:
    cluster = _cluster(config, context, overrides)
    user = _user(config, context, overrides)
    server = cluster.text("server")
    if not server:
        raise ConfigError(f"{cluster} has no server")
    server = _url(server, "what was given" if overrides.server else str(cluster))
    if overrides.token:
        check_token(overrides.token, "the token that was given")
    secure = is_https(server)
    ca_data, ca_source = _authority(cluster, secure)
    namespace = overrides.namespace or (context.text("namespace") if context is not None else "")
    found = ClusterConfig(
        server=server,
        namespace=namespace or _pod_namespace(environ, root),
        ca_data=ca_data,
        insecure_skip_tls_verify=secure and cluster.flag("insecure-skip-tls-verify"),
        tls_server_name=cluster.text("tls-server-name") or None,
        impersonation=impersonated(user, "what was given" if overrides.user or overrides.groups else str(user)),
        proxy_url=cluster.text("proxy-url") or None,
        disable_compression=cluster.flag("disable-compression"),
        source="the server that was given" if context is None else str(context),
        context=None if context is None else context.name,
        file=None if context is None else str(context.file),
        ca_source=ca_source,
    )
    identity = identify(user, _cluster_info(found, cluster) if secure else None, environ=environ)
    return replace(
        found,
        auth=identity.auth,
        client_certificate=identity.client_certificate,
        credentials=identity.credentials,
    )


def _url(server: str, source: str) -> str:
    """A server's address with its scheme."""
    if "://" in server:
        return server
    # As client-go, whatever else is said: https is what has it as its scheme, and only a URL has a path.
    if "/" in server.rstrip("/"):
        raise ConfigError(f"{source}: the server's address, {quoted(server)}, is neither a URL nor HOST:PORT")
    return f"http://{server}"


def _cluster(config: Kubeconfig, context: Entry | None, overrides: ConnectionOverrides) -> Entry:
    name = "" if context is None else context.text("cluster")
    cluster = None if context is None else config.clusters.get(name)
    if overrides.server:
        cluster = cluster or Entry("cluster", name, Path())
        # As client-go: the certificate's other name belonged to the other server.
        kept = {key: value for key, value in cluster.fields.items() if key != "tls-server-name"}
        return replace(cluster, fields={**kept, "server": overrides.server})
    if cluster is None:
        said = f"the cluster {quoted(name)}, which is not there" if name else "no cluster"
        raise ConfigError(f"{context} names {said}")
    return cluster


def _user(config: Kubeconfig, context: Entry | None, overrides: ConnectionOverrides) -> Entry:
    name = "" if context is None else context.text("user")
    found = config.users.get(name) if context is not None else None
    if found is None and name and not overrides.token:
        # As client-go, but that it says nothing.
        logger.warning("%s names the user %s, which is not there: requests are anonymous", context, quoted(name))
    user = found or Entry("user", name, Path() if context is None else context.file)
    fields: dict[str, Any] = dict(user.fields)
    if overrides.token:
        # Whoever gives a token wants to be known by it: a certificate would come first, a tokenFile replace it.
        fields = {key: value for key, value in fields.items() if key.startswith("as")}
        fields["token"] = overrides.token
    if overrides.user:
        fields["as"] = overrides.user
    if overrides.groups:
        fields["as-groups"] = list(overrides.groups)
    return replace(user, fields=fields)


def _authority(cluster: Entry, secure: bool) -> tuple[bytes | None, str]:
    ca_data = data_or_file(cluster, "certificate-authority")
    if not secure:
        return None, "none (there is no TLS)"
    if ca_data is None:
        return None, "none (not verified)" if cluster.flag("insecure-skip-tls-verify") else SYSTEM_CA
    if b"-----BEGIN CERTIFICATE-----" not in ca_data:
        raise ConfigError(f"{cluster}: its certificate-authority holds no PEM certificate")
    file = cluster.path("certificate-authority")
    return ca_data, f"certificate-authority-data of {cluster}" if file is None else str(file)


def _cluster_info(config: ClusterConfig, cluster: Entry) -> ClusterInfo:
    from ..auth.exec import ClusterInfo

    return ClusterInfo(
        server=config.server,
        tls_server_name=config.tls_server_name,
        insecure_skip_tls_verify=config.insecure_skip_tls_verify,
        ca_data=config.ca_data,
        proxy_url=config.proxy_url,
        disable_compression=config.disable_compression,
        config=cluster.fields.get("extensions", {}).get(EXEC_EXTENSION),
    )


def in_cluster(
    environ: Mapping[str, str],
    *,
    root: Path = SERVICE_ACCOUNT,
    overrides: ConnectionOverrides = NO_OVERRIDES,
) -> ClusterConfig | None:
    """The cluster whose pod this is, as its service account; None outside a pod and in one without its token.

    The token is read again at most a minute after it changed. The namespace is POD_NAMESPACE's, else the pod's.
    A CA that cannot be read is logged, and the system's certificates are trusted instead. Raises `ConfigError` for
    a token that cannot be read.
    """
    # https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api
    host, port = _pod_address(environ)
    source = f"the pod's service account in {root}"
    # A pod need not have its account's token (automountServiceAccountToken: false), and is then like any machine.
    if not host or not port or read_file_if_there(root / "token", source) is None:
        return None
    token = TokenFile(root / "token", source=source)
    token.token()
    ca_data = _pod_authority(root / "ca.crt", source)
    config = ClusterConfig(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=_pod_namespace(environ, root),
        ca_data=ca_data,
        auth=token,
        source=source,
        ca_source=SYSTEM_CA if ca_data is None else str(root / "ca.crt"),
        credentials=f"token file {root / 'token'}",
    )
    return overridden(config, overrides)


def _pod_address(environ: Mapping[str, str]) -> tuple[str, str]:
    return environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")


def _pod_authority(file: Path, source: str) -> bytes | None:
    try:
        ca_data = read_file(file, source)
    except ConfigError as error:
        logger.warning("%s; the system's certificates are used", error)
        return None
    if b"-----BEGIN CERTIFICATE-----" not in ca_data:
        logger.warning("%s: %s holds no PEM certificate; the system's certificates are used", source, file)
        return None
    return ca_data


def _pod_namespace(environ: Mapping[str, str], root: Path) -> str | None:
    """The namespace of the pod that this is; None outside of one."""
    if not all(_pod_address(environ)) or not (root / "token").is_file():
        return None
    namespace = environ.get("POD_NAMESPACE", "")
    if not namespace:
        content = read_file_if_there(root / "namespace", f"the pod's service account in {root}") or b""
        namespace = content.decode("utf-8", "replace").strip()
    return namespace or None


def overridden(config: ClusterConfig, overrides: ConnectionOverrides) -> ClusterConfig:
    """`config` with what `overrides` says, for a cluster that no kubeconfig describes."""
    changes: dict[str, Any] = {}
    if overrides.server:
        changes.update(server=_url(overrides.server, "what was given"), tls_server_name=None)
    if overrides.token:
        token = BearerToken(overrides.token, source="the token that was given")
        changes.update(auth=token, client_certificate=None, credentials="token")
    if overrides.user or overrides.groups:
        before = config.impersonation
        changes["impersonation"] = Impersonation(
            user=overrides.user or (before.user if before else ""),
            uid=before.uid if before else "",
            groups=overrides.groups or (before.groups if before else ()),
            extra=before.extra if before else {},
            source="what was given",
        )
    if overrides.namespace:
        changes["namespace"] = overrides.namespace
    return replace(config, **changes) if changes else config
