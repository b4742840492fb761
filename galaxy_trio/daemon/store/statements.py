"""The SQL statements of the operations, built once: building one takes several times as long as executing it.

Rule 6 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import typing
from functools import cache
from importlib import import_module
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Cast,
    Column,
    ColumnElement,
    Executable,
    Insert,
    LargeBinary,
    Select,
    Table,
    bindparam,
    cast,
    func,
    insert,
    select,
    update,
)

from galaxy_trio.daemon.store.digest import digest, is_equal, is_same
from galaxy_trio.daemon.store.records import MAX_EXCERPT, TaskState
from galaxy_trio.daemon.store.schema import IS_QUEUED, RESULTS, TASKS


def utf_8(column: Column[Any]) -> Cast[bytes]:  # Any: the column's type
    """The bytes of a text: SQLite's functions of texts end at a NUL."""
    return cast(column, LargeBinary)


@cache
def insert_if_absent(table: Table, dialect: str) -> Insert:
    """An INSERT that does nothing if a row with the same unique values is there."""
    insert: Insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(table).on_conflict_do_nothing()
    return insert


@cache
def insert_task(dialect: str) -> Executable:
    """Insert a task. Returns its number, or nothing if its id or its idempotency key is there."""
    return insert_if_absent(TASKS, dialect).returning(TASKS.c.number)


INSERT_TASKS: Final = insert(TASKS).returning(TASKS.c.id, TASKS.c.number)
"""Insert tasks with fresh ids, and no idempotency keys. Returns their ids and numbers, which are in the tasks' order, in any order."""
RECORD: Final[tuple[ColumnElement[Any], ...]] = (
    TASKS.c.number,
    TASKS.c.id,
    TASKS.c.state,
    func.substr(utf_8(TASKS.c.request), 1, MAX_EXCERPT),
    func.length(utf_8(TASKS.c.request)),
    TASKS.c.asked_device,
    TASKS.c.os,
    TASKS.c.capabilities,
    TASKS.c.timeout,
    TASKS.c.idempotency_key,
    TASKS.c.priority,
    TASKS.c.device,
    TASKS.c.created,
    TASKS.c.started,
    TASKS.c.ended,
    func.substr(utf_8(TASKS.c.error), 1, MAX_EXCERPT),
    func.length(utf_8(TASKS.c.error)),
    TASKS.c.result_size,
    TASKS.c.retry_of,
    TASKS.c.graph,
    TASKS.c.node,
)
"""The columns of a `TaskRecord`, of any types."""
RECORDS: Final = typing.cast("Select[Any]", select(*RECORD))  # the type checkers disagree about the type of the columns
INSERT_PIECE: Final = insert(RESULTS)
BY_ID: Final = RECORDS.where(TASKS.c.id == bindparam("task_id"))
BY_KEY: Final = RECORDS.where(is_equal(TASKS.c.idempotency_key, "key"))
REQUEST: Final = select(TASKS.c.request).where(TASKS.c.id == bindparam("task_id"))
TEXT_PIECES: Final = {
    column.name: select(func.substr(utf_8(column), bindparam("start"), bindparam("size"))).where(
        TASKS.c.id == bindparam("task_id")
    )
    for column in (TASKS.c.request, TASKS.c.error)
}
_BY_THIS_ATTEMPT: Final = TASKS.c.attempt == bindparam("by_attempt")
_RUNS_BY_THIS_ATTEMPT: Final = (TASKS.c.state == TaskState.RUNNING.value) & _BY_THIS_ATTEMPT
_IS_MINE: Final = IS_QUEUED & (TASKS.c.claimed_by == bindparam("me"))
MARK_RUNNING: Final = (
    update(TASKS)
    .where(TASKS.c.id == bindparam("task_id"), _IS_MINE)
    .values(
        state=TaskState.RUNNING.value,
        device=bindparam("on_device"),
        started=bindparam("now"),
        attempt=bindparam("by_attempt"),
    )
    .returning(*RECORD)
)
MARK_QUEUED: Final = (
    update(TASKS)
    .where(TASKS.c.id == bindparam("task_id"), _RUNS_BY_THIS_ATTEMPT)
    .values(state=TaskState.QUEUED.value, device=None, started=None)
    .returning(*RECORD)
)
FINISH: Final = (
    update(TASKS)
    .where(TASKS.c.id == bindparam("task_id"), _IS_MINE | _RUNS_BY_THIS_ATTEMPT)
    .values(
        state=bindparam("to_state"),
        ended=bindparam("now"),
        error=bindparam("why"),
        result_size=bindparam("size"),
        attempt=bindparam("by_attempt"),
        claimed_by=None,
    )
    .returning(*RECORD)
)
BY_ATTEMPT: Final = BY_ID.where(_BY_THIS_ATTEMPT)
_END_QUEUED: Final[dict[str, BindParameter[object] | None]] = {
    "state": bindparam("to_state"),
    "ended": bindparam("now"),
    "error": bindparam("why"),
    # The end is not one of the attempt that was returned before.
    "attempt": None,
    "claimed_by": None,
}
CANCEL_QUEUED: Final = (
    update(TASKS).where(TASKS.c.id == bindparam("task_id"), IS_QUEUED).values(_END_QUEUED).returning(*RECORD)
)
CANCEL_ALL_QUEUED: Final[Executable] = (
    update(TASKS)
    .where(TASKS.c.id.in_(bindparam("task_ids", expanding=True)), IS_QUEUED)
    .values(_END_QUEUED)
    .returning(*RECORD)
)
_IS_REQUIRED: Final = (
    IS_QUEUED
    & is_same(TASKS.c.asked_device, "required_device")
    & is_same(TASKS.c.os, "required_os")
    & is_equal(TASKS.c.capabilities, "required_capabilities")
)
_IN_ORDER: Final = (
    *map(digest, (TASKS.c.asked_device, TASKS.c.os, TASKS.c.capabilities)),
    TASKS.c.priority.desc(),
    TASKS.c.number,
)
"""The order of tasks with the same requirement, as the index has it: PostgreSQL would sort them by their priority and number alone."""


def _first_of(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a task is one of the first with a requirement that meet a condition and that no other transaction is changing."""
    first = select(TASKS.c.number).where(_IS_REQUIRED, condition).order_by(*_IN_ORDER).limit(bindparam("limit"))
    # PostgreSQL reads a common table expression once: a subquery that it read again would lock further tasks.
    return TASKS.c.number.in_(select(first.with_for_update(skip_locked=True).cte("first").c.number))


CLAIM: Final[Executable] = (
    update(TASKS).where(_first_of(TASKS.c.claimed_by.is_(None))).values(claimed_by=bindparam("me")).returning(*RECORD)
)
RETURN_CLAIM: Final[Executable] = (
    update(TASKS).where(TASKS.c.number == bindparam("of_number"), _IS_MINE).values(claimed_by=None).returning(*RECORD)
)
RETURN_ALL_CLAIMS: Final = update(TASKS).where(_IS_MINE).values(claimed_by=None)
_MAY_FAIL: Final = TASKS.c.graph.is_(None) | TASKS.c.graph.in_(bindparam("of_graphs", expanding=True))
FAIL_QUEUED: Final[Executable] = update(TASKS).where(_first_of(_MAY_FAIL)).values(_END_QUEUED).returning(*RECORD)
GRAPHS_TO_FAIL: Final = (
    select(TASKS.c.graph)
    .where(
        TASKS.c.number.in_(select(TASKS.c.number).where(_IS_REQUIRED).order_by(*_IN_ORDER).limit(bindparam("limit"))),
        TASKS.c.graph.is_not(None),
    )
    .distinct()
    .order_by(TASKS.c.graph)
)
"""The graphs of the first queued tasks with a requirement."""
