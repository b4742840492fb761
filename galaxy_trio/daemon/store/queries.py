"""The operations of the store, each as a function that runs in a transaction, in a worker thread.

An operation may be called again, if its transaction failed. What begins or ends an attempt to run a task names the attempt by its token: it
takes place once, however often it is called, and changes nothing of another attempt.

`deliver` is called with what an operation returns as soon as it is on disk, in the order in which the operations ran. It must not block or
raise.
"""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
from sqlalchemy import select

from galaxy_trio._nearest import did_you_mean
from galaxy_trio.daemon.store import statements
from galaxy_trio.daemon.store.committer import Refused
from galaxy_trio.daemon.store.departures import add_departure
from galaxy_trio.daemon.store.digest import is_equal
from galaxy_trio.daemon.store.pieces import PIECE
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
    capabilities_text,
    make_record,
    requirement_columns,
    text_beginning,
)
from galaxy_trio.daemon.store.schema import TASKS
from galaxy_trio.daemon.store.short_task import short_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Executable

    from galaxy_trio.daemon.store.committer import Transaction


NO_ORIGIN: Final[Mapping[str, str]] = MappingProxyType({})
"""The origin of a task that repeats no other one, and belongs to no graph."""


class NoSuchTask(Refused):
    """There is no task with this id."""


class WrongState(Refused):
    """The task is not in the state that the operation requires."""


class IdempotencyConflict(Refused):
    """The idempotency key belongs to a task with a different request."""


def ignore(_result: object) -> None:
    """The `deliver` of callers that need no order."""


def whole_request(connection: Connection, task_id: str) -> str:
    """A task's request, of any size.

    Raises:
        NoSuchTask: There is no such task.
    """
    request = connection.execute(statements.REQUEST, {"task_id": task_id}).scalar()
    if request is None:
        raise _no_such_task(task_id, connection)
    return cast("str", request)


def insert(
    transaction: Transaction,
    task_id: str,
    request: TaskRequest,
    claimed_by: str | None,
    origin: Mapping[str, str] = NO_ORIGIN,
) -> TaskRecord | None:
    """Insert a queued task, and publish it. Returns `None` if the id, or the idempotency key, is there.

    `origin` has the columns that say where it comes from: `retry_of`, and `graph` and `node`.
    """
    values = _columns(transaction, task_id, request, claimed_by, origin)
    connection = transaction.connection
    number = connection.execute(statements.insert_task(connection.dialect.name), values).scalar()
    return None if number is None else _inserted(transaction, values, request, number)


def insert_all(
    transaction: Transaction, tasks: Sequence[tuple[str, TaskRequest, Mapping[str, str]]]
) -> list[TaskRecord]:
    """Insert queued tasks, free, as `insert` does, and in their order. Each has a fresh id, its request, and its origin."""
    rows = [_columns(transaction, task_id, request, None, origin) for task_id, request, origin in tasks]
    inserted = transaction.connection.execute(statements.INSERT_TASKS, rows)
    numbers = {row.id: row.number for row in inserted}
    return [
        _inserted(transaction, values, request, numbers[task_id])
        for values, (task_id, request, _) in zip(rows, tasks, strict=True)
    ]


def _columns(
    transaction: Transaction, task_id: str, request: TaskRequest, claimed_by: str | None, origin: Mapping[str, str]
) -> dict[str, object]:
    """The values of the columns of a queued task."""
    return {
        "id": task_id,
        "state": TaskState.QUEUED.value,
        "request": request.request,
        "asked_device": request.device,
        "os": request.os,
        "capabilities": capabilities_text(request.capabilities),
        "timeout": request.timeout,
        "idempotency_key": request.idempotency_key,
        "priority": request.priority,
        "created": transaction.now.timestamp(),
        "claimed_by": claimed_by,
        **dict.fromkeys(("retry_of", "graph", "node")),
        **origin,
    }


def _inserted(
    transaction: Transaction, values: Mapping[str, Any], request: TaskRequest, number: int
) -> TaskRecord:  # Any: the values of any column
    """Publish a task that was inserted."""
    text = request.request.encode()
    record = TaskRecord(
        values["id"],
        attrs.evolve(request, request=text_beginning(text[:MAX_EXCERPT]), policy=None),
        TaskState.QUEUED,
        transaction.now,
        retry_of=values["retry_of"],
        number=number,
        request_size=len(text),
        graph=values["graph"],
        node=values["node"],
    )
    transaction.publish("task", short_task(record))
    return record


def mark_running(transaction: Transaction, task_id: str, device: str, attempt: str, claimed_by: str) -> TaskRecord:
    """Change a task that a life of a daemon has claimed from `queued` to `running` on a device, by an attempt with a fresh token.

    Raises:
        WrongState: It is not queued, for example because it was cancelled, or this life has not claimed it.
    """
    values = {
        "task_id": task_id,
        "on_device": device,
        "now": transaction.now.timestamp(),
        "by_attempt": attempt,
        "me": claimed_by,
    }
    record = _changed(statements.MARK_RUNNING, values, transaction)
    return record or _changed_before(transaction.connection, task_id, attempt, TaskState.RUNNING)


def mark_queued(transaction: Transaction, task_id: str, attempt: str) -> TaskRecord:
    """Change a task from `running` back to `queued`: the attempt's device had left, and the task is known not to have run.

    Raises:
        WrongState: The attempt does not run it.
    """
    add_departure(transaction, task_id, attempt)
    values = {"task_id": task_id, "by_attempt": attempt}
    record = _changed(statements.MARK_QUEUED, values, transaction)
    return record or _changed_before(transaction.connection, task_id, attempt, TaskState.QUEUED)


def finish(
    transaction: Transaction,
    task_id: str,
    attempt: str,
    claimed_by: str,
    state: TaskState,
    *,
    error: str | None = None,
    result: str | None = None,
) -> TaskRecord:
    """Change a task to a final state, with its result as JSON in ASCII.

    The attempt runs it, or could not begin and it is `queued`, and claimed by a life of a daemon.

    Raises:
        WrongState: It has ended already, another attempt runs it, or this life has not claimed it.
    """
    values = {
        "task_id": task_id,
        "by_attempt": attempt,
        "me": claimed_by,
        "to_state": state.value,
        "now": transaction.now.timestamp(),
        "why": stored_error_if_any(error),
        "size": None if result is None else len(result),
    }
    record = _changed(statements.FINISH, values, transaction)
    if record is None:
        return _changed_before(transaction.connection, task_id, attempt, state)
    for part, at in enumerate(range(0, len(result or ""), PIECE)):
        body = (result or "")[at : at + PIECE].encode("ascii")
        transaction.connection.execute(statements.INSERT_PIECE, {"task": record.number, "part": part, "body": body})
    return record


def cancel_queued(
    transaction: Transaction, task_id: str, deliver: Callable[[TaskRecord], None] = ignore
) -> tuple[TaskRecord, bool]:
    """Change a task from `queued` to `cancelled`, and deliver it; a task that is not queued stays as it is.

    Returns:
        The task, and whether it was changed.

    Raises:
        NoSuchTask: There is no such task.
    """
    now = transaction.now.timestamp()
    values = {"task_id": task_id, "to_state": TaskState.CANCELLED.value, "now": now, "why": None}
    cancelled = _changed(statements.CANCEL_QUEUED, values, transaction)
    if cancelled is None:
        return existing(transaction.connection, task_id), False
    transaction.on_commit(partial(deliver, cancelled))
    return cancelled, True


def cancel_all_queued(transaction: Transaction, task_ids: Sequence[str]) -> list[TaskRecord]:
    """Change queued tasks to `cancelled`, as `cancel_queued` does. Returns them in the order of their numbers."""
    values = {"to_state": TaskState.CANCELLED.value, "now": transaction.now.timestamp(), "why": None}
    rows = transaction.connection.execute(statements.CANCEL_ALL_QUEUED, {**values, "task_ids": list(task_ids)}).all()
    cancelled = sorted(map(make_record, rows), key=lambda record: record.number)
    _publish_all(transaction, cancelled)
    return cancelled


def fail_queued(
    transaction: Transaction,
    requirement: Requirement,
    error: str,
    limit: int,
    deliver: Callable[[list[TaskRecord]], None] = ignore,
    graphs: Sequence[str] = (),
) -> list[TaskRecord]:
    """Change the first queued tasks with a requirement to `failed`: those of no graph, or of some graphs, which are locked.

    Returns:
        The changed tasks, in order.
    """
    values = {
        "to_state": TaskState.FAILED.value,
        "now": transaction.now.timestamp(),
        "why": stored_error(error),
        "limit": limit,
        "of_graphs": list(graphs),
    }
    rows = transaction.connection.execute(statements.FAIL_QUEUED, values | requirement_columns(requirement)).all()
    failed = sorted(map(make_record, rows), key=lambda record: record.rank)
    _publish_all(transaction, failed)
    transaction.on_commit(partial(deliver, failed))
    return failed


def check_writable(_transaction: Transaction) -> None:
    """Change nothing: the commit itself writes to the disk, and fails if nothing can be written."""


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
    graph: str | None = None,
    node: str | None = None,
    limit: int = 100,
    before: str | None = None,
) -> list[TaskRecord]:
    """A page of tasks, the newest first: those in a state, on a device, of a graph or of one of its nodes, those older than `before`.

    Raises:
        NoSuchTask: There is no task with the id `before`, for example because it was deleted.
    """
    query = statements.RECORDS.order_by(TASKS.c.number.desc()).limit(limit)
    if state is not None:
        query = query.where(TASKS.c.state == state.value)
    if device is not None:
        query = query.where(is_equal(TASKS.c.device, "device"))
    if graph is not None:
        query = query.where(TASKS.c.graph == graph)
    if node is not None:
        query = query.where(TASKS.c.node == node)
    if before is not None:
        number = connection.execute(select(TASKS.c.number).where(TASKS.c.id == before)).scalar()
        if number is None:
            raise NoSuchTask(f"there is no task {before!r:.100} to continue the list from: start at the first page")
        query = query.where(TASKS.c.number < number)
    return [make_record(row) for row in connection.execute(query, {"device": device})]


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


def _changed(statement: Executable, values: Mapping[str, object], transaction: Transaction) -> TaskRecord | None:
    """Run a statement that may change a task, and publish the change."""
    record = _first(statement, values, transaction.connection)
    if record is not None:
        transaction.publish("task", short_task(record))
    return record


def _publish_all(transaction: Transaction, changed: Iterable[TaskRecord]) -> None:
    for record in changed:
        transaction.publish("task", short_task(record))
