"""PostgreSQL's notifications on trio: LISTEN on a connection of its own, which a task reads without a thread.

Rule 11 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from random import uniform
from typing import TYPE_CHECKING, Final, NoReturn

import psycopg
import trio
from psycopg import pq, sql
from trio.lowlevel import wait_readable, wait_writable

from galaxy_trio.daemon.store.postgresql_sessions import reason_of, session_settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from galaxy_trio.daemon.store.postgresql_sessions import PostgresqlSessions

logger: Final = logging.getLogger(__name__)

_POLL_INTERVAL: Final = 2.0
"""Seconds between calls without a notification: the connection may be down, and a notification be missing behind a pooler."""
_TIMEOUT: Final = 5.0
"""Maximum seconds until a new connection listens."""
_MIN_DELAY: Final = 0.1
_MAX_DELAY: Final = 30.0
"""Seconds to wait before the next connection: they double until a connection has lasted for the maximum."""


async def follow_commits(database: PostgresqlSessions, on_commit: Callable[[], None]) -> NoReturn:
    """Call a function whenever something may have been committed, in this process or in another one. Never returns.

    It is called after a notification in the cluster's channel, once for those that arrive together; after each LISTEN, because earlier
    commits notified other sessions only; and every 2 s. It must not block or raise.

    It connects again, with backoff, whenever the connection is lost. Cancelling closes the connection; only a name of a host that is being
    resolved delays this.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_poll, on_commit)
        await _listen(database, on_commit)


async def _poll(on_commit: Callable[[], None]) -> NoReturn:
    while True:
        await trio.sleep(_POLL_INTERVAL)
        on_commit()


async def _listen(database: PostgresqlSessions, on_commit: Callable[[], None]) -> NoReturn:
    """Listen on one connection after the other."""
    delay = _MIN_DELAY
    has_failed = False
    while True:
        began = trio.current_time()
        try:
            async with _open_listener(database) as connection:
                if has_failed:
                    logger.info("%s sends notifications again", database)
                has_failed = False
                on_commit()
                await _receive(connection, on_commit)
        except (psycopg.Error, trio.TooSlowError) as error:
            if not has_failed:
                why = reason_of(error) if isinstance(error, psycopg.Error) else "it does not answer"
                logger.warning("%s sends no notifications, and is read every %g s: %s", database, _POLL_INTERVAL, why)
            has_failed = True
        if trio.current_time() - began >= _MAX_DELAY:
            delay = _MIN_DELAY
        await trio.sleep(uniform(delay / 2, delay))  # noqa: S311  # jitter is not a secret
        delay = min(2 * delay, _MAX_DELAY)


async def _receive(connection: pq.abc.PGconn, on_commit: Callable[[], None]) -> NoReturn:
    while True:
        # What has arrived must be taken first: the socket does not become readable for it again.
        if connection.notifies():
            while connection.notifies():
                pass
            on_commit()
        await wait_readable(connection.socket)
        connection.consume_input()


@asynccontextmanager
async def _open_listener(database: PostgresqlSessions) -> AsyncGenerator[pq.abc.PGconn]:
    """Connect, and listen to the cluster's channel inside the block.

    Raises:
        psycopg.Error: The connection failed.
        trio.TooSlowError: The server did not answer in time.
    """
    deadline = trio.current_time() + _TIMEOUT
    # The driver resolves names here, and in the polls below; nothing else blocks.
    connection = await trio.to_thread.run_sync(pq.PGconn.connect_start, database.connection_string())
    try:
        with trio.fail_at(deadline):
            await _connect(connection)
            listen = sql.SQL("; LISTEN {}").format(sql.Identifier(database.cluster)).as_bytes(None)
            await _execute(connection, session_settings(database.cluster, database.lease) + listen)
        yield connection
    finally:
        connection.finish()


async def _connect(connection: pq.abc.PGconn) -> None:
    status: int = pq.PollingStatus.WRITING
    while connection.status != pq.ConnStatus.BAD and status != pq.PollingStatus.OK:
        await (wait_readable if status == pq.PollingStatus.READING else wait_writable)(connection.socket)
        status = await trio.to_thread.run_sync(connection.connect_poll)
    if connection.status == pq.ConnStatus.BAD:
        raise psycopg.OperationalError(connection.get_error_message())


async def _execute(connection: pq.abc.PGconn, statements: bytes) -> None:
    # Few bytes on a new connection: sending them does not block.
    connection.send_query(statements)
    while True:
        while connection.is_busy():
            await wait_readable(connection.socket)
            connection.consume_input()
        result = connection.get_result()
        if result is None:
            return
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise psycopg.OperationalError(result.get_error_message())
