"""A device's connection pool: a connection for each slot, which runs one task after the other.

A running task has a connection to itself, because closing it is what stops the task. A connection on which a task ended normally is
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
"""Seconds after which a connection runs no further task, which also bounds the use of a token or certificate that was replaced."""
MAX_TASKS: Final = HISTORY
"""Tasks that a connection runs at most: it remembers the ids of that many, and so knows a late reply and an id that was used."""
FRESH: Final = 1.0
"""Seconds since the last byte from the server within which an idle connection is used without a ping."""
PING_TIMEOUT: Final = 2.0
"""Seconds for the server to answer the ping on an idle connection."""
_PASSES: Final = 3
"""Scheduler passes that give the receiver the chance to process what is readable: two for a socket, one more for a stream around one."""
_ABORT_TIMEOUT: Final = 3.0
"""Seconds that closing a socket may take."""
_FIRST_WAIT: Final = 0.05
"""Seconds before the second try while a name is still registered; doubled up to `STILL_REGISTERED`."""


@attrs.define(eq=False)
class _Name:
    """The name under which a slot's connections register.

    Each connection gets a new one, because the server may not have noticed the end of the one before. Only while a session may still run
    under the name is it kept: the server refuses the registration until that session has ended, so that no second one starts next to it.
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
    """A connection of the pool, which runs in a task of its own until it is lost, expires or is closed."""

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
        # Leaving the one closes in good order, and the other without a close frame.
        self._staying = trio.CancelScope()
        self._closing = False
        self._aborting = trio.CancelScope()
        self._ended = trio.Event()

    @property
    def connection(self) -> Connection:
        """The connection itself, while it is ready."""
        return cast("Connection", self._connection)

    @property
    def idle(self) -> bool:
        """Whether it waits for a task."""
        return self._idle

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Open it, report that, and keep it open.

        Raises:
            ConnectFailed: As for `open_connection`.
        """
        try:
            with self._aborting:
                async with self._connector.open(self._name.suffix, self._on_event) as self._connection:
                    # The server has accepted the name: what ran under it before has ended.
                    self._name.has_session = False
                    self._opened_at = trio.current_time()
                    task_status.started()
                    await self._stay(self._connection)
        finally:
            self._idle = False
            # This object stays until the slot's next connection.
            self._connection = None
            self._name.connection_ended()
            self._ended.set()

    async def _stay(self, connection: Connection) -> None:
        """Return when the connection is lost, was idle for too long, or is to be closed."""
        while not self._closing and (not self._idle or trio.current_time() < self._idle_until):
            # Moving a deadline for each task would cost as much as all the rest here: it may come too early, and never too late.
            with trio.CancelScope(deadline=self._idle_until if self._idle else math.inf) as self._staying:
                await connection.wait_closed()
                break
        self._idle = False

    # A task's way through it.

    def take(self) -> bool:
        """Take it for a task. Returns whether it was idle, and still is open as far as is known."""
        # Its time may be up, and its own task not have run yet.
        if not self._idle or self._closing or trio.current_time() >= self._idle_until:
            return False
        self._idle = False
        return True

    async def is_ready(self, task_id: str) -> bool:
        """Whether it can run a task, to be asked right before sending.

        An end that the socket can show is noticed. What has been silent for longer than `FRESH` seconds must answer a ping.
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
        """A task was sent: a session may run on it."""
        self._tasks += 1
        self._name.has_session = True

    def task_ended(self, keepalive_expiry: float) -> bool:
        """Its task ended normally. Returns whether it can wait for another one; if not, it has to be closed."""
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

    # Its end.

    def expire(self) -> None:
        """Run no further task: close it in good order, now if it is idle."""
        self._expired = True
        if self._idle:
            self._close()

    def _close(self) -> None:
        self._idle = False
        self._closing = True
        self._staying.cancel()

    async def wait_ended(self) -> None:
        """Wait until it is closed."""
        await self._ended.wait()

    async def aclose(self) -> None:
        """Close it in good order. Cancelling closes the socket immediately."""
        self._close()
        try:
            await self._ended.wait()
        except BaseException:
            await self.abort()
            raise

    async def abort(self) -> None:
        """Close the socket now, also under cancellation: the server learns of it, and stops what runs on the connection."""
        self._aborting.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _ABORT_TIMEOUT):
            await self._ended.wait()


class ConnectionPool:
    """The connections of a device's slots: at most one for each slot at any time.

    Args:
        connector: Opens them.
        nursery: Runs them; the constellation's.
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
        # By slot: the last that was opened, whether it is in use, idle or closed.
        self._connections: dict[int, PooledConnection] = {}
        self._names: dict[int, _Name] = {}

    @property
    def idle(self) -> int:
        """How many connections are idle."""
        return sum(connection.idle for connection in self._connections.values())

    def may_have_session(self, slot: int) -> bool:
        """Whether a session may still run in a free slot, because the server has not noticed that the slot's connection was closed under it."""
        name = self._names.get(slot)
        return name is not None and name.has_session

    def take(self, slot: int) -> PooledConnection | None:
        """Take a slot's idle connection, if it has one."""
        connection = self._connections.get(slot)
        return connection if connection is not None and connection.take() else None

    async def open(self, slot: int) -> PooledConnection:
        """Open a connection for a slot, in place of the one that it had.

        While the server has not noticed the end of the slot's previous session, it is tried again. Cancelling leaves nothing open.

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
        """Take back a connection whose task ended normally. Returns whether it is kept; if not, the caller closes it."""
        return connection.task_ended(0 if self._closed else self._keepalive_expiry)

    def expire(self) -> None:
        """Close the idle connections in good order, and those in use after their tasks."""
        for connection in self._connections.values():
            connection.expire()

    def close(self) -> None:
        """Like `expire`, and keep no connection from now on."""
        self._closed = True
        self.expire()

    async def wait_closed(self) -> None:
        """Wait until all connections are closed, after `expire`; those in use are for their tasks to close."""
        for connection in list(self._connections.values()):
            await connection.wait_ended()
