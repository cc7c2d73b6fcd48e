"""Time and peak memory of imports, alone and with a client that is ready to send, in new processes."""

from __future__ import annotations

import os
import subprocess
import sys

from .harness import NOT_INSTALLED, ROOT, Samples, Size, Table, has_adk, is_installed, kubeconfig, test_server

MEASURE = """
import os, time
KUBECONFIG = os.environ["KUBECONFIG"]
def peak():
    try:
        with open("/proc/self/status") as status:
            return int(next(line.split()[1] for line in status if line.startswith("VmHWM")))
    except FileNotFoundError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
start = time.perf_counter()
{statement}
print(time.perf_counter() - start, peak() - before)
"""
HTTPX_CLIENT = """
import ssl, anyio, httpx
async def main():
    transport = httpx.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    async with httpx.AsyncClient(transport=transport, trust_env=False):
        pass
anyio.run(main)
"""
OURS_CLIENT = """
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox import AsyncSandbox, Sandbox
import asyncio
async def main():
    async with KubeClient(ClusterConfig(server="http://127.0.0.1:1")):
        pass
asyncio.run(main())
"""
ADK_CLIENT = """
import warnings; warnings.simplefilter("ignore")
from google.adk.code_executors.gke_code_executor import GkeCodeExecutor
GkeCodeExecutor(kubeconfig_path=KUBECONFIG)
"""
OUR_ADK_CLIENT = """
from gke_sandbox.adk import GkeCodeExecutor
executor = GkeCodeExecutor(kubeconfig_path=KUBECONFIG).open()
"""
KUBERNETES_ASYNCIO_CLIENT = """
import asyncio
from kubernetes_asyncio import client
async def main():
    async with client.ApiClient(client.Configuration(host="http://127.0.0.1:1")) as api:
        client.CoreV1Api(api)
asyncio.run(main())
"""
KR8S_CLIENT = """
import asyncio, kr8s.asyncio
from kr8s.asyncio.objects import Job, Pod
# Sends a request for the version.
asyncio.run(kr8s.asyncio.api(kubeconfig=KUBECONFIG))
"""
CLIENTS = {
    "gke_sandbox": ("", "import gke_sandbox", OURS_CLIENT),
    "httpx, anyio": ("", "import anyio, httpx", HTTPX_CLIENT),
    "gke_sandbox.adk": ("google-adk", "import gke_sandbox.adk", OUR_ADK_CLIENT),
    "google-adk": ("google-adk", "import google.adk.code_executors.base_code_executor", ADK_CLIENT),
    "kubernetes": (
        "kubernetes",
        "import kubernetes",
        "from kubernetes import client; client.CoreV1Api(client.ApiClient(client.Configuration()))",
    ),
    "kubernetes_asyncio": ("kubernetes_asyncio", "import kubernetes_asyncio", KUBERNETES_ASYNCIO_CLIENT),
    "lightkube": (
        "lightkube",
        "import lightkube",
        "from lightkube import Client, KubeConfig; Client(config=KubeConfig.from_file(KUBECONFIG))",
    ),
    "kr8s": ("kr8s", "import kr8s", KR8S_CLIENT),
}


def run(size: Size) -> Table:
    rounds = size.choose(15, 3, 1)
    names = size.choose(list(CLIENTS), ["gke_sandbox", "httpx, anyio", "kubernetes"], ["gke_sandbox"])
    table = Table("import", ["import, ms", "import, MiB", "with a client, ms", "with a client, MiB"])
    present = [name for name in names if _is_present(name)]
    samples: dict[str, list[tuple[float, ...]]] = {name: [] for name in present}
    with test_server() as server, kubeconfig(server) as path:
        for _ in range(rounds):
            for name in present:
                _, alone, client = CLIENTS[name]
                samples[name].append((*_measure(alone, path), *_measure(client, path)))
    for name in names:
        if name in samples:
            table.add(name, *(Samples(values) for values in zip(*samples[name], strict=True)))
        else:
            table.add_missing(name)
    rows = [name for name, _ in table.rows]
    for peer in ("httpx, anyio", "kubernetes"):
        if peer in samples:
            table.add_ratio(f"gke_sandbox / {peer}", 0, rows.index(peer))
    table.notes.append('"httpx, anyio" is an HTTP client in an event loop: gke_sandbox cannot be faster.')
    shown = [name for name, cells in table.rows if cells[0] == NOT_INSTALLED]
    table.notes.append(f"Median (minimum-maximum) of {rounds} new processes, in turn; missing: {shown or 'none'}.")
    return table


def _is_present(name: str) -> bool:
    return has_adk() if name == "google-adk" else not CLIENTS[name][0] or is_installed(CLIENTS[name][0])


def _measure(statement: str, path: str) -> tuple[float, float]:
    """Return the milliseconds and MiB of a statement in a new interpreter."""
    command = [sys.executable, "-c", MEASURE.format(statement=statement)]
    environment = {**os.environ, "KUBECONFIG": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{statement.strip()}: {done.stderr[-1000:]}")
    seconds, kibibytes = done.stdout.split()
    return float(seconds) * 1000, float(kibibytes) / 1024
