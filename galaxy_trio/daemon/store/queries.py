"""What the daemon asks its database, and tells it: each within a transaction, in a worker thread."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import BindParameter, bindparam, delete, func, insert, select, update

from galaxy_trio.daemon.store.group_commit import Refused
from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.schema import IS_QUEUED, RESULTS, TASKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Executable, Row

FORGOTTEN: Final = 500
"""Tasks that are forgotten in one transaction: others write between two."""
_ENDS: Final = tuple(state.value for state in TaskState if state.ended)


class NoSuchTask(Refused):
    """There is no task of this id."""


class WrongState(Refused):
    """The task is no longer, or not yet, in the state for this."""


class IdempotencyConflict(Refused):
    """The key was used for something else."""


# Statements are made once: to put one together takes several times as long as to run it.
_INSERT_TASK: Final = insert(TASKS).returning(TASKS.c.number)
_INSERT_PIECE: Final = insert(RESULTS)
_BY_ID: Final = select(TASKS).where(TASKS.c.id == bindparam("task_id"))
_BY_KEY: Final = select(TASKS).where(TASKS.c.idempotency_key == bindparam("key"))
_BEGIN: Final = (
    update(TASKS)
    .where(TASKS.c.id == bindparam("task_id"), IS_QUEUED)
    .values(state=TaskState.RUNNING.value, device=bindparam("on_device"), started=bindparam("now"))
    .returning(TASKS)
)
_REQUEUE: Final = (
    update(TASKS)
    .where(TASKS.c.id == bindparam("task_id"), TASKS.c.state == TaskState.RUNNING.value)
    .values(state=TaskState.QUEUED.value, device=None, started=None)
    .returning(TASKS)
)
_FINISH: Final = (
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
_CANCEL: Final = update(TASKS).where(TASKS.c.id == bindparam("task_id"), IS_QUEUED).values(_END_QUEUED).returning(TASKS)
_NEEDS: Final = (
    IS_QUEUED
    & TASKS.c.asked_device.is_not_distinct_from(bindparam("needs_device"))
    & TASKS.c.os.is_not_distinct_from(bindparam("needs_os"))
    & (TASKS.c.capabilities == bindparam("needs_capabilities"))
)
_QUEUED: Final = (
    select(TASKS)
    .where(_NEEDS, TASKS.c.number > bindparam("after"))
    .order_by(TASKS.c.number)
    .limit(bindparam("at_most"))
)
_FAIL_QUEUED: Final = (
    update(TASKS)
    .where(
        TASKS.c.number.in_(
            select(TASKS.c.number).where(_NEEDS).order_by(TASKS.c.number).limit(bindparam("at_most")).scalar_subquery()
        )
    )
    .values(_END_QUEUED)
    .returning(TASKS)
)


def add(request: TaskRequest, now: datetime, connection: Connection) -> tuple[TaskRecord, bool]:
    """A new task, or the one with its idempotency key."""
    if request.idempotency_key is not None:
        known = _first(_BY_KEY, {"key": request.idempotency_key}, connection)
        if known is not None:
            if known.asked != request:
                raise IdempotencyConflict(
                    f"the idempotency key {request.idempotency_key!r} is that of task {known.id}, which asks for something else"
                )
            return known, False
    return _insert(request, now, None, connection), True


def _insert(request: TaskRequest, now: datetime, retry_of: str | None, connection: Connection) -> TaskRecord:
    task_id = uuid.uuid4().hex
    values = {
        "id": task_id,
        "state": TaskState.QUEUED.value,
        "request": request.request,
        "asked_device": request.device,
        "os": request.os,
        "capabilities": _listed(request.capabilities),
        "timeout": request.timeout,
        "idempotency_key": request.idempotency_key,
        "created": now.timestamp(),
        "retry_of": retry_of,
    }
    number = connection.execute(_INSERT_TASK, values).scalar_one()
    return TaskRecord(task_id, request, TaskState.QUEUED, now, retry_of=retry_of, number=number)


def retry(task_id: str, now: datetime, connection: Connection) -> TaskRecord:
    """A new task that asks for what another one asked for."""
    known = _get(task_id, connection)
    if not known.state.ended:
        raise WrongState(f"task {task_id} is {known.state.value}: only one that has ended can be retried")
    # The key is that of the first one.
    asked = TaskRequest(
        known.asked.request, known.asked.device, known.asked.os, known.asked.capabilities, known.asked.timeout
    )
    return _insert(asked, now, task_id, connection)


def begin(task_id: str, device: str, now: float, connection: Connection) -> TaskRecord:
    """From `queued` to `running`."""
    return _changed(_BEGIN, {"task_id": task_id, "on_device": device, "now": now}, connection)


def requeue(task_id: str, connection: Connection) -> TaskRecord:
    """From `running` back to `queued`."""
    return _changed(_REQUEUE, {"task_id": task_id}, connection)


def finish(
    task_id: str,
    state: TaskState,
    now: float,
    error: str | None,
    size: int | None,
    pieces: Sequence[str],
    connection: Connection,
) -> TaskRecord:
    """An end, with the pieces of its result."""
    values = {"task_id": task_id, "to_state": state.value, "now": now, "why": error, "size": size}
    record = _changed(_FINISH, values, connection)
    for part, piece in enumerate(pieces):
        connection.execute(_INSERT_PIECE, {"task": record.number, "part": part, "body": piece.encode("ascii")})
    return record


def cancel_queued(task_id: str, now: float, connection: Connection) -> tuple[TaskRecord, bool]:
    """`cancelled`, if it is queued."""
    values = {"task_id": task_id, "to_state": TaskState.CANCELLED.value, "now": now, "why": None}
    cancelled = _first(_CANCEL, values, connection)
    return (_get(task_id, connection), False) if cancelled is None else (cancelled, True)


def fail_queued(
    requirement: Requirement, error: str, now: float, at_most: int, connection: Connection
) -> list[TaskRecord]:
    """`failed`, for the oldest that are queued and need this of a device."""
    values = {"to_state": TaskState.FAILED.value, "now": now, "why": error, "at_most": at_most}
    rows = connection.execute(_FAIL_QUEUED, values | _needs(requirement)).all()
    return sorted(map(_record, rows), key=lambda record: record.number)


def queued(requirement: Requirement, after: int, at_most: int, connection: Connection) -> list[TaskRecord]:
    """The oldest after a number that are queued and need this of a device."""
    values = {"after": after, "at_most": at_most} | _needs(requirement)
    return [_record(row) for row in connection.execute(_QUEUED, values)]


def count_queued(connection: Connection) -> dict[Requirement, int]:
    """How many are queued, by what they need of a device."""
    needs = (TASKS.c.asked_device, TASKS.c.os, TASKS.c.capabilities)
    rows = connection.execute(select(*needs, func.count()).where(IS_QUEUED).group_by(*needs)).all()
    return {Requirement(device, os, _tuple(capabilities)): count for device, os, capabilities, count in rows}


def _needs(requirement: Requirement) -> dict[str, str | None]:
    return {
        "needs_device": requirement.device,
        "needs_os": requirement.os,
        "needs_capabilities": _listed(requirement.capabilities),
    }


def _changed(statement: Executable, values: Mapping[str, object], connection: Connection) -> TaskRecord:
    """The task that a statement has changed; raises why it has changed none."""
    record = _first(statement, values, connection)
    if record is None:
        task_id = str(values["task_id"])
        raise WrongState(f"task {task_id} is {_get(task_id, connection).state.value}")
    return record


def recover(now: float, connection: Connection) -> int:
    """What ran is lost."""
    return connection.execute(
        update(TASKS)
        .where(TASKS.c.state == TaskState.RUNNING.value)
        .values(state=TaskState.LOST.value, ended=now, error="the daemon ended while the task ran: it may have run")
    ).rowcount


def forget(older_than: float, keep: int, connection: Connection) -> int:
    """Delete some of the tasks that ended too long ago, or are too many."""
    ended = TASKS.c.state.in_(_ENDS)
    newest = select(TASKS.c.number).where(ended).order_by(TASKS.c.number.desc())
    oldest_kept = newest.offset(keep - 1).limit(1).scalar_subquery()
    numbers = (
        select(TASKS.c.number)
        .where(ended, (TASKS.c.ended < older_than) | (TASKS.c.number < oldest_kept))
        .limit(FORGOTTEN)
        .scalar_subquery()
    )
    return connection.execute(delete(TASKS).where(TASKS.c.number.in_(numbers))).rowcount


def _get(task_id: str, connection: Connection) -> TaskRecord:
    record = find(task_id, connection)
    if record is None:
        raise NoSuchTask(f"there is no task {task_id!r:.100}")
    return record


def find(task_id: str, connection: Connection) -> TaskRecord | None:
    """The task of this id."""
    return _first(_BY_ID, {"task_id": task_id}, connection)


def _first(statement: Executable, values: Mapping[str, object], connection: Connection) -> TaskRecord | None:
    row = connection.execute(statement, values).first()
    return None if row is None else _record(row)


def list_tasks(
    state: TaskState | None, device: str | None, limit: int, before: str | None, connection: Connection
) -> list[TaskRecord]:
    """A page of tasks, the newest first."""
    query = select(TASKS).order_by(TASKS.c.number.desc()).limit(limit)
    if state is not None:
        query = query.where(TASKS.c.state == state.value)
    if device is not None:
        query = query.where(TASKS.c.device == device)
    if before is not None:
        number = connection.execute(select(TASKS.c.number).where(TASKS.c.id == before)).scalar()
        if number is None:
            raise NoSuchTask(f"there is no task {before!r:.100} to list those before: begin anew")
        query = query.where(TASKS.c.number < number)
    return [_record(row) for row in connection.execute(query)]


def counts(connection: Connection) -> dict[TaskState, int]:
    """How many tasks there are in each state."""
    rows = connection.execute(select(TASKS.c.state, func.count()).group_by(TASKS.c.state)).all()
    counted = {TaskState(state): count for state, count in rows}
    return {state: counted.get(state, 0) for state in TaskState}


def piece(task_id: str, part: int, connection: Connection) -> bytes | None:
    """A piece of a result; `None` after the last."""
    query = (
        select(RESULTS.c.body)
        .join(TASKS, TASKS.c.number == RESULTS.c.task)
        .where(TASKS.c.id == task_id, RESULTS.c.part == part)
    )
    return connection.execute(query).scalar()


def _record(row: Row[Any]) -> TaskRecord:  # Any: what a table holds
    (
        number, task_id, state, request, asked_device, os, capabilities, timeout, idempotency_key,
        device, created, started, ended, error, result_size, retry_of,
    ) = cast("tuple[Any, ...]", row)  # fmt: skip
    return TaskRecord(
        task_id,
        TaskRequest(request, asked_device, os, _tuple(capabilities), timeout, idempotency_key),
        TaskState(state),
        datetime.fromtimestamp(created, UTC),
        device,
        None if started is None else datetime.fromtimestamp(started, UTC),
        None if ended is None else datetime.fromtimestamp(ended, UTC),
        error,
        result_size,
        retry_of,
        number,
    )


def _listed(capabilities: tuple[str, ...]) -> str:
    return json.dumps(capabilities) if capabilities else "[]"


def _tuple(capabilities: str) -> tuple[str, ...]:
    return () if capabilities == "[]" else tuple(cast("list[str]", json.loads(capabilities)))
