"""Containers for the tests of the runtimes: short ways to start one, and to read what it prints."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gke_sandbox.local.runtimes.base import ContainerExit, ContainerSpec, RunningContainer, Runtime


def container(*command: str, **fields: Any) -> ContainerSpec:
    names = {"namespace": "default", "pod": "job-x7x2p", "pod_uid": "9b1e", "name": "code-runner"}
    return ContainerSpec(**{**names, "run_as_user": 1001, "run_as_group": 1001, "command": command, **fields})


def python(code: str, **fields: Any) -> ContainerSpec:
    return container("python3", "-u", "-c", code, **fields)


async def run(runtime: Runtime, spec: ContainerSpec) -> tuple[ContainerExit, bytes]:
    """Start a container, wait for its exit and close it. Return its exit and output."""
    started = await runtime.start(spec)
    try:
        output = [chunk async for chunk in started.output()]
        return await started.wait(), b"".join(output)
    finally:
        await started.aclose()


@asynccontextmanager
async def running(runtime: Runtime, spec: ContainerSpec) -> AsyncIterator[tuple[RunningContainer, Lines]]:
    """Yield a container and the lines of its output; close it afterwards."""
    started = await runtime.start(spec)
    try:
        yield started, Lines(started)
    finally:
        await started.aclose()


class Lines:
    """The output of a container, line by line."""

    def __init__(self, started: RunningContainer) -> None:
        self._chunks = started.output()
        self._rest = b""

    async def next(self) -> str:
        while b"\n" not in self._rest:
            self._rest += await anext(self._chunks)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def rest(self) -> bytes:
        """Return the rest of the output."""
        return self._rest + b"".join([chunk async for chunk in self._chunks])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
