"""HTTP: Hypercorn's connections on listeners of our own: there is a limit to how many there are, and to how long one may not read."""

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
"""Clients at once; another one gets a 503."""
_MAX_HEADERS: Final = 64 * 1024
"""Bytes of a request's first line and headers that are not complete yet; see `security.MAX_HEADERS` for those that are."""
_HEADERS_WITHIN: Final = 10.0
"""Seconds for a request's headers to come, and for a connection to be idle."""
_READ_WITHIN: Final = 10.0
"""Seconds for a client to take a piece of a response."""
_GRACE: Final = 3.0
"""Seconds for requests to end when the daemon does."""
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nRetry-After: 1\r\n\r\n"
    b'{"error":"the daemon has too many connections: try again"}'
)


class _PatientStream(trio.abc.HalfCloseableStream):
    """A client that may be slow, but not for ever: Hypercorn sends under a shield, which nothing else would end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(_READ_WITHIN) as patience:
            await self._stream.send_all(data)
        if patience.cancelled_caught:
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
    """Answer requests for the length of the block; those that are being answered at its end have some seconds more."""
    config = Config()
    config.errorlog = logging.getLogger(f"{__name__}.hypercorn")
    config.h11_max_incomplete_size = _MAX_HEADERS
    config.keep_alive_timeout = _HEADERS_WITHIN
    config.include_server_header = False
    # A client that asks much need not connect again and again.
    config.keep_alive_max_requests = sys.maxsize
    context = WorkerContext(None)
    places = trio.Semaphore(max_connections)
    # Starlette's types and Hypercorn's say the same in different words.
    wrapped = ASGIWrapper(cast("ASGIFramework", app))

    async def serve(stream: trio.SocketStream) -> None:
        try:
            places.acquire_nowait()
        except trio.WouldBlock:
            await _refuse(stream)
            return
        try:
            await TCPServer(wrapped, config, context, ConnectionState({}), _PatientStream(stream))  # type: ignore[arg-type]
        except Exception:
            # Whatever one client has sent is nothing to the others.
            logger.exception("a connection has failed")
        finally:
            places.release()
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(partial(trio.serve_listeners, serve, list(listeners), handler_nursery=connections))
            try:
                yield
            finally:
                accepting.cancel_scope.cancel()
        # Idle connections end at once.
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + _GRACE


async def _refuse(stream: trio.SocketStream) -> None:
    with trio.move_on_after(1):
        try:
            await stream.send_all(_FULL)
            await stream.send_eof()
            # What it has sent is read, or closing would reset the connection, and our answer with it.
            await stream.receive_some(_MAX_HEADERS)
        except trio.BrokenResourceError:
            pass
    await trio.aclose_forcefully(stream)
