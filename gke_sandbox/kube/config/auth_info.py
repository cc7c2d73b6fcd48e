"""The credentials of a kubeconfig's user, checked and selected as client-go does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx

from ...errors import ConfigError
from ..auth.impersonation import Impersonation
from ..auth.static import BearerToken, ClientCertificate, TokenFile
from .files import read_file
from .kubeconfig import Entry, quoted

if TYPE_CHECKING:
    from ..auth.exec import ExecConfig
    from .types import ClusterConfig

__all__ = ["impersonation_from", "inline_or_file", "with_credentials"]

# Providers that older clients supported, and their replacements.
PROVIDER_HINTS = {
    "gcp": "Use an exec entry for gke-gcloud-auth-plugin (gcloud container clusters get-credentials writes one), "
    "or name the GKE cluster instead of a kubeconfig.",
    "azure": "Use an exec entry for kubelogin.",
    "oidc": "Use an exec entry for a plugin that gets the token, such as kubelogin, or a token or a tokenFile.",
}


def with_credentials(
    cluster: ClusterConfig, user: Entry, extension: object, *, environ: Mapping[str, str]
) -> ClusterConfig:
    """Return `cluster` with the credentials of `user`. A cluster without TLS gets none.

    A token or a password is used together with a client certificate; a plugin only if there is neither.
    `extension` is the cluster's extension for plugins. Raise `ConfigError` for contradictory fields, used or not,
    for files that cannot be read, and for auth-provider.
    """
    if user.text("token") and (user.text("username") or user.text("password")):
        raise ConfigError(f"{user} has both a token and a user name or password: only one is allowed")
    certificate = _client_certificate(user)
    plugin = _plugin(user)
    if not cluster.secure:
        return replace(cluster, credentials="none (no TLS)")
    provider = user.fields.get("auth-provider")
    if provider is not None:
        name = provider.get("name", "")
        raise ConfigError(
            f"{user}: the auth-provider {quoted(name)} is not supported",
            hint=PROVIDER_HINTS.get(name, "Use an exec entry, a token, a tokenFile or a client certificate."),
        )
    auth, description = _header(user)
    if certificate is not None:
        description = f"{description} and client certificate" if description else "client certificate"
    elif plugin is not None and not description:
        from ..auth.exec import ExecAuth, exec_auth

        auth = exec_auth(plugin, cluster, extension, environ=environ)
        is_plugin = isinstance(auth, ExecAuth)
        name = os.path.basename(plugin.command)
        description = f"exec plugin {name}" if is_plugin else "Google Application Default Credentials"
    return replace(cluster, auth=auth, client_certificate=certificate, credentials=description or "none")


def _header(user: Entry) -> tuple[httpx.Auth | None, str]:
    token, file, username = user.text("token"), user.path("tokenFile"), user.text("username")
    if file is not None:
        if username:
            raise ConfigError(f"{user} has both a tokenFile and a user name: only one is allowed")
        auth = TokenFile(file, source=f"tokenFile of {user}", initial=token)
        # Read it now, so that an unreadable file is reported here and not by the first request.
        auth.token()
        return auth, f"token file {file}"
    if token:
        return BearerToken(token, source=f"token of {user}"), "token"
    if username:
        return httpx.BasicAuth(username, user.text("password")), "user name and password"
    return None, ""


def _client_certificate(user: Entry) -> ClientCertificate | None:
    # As in client-go, a key without a certificate is ignored.
    certificate = inline_or_file(user, "client-certificate")
    if certificate is None:
        return None
    key = inline_or_file(user, "client-key")
    if key is None:
        raise ConfigError(f"{user} has a client-certificate but no client-key")
    return ClientCertificate(certificate, key)


def inline_or_file(entry: Entry, key: str) -> bytes | None:
    """Return the bytes in the field ``KEY-data``, or in the file named by ``KEY``; None if neither is set.

    Raise `ConfigError` if both are set, or if the file cannot be read.
    """
    file = entry.path(key)
    data: bytes | None = entry.fields.get(f"{key}-data")
    if file is not None and data:
        raise ConfigError(f"{entry} has both {key} and {key}-data: only one is allowed")
    if file is not None:
        return read_file(file, f"{key} of {entry}")
    return data or None


def _plugin(user: Entry) -> ExecConfig | None:
    fields: Mapping[str, Any] | None = user.fields.get("exec")
    if fields is None:
        return None
    from ..auth.exec import ExecConfig

    if "auth-provider" in user.fields:
        raise ConfigError(f"{user} has both exec and auth-provider: only one is allowed")
    command = fields.get("command", "")
    return ExecConfig(
        api_version=fields.get("apiVersion", ""),
        # A bare name is looked up on PATH.
        command=str(user.resolve_path(command)) if os.sep in command else command,
        args=tuple(fields.get("args", ())),
        env=tuple((variable.get("name", ""), variable.get("value", "")) for variable in fields.get("env", ())),
        install_hint=fields.get("installHint", ""),
        provide_cluster_info=fields.get("provideClusterInfo", False),
        interactive_mode=fields.get("interactiveMode", ""),
        source=f"exec of {user}",
    )


def impersonation_from(user: Entry, source: str) -> Impersonation | None:
    """Return the user in the ``as`` fields. Raise `ConfigError` for a uid, groups or extra without a user.

    `source` names the origin of the fields in errors.
    """
    name, uid = user.text("as"), user.text("as-uid")
    groups, extra = user.fields.get("as-groups", []), user.fields.get("as-user-extra", {})
    if not (name or uid or groups or extra):
        return None
    return Impersonation(
        user=name,
        uid=uid,
        groups=tuple(groups),
        extra={key: tuple(values) for key, values in extra.items()},
        source=source,
    )
