"""Lives of daemons: their leases by the database's clock, and what a life must hold to take something."""

from __future__ import annotations

import math
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import trio
from sqlalchemy import Engine, func, insert, select, update

from galaxy_trio.daemon.store import lives
from galaxy_trio.daemon.store.committer import LifeOver
from galaxy_trio.daemon.store.lives import Life, begin_life, read_lives, renew_life, require_alive
from galaxy_trio.daemon.store.schema import COMMITS, DAEMONS
from galaxy_trio.daemon.store.store import open_store
from galaxy_trio.daemon.store.takeover import end_life, take_over
from tests.daemon.support.lives import LEASE, NOW, new_engine, open_engine, transaction_on, wait_until_blocked
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.location import Location, PostgresqlLocation

pytestmark = pytest.mark.daemon


@pytest.fixture
def engine(database: Location) -> Generator[Engine]:
    with new_engine(database) as engine:
        yield engine


@pytest.fixture
def sqlite(tmp_path: Path) -> Generator[Engine]:
    with new_engine(tmp_path / "db") as engine:
        yield engine


def _begin(engine: Engine, *names: str, lease: float = LEASE) -> None:
    with engine.begin() as connection:
        for name in names:
            begin_life(transaction_on(connection), name, f"daemon {name}", None, lease)


def test_life_has_a_lease_until_it_ends_and_stays_dead(engine: Engine) -> None:
    with engine.begin() as connection:
        begin_life(transaction_on(connection), "a", "north", "http://north:8765", LEASE)
        [life] = read_lives(connection)
        assert (life.id, life.name, life.url, life.died) == ("a", "north", "http://north:8765", None)
        assert life.expires - life.started == pytest.approx(LEASE, abs=0.1)
        require_alive(transaction_on(connection), "a")
        assert renew_life(connection, "a", LEASE, NOW)
        end_life(transaction_on(connection), "a")
        [dead] = read_lives(connection)
        assert dead.died is not None
        assert dead.died >= life.started
        assert not renew_life(connection, "a", LEASE, NOW)
        with pytest.raises(LifeOver, match="this daemon has lost its lease"):
            require_alive(transaction_on(connection), "a")
        # Its death is the one that was written first.
        end_life(transaction_on(connection), "a")
        assert read_lives(connection) == [dead]


def test_unknown_life_is_over(engine: Engine) -> None:
    with engine.begin() as connection:
        assert not renew_life(connection, "a", LEASE, NOW)
        with pytest.raises(LifeOver):
            require_alive(transaction_on(connection), "a")


def test_life_begins_once_although_its_beginning_is_repeated(engine: Engine) -> None:
    _begin(engine, "a", "a")
    with engine.begin() as connection:
        end_life(transaction_on(connection), "a")
        begin_life(transaction_on(connection), "a", "daemon a", None, LEASE)
        assert [life.died is None for life in read_lives(connection)] == [False]


def test_lease_without_an_end_does_not_expire(engine: Engine) -> None:
    _begin(engine, "a", lease=math.inf)
    with engine.begin() as connection:
        assert take_over(transaction_on(connection, NOW + timedelta(days=9_999)), "b").lives == ()
        [life] = read_lives(connection)
        assert life.expires == math.inf


def test_lease_ends_by_the_clock_of_the_database_whatever_the_clock_of_the_daemon_says(
    location: PostgresqlLocation,
) -> None:
    with new_engine(location) as engine, engine.begin() as connection:
        begin_life(transaction_on(connection, NOW - timedelta(days=1_000)), "a", "north", None, LEASE)
        [life] = read_lives(connection)
        assert life.expires == pytest.approx(time.time() + LEASE, abs=LEASE / 2)
        assert renew_life(connection, "a", 2 * LEASE, NOW - timedelta(days=1_000))
        [life] = read_lives(connection)
        assert life.expires == pytest.approx(time.time() + 2 * LEASE, abs=LEASE / 2)
        assert take_over(transaction_on(connection, NOW + timedelta(days=1_000)), "b").lives == ()


def test_lease_is_counted_from_the_renewal_and_not_from_the_beginning_of_its_transaction(
    location: PostgresqlLocation,
) -> None:
    with new_engine(location) as engine, engine.begin() as connection:
        connection.execute(select(func.pg_sleep(0.2)))
        begin_life(transaction_on(connection), "a", "north", None, LEASE)
        [life] = read_lives(connection)
        began = float(connection.execute(select(func.extract("epoch", func.now()))).scalar_one())
        assert life.expires - began > LEASE + 0.1


def test_renewed_lease_ends_later_and_an_expired_one_can_be_renewed_until_the_death_is_written(sqlite: Engine) -> None:
    _begin(sqlite, "a")
    late = NOW + timedelta(seconds=LEASE + 1)
    with sqlite.begin() as connection:
        assert renew_life(connection, "a", LEASE, late)
        assert take_over(transaction_on(connection, late), "b").lives == ()
        later = late + timedelta(seconds=LEASE + 1)
        assert take_over(transaction_on(connection, later), "b").lives == ("a",)
        assert not renew_life(connection, "a", LEASE, later)


def test_living_are_shown_before_the_dead_and_the_latest_first(sqlite: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite.begin() as connection:
        for seconds, name in enumerate("abcd"):
            begin_life(transaction_on(connection, NOW + timedelta(seconds=seconds)), name, name, None, LEASE)
        for name in "cb":
            end_life(transaction_on(connection), name)
        assert [life.id for life in read_lives(connection)] == ["d", "a", "c", "b"]
        monkeypatch.setattr(lives, "MAX_LIVES", 3)
        found = read_lives(connection)
    at = NOW.timestamp()
    assert found[1:] == [
        Life("a", "a", None, at, at + LEASE, None),
        Life("c", "c", None, at + 2, at + 2 + LEASE, at),
    ]


def _ids(engine: Engine) -> tuple[set[str], set[str]]:
    with engine.begin() as connection:
        return set(connection.scalars(select(DAEMONS.c.id))), set(connection.scalars(select(COMMITS.c.writer)))


def _age(engine: Engine, names: str, seconds: float) -> None:
    """Let lives and writers have died or begun some seconds ago."""
    with engine.begin() as connection:
        for column in (DAEMONS.c.died, COMMITS.c.created):
            key = DAEMONS.c.id if column.table is DAEMONS else COMMITS.c.writer
            connection.execute(update(column.table).where(key.in_(list(names))).values({column: column - seconds}))


def test_dead_lives_are_deleted_after_a_day_with_the_rows_of_their_writers(engine: Engine) -> None:
    _begin(engine, *"abc")
    with engine.begin() as connection:
        now = read_lives(connection)[0].started
        connection.execute(COMMITS.delete())
        for writer in "abcde":
            connection.execute(insert(COMMITS), {"writer": writer, "token": "", "created": now})
        for life in "ab":
            end_life(transaction_on(connection), life)
    # Of two daemons that did not begin their lives: d may still, and e was not able to.
    _age(engine, "ace", 90_000)
    _begin(engine, "f")
    assert _ids(engine) == ({"b", "c", "f"}, {"b", "c", "d"})


def test_each_beginning_deletes_a_limited_number_of_dead_lives_and_more_than_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lives, "_MAX_DELETED", 2)
    _begin(engine, *"abcde")
    with engine.begin() as connection:
        connection.execute(COMMITS.delete())
        for life in "abcde":
            end_life(transaction_on(connection), life)
        for writer in "abcdepq":
            connection.execute(insert(COMMITS), {"writer": writer, "token": "", "created": NOW.timestamp()})
    _age(engine, "abcdepq", 90_000_000)
    counts: list[tuple[int, int]] = []
    for name in "xyz":
        _begin(engine, name)
        lives_on_disk, writers = _ids(engine)
        counts.append((len(lives_on_disk), len(writers)))
    assert counts == [(4, 5), (3, 3), (3, 1)]


def test_renewal_waits_for_no_transaction_that_takes_something_and_death_leaves_it_alone(
    location: PostgresqlLocation,
) -> None:
    with new_engine(location) as engine, open_engine(location) as other:
        _begin(engine, "a", lease=0)
        with engine.begin() as taking, other.connect() as connection:
            require_alive(transaction_on(taking), "a")
            # Death is not written while the transaction goes on, nor does it wait.
            assert take_over(transaction_on(connection), "b").lives == ()
            connection.rollback()
            connection.exec_driver_sql("SET lock_timeout = '1ms'")
            assert renew_life(connection, "a", 0, NOW)
            connection.commit()
            # Nor do two transactions that take something wait for each other.
            require_alive(transaction_on(connection), "a")
            connection.rollback()
        with other.begin() as connection:
            assert take_over(transaction_on(connection), "b").lives == ("a",)


def test_death_does_not_wait_for_a_renewal_on_its_way_and_is_not_written_after_it(location: PostgresqlLocation) -> None:
    with new_engine(location) as engine, open_engine(location) as other:
        _begin(engine, "a", lease=0)
        with engine.begin() as renewing, other.begin() as connection:
            assert renew_life(renewing, "a", LEASE, NOW)
            assert take_over(transaction_on(connection), "b").lives == ()
        with other.begin() as connection:
            assert take_over(transaction_on(connection), "b").lives == ()


async def test_store_renews_the_lease_of_its_life_until_that_is_over(database: Location) -> None:
    async with open_store(database) as store:
        expired = update(DAEMONS).values(expires=0.0)
        await store.write(lambda transaction: transaction.connection.execute(expired))
        assert await store.renew()
        [life] = await store.read(read_lives)
        assert life.expires - life.started >= store.lease >= LEASE
        await store.write(lambda transaction: end_life(transaction, store.life))
        assert not await store.renew()


async def test_group_commit_that_takes_something_does_not_delay_a_renewal(location: PostgresqlLocation) -> None:
    taken, release = trio.Event(), threading.Event()

    def take(transaction: Transaction) -> None:
        require_alive(transaction, store.life)
        trio.from_thread.run_sync(taken.set)
        release.wait(SECONDS)

    with trio.fail_after(SECONDS):
        async with open_store(location) as store:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.write, take)
                await taken.wait()
                assert await store.renew()
                release.set()


async def test_cancelled_renewal_returns_immediately_although_the_database_does_not_answer(
    location: PostgresqlLocation,
) -> None:
    async with open_store(location) as store:
        with open_engine(location) as engine, engine.begin() as blocking:
            blocking.execute(select(DAEMONS.c.id).with_for_update())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.renew)
                await trio.to_thread.run_sync(wait_until_blocked, engine)
                nursery.cancel_scope.cancel()
            # The server would have refused the renewal after a while, and still has it.
            await trio.to_thread.run_sync(wait_until_blocked, engine)
        assert await store.renew()
