"""What is said about a cluster outside of its kubeconfig: on a command line, or in a program."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["NO_OVERRIDES", "ConnectionOverrides"]


@dataclass(frozen=True, kw_only=True)
class ConnectionOverrides:
    """What comes before the configuration's own word; None and empty leave it as it is.

    `server` is an address (the certificate's other name, tls-server-name, is then forgotten), `token` a bearer
    token, `user` and `groups` who is to be impersonated, `namespace` the one that requests go to.
    """

    server: str | None = None
    token: str | None = field(default=None, repr=False)
    user: str | None = None
    groups: tuple[str, ...] = ()
    namespace: str | None = None


NO_OVERRIDES = ConnectionOverrides()
