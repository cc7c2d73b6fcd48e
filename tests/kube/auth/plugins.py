"""Exec plugins for the tests: small real programs, which count their runs, and a server that they open."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trustme

from gke_sandbox.kube.auth.exec import ClusterInfo, ExecAuth, ExecConfig, exec_auth

V1 = "client.authentication.k8s.io/v1"
V1BETA1 = "client.authentication.k8s.io/v1beta1"


def credential(status: object = None, api_version: str = V1BETA1, **more: object) -> dict[str, object]:
    """What a plugin writes: an ExecCredential with `status`."""
    return {"kind": "ExecCredential", "apiVersion": api_version, "status": status, **more}


@dataclass
class Plugin:
    """A program at `path`. Each run adds to `log` a line of JSON: arguments, environment, what stdin is."""

    path: Path
    log: Path

    @property
    def runs(self) -> list[dict[str, object]]:
        """What each run has told, in their order."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


_PROGRAM = """\
#!{python} -IS
import json, os, sys, time
told = {{"args": sys.argv[1:], "environ": dict(os.environ), "stdin": os.isatty(0), "pid": os.getpid()}}
with open({log!r}, "a") as log:
    log.write(json.dumps(told) + "\\n")
n = sum(1 for _ in open({log!r}))
def give(status, **more):
    print(json.dumps({{"kind": "ExecCredential", "apiVersion": {version!r}, "status": status, **more}}))
{body}
"""


def write_plugin(directory: Path, body: str, *, name: str = "plugin", version: str = V1BETA1) -> Plugin:
    """A plugin that runs `body`, where `n` counts its runs from 1 and ``give(status)`` writes credentials."""
    directory.mkdir(exist_ok=True)
    plugin = Plugin(directory / name, directory / f"{name}.log")
    plugin.path.write_text(_PROGRAM.format(python=sys.executable, log=str(plugin.log), version=version, body=body))
    plugin.path.chmod(0o755)
    return plugin


def pair(ca: trustme.CA, name: str) -> dict[str, str]:
    """A status with a client certificate."""
    leaf = ca.issue_cert(name)
    return {
        "clientCertificateData": leaf.cert_chain_pems[0].bytes().decode(),
        "clientKeyData": leaf.private_key_pem.bytes().decode(),
    }


#: What `auth` takes if it is given nothing else.
CLUSTER = ClusterInfo(server="https://cluster:6443")
ENVIRON = {"PATH": os.defpath, "HOME": "/home/someone"}
#: A plugin that gives t1, t2, ... without an end.
TOKEN = "give({'token': f't{n}'})"


def config(plugin: Plugin | str, **fields: Any) -> ExecConfig:
    command = plugin if isinstance(plugin, str) else str(plugin.path)
    return ExecConfig(**{"api_version": V1BETA1, "command": command, "source": 'user "u"', **fields})


def auth(
    plugin: Plugin | str, cluster: ClusterInfo = CLUSTER, *, fields: dict[str, Any] | None = None, **more: Any
) -> ExecAuth:
    more = {"environ": ENVIRON, "is_terminal": lambda: False, **more}
    return exec_auth(config(plugin, **(fields or {})), cluster, **more)


class Server:
    """Answers 401 to the tokens that are `refused`; remembers what it was sent."""

    def __init__(self, *refused: str) -> None:
        self.refused = {f"Bearer {token}" for token in refused}
        self.sent: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.headers.get("Authorization"))
        return httpx.Response(401 if self.sent[-1] in self.refused else 200)


def ask(who: ExecAuth, server: Server, url: str = "https://cluster:6443/", **headers: str) -> int:
    with httpx.Client(transport=httpx.MockTransport(server), auth=who) as client:
        return client.get(url, headers=headers).status_code


async def ask_async(who: ExecAuth, server: Server) -> int:
    async with httpx.AsyncClient(transport=httpx.MockTransport(server), auth=who) as client:
        return (await client.get("https://cluster:6443/")).status_code
