"""Serves HTTP with Hypercorn on listeners of our own, with limits on the number and the slowness of clients."""

from __future__ import annotations

import logging
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from hypercorn.typing import ASGIFramework
    from starlette.types import ASGIApp

logger: Final = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 200
"""Maximum concurrent connections; further ones get a 503."""
_MAX_HEADERS: Final = 64 * 1024
"""Maximum bytes of an incomplete first line and headers; `security.MAX_HEADERS` limits complete ones."""
_HEADERS_TIMEOUT: Final = 10.0
"""Maximum seconds until a request's headers have arrived, and for a connection to be idle."""
_SEND_TIMEOUT: Final = 10.0
"""Maximum seconds until a client has read a piece of a response."""
_GRACE: Final = 3.0
"""Maximum seconds for pending requests when the server closes."""
_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nRetry-After: 1\r\n\r\n"
    b'{"error":"the daemon has too many connections: retry later"}'
)


class _TimeoutStream(trio.abc.HalfCloseableStream):
    """A client's stream with a timeout for sending: Hypercorn sends under a shield, which nothing else would end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(_SEND_TIMEOUT) as timeout:
            await self._stream.send_all(data)
        if timeout.cancelled_caught:
            await trio.aclose_forcefully(self)
            raise trio.BrokenResourceError("the client reads too slowly")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def serve_http(
    app: ASGIApp, listeners: Sequence[trio.SocketListener], *, max_connections: int = MAX_CONNECTIONS
) -> AsyncGenerator[None]:
    """Answer requests inside the block. Leaving it gives pending requests some seconds to end."""
    config = Config()
    config.errorlog = logging.getLogger(f"{__name__}.hypercorn")
    config.h11_max_incomplete_size = _MAX_HEADERS
    config.keep_alive_timeout = _HEADERS_TIMEOUT
    config.include_server_header = False
    # No limit: a client with many requests should not have to reconnect.
    config.keep_alive_max_requests = sys.maxsize
    context = WorkerContext(None)
    permits = trio.Semaphore(max_connections)
    # Starlette and Hypercorn define equivalent types under different names.
    wrapped = ASGIWrapper(cast("ASGIFramework", app))

    async def serve(stream: trio.SocketStream) -> None:
        try:
            permits.acquire_nowait()
        except trio.WouldBlock:
            await _refuse(stream)
            return
        try:
            await TCPServer(wrapped, config, context, ConnectionState({}), _TimeoutStream(stream))  # type: ignore[arg-type]
        except Exception:
            # An error in one connection must not affect the others.
            logger.exception("a connection failed")
        finally:
            permits.release()
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(partial(trio.serve_listeners, serve, list(listeners), handler_nursery=connections))
            try:
                yield
            finally:
                accepting.cancel_scope.cancel()
        # This closes idle connections immediately.
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + _GRACE


async def _refuse(stream: trio.SocketStream) -> None:
    with trio.move_on_after(1):
        try:
            await stream.send_all(_TOO_MANY)
            await stream.send_eof()
            # Closing with unread data would reset the connection, and the client would lose the answer.
            await stream.receive_some(_MAX_HEADERS)
        except trio.BrokenResourceError:
            pass
    await trio.aclose_forcefully(stream)
