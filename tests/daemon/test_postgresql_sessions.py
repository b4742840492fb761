"""The daemon's sessions in PostgreSQL: their owner, lost ones, and what one may block."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import psycopg
import pytest
import trio
import trio.testing
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from galaxy_trio.daemon.store import postgresql as dialect
from galaxy_trio.daemon.store.database import DatabaseInUse, StoreError
from galaxy_trio.daemon.store.location import PostgresqlLocation
from galaxy_trio.daemon.store.store import open_store
from tests.daemon.support.daemon import open_daemon
from tests.daemon.support.postgresql import PostgresqlServer, unique_name
from tests.daemon.support.refusals import refusal_of
from tests.daemon.support.store import add_task, queued_tasks
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from trio.testing import MockClock

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.records import TaskRecord

pytestmark = pytest.mark.daemon


async def test_one_daemon_at_a_time_uses_a_cluster(location: PostgresqlLocation) -> None:
    async with open_store(location) as store:
        refusal = await refusal_of(location)
        assert refusal.startswith("another daemon uses the database host=")
        assert refusal.endswith(f"cluster {location.cluster}: stop it, or configure another database or cluster")
        async with open_store(attrs.evolve(location, cluster=unique_name())) as other:
            await add_task(other)
        record = await add_task(store)
        assert await queued_tasks(store) == [record]
    async with open_store(location) as store:
        assert await queued_tasks(store) == [record]


_OWNER: Final = """
    SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%s, 0)
"""


def _owner(server: PostgresqlServer, cluster: str) -> int | None:
    """The process of the session that holds the lock of the cluster."""
    rows = server.execute(_OWNER, f"galaxy_trio {cluster}")
    return rows[0][0] if rows else None


def _terminate(server: PostgresqlServer, cluster: str) -> None:
    """Close the session that holds the lock of the cluster, and wait for its end."""
    assert server.execute("SELECT pg_terminate_backend(%s, 10000)", _owner(server, cluster)) == [(True,)]


async def test_store_connects_again_and_is_the_owner_again_when_its_sessions_are_terminated(
    postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
    async with open_store(location) as store:
        first = await add_task(store)
        assert await queued_tasks(store) == [first]
        _terminate(postgresql, location.cluster)
        second = await add_task(store)
        assert await queued_tasks(store) == [first, second]
        with pytest.raises(DatabaseInUse):
            async with open_store(location):
                raise AssertionError("not reached")


@contextmanager
def _held_lock(server: PostgresqlServer, cluster: str) -> Generator[psycopg.Connection[Any]]:
    """Hold the lock of the cluster, as a session whose daemon has ended does until the server notices it."""
    with psycopg.connect(host=str(server.directory), user="postgres", dbname="postgres") as predecessor:
        predecessor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"galaxy_trio {cluster}"])
        yield predecessor


async def test_daemon_waits_a_moment_for_the_session_of_its_predecessor_to_end(
    postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
    async with open_store(location):
        pass
    async with trio.open_nursery() as nursery:
        with _held_lock(postgresql, location.cluster):
            opened = trio.Event()

            async def open_it() -> None:
                async with open_store(location):
                    opened.set()

            nursery.start_soon(open_it)
            await until(lambda: _waits_for_lock(postgresql))
            assert not opened.is_set()


def _waits_for_lock(server: PostgresqlServer) -> bool:
    return server.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == [(1,)]


async def test_write_waits_until_the_server_notices_that_the_lost_session_of_its_daemon_has_ended(
    postgresql: PostgresqlServer, location: PostgresqlLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "_LOCK_TIMEOUT", 0.1)
    refusals = 0
    begin = dialect.Postgresql._begin_writing_session

    def count_refusals(self: dialect.Postgresql, connection: psycopg.Connection, record: object) -> None:
        nonlocal refusals
        try:
            begin(self, connection, record)
        except DatabaseInUse:
            refusals += 1
            raise

    monkeypatch.setattr(dialect.Postgresql, "_begin_writing_session", count_refusals)
    async with open_store(location) as store:
        _terminate(postgresql, location.cluster)
        async with trio.open_nursery() as nursery:
            with _held_lock(postgresql, location.cluster):
                nursery.start_soon(add_task, store)
                await until(lambda: refusals > 0)
        assert len(await queued_tasks(store)) == 1


async def test_daemon_that_lost_its_session_cannot_write_while_another_uses_the_database(
    postgresql: PostgresqlServer,
    location: PostgresqlLocation,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    monkeypatch.setattr(dialect, "_LOCK_TIMEOUT", 0.1)
    async with open_store(location) as store:
        first = await add_task(store)
        _terminate(postgresql, location.cluster)
        async with open_store(location) as successor:
            with pytest.raises(DatabaseInUse):
                await add_task(store)
            second = await add_task(successor)
        third = await add_task(store)
        assert await queued_tasks(store) == [first, second, third]


async def test_stopped_server_is_reported_and_used_again_when_it_runs(
    postgresql: PostgresqlServer, location: PostgresqlLocation, autojump_clock: MockClock
) -> None:
    async with open_store(location) as store:
        first = await add_task(store)
        postgresql.stop()
        try:
            for operation in (queued_tasks, add_task):
                with pytest.raises(StoreError, match="No such file or directory: check that the server runs"):
                    await operation(store)
        finally:
            postgresql.start()
        second = await add_task(store)
        assert await queued_tasks(store) == [first, second]


async def test_server_that_was_restarted_between_operations_fails_none(
    postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
    async with open_store(location) as store:
        first = await add_task(store)
        assert await queued_tasks(store) == [first]
        postgresql.stop()
        postgresql.start()
        assert await queued_tasks(store) == [first]
        second = await add_task(store)
        assert await queued_tasks(store) == [first, second]


async def test_running_task_goes_on_while_the_server_is_away_and_its_end_is_recorded_afterwards(
    postgresql: PostgresqlServer, location: PostgresqlLocation, tmp_path: Path
) -> None:
    settings = f'database = "{location.url}"\ncluster = "{location.cluster}"\n'
    async with open_daemon(tmp_path, "d1", settings=settings) as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        await trio.to_thread.run_sync(postgresql.stop)
        daemon.work.release("a")
        await trio.testing.wait_all_tasks_blocked(0.05)
        await trio.to_thread.run_sync(postgresql.start)
        assert (await daemon.ended_task(held))["state"] == "completed"
    assert daemon.work.begun == ["hold a"]


async def test_writes_during_a_restart_of_the_server_take_place_once(
    postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
    records: list[TaskRecord] = []

    async def add(number: int) -> None:
        for repetition in range(20):
            record = await add_task(store, f"echo {number}, {repetition}")
            records.append(record)

    async with open_store(location) as store:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(add, number)
            await until(lambda: len(records) > 40)
            await trio.to_thread.run_sync(postgresql.stop)
            await trio.to_thread.run_sync(postgresql.start)
        assert await queued_tasks(store) == sorted(records, key=lambda record: record.number)
        assert len(records) == 400


async def test_connection_that_is_lost_in_a_transaction_is_reported_and_the_next_write_succeeds(
    postgresql: PostgresqlServer, location: PostgresqlLocation, autojump_clock: MockClock
) -> None:
    def lose(transaction: Transaction) -> None:
        _terminate(postgresql, location.cluster)
        transaction.connection.execute(select(1))

    async with open_store(location) as store:
        with pytest.raises(
            StoreError, match="terminating connection due to administrator command: check that the server"
        ):
            await store.write(lose)
        await add_task(store)


async def test_every_session_limits_how_long_it_can_block_others(location: PostgresqlLocation) -> None:
    names = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout", "plan_cache_mode")
    show = select(*(func.current_setting(name) for name in names), func.current_setting("search_path"))
    async with open_store(location) as store:
        for row in (
            await store.write(lambda transaction: transaction.connection.execute(show).one()),
            await store.read(lambda connection: connection.execute(show).one()),
        ):
            assert tuple(row) == ("5s", "5s", "30s", "force_custom_plan", location.cluster)


@pytest.mark.parametrize(("configured", "used"), [("off", "on"), ("remote_apply", "remote_apply")])
async def test_commit_is_on_disk_whatever_the_server_is_configured_for(
    postgresql: PostgresqlServer, configured: str, used: str
) -> None:
    user = unique_name()
    postgresql.execute(f"CREATE ROLE {user} LOGIN SUPERUSER; ALTER ROLE {user} SET synchronous_commit = {configured}")
    show = select(func.current_setting("synchronous_commit"))
    async with open_store(PostgresqlLocation(postgresql.url(user=user), unique_name())) as store:
        assert await store.write(lambda transaction: transaction.connection.execute(show).scalar()) == used


def _limit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(dialect._SESSION, name, "100ms")


async def test_daemon_that_is_stopped_inside_a_transaction_loses_its_session(
    postgresql: PostgresqlServer,
    location: PostgresqlLocation,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    _limit(monkeypatch, "idle_in_transaction_session_timeout")

    pauses = 0

    def pause(transaction: Transaction) -> None:
        nonlocal pauses
        pauses += 1
        transaction.connection.execute(text("LOCK TABLE tasks"))
        while _owner(postgresql, location.cluster) is not None:
            pass
        transaction.connection.execute(select(1))

    async with open_store(location) as store:
        with pytest.raises(StoreError, match="the daemon paused for 5 s in a transaction"):
            await store.write(pause)
    # A pause may be the only one.
    assert pauses == 7


async def test_lock_of_another_program_fails_a_write_in_a_limited_time(
    postgresql: PostgresqlServer,
    location: PostgresqlLocation,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    _limit(monkeypatch, "lock_timeout")
    async with open_store(location) as store:
        with psycopg.connect(host=str(postgresql.directory), user="postgres", dbname="postgres") as blocker:
            blocker.execute(f"LOCK TABLE {location.cluster}.tasks IN SHARE MODE".encode())
            with pytest.raises(StoreError, match="another program has locked a table for 5 s: stop that program"):
                await add_task(store)
        await add_task(store)


async def test_user_that_may_only_read_is_refused_with_what_to_do(
    postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
    async with open_store(location):
        pass
    user, cluster = unique_name(), location.cluster
    postgresql.execute(f"CREATE ROLE {user} LOGIN; GRANT USAGE ON SCHEMA {cluster} TO {user}")
    postgresql.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {cluster} TO {user}")
    refusal = await refusal_of(PostgresqlLocation(postgresql.url(user=user), cluster))
    assert refusal.endswith("permission denied for table tasks: grant the permission to the user")
    postgresql.execute(f"GRANT UPDATE ON {cluster}.tasks TO {user}")
    with pytest.raises(StoreError, match="permission denied for table commits: grant the permission to the user"):
        async with open_store(PostgresqlLocation(postgresql.url(user=user), cluster)):
            raise AssertionError("not reached")


async def test_statement_that_takes_too_long_is_stopped(
    location: PostgresqlLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    _limit(monkeypatch, "statement_timeout")
    async with open_store(location) as store:
        with pytest.raises(StoreError, match="a statement took 30 s, and was stopped"):
            await store.read(lambda connection: connection.execute(select(func.pg_sleep(SECONDS))).one())


async def test_full_disk_of_the_server_is_reported(location: PostgresqlLocation) -> None:
    def fail(_transaction: Transaction) -> None:
        raise OperationalError("INSERT", None, psycopg.errors.DiskFull("could not extend file"))

    async with open_store(location) as store:
        with pytest.raises(StoreError, match="failed: the server's disk is full: free some space"):
            await store.write(fail)


async def test_removed_table_is_reported(postgresql: PostgresqlServer, location: PostgresqlLocation) -> None:
    async with open_store(location) as store:
        postgresql.execute(f"DROP SCHEMA {location.cluster} CASCADE")
        with pytest.raises(StoreError, match="one of its tables was removed: restore a backup"):
            await add_task(store)


async def test_statement_that_the_server_refuses_is_reported_with_its_message_and_without_values(
    location: PostgresqlLocation,
) -> None:
    value = "-".join(("se", "same"))
    async with open_store(location) as store:
        with pytest.raises(StoreError, match=r"failed: invalid input syntax for type integer: \"a\"$") as caught:
            await store.read(lambda connection: connection.execute(text("SELECT :x, 'a'::int"), {"x": value}))
    assert value not in "".join(traceback.format_exception(caught.value))
