"""What PostgreSQL can interleave: a takeover, and the transactions of the daemon that is taken over, step by step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs
import pytest
from psycopg.errors import IdleInTransactionSessionTimeout, LockNotAvailable
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from galaxy_trio.daemon.store.lives import begin_life, require_alive
from galaxy_trio.daemon.store.location import MIN_LEASE
from galaxy_trio.daemon.store.ownership import ensure_devices, owners, take_devices
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.takeover import Takeover, take_over
from tests.daemon.support.lives import (
    LEASE,
    add_claimed,
    begin_task,
    end_task,
    in_waiting_transaction,
    new_engine,
    open_engine,
    read_task,
    transaction_on,
)
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import ThreadPoolExecutor

    from sqlalchemy import Connection, Engine

    from galaxy_trio.daemon.store.location import PostgresqlLocation

pytestmark = pytest.mark.daemon


def _prepare(engine: Engine) -> None:
    """Add a device of a life whose lease has expired, which has claimed a task, and a living one."""
    with engine.begin() as connection:
        ensure_devices(transaction_on(connection), ["d1"])
        begin_life(transaction_on(connection), "dying", "south", None, 0)
        begin_life(transaction_on(connection), "living", "north", None, LEASE)
        assert take_devices(transaction_on(connection), "dying", ["d1"], 1) == {"d1": 1}
        add_claimed(connection, "task", "dying")


@pytest.fixture
def engine(location: PostgresqlLocation) -> Generator[Engine]:
    with new_engine(location) as engine:
        _prepare(engine)
        yield engine


def _begin(connection: Connection) -> bool:
    return begin_task(connection, "task", "dying", "d1", 1)


def _end(connection: Connection) -> bool:
    return end_task(connection, "task", "dying", 1)


def _take_over(connection: Connection) -> Takeover:
    return take_over(transaction_on(connection), "living")


def _state(engine: Engine) -> TaskState:
    with engine.connect() as connection:
        return read_task(connection, "task").state


def test_task_that_is_being_begun_when_its_daemon_is_taken_over_is_lost(
    engine: Engine, threads: ThreadPoolExecutor
) -> None:
    with engine.begin() as connection:
        assert _begin(connection)
        taken_over = in_waiting_transaction(threads, engine, _take_over)
    change = taken_over.result()
    assert (change.lives, change.devices) == (("dying",), ("d1",))
    assert [task.id for task in change.lost] == ["task"]
    assert _state(engine) is TaskState.LOST


def test_task_is_not_begun_by_a_daemon_that_is_being_taken_over(engine: Engine, threads: ThreadPoolExecutor) -> None:
    with engine.begin() as connection:
        assert _take_over(connection).lost == ()
        begun = in_waiting_transaction(threads, engine, _begin)
    assert not begun.result()
    with engine.connect() as connection:
        task = read_task(connection, "task")
        assert (task.state, task.claimed_by) == (TaskState.QUEUED, None)


def test_task_that_is_being_ended_when_its_daemon_is_taken_over_is_not_lost(
    engine: Engine, threads: ThreadPoolExecutor
) -> None:
    with engine.begin() as connection:
        assert _begin(connection)
    with engine.begin() as connection:
        assert _end(connection)
        taken_over = in_waiting_transaction(threads, engine, _take_over)
    assert taken_over.result().lost == ()
    assert _state(engine) is TaskState.COMPLETED


def test_end_that_comes_while_its_daemon_is_taken_over_is_refused(engine: Engine, threads: ThreadPoolExecutor) -> None:
    with engine.begin() as connection:
        assert _begin(connection)
    with engine.begin() as connection:
        assert [task.id for task in _take_over(connection).lost] == ["task"]
        ended = in_waiting_transaction(threads, engine, _end)
    assert not ended.result()
    assert _state(engine) is TaskState.LOST


def test_two_daemons_that_take_over_at_the_same_time_do_not_wait_and_one_of_them_does_it(engine: Engine) -> None:
    with engine.begin() as connection:
        begin_life(transaction_on(connection), "another", "east", None, LEASE)
        assert _begin(connection)
    with engine.begin() as first, engine.begin() as second:
        changes = [take_over(transaction_on(first), "living"), take_over(transaction_on(second), "another")]
    assert [change.lives for change in changes] == [("dying",), ()]
    with engine.connect() as connection:
        assert owners(connection) == {"d1": (None, 2)}


def _take(connection: Connection) -> None:
    require_alive(transaction_on(connection), "dying")


def _try_to_take_over(engine: Engine) -> tuple[str, ...]:
    try:
        with engine.begin() as connection:
            return _take_over(connection).lives
    except DBAPIError as error:
        # This process, too, may stand still for a while.
        if isinstance(error.orig, LockNotAvailable | IdleInTransactionSessionTimeout):
            return ()
        raise


@pytest.mark.parametrize("stop_after", [_begin, _take])
def test_daemon_that_is_stopped_inside_a_transaction_is_taken_over_soon(
    location: PostgresqlLocation, stop_after: Callable[[Connection], object]
) -> None:
    location = attrs.evolve(location, lease=MIN_LEASE)
    with new_engine(location) as engine, open_engine(location) as other:
        _prepare(engine)
        stopped = engine.connect()
        stop_after(stopped)
        deadline = time.monotonic() + SECONDS
        while not _try_to_take_over(other):
            assert time.monotonic() < deadline
        assert _state(other) is TaskState.QUEUED
        with pytest.raises(DBAPIError, match="idle-in-transaction timeout"):
            stopped.execute(select(1))
        stopped.invalidate()
        stopped.close()
