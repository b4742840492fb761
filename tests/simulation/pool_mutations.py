"""Deliberate breakages of the connection pool, one at a time, which the simulation must find."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final
from unittest import mock

import trio

from galaxy_trio._connection.connection import Connection, SentTask
from galaxy_trio.constellation.pool import ConnectionPool, PooledConnection, _Name
from tests.simulation.patching import Mutation, both

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def reuse_after_a_cancel() -> AbstractContextManager[object]:
    """The connection of a task that was cancelled, timed out or refused runs the next one instead of being closed."""
    abort, aclose = PooledConnection.abort, PooledConnection.aclose

    def put_back(self: PooledConnection) -> bool:
        return self._name.has_session and self.task_ended(5)

    async def abort_others(self: PooledConnection) -> None:
        if not (trio.current_effective_deadline() == -math.inf and put_back(self)):
            await abort(self)

    async def close_others(self: PooledConnection) -> None:
        if not put_back(self):
            await aclose(self)

    return both(
        mock.patch.object(PooledConnection, "abort", abort_others),
        mock.patch.object(PooledConnection, "aclose", close_others),
    )


def reuse_a_dead_connection() -> AbstractContextManager[object]:
    """An idle connection is used without a check."""

    async def is_ready(self: PooledConnection, task_id: str) -> bool:
        del self, task_id
        await trio.lowlevel.checkpoint()
        return True

    return mock.patch.object(PooledConnection, "is_ready", is_ready)


def reuse_a_silent_connection() -> AbstractContextManager[object]:
    """An idle connection is used without a ping."""

    async def is_alive(self: Connection, *, timeout: float = 2.0) -> bool:
        del timeout
        await trio.lowlevel.checkpoint()
        return not self.closed

    return mock.patch.object(Connection, "is_alive", is_alive)


def reuse_before_the_acknowledgement() -> AbstractContextManager[object]:
    """A connection whose task has ended without an acknowledgement runs the next one."""
    return mock.patch.object(SentTask, "is_settled", new=True)


def never_expire() -> AbstractContextManager[object]:
    """An idle connection is kept for good."""
    task_ended = PooledConnection.task_ended

    def never_expiring(self: PooledConnection, keepalive_expiry: float) -> bool:
        is_idle = task_ended(self, keepalive_expiry)
        self._idle_until = self._staying.deadline = math.inf
        return is_idle

    return mock.patch.object(PooledConnection, "task_ended", never_expiring)


def leave_connections_of_a_disconnected_device_open() -> AbstractContextManager[object]:
    """Idle connections stay open when their device is disconnected or removed."""

    async def wait_closed(self: ConnectionPool) -> None:
        del self
        await trio.lowlevel.checkpoint()

    return both(
        mock.patch.object(ConnectionPool, "expire", return_value=None),
        mock.patch.object(ConnectionPool, "wait_closed", wait_closed),
    )


def expire_in_use() -> AbstractContextManager[object]:
    """A connection that was taken for a task still expires as if it were idle."""

    async def stay(self: PooledConnection, connection: Connection) -> None:
        if not self._closing:
            with self._staying:
                await connection.wait_closed()
        self._idle = False

    return mock.patch.object(PooledConnection, "_stay", stay)


def always_take_a_new_name() -> AbstractContextManager[object]:
    """A slot's next connection has a new name, though a session may still run under the last one."""

    def connection_ended(self: _Name) -> None:
        self.number += 1

    return mock.patch.object(_Name, "connection_ended", connection_ended)


def share_a_connection() -> AbstractContextManager[object]:
    """A slot takes the connection of another slot, on which a task may run."""

    def take(self: ConnectionPool, slot: int) -> PooledConnection | None:
        del slot
        usable = (each for each in self._connections.values() if each._connection and not each._connection.closed)
        connection = next(usable, None)
        if connection is not None:
            connection.take()
        return connection

    return mock.patch.object(ConnectionPool, "take", take)


def open_next_to_the_previous() -> AbstractContextManager[object]:
    """A slot's next connection is opened while the one before is still being closed."""
    open_pooled = ConnectionPool.open

    async def open_another(self: ConnectionPool, slot: int) -> PooledConnection:
        self._connections.pop(slot, None)
        return await open_pooled(self, slot)

    return mock.patch.object(ConnectionPool, "open", open_another)


POOL_MUTATIONS: Final[dict[Mutation, int]] = {
    reuse_after_a_cancel: 8,
    reuse_a_dead_connection: 27,
    reuse_a_silent_connection: 27,
    reuse_before_the_acknowledgement: 26,
    never_expire: 2,
    leave_connections_of_a_disconnected_device_open: 12,
    expire_in_use: 5,
    always_take_a_new_name: 8,
    share_a_connection: 0,
    open_next_to_the_previous: 24,
}
"""The breakages, each with a seed that finds it, which is tried first."""
