"""Reading a followed log: throughput against httpx alone, the delay of a frame, and memory with a slow reader."""

from __future__ import annotations

import time
from typing import Any

import anyio
import httpx

from gke_sandbox import AsyncSandbox, Cluster, OutputChunk
from gke_sandbox._wire.frames import Limits
from gke_sandbox._wire.log_decoder import ReplayableLogDecoder
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig

from .harness import Samples, Size, Table, test_server
from .load import ask, peak_memory
from .server import PIECE, START

MIB = 1 << 20


def run(size: Size) -> Table:
    megabytes, rounds, ticks = size.choose((32, 7, 100), (8, 3, 20), (1, 1, 2))
    content = PIECE * (megabytes * MIB // len(PIECE))
    table = Table("stream", ["", "value"])
    with test_server() as server:
        # Before anything else needs memory: the peak of a process only grows.
        before = peak_memory()
        ask(server, "POST", {"running": 0.05, "output_bytes": min(megabytes, 3) * MIB})
        anyio.run(_read_slowly, server, min(megabytes, 3) * MIB)
        grown = (peak_memory() - before) / 1024
        ask(server, "POST", {"log_bytes": len(content)})
        samples = anyio.run(_throughput, server, content, rounds)
        for name, values in samples.items():
            table.add(name, "MB per CPU second", Samples(values))
        ratio = Samples(samples["a followed log, decoded"]).median / Samples(samples["httpx alone"]).median
        table.add("decoded / httpx alone", "", ratio)
        ask(server, "POST", {"running": 0.05, "finished": 0.02 * ticks, "ticks": ticks, "log_end": 0.2})
        table.add("from a frame's arrival to the caller", "ms", Samples(anyio.run(_delays, server)))
        table.add(f"memory of a slow reader of {min(megabytes, 3)} MiB", "MiB", grown)
    table.notes.append(f"{megabytes} MiB in frames of {len(PIECE)} bytes; {rounds} rounds, in turn.")
    return table


async def _throughput(server: str, content: bytes, rounds: int) -> dict[str, list[float]]:
    names = ("httpx alone", "a followed log", "a followed log, decoded", "decoder")
    samples: dict[str, list[float]] = {name: [] for name in names}
    async with httpx.AsyncClient() as plain, KubeClient(ClusterConfig(server=f"http://{server}")) as client:

        async def httpx_alone() -> int:
            size = 0
            async with plain.stream("GET", f"http://{server}/api/v1/namespaces/d/pods/content/log") as response:
                async for chunk in response.aiter_raw():
                    size += len(chunk)
            return size

        async def followed(decoder: ReplayableLogDecoder | None) -> int:
            size = 0
            async with client.log("d", "content") as chunks:
                async for chunk in chunks:
                    size += len(chunk)
                    if decoder is not None:
                        list(decoder.feed(chunk))
            return size

        def decode() -> int:
            decoder = _decoder(len(content))
            for start in range(0, len(content), 65536):
                list(decoder.feed(content[start : start + 65536]))
            return len(content)

        for _ in range(rounds):
            await _timed(samples["httpx alone"], httpx_alone)
            await _timed(samples["a followed log"], lambda: followed(None))
            await _timed(samples["a followed log, decoded"], lambda: followed(_decoder(len(content))))
            start = time.process_time()
            samples["decoder"].append(decode() / 1e6 / (time.process_time() - start))
    return samples


def _decoder(size: int) -> ReplayableLogDecoder:
    decoder = ReplayableLogDecoder(Limits(output_bytes=size))
    list(decoder.feed(START))
    return decoder


async def _timed(values: list[float], read: Any) -> None:
    start = time.process_time()
    size = await read()
    values.append(size / 1e6 / (time.process_time() - start))


async def _delays(server: str) -> list[float]:
    delays = []
    async with (
        AsyncSandbox(Cluster.transport(_Direct(server))) as sandbox,
        sandbox.stream("print()") as events,
    ):
        async for event in events:
            if isinstance(event, OutputChunk) and event.data.startswith(b"tick "):
                delays.append((time.monotonic() - float(event.data.split()[1])) * 1000)
    return delays


async def _read_slowly(server: str, size: int) -> None:
    async with (
        AsyncSandbox(Cluster.transport(_Direct(server)), max_output_bytes=size, max_file_bytes=0) as sandbox,
        sandbox.stream("print()") as events,
    ):
        async for event in events:
            if isinstance(event, OutputChunk):
                await anyio.sleep(0.005)


class _Direct(httpx.AsyncHTTPTransport):
    """The network, with the address of the test server."""

    def __init__(self, server: str) -> None:
        super().__init__()
        self._host, _, port = server.partition(":")
        self._port = int(port)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme="http", host=self._host, port=self._port)
        return await super().handle_async_request(request)
