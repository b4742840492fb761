"""The operations of the store, each as a function that runs in a transaction, in a worker thread.

An operation may be called again, if its transaction failed. What begins or ends an attempt to run a task names the attempt by its token: it
takes place once, however often it is called, and changes nothing of another attempt.

`deliver` is called with what an operation returns as soon as it is on disk, in the order in which the operations ran. It must not block or
raise.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, cast

import attrs
from sqlalchemy import delete, func, select

from galaxy_trio._nearest import did_you_mean
from galaxy_trio.daemon.store import statements
from galaxy_trio.daemon.store.committer import Refused
from galaxy_trio.daemon.store.departures import add_departure
from galaxy_trio.daemon.store.records import (
    MAX_EXCERPT,
    Requirement,
    TaskRecord,
    TaskRequest,
    TaskState,
    stored_error,
    stored_error_if_any,
)
from galaxy_trio.daemon.store.rows import (
    capabilities_from,
    capabilities_text,
    make_record,
    requirement_columns,
    text_beginning,
)
from galaxy_trio.daemon.store.schema import IS_QUEUED, RESULTS, TASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Executable, Select

    from galaxy_trio.daemon.store.committer import Transaction

PIECE: Final = 2**16
"""Bytes in one piece of a result or another text."""
MAX_DELETED: Final = 500
"""Tasks that are deleted in one transaction; other writes run between two."""
_FINAL_STATES: Final = tuple(state.value for state in TaskState if state.ended)


class NoSuchTask(Refused):
    """There is no task with this id."""


class WrongState(Refused):
    """The task is not in the state that the operation requires."""


class IdempotencyConflict(Refused):
    """The idempotency key belongs to a task with a different request."""


def _ignore(_result: object) -> None:
    """The `deliver` of callers that need no order."""


def add(
    transaction: Transaction,
    request: TaskRequest,
    deliver: Callable[[tuple[TaskRecord, bool]], None] = _ignore,
    claimed_by: str | None = None,
) -> tuple[TaskRecord, bool]:
    """Add a new task, `queued`, and claim it for the life of a daemon, or for none.

    Returns:
        The task, and whether it is new: the same idempotency key returns the first task, whatever its state.

    Raises:
        IdempotencyConflict: The key belongs to a task with a different request.
    """
    record = _insert(transaction, request, claimed_by=claimed_by) or _added_before(transaction, request)
    added = (record, record.id == transaction.new_id)
    transaction.on_commit(partial(deliver, added))
    return added


def accepted(connection: Connection, request: TaskRequest) -> TaskRecord | None:
    """The task that was accepted with this request's idempotency key, or `None`.

    Raises:
        IdempotencyConflict: The key belongs to a task with a different request.
    """
    if request.idempotency_key is None:
        return None
    known = _first(statements.BY_KEY, {"key": request.idempotency_key}, connection)
    if known is not None and attrs.evolve(known.asked, request=whole_request(connection, known.id)) != request:
        raise IdempotencyConflict(
            f"the idempotency key {request.idempotency_key!r} belongs to task {known.id}, which has a different request: use another key"
        )
    return known


def whole_request(connection: Connection, task_id: str) -> str:
    """A task's request, of any size.

    Raises:
        NoSuchTask: There is no such task.
    """
    request = connection.execute(statements.REQUEST, {"task_id": task_id}).scalar()
    if request is None:
        raise _no_such_task(task_id, connection)
    return cast("str", request)


def retry(transaction: Transaction, task_id: str, deliver: Callable[[TaskRecord], None] = _ignore) -> TaskRecord:
    """Add a new task, `queued`, with the request of one that has ended.

    Raises:
        NoSuchTask: There is no such task.
        WrongState: It has not ended.
    """
    known = existing(transaction.connection, task_id)
    if not known.state.ended:
        raise WrongState(f"task {task_id} {known.state.in_words}: only a task that has ended can be retried")
    # The key belongs to the first task.
    whole = whole_request(transaction.connection, task_id)
    request = attrs.evolve(known.asked, request=whole, idempotency_key=None)
    record = _insert(transaction, request, retry_of=task_id) or existing(transaction.connection, transaction.new_id)
    transaction.on_commit(partial(deliver, record))
    return record


def _insert(
    transaction: Transaction, request: TaskRequest, retry_of: str | None = None, claimed_by: str | None = None
) -> TaskRecord | None:
    """Insert a task with the transaction's new id. Returns `None` if the id, or the idempotency key, is there."""
    values = {
        "id": transaction.new_id,
        "state": TaskState.QUEUED.value,
        "request": request.request,
        "asked_device": request.device,
        "os": request.os,
        "capabilities": capabilities_text(request.capabilities),
        "timeout": request.timeout,
        "idempotency_key": request.idempotency_key,
        "priority": request.priority,
        "created": transaction.now.timestamp(),
        "retry_of": retry_of,
        "claimed_by": claimed_by,
    }
    # Before the statement, whose error would not be this one: a lone surrogate cannot be encoded.
    text = request.request.encode()
    connection = transaction.connection
    number = connection.execute(statements.insert_task(connection.dialect.name), values).scalar()
    if number is None:
        return None
    return TaskRecord(
        transaction.new_id,
        attrs.evolve(request, request=text_beginning(text[:MAX_EXCERPT])),
        TaskState.QUEUED,
        transaction.now,
        retry_of=retry_of,
        claimed_by=claimed_by,
        number=number,
        request_size=len(text),
    )


def mark_running(
    transaction: Transaction, task_id: str, device: str, attempt: str, claimed_by: str | None = None
) -> TaskRecord:
    """Change a task from `queued` to `running` on a device, by an attempt with a fresh token.

    Raises:
        WrongState: It is not queued, for example because it was cancelled, or it is not claimed by this life of the daemon.
    """
    values = {
        "task_id": task_id,
        "on_device": device,
        "now": transaction.now.timestamp(),
        "by_attempt": attempt,
        "me": claimed_by,
    }
    record = _first(statements.MARK_RUNNING, values, transaction.connection)
    if record is None:
        raise _wrong_state(existing(transaction.connection, task_id))
    return record


def mark_queued(transaction: Transaction, task_id: str, attempt: str) -> TaskRecord:
    """Change a task from `running` back to `queued`: the attempt's device had left, and the task is known not to have run.

    Raises:
        WrongState: The attempt does not run it.
    """
    add_departure(transaction, task_id, attempt)
    values = {"task_id": task_id, "by_attempt": attempt}
    record = _first(statements.MARK_QUEUED, values, transaction.connection)
    return record or _changed_before(transaction.connection, task_id, attempt, TaskState.QUEUED)


def finish(
    transaction: Transaction,
    task_id: str,
    attempt: str,
    state: TaskState,
    *,
    error: str | None = None,
    result: str | None = None,
) -> TaskRecord:
    """Change a task to a final state, with its result as JSON in ASCII. The attempt runs it, or could not begin and it is `queued`.

    Raises:
        WrongState: It has ended already, or another attempt runs it.
    """
    values = {
        "task_id": task_id,
        "by_attempt": attempt,
        "to_state": state.value,
        "now": transaction.now.timestamp(),
        "why": stored_error_if_any(error),
        "size": None if result is None else len(result),
    }
    record = _first(statements.FINISH, values, transaction.connection)
    if record is None:
        return _changed_before(transaction.connection, task_id, attempt, state)
    for part, at in enumerate(range(0, len(result or ""), PIECE)):
        body = (result or "")[at : at + PIECE].encode("ascii")
        transaction.connection.execute(statements.INSERT_PIECE, {"task": record.number, "part": part, "body": body})
    return record


def cancel_queued(
    transaction: Transaction, task_id: str, deliver: Callable[[TaskRecord], None] = _ignore
) -> tuple[TaskRecord, bool]:
    """Change a task from `queued` to `cancelled`, and deliver it; a task that is not queued stays as it is.

    Returns:
        The task, and whether it was changed.

    Raises:
        NoSuchTask: There is no such task.
    """
    now = transaction.now.timestamp()
    values = {"task_id": task_id, "to_state": TaskState.CANCELLED.value, "now": now, "why": None}
    cancelled = _first(statements.CANCEL_QUEUED, values, transaction.connection)
    if cancelled is None:
        return existing(transaction.connection, task_id), False
    transaction.on_commit(partial(deliver, cancelled))
    return cancelled, True


def fail_queued(
    transaction: Transaction,
    requirement: Requirement,
    error: str,
    limit: int,
    deliver: Callable[[list[TaskRecord]], None] = _ignore,
) -> list[TaskRecord]:
    """Change the first queued tasks with a requirement to `failed`.

    Returns:
        The changed tasks, in order.
    """
    values = {
        "to_state": TaskState.FAILED.value,
        "now": transaction.now.timestamp(),
        "why": stored_error(error),
        "limit": limit,
    }
    rows = transaction.connection.execute(statements.FAIL_QUEUED, values | requirement_columns(requirement)).all()
    failed = sorted(map(make_record, rows), key=lambda record: record.rank)
    transaction.on_commit(partial(deliver, failed))
    return failed


def claim(
    transaction: Transaction,
    requirement: Requirement,
    claimed_by: str,
    limit: int,
    deliver: Callable[[list[TaskRecord]], None] = _ignore,
) -> list[TaskRecord]:
    """Claim the first free queued tasks with a requirement for the life of a daemon, and return them in order."""
    values = {"me": claimed_by, "limit": limit} | requirement_columns(requirement)
    rows = transaction.connection.execute(statements.CLAIM, values).all()
    records = sorted(map(make_record, rows), key=lambda record: record.rank)
    transaction.on_commit(partial(deliver, records))
    return records


def return_claims(transaction: Transaction, claimed_by: str, numbers: Sequence[int] | None = None) -> None:
    """Free tasks that have not begun from the claim of a life: those with these numbers, or all."""
    if numbers is None:
        transaction.connection.execute(statements.RETURN_CLAIMS, {"me": claimed_by})
    elif numbers:
        values = [{"of_number": number, "me": claimed_by} for number in numbers]
        transaction.connection.execute(statements.RETURN_CLAIM, values)


def recover(transaction: Transaction) -> int:
    """Change all `running` tasks to `lost`, and free all claims: the daemon that ran and claimed them has ended.

    Returns:
        How many were changed to `lost`.
    """
    lost = transaction.connection.execute(statements.RECOVER, {"now": transaction.now.timestamp()}).rowcount
    transaction.connection.execute(statements.FREE_CLAIMS)
    return lost


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


def _old(older_than: datetime, keep: int) -> Select[tuple[int]]:
    ended = TASKS.c.state.in_(_FINAL_STATES)
    newest = select(TASKS.c.number).where(ended).order_by(TASKS.c.number.desc())
    oldest_kept = newest.offset(keep - 1).limit(1).scalar_subquery()
    return select(TASKS.c.number).where(
        ended, (TASKS.c.ended < older_than.timestamp()) | (TASKS.c.number < oldest_kept)
    )


def get(connection: Connection, task_id: str) -> TaskRecord | None:
    """A task, or `None` if there is no such task."""
    return _first(statements.BY_ID, {"task_id": task_id}, connection)


def existing(connection: Connection, task_id: str) -> TaskRecord:
    """A task.

    Raises:
        NoSuchTask: There is no such task.
    """
    record = get(connection, task_id)
    if record is None:
        raise _no_such_task(task_id, connection)
    return record


def page(
    connection: Connection,
    *,
    state: TaskState | None = None,
    device: str | None = None,
    limit: int = 100,
    before: str | None = None,
) -> list[TaskRecord]:
    """A page of tasks, the newest first: those in a state, those that run or ran on a device, those older than `before`.

    Raises:
        NoSuchTask: There is no task with the id `before`, for example because it was deleted.
    """
    query = statements.RECORDS.order_by(TASKS.c.number.desc()).limit(limit)
    if state is not None:
        query = query.where(TASKS.c.state == state.value)
    if device is not None:
        query = query.where(TASKS.c.device == device)
    if before is not None:
        number = connection.execute(select(TASKS.c.number).where(TASKS.c.id == before)).scalar()
        if number is None:
            raise NoSuchTask(f"there is no task {before!r:.100} to continue the list from: start at the first page")
        query = query.where(TASKS.c.number < number)
    return [make_record(row) for row in connection.execute(query)]


def count_queued(connection: Connection) -> dict[Requirement, int]:
    """The number of queued tasks by requirement."""
    columns = (TASKS.c.asked_device, TASKS.c.os, TASKS.c.capabilities)
    rows = connection.execute(select(*columns, func.count()).where(IS_QUEUED).group_by(*columns)).all()
    return {Requirement(device, os, capabilities_from(capabilities)): count for device, os, capabilities, count in rows}


def counts(connection: Connection) -> dict[TaskState, int]:
    """The number of tasks in each state."""
    rows = connection.execute(select(TASKS.c.state, func.count()).group_by(TASKS.c.state)).all()
    counted = {TaskState(state): count for state, count in rows}
    return {state: counted.get(state, 0) for state in TaskState}


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


def _added_before(transaction: Transaction, request: TaskRequest) -> TaskRecord:
    """The task for which there was no room in the table: added with the same idempotency key, or by this operation itself.

    Raises:
        IdempotencyConflict: The key belongs to a task with a different request.
    """
    known = accepted(transaction.connection, request)
    return existing(transaction.connection, transaction.new_id) if known is None else known


def _changed_before(connection: Connection, task_id: str, attempt: str, state: TaskState) -> TaskRecord:
    """The task that an attempt has changed to a state already.

    Raises:
        NoSuchTask: There is no such task.
        WrongState: The task is in another state, or was changed by another attempt.
    """
    record = _first(statements.BY_ATTEMPT, {"task_id": task_id, "by_attempt": attempt}, connection)
    if record is None or record.state is not state:
        raise _wrong_state(record or existing(connection, task_id))
    return record


def _wrong_state(record: TaskRecord) -> WrongState:
    return WrongState(f"task {record.id} {record.state.in_words}")


def _no_such_task(task_id: str, connection: Connection) -> NoSuchTask:
    """The error about an unknown id, with similar ones of the latest tasks."""
    latest = select(TASKS.c.id).order_by(TASKS.c.number.desc()).limit(1_000)
    return NoSuchTask(f"there is no task {task_id!r:.100}{did_you_mean(task_id, connection.execute(latest).scalars())}")


def _first(statement: Executable, values: Mapping[str, object], connection: Connection) -> TaskRecord | None:
    row = connection.execute(statement, values).first()
    return None if row is None else make_record(row)
