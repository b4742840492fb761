"""The death of a daemon's life, and what becomes free by it. Death is a write: a lease that has expired changes nothing before that.

The statements are separate, in the isolation level READ COMMITTED, and in this order:

1. Write the death. A transaction that takes something for this life holds a lock until its end, so all of it is on disk afterwards.
2. Free the devices with a new epoch. A transaction that begins a task locks the row of its device: it ends before this statement does,
   or finds that the device has no owner.
3. End the running tasks, and free the claimed ones. Each statement sees what was committed before it began, so also the tasks that
   the second statement waited for. With tasks before devices, or all in one statement, a task that had just begun would run for ever.

Rule 3 of docs/explanation/cluster.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from sqlalchemy import ColumnElement, select, update

from galaxy_trio.daemon.store.database_clock import now_of_database
from galaxy_trio.daemon.store.events import CLUSTER
from galaxy_trio.daemon.store.records import TaskRecord, TaskState, stored_error  # attrs reads annotations at run time
from galaxy_trio.daemon.store.rows import make_record
from galaxy_trio.daemon.store.schema import DAEMONS, IS_QUEUED, OWNERSHIP, TASKS
from galaxy_trio.daemon.store.short_task import short_task
from galaxy_trio.daemon.store.statements import RECORD

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.committer import Transaction

_MAX_DEAD: Final = 10
"""Lives that are taken over in one transaction: it changes as many tasks as run on their devices."""


@attrs.frozen
class Takeover:
    """What a death has changed.

    Attributes:
        lives: The ids of the lives that are over now.
        devices: The names of their devices, which have no owner now.
        lost: The tasks that they ran, which are `lost` now.
    """

    lives: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    lost: tuple[TaskRecord, ...] = ()

    def with_more(self, other: Takeover) -> Takeover:
        """What both have changed."""
        return Takeover(self.lives + other.lives, self.devices + other.devices, self.lost + other.lost)


def take_over(transaction: Transaction, life: str, *, all_others: bool = False) -> Takeover:
    """Write the death of lives whose lease has expired, some at a time: call this again until it returns no life.

    A life is left for the next time while a transaction takes something for it, or renews its lease. This waits for transactions that
    begin tasks on its devices, within the limits of the session.

    Args:
        transaction: What it runs in.
        life: The caller's life, which is left alone.
        all_others: Whether it is known that all other lives are dead, whatever their leases are, as the lock on SQLite's file shows.
            Then running tasks that belong to no life end as well.
    """
    others = DAEMONS.c.died.is_(None) & (DAEMONS.c.id != life)
    if all_others:
        return _end(transaction, others, unclaimed=True)
    return _end(transaction, others & (DAEMONS.c.expires < now_of_database(transaction.connection, transaction.now)))


def end_life(transaction: Transaction, life: str) -> Takeover:
    """Write the death of the caller's own life at its clean end: its devices and tasks are free immediately. Does nothing if it is over."""
    return _end(transaction, DAEMONS.c.died.is_(None) & (DAEMONS.c.id == life), skip_locked=False)


def _end(
    transaction: Transaction, condition: ColumnElement[bool], *, unclaimed: bool = False, skip_locked: bool = True
) -> Takeover:
    connection = transaction.connection
    found = select(DAEMONS.c.id, DAEMONS.c.name).where(condition).order_by(DAEMONS.c.id).limit(_MAX_DEAD)
    # PostgreSQL checks the condition again if the row has changed until it was locked.
    names = {row.id: row.name for row in connection.execute(found.with_for_update(skip_locked=skip_locked))}
    dead = tuple(names)
    if not dead:
        return Takeover(lost=tuple(_lose_unclaimed(transaction)) if unclaimed else ())
    connection.execute(
        update(DAEMONS).where(DAEMONS.c.id.in_(dead)).values(died=now_of_database(connection, transaction.now))
    )
    devices = connection.scalars(
        update(OWNERSHIP)
        .where(OWNERSHIP.c.owner.in_(dead))
        .values(owner=None, epoch=OWNERSHIP.c.epoch + 1)
        .returning(OWNERSHIP.c.device)
    )
    freed = tuple(sorted(devices))
    lost: list[TaskRecord] = []
    for life, name in names.items():
        lost += _lose(transaction, TASKS.c.claimed_by == life, f"the daemon {name} ended or lost its lease")
    if unclaimed:
        lost += _lose_unclaimed(transaction)
    connection.execute(update(TASKS).where(IS_QUEUED, TASKS.c.claimed_by.in_(dead)).values(claimed_by=None))
    transaction.publish(CLUSTER, {})
    return Takeover(dead, freed, tuple(lost))


def _lose_unclaimed(transaction: Transaction) -> list[TaskRecord]:
    """End the running tasks of earlier versions, which had no lives."""
    return _lose(transaction, TASKS.c.claimed_by.is_(None), "the daemon ended")


def _lose(transaction: Transaction, condition: ColumnElement[bool], reason: str) -> list[TaskRecord]:
    """End the running tasks that meet a condition. Their time is the caller's, like that of other ends."""
    ended = {
        "state": TaskState.LOST.value,
        "ended": transaction.now.timestamp(),
        "error": stored_error(f"{reason} while the task ran: it may have run"),
        "claimed_by": None,
    }
    is_running = TASKS.c.state == TaskState.RUNNING.value
    rows = transaction.connection.execute(update(TASKS).where(is_running, condition).values(ended).returning(*RECORD))
    lost = sorted(map(make_record, rows), key=lambda record: record.number)
    for record in lost:
        transaction.publish("task", short_task(record))
    return lost
