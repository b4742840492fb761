"""Accepts connections from listeners, and goes on when the system has no room for another one."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from galaxy_trio._concurrency.limited_log import LimitedLog

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Never

_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_DELAY: Final = 0.1
"""Seconds until the next attempt when the system has no room."""

L = TypeVar("L", bound=trio.abc.Listener[trio.SocketStream])


async def serve_listeners(
    handler: Callable[[trio.SocketStream], Awaitable[None]],
    listeners: Sequence[L],
    *,
    handler_nursery: trio.Nursery,
    logger: logging.Logger,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> Never:
    """Start a task for each connection, like `trio.serve_listeners`, which logs a traceback every 100 ms when there is no room.

    Args:
        handler: Serves a connection, which is closed when it returns.
        listeners: They are closed at the end.
        handler_nursery: Runs the handlers.
        logger: Gets one line when there is no room for connections, and then a count every minute.
        task_status: Notified immediately.

    Raises:
        OSError: A listener failed for another reason.
    """
    log = LimitedLog(logger)
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_serve_one, listener, handler, handler_nursery, log)
        task_status.started()
        await log.log_counts()


async def _serve_one(
    listener: trio.abc.Listener[trio.SocketStream],
    handler: Callable[[trio.SocketStream], Awaitable[None]],
    nursery: trio.Nursery,
    log: LimitedLog,
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        try:
            await handler(stream)
        finally:
            await trio.aclose_forcefully(stream)

    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                log.problem("a connection cannot be accepted: %s: close some, or raise the limit", error.strerror)
                await trio.sleep(_RETRY_DELAY)
            else:
                nursery.start_soon(serve, stream)
