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
from hypercorn.trio.worker_context import WorkerContext

from galaxy_trio._concurrency.accepting import serve_listeners
from galaxy_trio._concurrency.limited_log import LimitedLog, in_one_line
from galaxy_trio.daemon.web.connections import NoPlace, Places
from galaxy_trio.daemon.web.http1 import Http1Server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from hypercorn.typing import ASGIFramework
    from starlette.types import ASGIApp, Receive, Scope, Send

logger: Final = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 200
"""Maximum concurrent connections with a request; further ones get a 503."""
_MAX_HEADERS: Final = 64 * 1024
"""Maximum bytes of an incomplete first line and headers; `security.MAX_HEADERS` limits complete ones."""
_HEADERS_TIMEOUT: Final = 10.0
"""Maximum seconds until a request's headers have arrived, and for a connection to be idle."""
_GRACE: Final = 3.0
"""Maximum seconds for pending requests when the server closes."""
_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nRetry-After: 1\r\n\r\n"
    b'{"error":"the daemon has too many connections: retry later"}'
)


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
    places = Places(max_connections)
    refusals = trio.Semaphore(max_connections)
    failures, bugs = LimitedLog(logger), LimitedLog(logger)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # logged here, because Hypercorn would log each one
            bugs.problem("a request failed", error=error)

    # Starlette and Hypercorn define equivalent types under different names.
    wrapped = ASGIWrapper(cast("ASGIFramework", answer))

    async def serve(stream: trio.SocketStream) -> None:
        try:
            with places.take() as set_idle:
                await Http1Server(wrapped, config, context, stream, set_idle)
        except NoPlace:
            await _refuse(stream, refusals)
        except Exception as error:
            # An error in one connection must not affect the others.
            failures.problem("a connection failed: %s", in_one_line(error))
            logger.debug("a connection failed", exc_info=error)

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(failures.log_counts)
            accepting.start_soon(bugs.log_counts)
            accepting.start_soon(partial(serve_listeners, serve, listeners, handler_nursery=connections, logger=logger))
            try:
                yield
            finally:
                accepting.cancel_scope.cancel()
        # This closes idle connections immediately.
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + _GRACE


async def _refuse(stream: trio.SocketStream, refusals: trio.Semaphore) -> None:
    try:
        refusals.acquire_nowait()
    except trio.WouldBlock:
        return
    try:
        with trio.move_on_after(1):
            await stream.send_all(_TOO_MANY)
            await stream.send_eof()
            # Closing with unread data would reset the connection, and the client would lose the answer.
            await stream.receive_some(_MAX_HEADERS)
    except trio.BrokenResourceError:
        pass
    finally:
        refusals.release()
