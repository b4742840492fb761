"""Deletes old graphs, with their nodes, edges and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, func, select

from galaxy_trio.daemon.store.deletion import oldest_kept
from galaxy_trio.daemon.store.schema import GRAPHS, TASKS

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from galaxy_trio.daemon.store.committer import Transaction


def delete_graph(transaction: Transaction, older_than: datetime, keep: int) -> int:
    """Delete one of the graphs that ended before a time, or whose tasks are all beyond the newest `keep` ended ones.

    Returns:
        How many tasks were deleted.
    """
    connection = transaction.connection
    found = connection.execute(_old(older_than, keep).limit(1).with_for_update(skip_locked=True)).first()
    if found is None:
        return 0
    deleted = connection.execute(delete(TASKS).where(TASKS.c.graph == found.id)).rowcount
    connection.execute(delete(GRAPHS).where(GRAPHS.c.number == found.number))
    return deleted


def has_old_graph(connection: Connection, older_than: datetime, keep: int) -> bool:
    """Whether `delete_graph` would delete a graph."""
    return connection.execute(_old(older_than, keep).limit(1)).first() is not None


def _old(older_than: datetime, keep: int) -> Select[Any]:  # Any: the columns' types
    newest = select(func.max(TASKS.c.number)).where(TASKS.c.graph == GRAPHS.c.id).scalar_subquery()
    is_old = (GRAPHS.c.ended < older_than.timestamp()) | (newest < oldest_kept(keep))
    old = select(GRAPHS.c.number, GRAPHS.c.id).where(GRAPHS.c.ended.is_not(None), is_old).order_by(GRAPHS.c.number)
    return cast("Select[Any]", old)  # the type checkers disagree about the type of the columns
