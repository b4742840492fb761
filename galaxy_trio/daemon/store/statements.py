"""The SQL statements of the operations, built once: building one takes several times as long as executing it."""

from __future__ import annotations

import typing
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Cast,
    Column,
    ColumnElement,
    Executable,
    LargeBinary,
    Select,
    bindparam,
    cast,
    func,
    insert,
    select,
    update,
)

from galaxy_trio.daemon.store.records import MAX_EXCERPT, TaskState
from galaxy_trio.daemon.store.schema import IS_QUEUED, RESULTS, TASKS


def _utf_8(column: Column[Any]) -> Cast[bytes]:  # Any: the column's type
    """The bytes of a text: SQLite's functions of texts end at a NUL."""
    return cast(column, LargeBinary)


RECORD: Final[tuple[ColumnElement[Any], ...]] = (
    TASKS.c.number,
    TASKS.c.id,
    TASKS.c.state,
    func.substr(_utf_8(TASKS.c.request), 1, MAX_EXCERPT),
    func.length(_utf_8(TASKS.c.request)),
    TASKS.c.asked_device,
    TASKS.c.os,
    TASKS.c.capabilities,
    TASKS.c.timeout,
    TASKS.c.idempotency_key,
    TASKS.c.device,
    TASKS.c.created,
    TASKS.c.started,
    TASKS.c.ended,
    func.substr(_utf_8(TASKS.c.error), 1, MAX_EXCERPT),
    func.length(_utf_8(TASKS.c.error)),
    TASKS.c.result_size,
    TASKS.c.retry_of,
)
"""The columns of a `TaskRecord`, of any types."""
RECORDS: Final = typing.cast("Select[Any]", select(*RECORD))  # the type checkers disagree about the type of the columns
INSERT_TASK: Final = insert(TASKS).returning(TASKS.c.number)
INSERT_PIECE: Final = insert(RESULTS)
BY_ID: Final = RECORDS.where(TASKS.c.id == bindparam("task_id"))
BY_KEY: Final = RECORDS.where(TASKS.c.idempotency_key == bindparam("key"))
REQUEST: Final = select(TASKS.c.request).where(TASKS.c.id == bindparam("task_id"))
TEXT_PIECES: Final = {
    column.name: select(func.substr(_utf_8(column), bindparam("start"), bindparam("size"))).where(
        TASKS.c.id == bindparam("task_id")
    )
    for column in (TASKS.c.request, TASKS.c.error)
}
MARK_RUNNING: Final = (
    update(TASKS)
    .where(TASKS.c.id == bindparam("task_id"), IS_QUEUED)
    .values(state=TaskState.RUNNING.value, device=bindparam("on_device"), started=bindparam("now"))
    .returning(*RECORD)
)
MARK_QUEUED: Final = (
    update(TASKS)
    .where(TASKS.c.id == bindparam("task_id"), TASKS.c.state == TaskState.RUNNING.value)
    .values(state=TaskState.QUEUED.value, device=None, started=None)
    .returning(*RECORD)
)
FINISH: Final = (
    update(TASKS)
    .where(TASKS.c.id == bindparam("task_id"), TASKS.c.state.in_((TaskState.QUEUED.value, TaskState.RUNNING.value)))
    .values(state=bindparam("to_state"), ended=bindparam("now"), error=bindparam("why"), result_size=bindparam("size"))
    .returning(*RECORD)
)
_END_QUEUED: Final[dict[str, BindParameter[object]]] = {
    "state": bindparam("to_state"),
    "ended": bindparam("now"),
    "error": bindparam("why"),
}
CANCEL_QUEUED: Final = (
    update(TASKS).where(TASKS.c.id == bindparam("task_id"), IS_QUEUED).values(_END_QUEUED).returning(*RECORD)
)
_IS_REQUIRED: Final = (
    IS_QUEUED
    & TASKS.c.asked_device.is_not_distinct_from(bindparam("required_device"))
    & TASKS.c.os.is_not_distinct_from(bindparam("required_os"))
    & (TASKS.c.capabilities == bindparam("required_capabilities"))
)
QUEUED: Final = (
    RECORDS.where(_IS_REQUIRED, TASKS.c.number > bindparam("after")).order_by(TASKS.c.number).limit(bindparam("limit"))
)
FAIL_QUEUED: Final[Executable] = (
    update(TASKS)
    .where(
        TASKS.c.number.in_(
            select(TASKS.c.number)
            .where(_IS_REQUIRED)
            .order_by(TASKS.c.number)
            .limit(bindparam("limit"))
            .scalar_subquery()
        )
    )
    .values(_END_QUEUED)
    .returning(*RECORD)
)
RECOVER: Final = (
    update(TASKS)
    .where(TASKS.c.state == TaskState.RUNNING.value)
    .values(
        state=TaskState.LOST.value, ended=bindparam("now"), error="the daemon ended while the task ran: it may have run"
    )
)
