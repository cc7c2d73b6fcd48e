"""An embedded cluster behind a socket, with a clock that tests can advance past its deadlines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import anyio.abc
import trio
import trio.testing

from gke_sandbox.local.transport import LocalTransport
from tests.http_cluster import Answering, serve_connection


class Served:
    """A cluster that listens on `port`. Call its methods from other threads, not from the one that serves it."""

    def __init__(self, port: int, transport: LocalTransport, clock: trio.testing.MockClock) -> None:
        self.port = port
        self.transport = transport
        self._clock = clock
        self._token = trio.lowlevel.current_trio_token()

    def advance(self, seconds: float, step: float = 1.0) -> None:
        """Advance the clock by `seconds` and run everything that is due in that time."""

        async def jump() -> None:
            for _ in range(round(seconds / step)):
                self._clock.jump(step)
                # Tasks of idle connections stay blocked; all others run until they block.
                await trio.testing.wait_all_tasks_blocked(0.001)

        trio.from_thread.run(jump, trio_token=self._token)

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """See `LocalTransport.until`."""
        trio.from_thread.run(self.transport.until, condition, seconds, trio_token=self._token)

    def leftovers(self) -> list[str]:
        """See `LocalTransport.leftovers`."""
        return trio.from_thread.run_sync(self.transport.leftovers, trio_token=self._token)


@contextmanager
def served(
    transport: LocalTransport, around: Callable[[LocalTransport], Answering] | None = None
) -> Iterator[Served]:
    """Serve `transport`, wrapped by `around`, while the block runs. The clock runs in real time until advanced."""
    ready = threading.Event()
    found: list[Served] = []
    stop: list[Callable[[], None]] = []
    clock = trio.testing.MockClock(rate=1.0)

    async def main() -> None:
        async with transport, await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            handler = transport if around is None else around(transport)
            found.append(Served(listener.extra(anyio.abc.SocketAttribute.local_port), transport, clock))
            token = trio.lowlevel.current_trio_token()
            with trio.CancelScope() as scope:
                stop.append(lambda: trio.from_thread.run_sync(scope.cancel, trio_token=token))
                ready.set()
                await listener.serve(lambda stream: serve_connection(stream, handler))

    thread = threading.Thread(target=lambda: trio.run(main, clock=clock), name="served cluster")
    thread.start()
    try:
        assert ready.wait(10)
        yield found[0]
    finally:
        stop[0]()
        thread.join(10)
        assert not thread.is_alive()
