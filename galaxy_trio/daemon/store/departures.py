"""The devices that were chosen for a task and had left before it ran: the part of its history that its row does not keep."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, insert, literal, select

from galaxy_trio.daemon.store.records import Departure, TaskState
from galaxy_trio.daemon.store.schema import DEPARTURES, TASKS

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction

MAX_DEPARTURES: Final = 50
"""Departures of a task that are kept, the newest ones."""

_TASK: Final = select(TASKS.c.number).where(TASKS.c.id == bindparam("task_id")).scalar_subquery()
_READ: Final = select(DEPARTURES.c.device, DEPARTURES.c.chosen, DEPARTURES.c.left).where(DEPARTURES.c.task == _TASK)
_NEWEST: Final = (
    select(DEPARTURES.c.number)
    .where(DEPARTURES.c.task == _TASK)
    .order_by(DEPARTURES.c.number.desc())
    .limit(MAX_DEPARTURES)
)
_DELETE_OLD: Final = delete(DEPARTURES).where(DEPARTURES.c.task == _TASK, DEPARTURES.c.number.not_in(_NEWEST))


def add_departure(transaction: Transaction, task_id: str, attempt: str) -> None:
    """Record that the device of a running task had left. Does nothing if the attempt does not run it."""
    running = select(TASKS.c.number, TASKS.c.device, TASKS.c.started, literal(transaction.now.timestamp())).where(
        TASKS.c.id == task_id, TASKS.c.attempt == attempt, TASKS.c.state == TaskState.RUNNING.value
    )
    transaction.connection.execute(insert(DEPARTURES).from_select(["task", "device", "chosen", "left"], running))
    transaction.connection.execute(_DELETE_OLD, {"task_id": task_id})


def departures(connection: Connection, task_id: str) -> list[Departure]:
    """The departures of a task's devices, the oldest first; none for an unknown task."""
    rows = connection.execute(_READ.order_by(DEPARTURES.c.number), {"task_id": task_id})
    return [
        Departure(device, datetime.fromtimestamp(chosen, UTC), datetime.fromtimestamp(left, UTC))
        for device, chosen, left in rows
    ]
