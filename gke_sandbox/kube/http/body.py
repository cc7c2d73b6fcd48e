"""Response bodies: bounded reads, decompression, and a close that works in a cancelled task."""

from __future__ import annotations

import ssl
import zlib
from contextlib import suppress
from typing import cast

import anyio
import httpx

from .transport import CLOSE_TIMEOUT, NETWORK_EXCEPTIONS, NetworkErrors

__all__ = ["ResponseBody"]

MAX_BUFFERED_CHUNKS = 1 << 17
"""More than the buffers of httpcore and TLS can hold, in chunks of one byte."""
_CLOSE_ERRORS = (StopAsyncIteration, httpx.HTTPError, httpx.StreamError, ssl.SSLError)
"""The exceptions to ignore when closing a body."""


class ResponseBody:
    """An iterator over the chunks of a response. `network_errors` converts the exceptions of httpx."""

    def __init__(self, response: httpx.Response, network_errors: NetworkErrors) -> None:
        self._response = response
        self._network_errors = network_errors
        # Do not use the iterators of httpx: they close the stream at its end, and if the task is cancelled at that
        # moment, it stays open. (`read` decompresses instead of them.)
        self._chunks = aiter(cast("httpx.AsyncByteStream", response.stream))
        self._started = self._ended = False

    def __aiter__(self) -> ResponseBody:
        return self

    async def __anext__(self) -> bytes:
        self._started = True
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._ended = True
            raise
        except NETWORK_EXCEPTIONS as error:
            failed = error
        # Only now: a context manager around each read needs memory for as long as it waits.
        try:
            with self._network_errors():
                raise failed
        finally:
            # Its traceback refers to this frame.
            del failed

    async def read(self, limit: int) -> tuple[bytes, bool]:
        """Return the decompressed body and True, or its first `limit` bytes and False if it is longer."""
        content = bytearray()
        gunzip = zlib.decompressobj(wbits=31) if self._compressed else None
        async for chunk in self:
            with self._network_errors():
                content += chunk if gunzip is None else _decompress(gunzip, chunk, limit + 1 - len(content))
            if len(content) > limit:
                return bytes(content[:limit]), False
        if gunzip is not None and self._started and not gunzip.eof:
            with self._network_errors():
                raise httpx.DecodingError("the compressed response is truncated")
        return bytes(content), True

    @property
    def _compressed(self) -> bool:
        return bool(self._response.headers.get("content-encoding") == "gzip")

    async def aclose(self) -> None:
        """Close the response, even if it is incomplete or the task is cancelled, and free its connection."""
        if self._started and not self._ended:
            # After an incomplete response, a chain of generators of httpx and httpcore is suspended, and trio
            # warns when they are garbage-collected. A cancelled read ends the chain from the innermost one.
            # Buffered chunks come before it.
            with anyio.CancelScope(shield=True) as scope, suppress(*_CLOSE_ERRORS):
                scope.cancel()
                for _ in range(MAX_BUFFERED_CHUNKS):
                    await anext(self._chunks)
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True), suppress(*_CLOSE_ERRORS):
            await self._response.aclose()
        if not self._response.is_stream_consumed:
            # The response and its stream refer to each other: without this, they wait for the garbage collector.
            # A mock transport may return a response, whose content is in memory, again.
            self._response.stream = httpx.ByteStream(b"")


def _decompress(gunzip: zlib._Decompress, chunk: bytes, limit: int) -> bytes:
    try:
        return gunzip.decompress(chunk, limit)
    except zlib.error as error:
        raise httpx.DecodingError("the compressed response is damaged") from error
