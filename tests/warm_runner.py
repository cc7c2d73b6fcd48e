"""A scripted runner that waits for its request on stdin, as the real one does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from gke_sandbox.local import Script, ScriptedProcess
from gke_sandbox.local.runtimes.base import ContainerExit

from .pods import START, err, exit_frame, out

REFUSED = ContainerExit(125, "Error")
NOT_STARTED = err("gke-sandbox: the program was not started: stdin ended too early\n")
ACKNOWLEDGE = 10.0
"""How long the runner waits after its exit frame, in seconds."""


class WaitingRunner:
    """Answers each request with its code as output. `requests` are those that arrived whole, in their order.

    `frames` are the output after the start frame instead, with a pause before each. A container without a request
    on stdin has its program in its environment, and the same `frames`.
    """

    def __init__(
        self,
        respond: Callable[[dict[str, Any]], bytes] | None = None,
        frames: Sequence[bytes] = (),
        pause: float = 0.0,
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self.idle = 0
        """How many runners ended without a request."""
        self.expired = 0
        """How many of them because their idle time was over."""
        self.started = 0
        """How many programs were started."""
        self._respond = respond or (lambda request: out(request["code"]) + exit_frame(0))
        self._frames = frames
        self._pause = pause

    @property
    def script(self) -> Script:
        return Script(program=self.run)

    async def run(self, process: ScriptedProcess) -> ContainerExit | None:
        """Be the first process of a container."""
        if "GKE_SANDBOX_WAIT" not in process.spec.env:
            await self._start(process, out("from the environment") + exit_frame(0))
            return None
        line = b""
        with anyio.move_on_after(float(process.spec.env["GKE_SANDBOX_WAIT"])) as scope:
            line = await process.readline()
        self.expired += scope.cancelled_caught
        if not line:
            self.idle += 1
            await process.write(NOT_STARTED)
            return None
        if not line.endswith(b"\n"):
            await process.write(NOT_STARTED)
            return REFUSED
        size, contents = map(int, line.split())
        data = await process.read(size + contents)
        if len(data) < size + contents:
            await process.write(NOT_STARTED)
            return REFUSED
        request = json.loads(data[:size])
        request["code"] = data[size:][: request["code"][1][0]].decode()
        self.requests.append(request)
        await self._start(process, self._respond(request))
        with anyio.move_on_after(ACKNOWLEDGE):
            await process.read(1)
        return None

    async def _start(self, process: ScriptedProcess, output: bytes) -> None:
        self.started += 1
        await process.write(START)
        for frame in self._frames or [output]:
            await anyio.sleep(self._pause)
            await process.write(frame)
