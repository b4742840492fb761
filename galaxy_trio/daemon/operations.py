"""What the daemon asks its database, and tells it: each within a transaction, in a worker thread."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

from sqlalchemy import delete, func, insert, select, update

from galaxy_trio.daemon.group_commit import Refused
from galaxy_trio.daemon.records import TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.schema import RESULTS, TASKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, RowMapping

FORGOTTEN: Final = 500
"""Tasks that are forgotten in one transaction: others write between two."""
_ENDS: Final = tuple(state.value for state in TaskState if state.ended)


class NoSuchTask(Refused):
    """There is no task of this id."""


class WrongState(Refused):
    """The task is no longer, or not yet, in the state for this."""


class IdempotencyConflict(Refused):
    """The key was used for something else."""


def add(request: TaskRequest, now: datetime, connection: Connection) -> tuple[TaskRecord, bool]:
    """A new task, or the one with its idempotency key."""
    if request.idempotency_key is not None:
        known = _first(TASKS.c.idempotency_key == request.idempotency_key, connection)
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
        "capabilities": json.dumps(request.capabilities),
        "timeout": request.timeout,
        "idempotency_key": request.idempotency_key,
        "created": now.timestamp(),
        "retry_of": retry_of,
    }
    connection.execute(insert(TASKS).values(values))
    return TaskRecord(task_id, request, TaskState.QUEUED, now, retry_of=retry_of)


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


def change(
    task_id: str, states: Sequence[TaskState], values: Mapping[str, object], connection: Connection
) -> TaskRecord:
    """Another state, if it is in one of these."""
    changed = connection.execute(
        update(TASKS).where(TASKS.c.id == task_id, TASKS.c.state.in_([state.value for state in states])).values(values)
    )
    record = _get(task_id, connection)
    if not changed.rowcount:
        raise WrongState(f"task {task_id} is {record.state.value}")
    return record


def finish(task_id: str, values: Mapping[str, object], pieces: Sequence[str], connection: Connection) -> TaskRecord:
    """An end, with the pieces of its result."""
    record = change(task_id, (TaskState.QUEUED, TaskState.RUNNING), values, connection)
    number = select(TASKS.c.number).where(TASKS.c.id == task_id).scalar_subquery()
    for part, piece in enumerate(pieces):
        connection.execute(insert(RESULTS).values(task=number, part=part, body=piece.encode("ascii")))
    return record


def cancel_queued(task_id: str, now: float, connection: Connection) -> tuple[TaskRecord, bool]:
    """`cancelled`, if it is queued."""
    changed = connection.execute(
        update(TASKS)
        .where(TASKS.c.id == task_id, TASKS.c.state == TaskState.QUEUED.value)
        .values(state=TaskState.CANCELLED.value, ended=now)
    )
    return _get(task_id, connection), bool(changed.rowcount)


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
    return _first(TASKS.c.id == task_id, connection)


def _first(condition: ColumnElement[bool], connection: Connection) -> TaskRecord | None:
    row = connection.execute(select(TASKS).where(condition)).mappings().first()
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
    return [_record(row) for row in connection.execute(query).mappings()]


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


def _record(row: RowMapping) -> TaskRecord:
    asked = TaskRequest(
        request=row["request"],
        device=row["asked_device"],
        os=row["os"],
        capabilities=tuple(cast("list[str]", json.loads(row["capabilities"]))),
        timeout=row["timeout"],
        idempotency_key=row["idempotency_key"],
    )
    return TaskRecord(
        id=row["id"],
        asked=asked,
        state=TaskState(row["state"]),
        created=datetime.fromtimestamp(row["created"], UTC),
        device=row["device"],
        started=_time(row["started"]),
        ended=_time(row["ended"]),
        error=row["error"],
        result_size=row["result_size"],
        retry_of=row["retry_of"],
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def queued(connection: Connection) -> list[TaskRecord]:
    """What waits, the oldest first."""
    query = select(TASKS).where(TASKS.c.state == TaskState.QUEUED.value).order_by(TASKS.c.number)
    return [_record(row) for row in connection.execute(query).mappings()]
