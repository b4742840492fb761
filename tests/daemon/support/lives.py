"""Several lives of daemons on one database: their connections, and the tasks that they run."""

from __future__ import annotations

import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import trio
from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, select, text, update

from galaxy_trio.daemon.store.committer import Transaction
from galaxy_trio.daemon.store.fleet import NotOwner, begin
from galaxy_trio.daemon.store.postgresql_sessions import session_settings
from galaxy_trio.daemon.store.queries import WrongState, finish
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.schema import DAEMONS, IS_QUEUED, TASKS
from galaxy_trio.daemon.store.store import open_store
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Generator
    from concurrent.futures import Future, ThreadPoolExecutor

    import psycopg

    from galaxy_trio.daemon.store.location import Location

T = TypeVar("T")

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
LEASE: Final = 30.0


async def create_tables(location: Location) -> None:
    async with open_store(location) as store:
        # As if this life had never begun.
        await store.write(lambda transaction: transaction.connection.execute(delete(DAEMONS)))


@contextmanager
def open_engine(location: Location) -> Generator[Engine]:
    """Use a database with tables as one of any number of daemons: without the lock that only one of them can have."""
    if isinstance(location, Path):
        engine = create_engine(f"sqlite:///{location}", connect_args={"check_same_thread": False})

        @event.listens_for(engine, "connect")
        def forget_at_crash(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA synchronous = OFF")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        engine = create_engine(location.url, isolation_level="READ COMMITTED")
        settings = session_settings(location.cluster, location.lease)

        @event.listens_for(engine, "connect")
        def connect(connection: psycopg.Connection, _record: object) -> None:
            connection.autocommit = True
            connection.execute(settings)
            connection.autocommit = False

    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def new_engine(location: Location) -> Generator[Engine]:
    """Like `open_engine`, with a database that does not exist yet."""
    trio.run(create_tables, location)
    with open_engine(location) as engine:
        yield engine


def wait_until_blocked(engine: Engine) -> None:
    """Wait until a transaction waits for a lock that another one has."""
    blocked = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    deadline = time.monotonic() + SECONDS
    with engine.connect() as connection:
        while not connection.execute(blocked).scalar():
            connection.rollback()
            assert time.monotonic() < deadline
            time.sleep(0.01)


def in_waiting_transaction(threads: ThreadPoolExecutor, engine: Engine, run: Callable[[Connection], T]) -> Future[T]:
    """Run a transaction that has to wait for another one, and return when it waits."""

    def transact() -> T:
        with engine.begin() as connection:
            return run(connection)

    future = threads.submit(transact)
    wait_until_blocked(engine)
    return future


def transaction_on(connection: Connection, now: datetime = NOW) -> Transaction:
    return Transaction(connection, now, uuid.uuid4().hex, [], [])


@attrs.frozen
class Task:
    """A row of a task, as much as concerns its daemon."""

    state: TaskState
    claimed_by: str | None
    error: str | None


def add_claimed(connection: Connection, task_id: str, life: str | None) -> None:
    """Add a queued task that a life has claimed, or none."""
    values = {"id": task_id, "state": "queued", "request": "echo", "capabilities": "[]", "timeout": 1.0, "created": 0.0}
    connection.execute(insert(TASKS), values | {"claimed_by": life})


def claim_task(connection: Connection, task_id: str, life: str) -> bool:
    """Claim a free task for a life that is known to be alive. Returns whether it is claimed."""
    free = TASKS.c.claimed_by.is_(None)
    claimed = update(TASKS).where(TASKS.c.id == task_id, IS_QUEUED, free).values(claimed_by=life)
    return connection.execute(claimed).rowcount > 0


def begin_task(connection: Connection, task_id: str, life: str, device: str, epoch: int) -> bool:
    """Begin a task on a device of its life. Returns whether it may be sent."""
    try:
        begin(transaction_on(connection), task_id, device, f"{life} {epoch}", life, epoch)
    except (NotOwner, WrongState):
        return False
    return True


def end_task(connection: Connection, task_id: str, life: str, epoch: int) -> bool:
    """End a running task as the life that began it. Returns whether its end is written."""
    if read_task(connection, task_id).state is not TaskState.RUNNING:
        return False
    try:
        finish(transaction_on(connection), task_id, f"{life} {epoch}", life, TaskState.COMPLETED)
    except WrongState:
        return False
    return True


def read_task(connection: Connection, task_id: str) -> Task:
    row = connection.execute(
        select(TASKS.c.state, TASKS.c.claimed_by, TASKS.c.error).where(TASKS.c.id == task_id)
    ).one()
    return Task(TaskState(row.state), row.claimed_by, row.error)
