"""The streams of a running container: from its output to its log and to attached connections, and to its stdin.

As in containerd, output waits until each attached connection has room for it, and the first connection with stdin
that ends also ends the stdin of a container with ``stdinOnce``. Output that a connection has not accepted 10 s
after the end of the container is dropped for it; the log has everything.
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#debugging
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator
from typing import Literal

import anyio

from ..notify import Notifier
from ..runtimes.base import RunningContainer
from .logs import ContainerLog

Stream = Literal["stdout", "stderr"]

DRAIN_TIMEOUT = 10.0
"""Seconds from the end of a container in which attached connections can accept its output."""
MAX_UNSENT = 1 << 20
"""Bytes of output on their way to one connection, as in the buffers of sockets and proxies."""


class Attachment:
    """One attached connection. It receives the output from now on."""

    def __init__(self, streams: ContainerStreams, stdin: bool, wanted: frozenset[Stream]) -> None:
        self._streams = streams
        self._stdin = stdin
        self._wanted = wanted
        self._chunks: deque[tuple[Stream, bytes]] = deque()
        self._unsent = 0
        self._ended = False
        self._changed = Notifier()
        self.broken = anyio.Event()
        """Set if the connection has to break, because the kubelet stopped."""

    async def next(self) -> tuple[Stream, bytes] | None:
        """Return the next chunk of output with its stream, or None after the end of both."""
        while not self._chunks and not self._ended:
            await self._changed.wait()
        if not self._chunks:
            return None
        stream, data = self._chunks.popleft()
        self._unsent -= len(data)
        self._changed.notify()
        return stream, data

    async def put(self, stream: Stream, data: bytes) -> None:
        """Add output of a requested stream. Wait for room."""
        if stream not in self._wanted:
            return
        while self._unsent >= MAX_UNSENT and not self._ended:
            await self._changed.wait()
        if not self._ended:
            self._chunks.append((stream, data))
            self._unsent += len(data)
            self._changed.notify()

    def end(self) -> None:
        """Accept no more output. Idempotent."""
        self._ended = True
        self._changed.notify()

    async def write(self, data: bytes) -> None:
        """Write to the container's stdin, if the connection asked for it and the container has one."""
        if self._stdin:
            await self._streams.container.write_stdin(data)

    def close_stdin(self) -> None:
        """End the container's stdin, if it is open for one connection only."""
        if self._stdin and self._streams.stdin_once:
            self._streams.container.close_stdin()

    def close(self) -> None:
        """Detach, because the connection has ended. Idempotent."""
        self.end()
        self._streams.attached.discard(self)
        self.close_stdin()


class ContainerStreams:
    """Copies the output of one container to its log and to all attached connections."""

    def __init__(self, container: RunningContainer, log: ContainerLog, *, stdin_once: bool) -> None:
        self.container = container
        self.stdin_once = stdin_once
        self.attached: set[Attachment] = set()
        self._log = log
        self._ended = False
        self.running = True
        """Whether the container runs, so that connections can be attached."""
        self._deadline = math.inf
        self._waiting: set[anyio.CancelScope] = set()

    def attach(self, *, stdin: bool, stdout: bool, stderr: bool) -> Attachment:
        """Attach a connection."""
        wanted: set[Stream] = set()
        if stdout:
            wanted.add("stdout")
        if stderr:
            wanted.add("stderr")
        attachment = Attachment(self, stdin, frozenset(wanted))
        if self._ended:
            attachment.end()
        self.attached.add(attachment)
        return attachment

    async def copy(self) -> None:
        """Copy all output, then end the connections."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._copy, "stderr", self.container.errors())
                await self._copy("stdout", self.container.output())
        finally:
            self.end()

    async def _copy(self, stream: Stream, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            self._log.write(chunk, stream)
            for attachment in tuple(self.attached):
                await self._put(attachment, stream, chunk)

    async def _put(self, attachment: Attachment, stream: Stream, chunk: bytes) -> None:
        with anyio.CancelScope(deadline=self._deadline) as scope:
            self._waiting.add(scope)
            try:
                await attachment.put(stream, chunk)
            finally:
                self._waiting.discard(scope)
        if scope.cancelled_caught:
            attachment.end()

    def container_ended(self) -> None:
        """Give the connections a limited time from now to accept the rest of the output."""
        self.running = False
        self._deadline = anyio.current_time() + DRAIN_TIMEOUT
        for scope in self._waiting:
            scope.deadline = self._deadline

    def interrupt(self) -> None:
        """Break all connections, because the kubelet stops."""
        for attachment in tuple(self.attached):
            attachment.broken.set()

    def end(self) -> None:
        """End all connections, because the container has no more output. Idempotent."""
        self._ended = True
        for attachment in self.attached:
            attachment.end()
