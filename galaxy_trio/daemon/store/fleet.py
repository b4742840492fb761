"""What all daemons of a cluster share, read at one moment, and the changes of who owns its devices.

Rule 5 of docs/explanation/cluster.md.
"""

from __future__ import annotations

from collections.abc import Mapping  # attrs reads annotations at run time
from typing import TYPE_CHECKING

import attrs
from sqlalchemy import func, select

from galaxy_trio._concurrency import wall_clock
from galaxy_trio.daemon.store.committer import Refused
from galaxy_trio.daemon.store.database_clock import now_of_database
from galaxy_trio.daemon.store.devices import read_devices, read_states
from galaxy_trio.daemon.store.events import CLUSTER
from galaxy_trio.daemon.store.lives import Life, read_lives
from galaxy_trio.daemon.store.ownership import (
    ensure_devices,
    forget_devices,
    owners,
    owns,
    release_devices,
    take_devices,
)
from galaxy_trio.daemon.store.queries import mark_running
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.schema import OWNERSHIP, TASKS

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Column, ColumnElement, Connection

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.records import TaskRecord


@attrs.frozen
class Fleet:
    """The daemons and the devices of a cluster.

    Attributes:
        lives: The daemons that are alive, by id.
        configs: The configuration of each device as JSON, by name.
        owners: The owner of each device, or `None`, and its epoch, by name.
        states: The last reported state of each device as JSON, by name.
    """

    lives: Mapping[str, Life]
    configs: Mapping[str, str]
    owners: Mapping[str, tuple[str | None, int]]
    states: Mapping[str, str]

    def owner_name(self, device: str) -> str | None:
        """The name of the daemon that owns a device; `None` if none that is alive does."""
        owner, _ = self.owners.get(device, (None, 0))
        life = None if owner is None else self.lives.get(owner)
        return None if life is None else life.name


def read_fleet(connection: Connection) -> Fleet:
    """Read all of it. On PostgreSQL, readers see one state of the database in all statements of a transaction."""
    return Fleet(
        {life.id: life for life in read_lives(connection) if life.died is None},
        read_devices(connection),
        owners(connection),
        read_states(connection),
    )


class NotOwner(Refused):
    """The daemon does not own the device any more: the task goes back to its queue."""


def begin(
    transaction: Transaction, task_id: str, device: str, attempt: str, life: str, epoch: int | None
) -> TaskRecord:
    """Change a task that a life has claimed to `running`, as `mark_running` does, while the life owns the device in this epoch.

    The device is locked first: a takeover waits for this transaction, and finds the task.

    Raises:
        NotOwner: The life does not own the device, or not in this epoch.
        WrongState: The task is not queued, or the life has not claimed it.
    """
    if epoch is None or not owns(transaction.connection, life, device, epoch):
        raise NotOwner(f"this daemon does not own the device {device!r} any more")
    return mark_running(transaction, task_id, device, attempt, life)


def take(transaction: Transaction, life: str, candidates: Collection[str], limit: int) -> dict[str, int]:
    """Take devices without an owner, as `take_devices` does; those that were never owned can be taken as well."""
    ensure_devices(transaction, candidates)
    taken = take_devices(transaction, life, candidates, limit)
    if taken:
        transaction.publish(CLUSTER, {})
    return taken


def release(transaction: Transaction, life: str, names: Collection[str], forget: Collection[str]) -> None:
    """Release devices, and forget those of them that do not exist any more."""
    release_devices(transaction, life, names)
    forget_devices(transaction, forget)
    transaction.publish(CLUSTER, {})


@attrs.frozen
class DaemonState:
    """A daemon of the cluster.

    Attributes:
        life: Its latest life.
        devices: The number of devices that it owns.
        running: The number of tasks that it runs.
    """

    life: Life
    devices: int
    running: int


@attrs.frozen
class DaemonStates:
    """The daemons that are alive, then those that died within about a day; of each the latest first.

    Attributes:
        now: The time of the database's clock, in epoch seconds.
        daemons: The daemons.
    """

    now: float
    daemons: tuple[DaemonState, ...]


def read_daemons(connection: Connection) -> DaemonStates:
    """Read the daemons of the cluster."""
    now = connection.execute(select(now_of_database(connection, wall_clock.now()))).scalar_one()
    devices = _count_by(OWNERSHIP.c.owner, connection)
    running = _count_by(TASKS.c.claimed_by, connection, TASKS.c.state == TaskState.RUNNING.value)
    daemons = (DaemonState(life, devices.get(life.id, 0), running.get(life.id, 0)) for life in read_lives(connection))
    return DaemonStates(now, tuple(daemons))


def _count_by(column: Column[str | None], connection: Connection, *conditions: ColumnElement[bool]) -> dict[str, int]:
    counts = select(column, func.count()).where(column.is_not(None), *conditions).group_by(column)
    return {name: count for name, count in connection.execute(counts) if name is not None}
