"""A kubeconfig's user: what it is to prove and to whom, as client-go checks and chooses it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ..auth.impersonation import Impersonation
from ..auth.static import BasicAuth, BearerToken, ClientCertificate, TokenFile
from .files import read_file
from .kubeconfig import Entry, quoted

if TYPE_CHECKING:
    import httpx

    from ..auth.exec import ClusterInfo, ExecConfig

__all__ = ["Identity", "data_or_file", "identify", "impersonated"]

# Clients of old could ask these themselves; what took their place.
PROVIDER_HINTS = {
    "gcp": "Use an exec entry for gke-gcloud-auth-plugin (gcloud container clusters get-credentials writes one), "
    "or name the GKE cluster instead of a kubeconfig.",
    "azure": "Use an exec entry for kubelogin.",
    "oidc": "Use an exec entry for a plugin that gets the token, such as kubelogin, or a token or a tokenFile.",
}


@dataclass(frozen=True)
class Identity:
    """Who we are at a cluster, and a phrase for people that says how it is proven."""

    auth: httpx.Auth | None = None
    client_certificate: ClientCertificate | None = None
    credentials: str = "none"


def identify(user: Entry, cluster: ClusterInfo | None, *, environ: Mapping[str, str]) -> Identity:
    """The credentials of `user` for `cluster`; None stands for one over plain http, which is told none.

    Several kinds can be there: a token or a password, and a client certificate, go together; a plugin is used only
    where there is none of them. Raises `ConfigError` for what contradicts itself, used or not, for files that
    cannot be read, and for auth-provider.
    """
    if user.text("token") and (user.text("username") or user.text("password")):
        raise ConfigError(f"{user} has both a token and a user name or password: only one is allowed")
    certificate = _client_certificate(user)
    plugin = _plugin(user)
    if cluster is None:
        return Identity(credentials="none (there is no TLS)")
    provider = user.fields.get("auth-provider")
    if provider is not None:
        name = provider.get("name", "")
        raise ConfigError(
            f"{user}: the auth-provider {quoted(name)} is not supported",
            hint=PROVIDER_HINTS.get(name, "Use an exec entry, a token, a tokenFile or a client certificate."),
        )
    auth, phrase = _header(user)
    if certificate is not None:
        phrase = f"{phrase} and client certificate" if phrase else "client certificate"
    if phrase:
        return Identity(auth, certificate, phrase)
    if plugin is not None:
        from ..auth.exec import exec_auth

        return Identity(
            exec_auth(plugin, cluster, environ=environ), None, f"exec plugin {os.path.basename(plugin.command)}"
        )
    return Identity()


def _header(user: Entry) -> tuple[httpx.Auth | None, str]:
    token, file, username = user.text("token"), user.path("tokenFile"), user.text("username")
    if file is not None:
        if username:
            raise ConfigError(f"{user} has both a tokenFile and a user name: only one is allowed")
        auth = TokenFile(file, source=f"tokenFile of {user}", initial=token)
        # What cannot be read is told now, not at the first request.
        auth.token()
        return auth, f"token file {file}"
    if token:
        return BearerToken(token, source=f"token of {user}"), "token"
    if username:
        return BasicAuth(username, user.text("password")), "user name and password"
    return None, ""


def _client_certificate(user: Entry) -> ClientCertificate | None:
    # As client-go: a key without a certificate is not even looked at.
    certificate = data_or_file(user, "client-certificate")
    if certificate is None:
        return None
    key = data_or_file(user, "client-key")
    if key is None:
        raise ConfigError(f"{user} has a client-certificate but no client-key")
    return ClientCertificate(certificate, key)


def data_or_file(entry: Entry, key: str) -> bytes | None:
    """The bytes that an entry has in ``KEY-data`` or in the file named by ``KEY``; None if it has neither.

    Raises `ConfigError` for both, and for a file that cannot be read.
    """
    file, data = entry.path(key), entry.data(f"{key}-data")
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
        # A bare name is looked for on PATH.
        command=str(user.beside(command)) if os.sep in command else command,
        args=tuple(fields.get("args", ())),
        env=tuple((variable.get("name", ""), variable.get("value", "")) for variable in fields.get("env", ())),
        install_hint=fields.get("installHint", ""),
        provide_cluster_info=fields.get("provideClusterInfo", False),
        interactive_mode=fields.get("interactiveMode", ""),
        source=f"exec of {user}",
    )


def impersonated(user: Entry, source: str) -> Impersonation | None:
    """Whom the user's ``as`` fields name. Raises `ConfigError` for a uid, groups or extra without a user.

    `source` says who named them, for errors.
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
