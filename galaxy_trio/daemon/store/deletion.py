"""Deletes old tasks, with their results and departures. Those of graphs are deleted together with their graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select

from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.schema import TASKS

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, ScalarSelect, Select

    from galaxy_trio.daemon.store.committer import Transaction

MAX_DELETED: Final = 500
"""Tasks that are deleted in one transaction; other writes run between two."""
_HAS_ENDED: Final = TASKS.c.state.in_([state.value for state in TaskState if state.ended])


def delete_some(transaction: Transaction, older_than: datetime, keep: int) -> int:
    """Delete up to `MAX_DELETED` of the tasks that ended before a time or are beyond the newest `keep` ended ones.

    Returns:
        How many were deleted.
    """
    numbers = _old(older_than, keep).limit(MAX_DELETED).scalar_subquery()
    return transaction.connection.execute(delete(TASKS).where(TASKS.c.number.in_(numbers))).rowcount


def has_old(connection: Connection, older_than: datetime, keep: int) -> bool:
    """Whether `delete_some` would delete a task."""
    return connection.execute(_old(older_than, keep).limit(1)).first() is not None


def oldest_kept(keep: int) -> ScalarSelect[int]:
    """The number of the oldest of the newest `keep` ended tasks; NULL if there are fewer."""
    newest = select(TASKS.c.number).where(_HAS_ENDED).order_by(TASKS.c.number.desc())
    return newest.offset(keep - 1).limit(1).scalar_subquery()


def _old(older_than: datetime, keep: int) -> Select[tuple[int]]:
    is_old = (TASKS.c.ended < older_than.timestamp()) | (TASKS.c.number < oldest_kept(keep))
    return select(TASKS.c.number).where(_HAS_ENDED, TASKS.c.graph.is_(None), is_old)
