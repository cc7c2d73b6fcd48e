"""Find the cluster: from a kubeconfig, or from the service account of the pod that this program runs in."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..auth.impersonation import Impersonation
from ..auth.static import BearerToken, TokenFile, check_token
from .auth_info import impersonation_from, inline_or_file, with_credentials
from .files import read_file, read_file_if_there
from .kubeconfig import Entry, Kubeconfig, merge, parse, quoted
from .types import NO_OVERRIDES, SYSTEM_CA, ClusterConfig, ConnectionOverrides

__all__ = ["apply_overrides", "find_cluster", "in_cluster", "load_kubeconfig"]

logger = logging.getLogger(__name__)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# https://kubernetes.io/docs/reference/config-api/client-authentication.v1/#client-authentication-k8s-io-v1-Cluster
EXEC_EXTENSION = "client.authentication.k8s.io/exec"
_NO_KUBECONFIG = "no kubeconfig: "
# The number of contexts that an error lists.
MAX_NAMES = 20
PEM = b"-----BEGIN CERTIFICATE-----"


def find_cluster(
    path: str | os.PathLike[str] | None = None,
    context: str | None = None,
    *,
    environ: Mapping[str, str],
    overrides: ConnectionOverrides = NO_OVERRIDES,
    root: Path = SERVICE_ACCOUNT,
) -> ClusterConfig:
    """Return the pod's own cluster if this program runs in a pod, else that of the kubeconfig.

    With a `path` or a `context`, always use the kubeconfig. Raise `ConfigError` if the first configuration found
    is invalid, or if none is found: the error then lists what was tried.
    """
    if path or context:
        return load_kubeconfig(path, context, environ=environ, overrides=overrides, root=root)
    config = in_cluster(environ, root=root, overrides=overrides)
    if config is not None:
        return replace(config, is_own_cluster=not overrides.server)
    try:
        return load_kubeconfig(environ=environ, overrides=overrides, root=root)
    except ConfigError as error:
        if not error.message.startswith(_NO_KUBECONFIG):
            raise
        missing = error.message.removeprefix(_NO_KUBECONFIG)
        raise ConfigError(
            f"no cluster was found: {_why_no_pod(environ, root)}, and {missing}",
            hint="Name a kubeconfig, a server or a GKE cluster, or run this in a pod of the cluster.",
        ) from None


def _why_no_pod(environ: Mapping[str, str], root: Path) -> str:
    if not all(_pod_address(environ)):
        return "this is not a pod (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set)"
    return f"this pod has no service account token ({root / 'token'})"


def load_kubeconfig(
    path: str | os.PathLike[str] | None = None,
    context: str | None = None,
    *,
    environ: Mapping[str, str],
    overrides: ConnectionOverrides = NO_OVERRIDES,
    root: Path = SERVICE_ACCOUNT,
) -> ClusterConfig:
    """Return the cluster of a kubeconfig's context: `context`, or the current one.

    Read `path` alone if it is given, else the files in KUBECONFIG (separated by colons; missing ones are skipped),
    else ``~/.kube/config``. `overrides` take precedence; with a server in them, no file or context is needed. The
    namespace defaults to that of the pod, if this program runs in one. Raise `ConfigError` that names the file and
    the entry.
    """
    # https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
    config, where = _read(path, environ, required=bool(context or not overrides.server))
    named = _context(config, context, where, overrides)
    cluster, user = _cluster(config, named, overrides), _user(config, named, overrides)
    server = cluster.text("server")
    if not server:
        raise ConfigError(f"{cluster} has no server")
    if overrides.token:
        check_token(overrides.token, "the given token")
    ca_data = inline_or_file(cluster, "certificate-authority")
    found = ClusterConfig(
        server=_url(server, "the given server" if overrides.server else str(cluster)),
        namespace=overrides.namespace or named.text("namespace") or _pod_namespace(environ, root),
        tls_server_name=cluster.text("tls-server-name") or None,
        impersonation=impersonation_from(
            user, "the given user and groups" if overrides.user or overrides.groups else str(user)
        ),
        proxy_url=cluster.text("proxy-url") or None,
        disable_compression=cluster.fields.get("disable-compression", False),
        source=str(named) if named.name else "the given server",
        context=named.name or None,
        file=str(named.file) if named.name else None,
        ca_source="none (no TLS)",
    )
    if found.secure:
        found = _with_authority(found, cluster, ca_data)
    extension = cluster.fields.get("extensions", {}).get(EXEC_EXTENSION)
    return with_credentials(found, user, extension, environ=environ)


def _read(
    path: str | os.PathLike[str] | None, environ: Mapping[str, str], *, required: bool
) -> tuple[Kubeconfig, str]:
    """Return the content of the kubeconfigs, and their paths for errors."""
    if path:
        # An explicit file must exist, and is not merged with others.
        file = _absolute(os.path.expanduser(path))
        return parse(read_file(file, "kubeconfig"), file), str(file)
    files, where = _default_files(environ)
    contents = [(file, read_file_if_there(file, "kubeconfig")) for file in files]
    configs = [parse(content, file) for file, content in contents if content is not None]
    if required and not configs:
        raise ConfigError(
            f"{_NO_KUBECONFIG}{where} does not exist", hint="Name one, or run this in a pod of the cluster."
        )
    return merge(configs), where


def _absolute(name: str) -> Path:
    # A token file is read again later, when the process may have another working directory.
    # Unlike os.path.abspath, this keeps `..`, which may follow a symbolic link.
    try:
        return Path(name).absolute()
    except FileNotFoundError:
        raise ConfigError(f"kubeconfig: cannot read {name}: the current directory does not exist") from None


def _default_files(environ: Mapping[str, str]) -> tuple[list[Path], str]:
    listed = environ.get("KUBECONFIG", "")
    if listed:
        names = dict.fromkeys(name for name in listed.split(os.pathsep) if name)
        return [_absolute(name) for name in names], f"KUBECONFIG ({listed})"
    home = environ.get("HOME")
    file = (Path(home) if home else Path.home()) / ".kube" / "config"
    return [file], str(file)


def _context(config: Kubeconfig, wanted: str | None, where: str, overrides: ConnectionOverrides) -> Entry:
    """Return the context; one without a name if only the server is given."""
    name = wanted or config.current_context
    names = [quoted(known) for known in config.contexts]
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    known = f"Its contexts are {', '.join(names[:MAX_NAMES])}{more}." if names else "It has no contexts."
    if name:
        if name not in config.contexts:
            raise ConfigError(f"{where} has no context {quoted(name)}", hint=known)
        return config.contexts[name]
    if not overrides.server:
        raise ConfigError(f"{where} has no current-context", hint=f"Name a context. {known}")
    return Entry("context", "", Path())


def _with_authority(config: ClusterConfig, cluster: Entry, ca_data: bytes | None) -> ClusterConfig:
    insecure = cluster.fields.get("insecure-skip-tls-verify", False)
    if ca_data is None:
        source = "none (not verified)" if insecure else SYSTEM_CA
    elif PEM not in ca_data:
        raise ConfigError(f"{cluster}: its certificate-authority contains no PEM certificate")
    else:
        source = str(cluster.path("certificate-authority") or f"certificate-authority-data of {cluster}")
    return replace(config, ca_data=ca_data, ca_source=source, insecure_skip_tls_verify=insecure)


def _url(server: str, source: str) -> str:
    """Return a server's address with its scheme."""
    if "://" in server:
        return server
    # As in client-go: without a scheme it is http, and a path is only allowed in a URL.
    if "/" in server.rstrip("/"):
        raise ConfigError(f"{source}: the server's address, {quoted(server)}, is neither a URL nor HOST:PORT")
    return f"http://{server}"


def _cluster(config: Kubeconfig, context: Entry, overrides: ConnectionOverrides) -> Entry:
    name = context.text("cluster")
    cluster = config.clusters.get(name) if context.name else None
    if overrides.server:
        cluster = cluster or Entry("cluster", name, Path())
        # As in client-go: the tls-server-name belongs to the other server.
        kept = {key: value for key, value in cluster.fields.items() if key != "tls-server-name"}
        return replace(cluster, fields={**kept, "server": overrides.server})
    if cluster is None:
        problem = f"refers to cluster {quoted(name)}, which is not defined" if name else "has no cluster"
        raise ConfigError(f"{context} {problem}")
    return cluster


def _user(config: Kubeconfig, context: Entry, overrides: ConnectionOverrides) -> Entry:
    name = context.text("user")
    found = config.users.get(name) if context.name else None
    if found is None and name and not overrides.token:
        # client-go does the same, but logs nothing.
        logger.warning("%s refers to user %s, which is not defined: requests are anonymous", context, quoted(name))
    user = found or Entry("user", name, context.file)
    fields: dict[str, Any] = dict(user.fields)
    if overrides.token:
        # Drop the other credentials: a certificate or a tokenFile would take precedence over the token.
        fields = {key: value for key, value in fields.items() if key.startswith("as")}
        fields["token"] = overrides.token
    if overrides.user:
        fields["as"] = overrides.user
    if overrides.groups:
        fields["as-groups"] = list(overrides.groups)
    return replace(user, fields=fields)


def in_cluster(
    environ: Mapping[str, str],
    *,
    root: Path = SERVICE_ACCOUNT,
    overrides: ConnectionOverrides = NO_OVERRIDES,
) -> ClusterConfig | None:
    """Return the cluster of the pod that this program runs in, with the credentials of its service account.

    Return None outside a pod, and in a pod without a token. The token is read again at most a minute after it
    changed. The namespace is POD_NAMESPACE, or that of the service account. If the CA cannot be read, log a
    warning and trust the system's certificates. Raise `ConfigError` if the token cannot be read.
    """
    # https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api
    host, port = _pod_address(environ)
    source = f"the pod's service account in {root}"
    # A pod may have no token (automountServiceAccountToken: false), and then is like any other machine.
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
    return apply_overrides(config, overrides)


def _pod_address(environ: Mapping[str, str]) -> tuple[str, str]:
    return environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")


def _pod_authority(file: Path, source: str) -> bytes | None:
    try:
        ca_data = read_file(file, source)
    except ConfigError as error:
        logger.warning("%s; the system's certificates are used", error.message)
        return None
    if PEM not in ca_data:
        logger.warning("%s: %s contains no PEM certificate; the system's certificates are used", source, file)
        return None
    return ca_data


def _pod_namespace(environ: Mapping[str, str], root: Path) -> str | None:
    """Return the namespace of the pod that this program runs in; None outside a pod."""
    if not all(_pod_address(environ)) or not (root / "token").is_file():
        return None
    namespace = environ.get("POD_NAMESPACE", "")
    if not namespace:
        content = read_file_if_there(root / "namespace", f"the pod's service account in {root}") or b""
        namespace = content.decode("utf-8", "replace").strip()
    return namespace or None


def apply_overrides(config: ClusterConfig, overrides: ConnectionOverrides) -> ClusterConfig:
    """Return `config` with `overrides` applied, for a cluster that is not from a kubeconfig."""
    changes: dict[str, Any] = {}
    if overrides.server:
        changes.update(server=_url(overrides.server, "the given server"), tls_server_name=None)
    if overrides.token:
        token = BearerToken(overrides.token, source="the given token")
        changes.update(auth=token, client_certificate=None, credentials="token")
    if overrides.user or overrides.groups:
        changes["impersonation"] = Impersonation(
            user=overrides.user or "", groups=overrides.groups, source="the given user and groups"
        )
    if overrides.namespace:
        changes["namespace"] = overrides.namespace
    return replace(config, **changes) if changes else config
