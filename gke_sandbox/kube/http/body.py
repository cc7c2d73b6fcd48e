"""Response bodies: bounded reads, decompression, and a close that works in a cancelled task."""

from __future__ import annotations

import ssl
import zlib
from contextlib import suppress
from typing import cast

import anyio
import httpx

from ..status import RequestInfo
from .proxy import Proxy
from .transport import CLOSE_TIMEOUT, network_errors

__all__ = ["ResponseBody"]

# More than the buffers of httpcore and TLS can hold, in chunks of one byte.
MAX_BUFFERED_CHUNKS = 1 << 17
# How a body that nobody wants any more may end.
_UNWOUND = (StopAsyncIteration, httpx.HTTPError, httpx.StreamError, ssl.SSLError)


class ResponseBody:
    """An answer's body: its chunks as they come, with httpx's errors turned into ours."""

    def __init__(
        self, response: httpx.Response, call: RequestInfo, server: str, proxy: Proxy | None = None
    ) -> None:
        self._response = response
        self._call = call
        self._server = server
        self._proxy = proxy
        # Not httpx's own iterators: they close the stream at its end by themselves, and if the task is cancelled
        # just then, it stays open. (What they would do besides, decompression, is done by `read`.)
        self._chunks = aiter(cast("httpx.AsyncByteStream", response.stream))
        self._begun = False

    def __aiter__(self) -> ResponseBody:
        return self

    async def __anext__(self) -> bytes:
        self._begun = True
        with network_errors(self._call, self._server, self._proxy):
            return await anext(self._chunks)

    async def read(self, limit: int) -> tuple[bytes, bool]:
        """The whole body, or its first `limit` bytes and False; unpacked, if it was compressed with gzip."""
        content = bytearray()
        gunzip = zlib.decompressobj(wbits=31) if self._compressed else None
        async for chunk in self:
            with network_errors(self._call, self._server, self._proxy):
                content += chunk if gunzip is None else _unpack(gunzip, chunk, limit + 1 - len(content))
            if len(content) > limit:
                return bytes(content[:limit]), False
        if gunzip is not None and self._begun and not gunzip.eof:
            with network_errors(self._call, self._server, self._proxy):
                raise httpx.DecodingError("the compressed answer was cut off")
        return bytes(content), True

    @property
    def _compressed(self) -> bool:
        return bool(self._response.headers.get("content-encoding") == "gzip")

    async def aclose(self) -> None:
        """Close the answer, read to its end or not, and free its connection, though the task be cancelled."""
        if self._begun:
            # An answer that is given up leaves a chain of generators of httpx and httpcore suspended, and trio
            # complains when they are collected. A cancelled read unwinds the chain from its innermost end.
            # What has come already is passed over first.
            with anyio.CancelScope(shield=True) as scope, suppress(*_UNWOUND):
                scope.cancel()
                for _ in range(MAX_BUFFERED_CHUNKS):
                    await anext(self._chunks)
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True), suppress(*_UNWOUND):
            await self._response.aclose()


def _unpack(gunzip: zlib._Decompress, chunk: bytes, limit: int) -> bytes:
    try:
        return gunzip.decompress(chunk, limit)
    except zlib.error as error:
        raise httpx.DecodingError("the compressed answer is damaged") from error
