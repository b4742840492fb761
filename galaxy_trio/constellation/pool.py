"""A device's connection pool: one connection for each slot.

A running task has a connection to itself, because closing the connection stops the task. A connection on which a task ended normally is
clean and runs the slot's next task: opening and registering another one costs more than a small task.

See "The connection pool" in docs/reliability.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio

from galaxy_trio._connection.backoff import STILL_REGISTERED, is_still_registered
from galaxy_trio._connection.pending_replies import HISTORY
from galaxy_trio.errors import ConnectFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio._connection.connection import Connection
    from galaxy_trio.constellation.connector import Connector
    from galaxy_trio.events import Event

MAX_AGE: Final = 60.0
"""Seconds after which a connection runs no further task. This also limits the use of a token or certificate that was replaced."""
MAX_TASKS: Final = HISTORY
"""The number of tasks that a connection may run: it remembers that many ids, to recognise late replies and reused ids."""
FRESH: Final = 1.0
"""Seconds since the last byte from the server within which an idle connection is used without a ping."""
PING_TIMEOUT: Final = 2.0
"""Seconds for the server to answer a ping on an idle connection."""
_PASSES: Final = 3
"""Scheduler passes that let the receiver process what is readable: two for a socket, one more for a stream that wraps a socket."""
_ABORT_TIMEOUT: Final = 3.0
"""Seconds for closing a socket."""
_FIRST_WAIT: Final = 0.05
"""Seconds before the second attempt while the client id is still registered; doubled up to `STILL_REGISTERED`."""


@attrs.define(eq=False)
class _Name:
    """The suffix of the client id with which a slot's connections register.

    Each connection gets a new one, because the server may not have noticed the end of the previous connection. The suffix stays the same
    only while a session may still run under it: the server refuses the registration until that session has ended, so that no second
    session starts next to it.
    """

    slot: int
    number: int = 0
    has_session: bool = False

    @property
    def suffix(self) -> str:
        return f".{self.slot}.{self.number}" if self.number else f".{self.slot}"

    def connection_ended(self) -> None:
        if not self.has_session:
            self.number += 1


class PooledConnection:
    """A connection of the pool. It runs in its own trio task until it is lost, expires or is closed."""

    def __init__(self, connector: Connector, name: _Name, on_event: Callable[[Event], None]) -> None:
        self._connector = connector
        self._name = name
        self._on_event = on_event
        self._connection: Connection | None = None
        self._opened_at = 0.0
        self._tasks = 0
        self._idle = False
        self._idle_until = math.inf
        self._expired = False
        # Cancelling the first scope closes with a close frame, the second without one.
        self._staying = trio.CancelScope()
        self._closing = False
        self._aborting = trio.CancelScope()
        self._ended = trio.Event()

    @property
    def connection(self) -> Connection:
        """The connection, while it is open."""
        return cast("Connection", self._connection)

    @property
    def idle(self) -> bool:
        """Whether the connection waits for a task."""
        return self._idle

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Open the connection, report that, and keep it open.

        Raises:
            ConnectFailed: As for `open_connection`.
        """
        try:
            with self._aborting:
                async with self._connector.open(self._name.suffix, self._on_event) as self._connection:
                    # The server has accepted the client id, so the previous session under it has ended.
                    self._name.has_session = False
                    self._opened_at = trio.current_time()
                    task_status.started()
                    await self._stay(self._connection)
        finally:
            self._idle = False
            # The pool keeps this object until the slot's next connection.
            self._connection = None
            self._name.connection_ended()
            self._ended.set()

    async def _stay(self, connection: Connection) -> None:
        """Return when the connection is lost, was idle for too long, or is to be closed."""
        while not self._closing and (not self._idle or trio.current_time() < self._idle_until):
            # Moving a deadline for each task would cost as much as everything else here: it may fire too early, never too late.
            with trio.CancelScope(deadline=self._idle_until if self._idle else math.inf) as self._staying:
                await connection.wait_closed()
                break
        self._idle = False

    # The steps of a task on the connection.

    def take(self) -> bool:
        """Take the connection for a task. Returns whether it was idle and, as far as is known, is open."""
        # It may have expired while its own trio task has not run yet.
        if not self._idle or self._closing or trio.current_time() >= self._idle_until:
            return False
        self._idle = False
        return True

    async def is_ready(self, task_id: str) -> bool:
        """Whether the connection can run a task. Call this right before sending.

        An end that is readable on the socket is noticed. A connection that was silent for longer than `FRESH` seconds must answer a ping.
        """
        connection = self._connection
        if connection is None or not self._tasks:
            return connection is not None
        if connection.may_have_unread:
            for _ in range(_PASSES):
                await trio.lowlevel.checkpoint()
        if not connection.is_free_for(task_id):
            return False
        if trio.current_time() - connection.last_received <= FRESH:
            return True
        return await connection.is_alive(timeout=PING_TIMEOUT) and connection.is_free_for(task_id)

    def task_sent(self) -> None:
        """Record that a task was sent: a session may run now."""
        self._tasks += 1
        self._name.has_session = True

    def task_ended(self, keepalive_expiry: float) -> bool:
        """Record that the task ended normally. Returns whether the connection is idle now; otherwise the caller must close it."""
        self._name.has_session = False
        now = trio.current_time()
        until = min(now + keepalive_expiry, self._opened_at + MAX_AGE)
        is_open = self._connection is not None and not self._connection.closed
        if not is_open or self._expired or until <= now or self._tasks >= MAX_TASKS:
            return False
        self._idle = True
        self._idle_until = until
        if self._staying.deadline > until:
            self._staying.deadline = until
        return True

    def expire(self) -> None:
        """Close the connection with a close frame: now if it is idle, otherwise after its task."""
        self._expired = True
        if self._idle:
            self._close()

    def _close(self) -> None:
        self._idle = False
        self._closing = True
        self._staying.cancel()

    async def wait_ended(self) -> None:
        """Wait until the connection is closed."""
        await self._ended.wait()

    async def aclose(self) -> None:
        """Close the connection with a close frame. Cancelling closes the socket immediately."""
        self._close()
        try:
            await self._ended.wait()
        except BaseException:
            await self.abort()
            raise

    async def abort(self) -> None:
        """Close the socket immediately, even if cancelled. The server notices it and stops the session."""
        self._aborting.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _ABORT_TIMEOUT):
            await self._ended.wait()


class ConnectionPool:
    """The connections of a device's slots, at most one for each slot at any time.

    Args:
        connector: Opens the connections.
        nursery: The constellation's nursery, which runs them.
        on_event: Called with their events; see `open_connection`.
        keepalive_expiry: Seconds for which an idle connection is kept; 0 to close each after one task.
    """

    def __init__(
        self, connector: Connector, nursery: trio.Nursery, on_event: Callable[[Event], None], keepalive_expiry: float
    ) -> None:
        self._connector = connector
        self._nursery = nursery
        self._on_event = on_event
        self._keepalive_expiry = keepalive_expiry
        self._closed = False
        # The last connection of each slot, which may be in use, idle or closed.
        self._connections: dict[int, PooledConnection] = {}
        self._names: dict[int, _Name] = {}

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return sum(connection.idle for connection in self._connections.values())

    def may_have_session(self, slot: int) -> bool:
        """Whether a session may still run in a free slot: the server may not have noticed that its connection was closed."""
        name = self._names.get(slot)
        return name is not None and name.has_session

    def take(self, slot: int) -> PooledConnection | None:
        """Take a slot's idle connection, if it has one."""
        connection = self._connections.get(slot)
        return connection if connection is not None and connection.take() else None

    async def open(self, slot: int) -> PooledConnection:
        """Open a connection for a slot, in place of the slot's previous one.

        The attempt is repeated while the server has not noticed the end of the slot's previous session. Cancelling leaves nothing open.

        Raises:
            ConnectFailed: As for `open_connection`.
        """
        previous = self._connections.get(slot)
        if previous is not None:
            await previous.abort()
        name = self._names.setdefault(slot, _Name(slot))
        wait = _FIRST_WAIT
        while True:
            connection = self._connections[slot] = PooledConnection(self._connector, name, self._on_event)
            try:
                await self._nursery.start(connection.run)
            except ConnectFailed as failed:
                if not is_still_registered(failed):
                    raise
            else:
                return connection
            await trio.sleep(wait)
            wait = min(2 * wait, STILL_REGISTERED)

    def put_back(self, connection: PooledConnection) -> bool:
        """Return a connection whose task ended normally to the pool. Returns whether it is idle now; otherwise the caller must close it."""
        return connection.task_ended(0 if self._closed else self._keepalive_expiry)

    def expire(self) -> None:
        """Close the idle connections with a close frame, and those in use after their tasks."""
        for connection in self._connections.values():
            connection.expire()

    def close(self) -> None:
        """Like `expire`, and accept no connection back from now on."""
        self._closed = True
        self.expire()

    async def wait_closed(self) -> None:
        """Wait until all connections are closed, after `expire`. Those in use are closed by their tasks."""
        for connection in list(self._connections.values()):
            await connection.wait_ended()
