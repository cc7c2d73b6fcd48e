"""``gke-sandbox cluster``: which cluster would be used, and where that is said. No secret is shown."""

from __future__ import annotations

import argparse
import os
from datetime import timezone
from typing import TYPE_CHECKING, Any

from . import options, parsing
from .console import Console, one_line, print_text
from .errors import logging_shown, tell

if TYPE_CHECKING:
    from ..kube.auth.impersonation import Impersonation
    from ..kube.config.types import ClusterConfig

_DESCRIPTION = """\
Show which cluster the other commands would use and where that is said: its address, how it proves to be the
right one, who we are there, and the proxy on the way. Nothing is asked of the cluster, no credential plugin is
run, no secret is shown. With --gke, Google is asked where the cluster is.
"""

_EPILOG = """\
exit status:
  0 if a cluster was found; 125 if not, or if what was found cannot be used; 2 for bad usage

examples:
  gke-sandbox cluster
  gke-sandbox cluster --context staging --json | jq -r .server
"""


def add_parser(subcommands: argparse._SubParsersAction[parsing.Parser]) -> None:
    """Register ``cluster``."""
    parser = subcommands.add_parser(
        "cluster", help="show which cluster is used", description=_DESCRIPTION, epilog=_EPILOG
    )
    options.add_cluster(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--json", action="store_true", help="print what was found, or the error, as one JSON object"
    )
    names = parsing.option_names(parser)
    parser.set_defaults(
        command=lambda given, console: command(given, console, names),
        hint_on_unrecognized="gke-sandbox cluster --help shows the options",
    )


def command(given: argparse.Namespace, console: Console, names: dict[str, str]) -> int:
    """Find the cluster that `given` names, tell it, and return the exit status."""
    from ..errors import SandboxError

    if given.program_args is not None:
        raise parsing.UsageError("arguments after -- are for the program of gke-sandbox run")
    try:
        with logging_shown(console):
            found = _found(given)
    except SandboxError as error:
        return tell(error, given, console, names)
    if console.json:
        console.print_json(found)
    else:
        print_text(_for_people(found))
    return 0


def _found(given: argparse.Namespace) -> dict[str, Any]:
    """What was found, as the JSON object tells it. Raises `UsageError` and `SandboxError`."""
    from ..kube.http.tls import proxy_ssl_context, ssl_context
    from ..kube.http.transport import network_transport
    from ..settings import Settings

    cluster, settings = options.cluster(given), options.settings(given)
    namespace = Settings(**settings).namespace if "namespace" in settings else None
    if given.local:
        return {"source": "--local: the embedded cluster, on this machine", "namespace": namespace or "default"}
    config = cluster.connect(namespace).client.config
    proxy = config.proxy(os.environ)
    if config.secure:
        # Made and dropped: a bad certificate or a proxy that cannot be used is told now, not at the first run.
        network_transport(ssl_context(config), proxy, proxy_ssl_context(config))
    impersonation = config.impersonation
    return {
        "source": config.source,
        "file": config.file,
        "context": config.context,
        "server": config.address,
        "namespace": namespace or config.namespace or "default",
        "tls": _tls(config),
        "credentials": {"kind": config.credentials, "expires": _expires(config)},
        "impersonation": None if impersonation is None else _who(impersonation),
        "proxy": None if proxy is None else {"address": str(proxy), "source": proxy.source},
        "compression": not config.disable_compression,
    }


def _tls(config: ClusterConfig) -> dict[str, Any] | None:
    if not config.secure:
        return None
    verified = not config.insecure_skip_tls_verify
    return {
        "verified": verified,
        "ca": config.ca_source if verified else None,
        "server_name": config.tls_server_name,
    }


def _who(impersonation: Impersonation) -> dict[str, Any]:
    return {
        "user": impersonation.user,
        "uid": impersonation.uid or None,
        "groups": list(impersonation.groups),
        "extra": {key: list(values) for key, values in impersonation.extra.items()},
    }


def _expires(config: ClusterConfig) -> str | None:
    """When the credentials stop to hold, where they say so without being asked for anew."""
    from ..kube.auth.expiry import certificate_expiry, token_expiry
    from ..kube.auth.static import BearerToken, TokenFile

    found = []
    if isinstance(config.auth, BearerToken):
        found.append(token_expiry(config.auth.token))
    if isinstance(config.auth, TokenFile):
        found.append(token_expiry(config.auth.token()))
    if config.client_certificate is not None:
        found.append(certificate_expiry(config.client_certificate.certificate))
    first = min((time for time in found if time is not None), default=None)
    return None if first is None else first.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _for_people(found: dict[str, Any]) -> str:
    """The same as lines, one for each thing: its name and its value."""
    rows = [("found in", found["source"])]
    if "server" in found:
        rows += [("file", found["file"]), ("context", found["context"]), ("address", found["server"])]
    rows.append(("namespace", found["namespace"]))
    if "server" in found:
        rows += [*_tls_rows(found["tls"]), *_identity_rows(found), ("proxy", _proxy(found["proxy"]))]
        if not found["compression"]:
            rows.append(("compression", "off"))
    return "".join(f"{name:<14}{one_line(value)}\n" for name, value in rows if value is not None)


def _tls_rows(tls: dict[str, Any] | None) -> list[tuple[str, str | None]]:
    if tls is None:
        return [("TLS", "none: plain http, and no credentials are sent")]
    ca = tls["ca"] if tls["verified"] else "not looked at (insecure-skip-tls-verify)"
    return [("CA", ca), ("TLS name", tls["server_name"])]


def _identity_rows(found: dict[str, Any]) -> list[tuple[str, str | None]]:
    credentials, who = found["credentials"], found["impersonation"]
    expires = credentials["expires"]
    rows: list[tuple[str, str | None]] = [
        ("credentials", credentials["kind"] + (f", good until {expires}" if expires else ""))
    ]
    if who is not None:
        parts = [who["user"], *([f"uid {who['uid']}"] if who["uid"] else [])]
        parts += [f"group {group}" for group in who["groups"]]
        parts += [f"{key} {', '.join(values)}" for key, values in who["extra"].items()]
        rows.append(("acts as", "; ".join(parts)))
    return rows


def _proxy(proxy: dict[str, Any] | None) -> str:
    return "none" if proxy is None else f"{proxy['address']} ({proxy['source']})"
