"""Reads results and other texts of any size in pieces, so that none has to be in memory as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from galaxy_trio.daemon.store import statements
from galaxy_trio.daemon.store.schema import RESULTS, TASKS

if TYPE_CHECKING:
    from sqlalchemy import Connection

PIECE: Final = 2**16
"""Bytes in one piece of a result or another text."""


def piece(connection: Connection, task_id: str, part: int) -> bytes | None:
    """A piece of a result; `None` after the last."""
    query = (
        select(RESULTS.c.body)
        .join(TASKS, TASKS.c.number == RESULTS.c.task)
        .where(TASKS.c.id == task_id, RESULTS.c.part == part)
    )
    return connection.execute(query).scalar()


def text_piece(connection: Connection, task_id: str, column: str, start: int) -> bytes | None:
    """A piece of a task's ``request`` or ``error`` in UTF-8, from its byte `start`; `None` if there is no such task."""
    values = {"task_id": task_id, "start": start + 1, "size": PIECE}
    return connection.execute(statements.TEXT_PIECES[column], values).scalar()
