"""Where the cluster is: from a kubeconfig, or from inside a pod, to a `ClusterConfig`."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import ConfigError
from .credentials import BasicAuth, BearerToken, ClientCertificate, TokenFile
from .files import read_file, read_file_if_there
from .kubeconfig import Entry, Kubeconfig, merge, parse

if TYPE_CHECKING:
    import httpx

__all__ = ["ClusterConfig", "in_cluster", "load_kubeconfig"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A cluster's address, how to know that it is the right one, and who we are there. Its repr shows no secret.

    `server` is an http or https URL that may have a path, which is kept; `namespace` is the one that requests
    go to if nothing else says so; `ca_data` is PEM, and None means the system's certificates;
    `tls_server_name` is the name in the server's certificate when it is not that of the address; `auth` and
    `client_certificate` are used over https only; `source` is a phrase that says where all this was found.

    Raises `ConfigError` when `server` is no such URL, or when there is a CA that is not to be looked at.
    """

    server: str
    namespace: str | None = None
    ca_data: bytes | None = field(default=None, repr=False)
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    auth: httpx.Auth | None = None
    client_certificate: ClientCertificate | None = None
    source: str = "the configuration"

    def __post_init__(self) -> None:
        _check_server(self.server, self.source)
        if self.insecure_skip_tls_verify and self.ca_data is not None:
            raise ConfigError(
                f"{self.source}: insecure-skip-tls-verify and a certificate authority exclude each other"
            )

    @property
    def address(self) -> str:
        """`server` as the begin of every request's URL: without a slash at its end, query or fragment."""
        return self.server.partition("?")[0].partition("#")[0].rstrip("/")

    @property
    def secure(self) -> bool:
        """Whether the server proves who it is, so that it may be told who we are."""
        # As client-go: no credentials over plain http.
        return urlsplit(self.server).scheme == "https"


def _check_server(server: str, source: str) -> None:
    try:
        parts = urlsplit(server)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{source}: the server's address is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        # Not shown: it may be a password.
        raise ConfigError(f"{source}: the server's address holds a user name or a password")
    if parts.scheme not in {"http", "https"} or not host or not server.isascii() or not server.isprintable():
        raise ConfigError(
            f"{source}: the server's address, {server!r}, is not an http or https URL",
            hint="It looks like https://203.0.113.5:6443",
        )


def load_kubeconfig(
    path: str | os.PathLike[str] | None = None, context: str | None = None, *, environ: Mapping[str, str]
) -> ClusterConfig:
    """The cluster that a kubeconfig's context names: `context`, or its current one.

    `path` means that file alone. Without it KUBECONFIG (several, with colons between; those that do not exist are
    skipped) is read, and without that ``~/.kube/config``. Raises `ConfigError` naming the file and the entry.
    """
    # https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
    if path:
        # An explicit file must exist, and nothing is merged with it.
        file = _absolute(os.path.expanduser(path))
        return _resolve(parse(read_file(file, "kubeconfig"), file), context, str(file))
    files, where = _default_files(environ)
    contents = [(file, read_file_if_there(file, "kubeconfig")) for file in files]
    configs = [parse(content, file) for file, content in contents if content is not None]
    if not configs:
        raise ConfigError(
            f"no kubeconfig: {where} does not exist", hint="Name a kubeconfig, or run inside a cluster's pod."
        )
    return _resolve(merge(configs), context, where)


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


def _resolve(config: Kubeconfig, wanted: str | None, where: str) -> ClusterConfig:
    name = wanted or config.current_context
    known = ", ".join(config.contexts) or "none"
    if not name:
        raise ConfigError(f"{where} has no current-context", hint=f"Name a context; there is: {known}")
    context = config.contexts.get(name)
    if context is None:
        raise ConfigError(f'{where} has no context "{name}"', hint=f"There is: {known}")
    cluster = _named(context, "cluster", config.clusters)
    if cluster is None:
        raise ConfigError(f"{context} names no cluster")
    user = _named(context, "user", config.users)
    server = cluster.text("server")
    if not server:
        raise ConfigError(f"{cluster} has no server")
    if cluster.text("proxy-url"):
        raise ConfigError(f"{cluster}: proxy-url is not supported")
    ca_data = _data_or_file(cluster, "certificate-authority")
    if ca_data is not None and b"-----BEGIN CERTIFICATE-----" not in ca_data:
        raise ConfigError(f"{cluster}: its certificate-authority holds no PEM certificate")
    insecure = cluster.flag("insecure-skip-tls-verify")
    if "://" not in server:
        # As client-go: https only if something says that TLS is meant.
        server = f"{'https' if insecure or ca_data is not None else 'http'}://{server}"
    return ClusterConfig(
        server=server,
        namespace=context.text("namespace") or None,
        ca_data=ca_data,
        insecure_skip_tls_verify=insecure,
        tls_server_name=cluster.text("tls-server-name") or None,
        auth=_auth(user) if user is not None else None,
        client_certificate=_client_certificate(user) if user is not None else None,
        source=str(context),
    )


def _named(context: Entry, kind: str, entries: Mapping[str, Entry]) -> Entry | None:
    name = context.text(kind)
    if not name:
        return None
    if name not in entries:
        raise ConfigError(f'{context} names the {kind} "{name}", which is not there')
    return entries[name]


def _auth(user: Entry) -> httpx.Auth | None:
    token, username = user.text("token"), user.text("username")
    token_file = user.path("tokenFile")
    password = user.text("password")
    if (token or token_file) and (username or password):
        raise ConfigError(f"{user} has both a token and a user name: only one is allowed")
    for key in ("as", "as-uid", "as-groups", "as-user-extra"):
        if user.fields.get(key):
            raise ConfigError(f"{user}: {key} (impersonation) is not supported")
    if token_file is not None:
        auth = TokenFile(token_file, source=f"tokenFile of {user}", initial=token)
        auth.token()
        return auth
    if token:
        return BearerToken(token, source=f"token of {user}")
    if username or password:
        return BasicAuth(username, password)
    if not _has_certificate(user):
        # As client-go: a token, a password or a certificate comes before a plugin.
        for key in ("exec", "auth-provider"):
            if user.fields.get(key):
                raise ConfigError(
                    f"{user}: {key} is not supported",
                    hint="Put a token, a tokenFile or a client certificate into the kubeconfig.",
                )
    return None


def _has_certificate(user: Entry) -> bool:
    return bool(user.text("client-certificate") or user.text("client-certificate-data"))


def _client_certificate(user: Entry) -> ClientCertificate | None:
    certificate, key = _data_or_file(user, "client-certificate"), _data_or_file(user, "client-key")
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing, there = (
            ("client-key", "client-certificate") if key is None else ("client-certificate", "client-key")
        )
        raise ConfigError(f"{user} has a {there} but no {missing}")
    return ClientCertificate(certificate, key)


def _data_or_file(entry: Entry, key: str) -> bytes | None:
    data, file = entry.text(f"{key}-data"), entry.path(key)
    if data and file is not None:
        raise ConfigError(f"{entry} has both {key} and {key}-data: only one is allowed")
    if file is not None:
        return read_file(file, f"{key} of {entry}")
    if not data:
        return None
    try:
        # Line breaks in the text are no error for client-go either.
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(f"{entry}: {key}-data is not base64") from None


def in_cluster(environ: Mapping[str, str], *, root: Path = SERVICE_ACCOUNT) -> ClusterConfig | None:
    """The cluster whose pod this is, as its service account; None outside a pod and in one without its token.

    The token is read again at most a minute after it changed. The namespace is POD_NAMESPACE's, else the pod's.
    Raises `ConfigError` for a token or a CA that cannot be read.
    """
    # https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    source = f"the pod's service account in {root}"
    # A pod need not have its account's token (automountServiceAccountToken: false), and is then like any machine.
    if not host or not port or read_file_if_there(root / "token", source) is None:
        return None
    token = TokenFile(root / "token", source=source)
    token.token()
    namespace = environ.get("POD_NAMESPACE", "")
    if not namespace:
        content = read_file_if_there(root / "namespace", source) or b""
        namespace = content.decode("utf-8", "replace").strip()
    return ClusterConfig(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=namespace or None,
        ca_data=read_file(root / "ca.crt", source),
        auth=token,
        source=source,
    )
