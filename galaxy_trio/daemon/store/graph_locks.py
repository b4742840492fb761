"""The locks of graphs, which a transaction of several operations takes before those of devices and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from galaxy_trio.daemon.store.schema import GRAPHS, TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

_OF_TASKS: Final = select(TASKS.c.graph).where(
    TASKS.c.id.in_(bindparam("task_ids", expanding=True)), TASKS.c.graph.is_not(None)
)
# With the other statement as a part of it, PostgreSQL would read all graphs.
_LOCK: Final = (
    select(GRAPHS.c.number)
    .where(GRAPHS.c.id.in_(bindparam("graph_ids", expanding=True)))
    .order_by(GRAPHS.c.id)
    .with_for_update()
)


def lock_graphs(connection: Connection, ids: Sequence[str]) -> None:
    """Lock graphs in the order of their ids, so that transactions of two daemons do not wait for each other.

    Args:
        connection: The connection to the database.
        ids: The ids of the graphs, or of tasks that are theirs. Others do no harm.
    """
    of_tasks = connection.execute(_OF_TASKS, {"task_ids": ids}).scalars()
    connection.execute(_LOCK, {"graph_ids": [*ids, *of_tasks]})
