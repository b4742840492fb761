"""The daemon's sessions in PostgreSQL: shared and lost ones, and what one may block."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final

import attrs
import psycopg
import pytest
import trio
import trio.testing
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from galaxy_trio.daemon.store import postgresql_sessions
from galaxy_trio.daemon.store.committer import LifeOver
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.location import POSTGRESQL, PostgresqlLocation
from galaxy_trio.daemon.store.postgresql import Postgresql
from galaxy_trio.daemon.store.store import open_store
from tests.daemon.support.daemon import open_daemon
from tests.daemon.support.postgresql import PostgresqlServer, unique_name
from tests.daemon.support.refusals import refusal_of
from tests.daemon.support.store import add_task, queued_tasks
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.records import TaskRecord

pytestmark = pytest.mark.daemon


async def test_daemons_share_the_tasks_of_a_cluster_and_not_those_of_another(location: PostgresqlLocation) -> None:
    async with open_store(location) as store:
        record = await add_task(store)
        async with (
            open_store(location) as sharing,
            open_store(attrs.evolve(location, cluster=unique_name())) as other,
        ):
            assert await queued_tasks(sharing) == [record]
            assert await queued_tasks(other) == []
            await add_task(other)
        assert await queued_tasks(store) == [record]


def _terminate(server: PostgresqlServer) -> None:
    """Close all sessions of daemons, and wait for their ends."""
    ends = server.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'galaxy_trio'"
    )
    assert ends
    assert all(ended for [ended] in ends)


async def test_store_connects_again_when_its_sessions_are_terminated(
    postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
    async with open_store(location) as store:
        first = await add_task(store)
        assert await queued_tasks(store) == [first]
        assert await store.renew()
        _terminate(postgresql)
        second = await add_task(store)
        assert await queued_tasks(store) == [first, second]
        assert await store.renew()


async def test_daemon_whose_lease_is_over_takes_nothing_when_another_has_taken_over(
    postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
    async with open_store(location) as store:
        first = await add_task(store)
        postgresql.execute(f"UPDATE {location.cluster}.daemons SET expires = 0")  # noqa: S608  # a name of this test
        # No other daemon has found out yet.
        second = await add_task(store)
        async with open_store(location) as successor:
            with pytest.raises(LifeOver, match="this daemon has lost its lease"):
                await add_task(store)
            assert not await store.renew()
            third = await add_task(successor)
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
        assert "check that the server runs" in (await daemon.ask("GET", "/tasks", 503))["error"]
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
        _terminate(postgresql)
        transaction.connection.execute(select(1))

    async with open_store(location) as store:
        with pytest.raises(
            StoreError, match="terminating connection due to administrator command: check that the server"
        ):
            await store.write(lose)
        await add_task(store)


@pytest.mark.parametrize(("lease", "limit"), [(3, "500ms"), (30, "5s"), (600, "5s")])
async def test_every_session_limits_how_long_it_can_block_others(
    location: PostgresqlLocation, lease: float, limit: str
) -> None:
    names = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout", "plan_cache_mode")
    show = select(*(func.current_setting(name) for name in names), func.current_setting("search_path"))
    async with open_store(attrs.evolve(location, lease=lease)) as store:

        def show_at_renewal() -> tuple[Any, ...]:
            with store._engines.renewing.connect() as connection:
                return tuple(connection.execute(show).one())

        for row in (
            await store.write(lambda transaction: transaction.connection.execute(show).one()),
            await store.read(lambda connection: connection.execute(show).one()),
            await trio.to_thread.run_sync(show_at_renewal),
        ):
            assert tuple(row) == (limit, limit, "30s", "force_custom_plan", location.cluster)


@pytest.mark.parametrize(
    ("lease", "expected"),
    [(3, (2, 1, 1, 1_000)), (30, (5, 5, 2, 10_000)), (600, (5, 5, 2, 10_000))],
)
def test_server_that_does_not_answer_is_noticed_within_a_part_of_the_lease(
    lease: float, expected: tuple[int, ...]
) -> None:
    names = ("connect_timeout", "keepalives_idle", "keepalives_interval", "tcp_user_timeout")
    database = Postgresql(PostgresqlLocation(POSTGRESQL, lease=lease))
    options = conninfo_to_dict(database.connection_string().decode())
    assert tuple(int(str(options[name])) for name in names) == expected


@pytest.mark.parametrize(("configured", "used"), [("off", "on"), ("remote_apply", "remote_apply")])
async def test_commit_is_on_disk_whatever_the_server_is_configured_for(
    postgresql: PostgresqlServer, configured: str, used: str
) -> None:
    user = unique_name()
    postgresql.execute(f"CREATE ROLE {user} LOGIN SUPERUSER; ALTER ROLE {user} SET synchronous_commit = {configured}")
    show = select(func.current_setting("synchronous_commit"))
    async with open_store(PostgresqlLocation(postgresql.url(user=user), unique_name())) as store:
        assert await store.write(lambda transaction: transaction.connection.execute(show).scalar()) == used


_SHORT: Final = 0.6
"""Seconds of a lease whose sessions may be idle in a transaction, or wait for a lock, for 0.1 s."""


async def test_daemon_that_is_stopped_inside_a_transaction_loses_its_session(
    postgresql: PostgresqlServer, location: PostgresqlLocation, autojump_clock: MockClock
) -> None:
    pauses = 0

    def pause(transaction: Transaction) -> None:
        nonlocal pauses
        pauses += 1
        transaction.connection.execute(text("LOCK TABLE tasks"))
        session = transaction.connection.execute(select(func.pg_backend_pid())).scalar_one()
        while postgresql.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", session):
            pass
        transaction.connection.execute(select(1))

    async with open_store(attrs.evolve(location, lease=_SHORT)) as store:
        with pytest.raises(StoreError, match="the daemon paused in a transaction for a sixth of its lease"):
            await store.write(pause)
    # A pause may be the only one.
    assert pauses == 7


async def test_lock_of_another_program_fails_a_write_in_a_limited_time(
    postgresql: PostgresqlServer, location: PostgresqlLocation, autojump_clock: MockClock
) -> None:
    async with open_store(attrs.evolve(location, lease=_SHORT)) as store:
        with psycopg.connect(host=str(postgresql.directory), user="postgres", dbname="postgres") as blocker:
            blocker.execute(f"LOCK TABLE {location.cluster}.tasks IN SHARE MODE".encode())
            with pytest.raises(
                StoreError, match="another program has locked a table for a sixth of the daemon's lease: stop"
            ):
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
    monkeypatch.setitem(postgresql_sessions._SESSION, "statement_timeout", "100ms")
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
