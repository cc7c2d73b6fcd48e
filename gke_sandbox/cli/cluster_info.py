"""``gke-sandbox cluster-info``: show which cluster is used, and why. Secrets are not shown."""

from __future__ import annotations

import argparse
import os
from datetime import datetime, timezone
from typing import Any

from . import options
from .console import Console, one_line, print_text

HELP = "show which cluster is used"
DESCRIPTION = """\
Show which cluster the other commands would use, and where that is configured:
the address, the certificate authority, the credentials and the proxy. The
cluster is not contacted, credential plugins do not run, and secrets are not
shown. With --gke, the address is requested from the Google API.
"""

EPILOG = """\
exit code:
  0 if a cluster was found; 125 if no cluster was found or its configuration is
  invalid; 2 for invalid usage

examples:
  gke-sandbox cluster-info
  gke-sandbox cluster-info --context staging --json | jq -r .server
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``cluster-info``."""
    options.add_cluster(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the cluster or the error as one JSON object")


def command(args: argparse.Namespace, console: Console) -> int:
    """Find the cluster, print it, and return the exit code. Raises `UsageError` and `SandboxError`."""
    info = _cluster_info(args)
    if console.json:
        console.print_json(info)
    else:
        print_text(_as_lines(info))
    return 0


def _cluster_info(args: argparse.Namespace) -> dict[str, Any]:
    """Return the JSON object for the cluster."""
    from ..kube.auth.expiry import credentials_expiry
    from ..kube.http.transport import network_transport

    cluster, namespace = options.cluster(args), options.namespace(args)
    if args.local:
        return {"source": "embedded cluster on this machine (--local)", "namespace": namespace or "default"}
    config = cluster._connect(namespace).client.config
    proxy, expires, user = config.proxy(os.environ), credentials_expiry(config), config.impersonation
    tls = None
    if config.secure:
        # Created and discarded, to report an invalid certificate or proxy here instead of at the first run.
        network_transport(config, proxy)
        verified = not config.insecure_skip_tls_verify
        ca = config.ca_source if verified else None
        tls = {"verified": verified, "ca": ca, "server_name": config.tls_server_name}
    return {
        "source": config.source,
        "file": config.file,
        "context": config.context,
        "server": config.address,
        "namespace": namespace or config.namespace or "default",
        "tls": tls,
        "credentials": {
            "kind": config.credentials,
            "expires": expires and expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "expired": expires is not None and expires <= datetime.now(timezone.utc),
        },
        "impersonation": user
        and {
            "user": user.user,
            "uid": user.uid or None,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
        },
        "proxy": proxy and {"address": str(proxy), "source": proxy.source},
        "compression": not config.disable_compression,
    }


def _as_lines(info: dict[str, Any]) -> str:
    """Return the JSON object as lines of a name and a value."""
    rows = [(name, info.get(name)) for name in ("source", "file", "context")]
    rows += [("address", info.get("server")), ("namespace", info["namespace"])]
    if "server" in info:
        tls, proxy = info["tls"], info["proxy"]
        if tls is None:
            rows.append(("TLS", "none (plain HTTP; credentials are not sent)"))
        else:
            ca = tls["ca"] if tls["verified"] else "not verified (insecure-skip-tls-verify)"
            rows += [("CA", ca), ("TLS name", tls["server_name"])]
        rows += _identity_rows(info)
        rows.append(("proxy", "none" if proxy is None else f"{proxy['address']} ({proxy['source']})"))
        rows.append(("compression", None if info["compression"] else "off"))
    return "".join(f"{name:<15}{one_line(value)}\n" for name, value in rows if value is not None)


def _identity_rows(info: dict[str, Any]) -> list[tuple[str, str | None]]:
    credentials, user = info["credentials"], info["impersonation"]
    expires, verb = credentials["expires"], "expired" if credentials["expired"] else "expires"
    rows: list[tuple[str, str | None]] = [
        ("credentials", credentials["kind"] + (f", {verb} {expires}" if expires else ""))
    ]
    if user is not None:
        parts = [user["user"], *([f"uid {user['uid']}"] if user["uid"] else [])]
        parts += [f"group {group}" for group in user["groups"]]
        parts += [f"{key} {', '.join(values)}" for key, values in user["extra"].items()]
        rows.append(("impersonating", "; ".join(parts)))
    return rows
