"""The SQL statements of the operations, built once: building one takes several times as long as executing it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BindParameter, bindparam, insert, select, update

from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.schema import IS_QUEUED, RESULTS, TASKS

INSERT_TASK: Final = insert(TASKS).returning(TASKS.c.number)
INSERT_PIECE: Final = insert(RESULTS)
BY_ID: Final = select(TASKS).where(TASKS.c.id == bindparam("task_id"))
BY_KEY: Final = select(TASKS).where(TASKS.c.idempotency_key == bindparam("key"))
MARK_RUNNING: Final = (
    update(TASKS)
    .where(TASKS.c.id == bindparam("task_id"), IS_QUEUED)
    .values(state=TaskState.RUNNING.value, device=bindparam("on_device"), started=bindparam("now"))
    .returning(TASKS)
)
MARK_QUEUED: Final = (
    update(TASKS)
    .where(TASKS.c.id == bindparam("task_id"), TASKS.c.state == TaskState.RUNNING.value)
    .values(state=TaskState.QUEUED.value, device=None, started=None)
    .returning(TASKS)
)
FINISH: Final = (
    update(TASKS)
    .where(TASKS.c.id == bindparam("task_id"), TASKS.c.state.in_((TaskState.QUEUED.value, TaskState.RUNNING.value)))
    .values(state=bindparam("to_state"), ended=bindparam("now"), error=bindparam("why"), result_size=bindparam("size"))
    .returning(TASKS)
)
_END_QUEUED: Final[dict[str, BindParameter[object]]] = {
    "state": bindparam("to_state"),
    "ended": bindparam("now"),
    "error": bindparam("why"),
}
CANCEL_QUEUED: Final = (
    update(TASKS).where(TASKS.c.id == bindparam("task_id"), IS_QUEUED).values(_END_QUEUED).returning(TASKS)
)
_IS_REQUIRED: Final = (
    IS_QUEUED
    & TASKS.c.asked_device.is_not_distinct_from(bindparam("required_device"))
    & TASKS.c.os.is_not_distinct_from(bindparam("required_os"))
    & (TASKS.c.capabilities == bindparam("required_capabilities"))
)
QUEUED: Final = (
    select(TASKS)
    .where(_IS_REQUIRED, TASKS.c.number > bindparam("after"))
    .order_by(TASKS.c.number)
    .limit(bindparam("limit"))
)
FAIL_QUEUED: Final = (
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
    .returning(TASKS)
)
RECOVER: Final = (
    update(TASKS)
    .where(TASKS.c.state == TaskState.RUNNING.value)
    .values(
        state=TaskState.LOST.value, ended=bindparam("now"), error="the daemon ended while the task ran: it may have run"
    )
)
