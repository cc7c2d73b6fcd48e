"""Exec plugins for the tests: small programs that record their runs, and a server that checks tokens."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from gke_sandbox.kube.auth.exec import ExecAuth, ExecConfig
from gke_sandbox.kube.config.types import ClusterConfig

if TYPE_CHECKING:
    import trustme

V1 = "client.authentication.k8s.io/v1"
V1BETA1 = "client.authentication.k8s.io/v1beta1"


def credential(status: object = None, api_version: str = V1BETA1, **more: object) -> dict[str, object]:
    """Return the output of a plugin: an ExecCredential with `status`."""
    return {"kind": "ExecCredential", "apiVersion": api_version, "status": status, **more}


@dataclass
class Plugin:
    """A program at `path`. Each run adds a line of JSON to `log`: arguments, environment, kind of stdin."""

    path: Path
    log: Path

    @property
    def runs(self) -> list[dict[str, object]]:
        """Return the records of all runs, in order."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


_PROGRAM = """\
#!{python} -IS
import json, os, sys, time
record = {{"args": sys.argv[1:], "environ": dict(os.environ), "stdin": os.isatty(0), "pid": os.getpid()}}
with open({log!r}, "a") as log:
    log.write(json.dumps(record) + "\\n")
n = sum(1 for _ in open({log!r}))
def give(status, **more):
    print(json.dumps({{"kind": "ExecCredential", "apiVersion": {version!r}, "status": status, **more}}))
{body}
"""


def write_plugin(directory: Path, body: str, *, name: str = "plugin", version: str = V1BETA1) -> Plugin:
    """Return a plugin that runs `body`, where `n` is the number of the run and ``give(status)`` writes output."""
    directory.mkdir(exist_ok=True)
    plugin = Plugin(directory / name, directory / f"{name}.log")
    plugin.path.write_text(_PROGRAM.format(python=sys.executable, log=str(plugin.log), version=version, body=body))
    plugin.path.chmod(0o755)
    return plugin


def pair(ca: trustme.CA, name: str) -> dict[str, str]:
    """Return a status with a client certificate."""
    leaf = ca.issue_cert(name)
    return {
        "clientCertificateData": leaf.cert_chain_pems[0].bytes().decode(),
        "clientKeyData": leaf.private_key_pem.bytes().decode(),
    }


CLUSTER = ClusterConfig(server="https://cluster:6443")
ENVIRON = {"PATH": os.defpath, "HOME": "/home/someone"}
# A plugin that returns t1, t2, ...
TOKEN = "give({'token': f't{n}'})"


def config(plugin: Plugin | str, **fields: Any) -> ExecConfig:
    command = plugin if isinstance(plugin, str) else str(plugin.path)
    return ExecConfig(**{"api_version": V1BETA1, "command": command, "source": 'user "u"', **fields})


def auth(
    plugin: Plugin | str, cluster: ClusterConfig = CLUSTER, *, fields: dict[str, Any] | None = None, **more: Any
) -> ExecAuth:
    return ExecAuth(config(plugin, **(fields or {})), cluster, **{"environ": ENVIRON, **more})


class Server:
    """Respond with 401 to the `refused` tokens, and record the headers."""

    def __init__(self, *refused: str) -> None:
        self.refused = {f"Bearer {token}" for token in refused}
        self.sent: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.headers.get("Authorization"))
        return httpx.Response(401 if self.sent[-1] in self.refused else 200)


def ask(who: ExecAuth, server: Server, url: str = "https://cluster:6443/", **headers: str) -> int:
    with httpx.Client(transport=httpx.MockTransport(server), auth=who) as client:
        return client.get(url, headers=headers).status_code


async def ask_async(who: ExecAuth, server: Server, url: str = "https://cluster:6443/") -> int:
    async with httpx.AsyncClient(transport=httpx.MockTransport(server), auth=who) as client:
        return (await client.get(url)).status_code
