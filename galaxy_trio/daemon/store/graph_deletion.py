"""Deletes old graphs, with their nodes, edges and tasks, in parts.

The first part marks the graph as deleted: from then on there is no such graph, and its key is free. Each part deletes some of its tasks,
and the last one its row with its nodes and edges. If a daemon ends in between, any daemon goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, func, select, update

from galaxy_trio.daemon.store import deletion
from galaxy_trio.daemon.store.deletion import oldest_kept
from galaxy_trio.daemon.store.graph_records import DELETED, IS_THERE
from galaxy_trio.daemon.store.schema import GRAPHS, TASKS

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, ScalarSelect, Select

    from galaxy_trio.daemon.store.committer import Transaction


def delete_part(transaction: Transaction, older_than: datetime, keep: int) -> int | None:
    """Delete at most `deletion.MAX_DELETED` tasks of an old graph, and the graph itself if it has no more of them.

    A graph is old if it ended before a time, or if its tasks are all beyond the newest `keep` ended ones; without a task, if it is beyond
    the newest `keep` ended graphs.

    Returns:
        How many tasks were deleted; `None` if there is no old graph that no other daemon is changing.
    """
    connection = transaction.connection
    found = connection.execute(_old(older_than, keep).limit(1).with_for_update(skip_locked=True)).first()
    if found is None:
        return None
    some = select(TASKS.c.number).where(TASKS.c.graph == found.id).order_by(TASKS.c.number).limit(deletion.MAX_DELETED)
    deleted = connection.execute(delete(TASKS).where(TASKS.c.number.in_(some.scalar_subquery()))).rowcount
    graph = GRAPHS.c.number == found.number
    if deleted < deletion.MAX_DELETED:
        connection.execute(delete(GRAPHS).where(graph))
    else:
        connection.execute(update(GRAPHS).where(graph).values(state=DELETED, idempotency_key=None))
    return deleted


def has_old_graph(connection: Connection, older_than: datetime, keep: int) -> bool:
    """Whether `delete_part` would delete something, unless another daemon is changing it."""
    return connection.execute(_old(older_than, keep).limit(1)).first() is not None


def _old(older_than: datetime, keep: int) -> Select[Any]:  # Any: the columns' types
    newest = select(func.max(TASKS.c.number)).where(TASKS.c.graph == GRAPHS.c.id).scalar_subquery()
    is_beyond = (newest < oldest_kept(keep)) | ((GRAPHS.c.number < _oldest_graph_kept(keep)) & newest.is_(None))
    is_old = GRAPHS.c.ended.is_not(None) & ((GRAPHS.c.ended < older_than.timestamp()) | is_beyond)
    old = select(GRAPHS.c.number, GRAPHS.c.id).where(is_old | ~IS_THERE).order_by(GRAPHS.c.number)
    return cast("Select[Any]", old)  # the type checkers disagree about the type of the columns


def _oldest_graph_kept(keep: int) -> ScalarSelect[int]:
    """The number of the oldest of the newest `keep` ended graphs; NULL if there are fewer."""
    graphs = GRAPHS.alias()
    newest = select(graphs.c.number).where(graphs.c.ended.is_not(None)).order_by(graphs.c.number.desc())
    return newest.offset(keep - 1).limit(1).scalar_subquery()
