"""A scripted runner that waits for its request on stdin, as the real one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio

from gke_sandbox.local import Script, ScriptedProcess
from gke_sandbox.local.runtimes.base import ContainerExit

from .pods import START, exit_frame, out

REFUSED = ContainerExit(125, "Error")


class WaitingRunner:
    """Answers each request with its code as output. `requests` are those that arrived whole, in their order."""

    def __init__(self, respond: Callable[[dict[str, Any]], bytes] | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.idle = 0
        """How many runners ended without a request."""
        self._respond = respond or (lambda request: out(request["code"]) + exit_frame(0))

    @property
    def script(self) -> Script:
        return Script(program=self._run)

    async def _run(self, process: ScriptedProcess) -> ContainerExit | None:
        if "GKE_SANDBOX_WAIT" not in process.spec.env:
            await process.write(START + out("from the environment") + exit_frame(0))
            return None
        line = b""
        with anyio.move_on_after(float(process.spec.env["GKE_SANDBOX_WAIT"])):
            line = await process.readline()
        if not line:
            self.idle += 1
            return None
        if not line.endswith(b"\n"):
            return REFUSED
        size, contents = map(int, line.split())
        data = await process.read(size + contents)
        if len(data) < size + contents:
            return REFUSED
        request = json.loads(data[:size])
        request["code"] = data[size:][: request["code"][1][0]].decode()
        self.requests.append(request)
        await process.write(START + self._respond(request))
        await process.read(1)
        return None
