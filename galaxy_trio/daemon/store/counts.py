"""How many tasks there are, by requirement and by state."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import func, select, true

from galaxy_trio.daemon.store.queries import ignore
from galaxy_trio.daemon.store.records import Requirement, TaskState
from galaxy_trio.daemon.store.rows import capabilities_from
from galaxy_trio.daemon.store.schema import EVENTS, IS_QUEUED, TASKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction


def count_queued(transaction: Transaction, deliver: Callable[[dict[Requirement, int]], None] = ignore) -> int:
    """Deliver the number of queued tasks by requirement.

    Returns:
        The id of the last event before that.
    """
    columns = (TASKS.c.asked_device, TASKS.c.os, TASKS.c.capabilities)
    counted = select(*columns, func.count().label("count")).where(IS_QUEUED).group_by(*columns).subquery()
    newest = select(func.coalesce(func.max(EVENTS.c.id), 0).label("id")).subquery()
    # One statement sees one state of the database, in which both are.
    rows = transaction.connection.execute(select(newest, counted).select_from(newest.outerjoin(counted, true()))).all()
    counts = {
        Requirement(device, os, capabilities_from(capabilities)): count
        for _, device, os, capabilities, count in rows
        if count is not None
    }
    transaction.on_commit(partial(deliver, counts))
    last_event: int = rows[0].id
    return last_event


def counts(connection: Connection) -> dict[TaskState, int]:
    """The number of tasks in each state."""
    rows = connection.execute(select(TASKS.c.state, func.count()).group_by(TASKS.c.state)).all()
    counted = {TaskState(state): count for state, count in rows}
    return {state: counted.get(state, 0) for state in TaskState}
