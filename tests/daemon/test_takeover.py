"""The death of a daemon's life: its devices and claims become free, what it ran is lost, and it writes no ends any more."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, update

from galaxy_trio.daemon.store import takeover
from galaxy_trio.daemon.store.lives import begin_life, read_lives
from galaxy_trio.daemon.store.ownership import ensure_devices, owners, take_devices
from galaxy_trio.daemon.store.records import TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.schema import DAEMONS, TASKS
from galaxy_trio.daemon.store.takeover import Takeover, end_life, take_over
from tests.daemon.support.lives import (
    LEASE,
    NOW,
    Task,
    add_claimed,
    begin_task,
    end_task,
    new_engine,
    read_task,
    transaction_on,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.location import Location

pytestmark = pytest.mark.daemon

_FREE = Task(TaskState.QUEUED, None, None)


@pytest.fixture
def engine(database: Location) -> Generator[Engine]:
    """A database with three lives, each of which owns a device, runs a task and has claimed one."""
    with new_engine(database) as engine:
        with engine.begin() as connection:
            ensure_devices(transaction_on(connection), ["d-a", "d-b", "d-c"])
            for life in "abc":
                begin_life(transaction_on(connection), life, f"daemon {life}", None, LEASE)
                take_devices(transaction_on(connection), life, [f"d-{life}"], 1)
                for number in (1, 2):
                    add_claimed(connection, f"{life}{number}", life)
                assert begin_task(connection, f"{life}1", life, f"d-{life}", 1)
            add_claimed(connection, "free", None)
        yield engine


def _expire(connection: Connection, *lives: str) -> None:
    """Let leases end a second ago."""
    expires = DAEMONS.c.expires - LEASE - 1
    connection.execute(update(DAEMONS).where(DAEMONS.c.id.in_(lives)).values(expires=expires))


def _is_unchanged(connection: Connection, life: str) -> bool:
    running, claimed = (read_task(connection, f"{life}{number}") for number in (1, 2))
    [found] = [each for each in read_lives(connection) if each.id == life]
    return (running, claimed, owners(connection)[f"d-{life}"], found.died) == (
        Task(TaskState.RUNNING, life, None),
        Task(TaskState.QUEUED, life, None),
        (life, 1),
        None,
    )


def _is_taken_over(connection: Connection, life: str) -> bool:
    running, claimed = (read_task(connection, f"{life}{number}") for number in (1, 2))
    error = f"the daemon daemon {life} ended or lost its lease while the task ran: it may have run"
    [found] = [each for each in read_lives(connection) if each.id == life]
    assert found.died is not None
    assert (running, claimed) == (Task(TaskState.LOST, None, error), _FREE)
    return owners(connection)[f"d-{life}"] == (None, 2)


def _ids(change: Takeover) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    return change.lives, change.devices, [record.id for record in change.lost]


def test_life_with_an_expired_lease_loses_its_devices_and_tasks_once_and_the_others_keep_theirs(engine: Engine) -> None:
    with engine.begin() as connection:
        _expire(connection, "b")
        change = take_over(transaction_on(connection), "a")
        assert _ids(change) == (("b",), ("d-b",), ["b1"])
        [lost] = change.lost
        assert (lost.state, lost.ended, lost.device) == (TaskState.LOST, NOW, "d-b")
        assert _is_taken_over(connection, "b")
        assert _is_unchanged(connection, "a")
        assert _is_unchanged(connection, "c")
        assert read_task(connection, "free") == _FREE
        assert take_over(transaction_on(connection), "a") == Takeover()


def test_own_life_is_left_alone_although_its_lease_has_expired(engine: Engine) -> None:
    with engine.begin() as connection:
        _expire(connection, "a")
        assert take_over(transaction_on(connection), "a") == Takeover()
        assert _is_unchanged(connection, "a")


def test_ended_life_frees_its_devices_and_tasks_immediately(engine: Engine) -> None:
    with engine.begin() as connection:
        assert _ids(end_life(transaction_on(connection), "a")) == (("a",), ("d-a",), ["a1"])
        assert _is_taken_over(connection, "a")
        assert _is_unchanged(connection, "b")
        assert end_life(transaction_on(connection), "a") == Takeover()


def test_all_other_lives_are_dead_if_the_caller_knows_it_whatever_their_leases_are(engine: Engine) -> None:
    with engine.begin() as connection:
        # A running task of a database from before there were lives.
        add_claimed(connection, "old", None)
        connection.execute(update(TASKS).where(TASKS.c.id == "old").values(state=TaskState.RUNNING.value))
        change = take_over(transaction_on(connection), "a", all_others=True)
        assert _ids(change) == (("b", "c"), ("d-b", "d-c"), ["b1", "c1", "old"])
        assert _is_unchanged(connection, "a")
        assert _is_taken_over(connection, "b")
        assert _is_taken_over(connection, "c")
        error = "the daemon ended while the task ran: it may have run"
        assert read_task(connection, "old") == Task(TaskState.LOST, None, error)
        assert take_over(transaction_on(connection), "a", all_others=True) == Takeover()


def test_lives_are_taken_over_in_transactions_of_limited_size(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "_MAX_DEAD", 1)
    with engine.begin() as connection:
        _expire(connection, "b", "c")
        changes = [_ids(take_over(transaction_on(connection), "a")) for _ in range(3)]
        assert changes == [(("b",), ("d-b",), ["b1"]), (("c",), ("d-c",), ["c1"]), ((), (), [])]


def test_end_is_written_only_by_the_life_that_runs_the_task_and_in_its_epoch(engine: Engine) -> None:
    with engine.begin() as connection:
        for life, epoch in (("b", 1), ("a", 2), ("a", 0)):
            assert not end_task(connection, "a1", life, epoch)
        assert not end_task(connection, "a2", "a", 1)
        assert end_task(connection, "a1", "a", 1)
        assert not end_task(connection, "a1", "a", 1)
        _expire(connection, "b")
        take_over(transaction_on(connection), "a")
        assert not end_task(connection, "b1", "b", 1)
        assert read_task(connection, "b1").state is TaskState.LOST


def test_freed_tasks_and_devices_can_be_taken_and_the_dead_begin_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        _expire(connection, "b")
        take_over(transaction_on(connection), "a")
        assert not begin_task(connection, "b2", "b", "d-b", 1)
        assert take_devices(transaction_on(connection), "a", ["d-b"], 1) == {"d-b": 3}
        assert not begin_task(connection, "b2", "b", "d-b", 3)
        connection.execute(update(TASKS).where(TASKS.c.id == "b2").values(claimed_by="a"))
        assert begin_task(connection, "b2", "a", "d-b", 3)


def test_lease_is_compared_with_the_time_of_the_caller_where_the_database_has_none(engine: Engine) -> None:
    if engine.dialect.name == "postgresql":
        later = NOW + timedelta(days=1_000)
        with engine.begin() as connection:
            assert take_over(transaction_on(connection, later), "a").lives == ()
    else:
        with engine.begin() as connection:
            on_time = NOW + timedelta(seconds=LEASE)
            assert take_over(transaction_on(connection, on_time), "a").lives == ()
            late = on_time + timedelta(seconds=0.01)
            assert take_over(transaction_on(connection, late), "a").lives == ("b", "c")


def test_takeovers_are_added_up() -> None:
    record = TaskRecord("id", TaskRequest("echo"), TaskState.LOST, NOW)
    first, second = Takeover(("a",), ("d1",), (record,)), Takeover(("b", "c"), (), (record,))
    assert first.with_more(second) == Takeover(("a", "b", "c"), ("d1",), (record, record))
    assert Takeover().with_more(first) == first == first.with_more(Takeover())
