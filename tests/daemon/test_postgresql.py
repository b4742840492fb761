"""The daemon's database in PostgreSQL: the reasons why it cannot be used, its owner, lost sessions, and what a session may block."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Final

import attrs
import psycopg
import pytest
import trio
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from galaxy_trio.daemon.store import postgresql as dialect
from galaxy_trio.daemon.store.database import DatabaseInUse, StoreError
from galaxy_trio.daemon.store.dialects import database_at
from galaxy_trio.daemon.store.location import POSTGRESQL, PostgresqlLocation
from galaxy_trio.daemon.store.schema import VERSION
from galaxy_trio.daemon.store.store import open_store
from tests.daemon.support.postgresql import PostgresqlServer, unique_name
from tests.daemon.support.store import add_task, queued_tasks
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection
    from trio.testing import MockClock

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.records import TaskRecord

pytestmark = pytest.mark.daemon


@pytest.fixture
def location(postgresql: PostgresqlServer) -> PostgresqlLocation:
    """A cluster that does not exist yet."""
    return PostgresqlLocation(postgresql.url(), unique_name())


@pytest.fixture(scope="module")
def with_password(postgresql: PostgresqlServer) -> str:
    """A database whose user of the same name needs the password ``sesame/@1``."""
    postgresql.execute("CREATE ROLE with_password LOGIN PASSWORD 'sesame/@1'")
    postgresql.execute("CREATE DATABASE with_password OWNER with_password")
    return "with_password"


async def _refusal(location: PostgresqlLocation) -> str:
    """The error of opening the database, which its check reports as well, and which shows no password anywhere."""
    message = await _error_of_opening(location)
    with pytest.raises(StoreError) as checked:
        await trio.to_thread.run_sync(lambda: database_at(location).check())
    assert str(checked.value) == message
    return message


async def _error_of_opening(location: PostgresqlLocation) -> str:
    with pytest.raises(StoreError) as caught:
        async with open_store(location):
            raise AssertionError("not reached")
    assert "sesame" not in "".join(traceback.format_exception(caught.value)) + repr(location)
    return str(caught.value)


def _no_server(_server: PostgresqlServer) -> str:
    return f"{POSTGRESQL}galaxy:sesame@127.0.0.1:1/galaxy"


def _no_socket(server: PostgresqlServer) -> str:
    return server.url(password="sesame").replace(str(server.directory), "/nowhere")


def _no_host(_server: PostgresqlServer) -> str:
    return f"{POSTGRESQL}galaxy:sesame@no-such-host.invalid/galaxy"


def _no_user(server: PostgresqlServer) -> str:
    return server.url(user="stranger")


def _no_database(server: PostgresqlServer) -> str:
    return server.url("missing")


def _wrong_password(server: PostgresqlServer) -> str:
    return server.url("with_password", "with_password", "sesame")


def _no_password(server: PostgresqlServer) -> str:
    return server.url("with_password", "with_password")


def _no_service(_server: PostgresqlServer) -> str:
    return f"{POSTGRESQL}/?service=missing"


def _other_encoding(server: PostgresqlServer) -> str:
    name = unique_name()
    server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    return server.url(name)


def _no_right_in_the_database(server: PostgresqlServer) -> str:
    user = unique_name()
    server.execute(f"CREATE ROLE {user} LOGIN")
    return server.url(user=user)


def _read_only(server: PostgresqlServer) -> str:
    user = unique_name()
    server.execute(f"CREATE ROLE {user} LOGIN SUPERUSER; ALTER ROLE {user} SET default_transaction_read_only = on")
    return server.url(user=user)


@pytest.mark.usefixtures("with_password")
@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (_no_server, "host=127.0.0.1 port=1 dbname=galaxy user=galaxy failed: Connection refused: check that the server runs"),
        (_no_socket, " failed: No such file or directory: check that the server runs, and that this machine can reach it"),
        (_no_host, "failed to resolve host 'no-such-host.invalid': "),
        (_no_user, 'role "stranger" does not exist: create it with createuser, or configure another user'),
        (_no_database, 'database "missing" does not exist: create it with createdb'),
        (_wrong_password, 'password authentication failed for user "with_password": correct the password'),
        (_no_password, "no password supplied: give a password in a passfile"),
        (_no_service, 'definition of service "missing" not found: correct the URL of the database'),
        (_other_encoding, "has the encoding SQL_ASCII: create one with the encoding UTF8"),
        (_read_only, "failed: it is read-only: connect to the primary server, not to a standby"),
        (_no_right_in_the_database, 'the user may not create it: run CREATE SCHEMA "galaxy" AUTHORIZATION "'),
    ],
)  # fmt: skip
async def test_unusable_database_is_reported_with_what_to_do(
    postgresql: PostgresqlServer, prepare: Callable[[PostgresqlServer], str], sentence: str
) -> None:
    assert sentence in await _refusal(PostgresqlLocation(prepare(postgresql)))


@pytest.mark.parametrize(
    "url", ["u:12/sesame@h/d", "u:1@sesame@h/d", "u:1:sesame@h/d", "u:1@h:sesame/d", "u:%sesame@h/d", "u@h/d?sesame=1"]
)
async def test_invalid_url_is_refused_and_not_shown(postgresql: PostgresqlServer, url: str) -> None:
    assert (await _refusal(PostgresqlLocation(POSTGRESQL + url))).startswith(
        "the URL of the database is invalid (it is "
    )


def _foreign_schema(name: str) -> str:
    return f"CREATE TABLE {name}.tasks (x int)"


def _newer_schema(name: str) -> str:
    return f"CREATE TABLE {name}.schema_version AS SELECT 99 AS version"


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (_foreign_schema, "belongs to another program: configure another cluster"),
        (_newer_schema, "was made by a newer galaxy_trio: install that version, or configure another cluster"),
    ],
)
async def test_schema_of_others_is_refused_and_left_unchanged(
    postgresql: PostgresqlServer, location: PostgresqlLocation, prepare: Callable[[str], str], sentence: str
) -> None:
    postgresql.execute(f"CREATE SCHEMA {location.cluster}")
    postgresql.execute(prepare(location.cluster))
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
    before = postgresql.execute(tables, location.cluster)
    assert sentence in await _refusal(location)
    assert postgresql.execute(tables, location.cluster) == before


async def test_schema_of_an_older_version_is_upgraded_once_and_a_failed_upgrade_changes_nothing(
    location: PostgresqlLocation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    upgraded: list[int] = []

    def upgrade(connection: Connection, found: int) -> None:
        connection.execute(text("ALTER TABLE tasks ADD COLUMN added text"))
        upgraded.append(found)
        if len(upgraded) == 1:
            connection.execute(text("SELECT 1/0"))

    async with open_store(location) as store:
        record = await add_task(store)
    monkeypatch.setattr(dialect, "VERSION", VERSION + 1)
    monkeypatch.setattr(dialect, "upgrade", upgrade)
    assert "division by zero" in await _error_of_opening(location)
    for _ in range(2):
        async with open_store(location) as store:
            assert await queued_tasks(store) == [record]
    assert upgraded == [VERSION, VERSION]
    assert f"was upgraded from version {VERSION} to {VERSION + 1}" in caplog.text


async def test_schema_that_an_administrator_made_is_used_when_its_rights_are_granted(
    postgresql: PostgresqlServer,
) -> None:
    user, cluster = unique_name(), unique_name()
    postgresql.execute(f"CREATE ROLE {user} LOGIN; CREATE SCHEMA {cluster}")
    location = PostgresqlLocation(postgresql.url(user=user), cluster)
    assert f'run GRANT USAGE, CREATE ON SCHEMA "{cluster}" TO "{user}"' in await _refusal(location)
    postgresql.execute(f"GRANT USAGE ON SCHEMA {cluster} TO {user}")
    assert "run GRANT USAGE, CREATE ON SCHEMA" in await _refusal(location)
    postgresql.execute(f"GRANT CREATE ON SCHEMA {cluster} TO {user}")
    database_at(location).check()
    async with open_store(location) as store:
        await add_task(store)
    postgresql.execute(f"ALTER TABLE {cluster}.tasks OWNER TO postgres")
    assert "permission denied for table tasks: grant the permission to the user" in await _refusal(location)


async def test_check_creates_nothing_and_a_checked_database_can_be_opened(
    postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
    database = database_at(location)
    database.check()
    schema = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
    assert postgresql.execute(schema, location.cluster) == []
    async with open_store(location) as store:
        await add_task(store)
    assert postgresql.execute(schema, location.cluster) == [(1,)]
    database.check()


async def test_password_comes_from_the_url_a_passfile_or_the_environment(
    postgresql: PostgresqlServer, with_password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_usable(**more: str) -> None:
        url = postgresql.url(with_password, with_password, **more)
        async with open_store(PostgresqlLocation(url, "my-cluster")) as store:
            await add_task(store)

    await is_usable(password="sesame/@1")
    passfile = tmp_path / "passfile"
    passfile.write_text(f"*:*:*:{with_password}:sesame/@1\n")
    passfile.chmod(0o600)
    await is_usable(passfile=str(passfile))
    monkeypatch.setenv("PGPASSWORD", "sesame/@1")
    await is_usable()


async def test_service_of_the_environment_gives_what_the_url_does_not(
    postgresql: PostgresqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "services").write_text(f"[galaxy]\nhost={postgresql.directory}\nuser=postgres\ndbname=postgres\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    location = PostgresqlLocation(f"{POSTGRESQL}/?service=galaxy", unique_name())
    async with open_store(location) as store:
        await add_task(store)
    assert str(database_at(location)) == "the database service=galaxy"


async def test_missing_driver_is_reported_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, dialect.__name__)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert 'pip install "galaxy_trio[postgres]"' in await _refusal(PostgresqlLocation(POSTGRESQL))


async def test_one_daemon_at_a_time_uses_a_cluster(location: PostgresqlLocation) -> None:
    async with open_store(location) as store:
        refusal = await _refusal(location)
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


async def test_daemon_waits_a_moment_for_the_session_of_its_predecessor_to_end(
    postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
    def is_waited_for() -> bool:
        return postgresql.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == [(1,)]

    async with open_store(location):
        pass
    async with trio.open_nursery() as nursery:
        with psycopg.connect(host=str(postgresql.directory), user="postgres", dbname="postgres") as predecessor:
            query = "SELECT pg_advisory_lock(hashtextextended(%s, 0))"
            predecessor.execute(query, [f"galaxy_trio {location.cluster}"])
            opened = trio.Event()

            async def open_it() -> None:
                async with open_store(location):
                    opened.set()

            nursery.start_soon(open_it)
            await until(is_waited_for)
            assert not opened.is_set()


async def test_daemon_that_lost_its_session_cannot_write_while_another_uses_the_database(
    postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
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
    postgresql: PostgresqlServer, location: PostgresqlLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    _limit(monkeypatch, "idle_in_transaction_session_timeout")

    def pause(transaction: Transaction) -> None:
        transaction.connection.execute(text("LOCK TABLE tasks"))
        while _owner(postgresql, location.cluster) is not None:
            pass
        transaction.connection.execute(select(1))

    async with open_store(location) as store:
        with pytest.raises(StoreError, match="the daemon paused for 5 s in a transaction"):
            await store.write(pause)


async def test_lock_of_another_program_fails_a_write_in_a_limited_time(
    postgresql: PostgresqlServer, location: PostgresqlLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    _limit(monkeypatch, "lock_timeout")
    async with open_store(location) as store:
        with psycopg.connect(host=str(postgresql.directory), user="postgres", dbname="postgres") as blocker:
            blocker.execute(f"LOCK TABLE {location.cluster}.tasks IN SHARE MODE".encode())
            with pytest.raises(StoreError, match="another program has locked a table for 5 s: stop that program"):
                await add_task(store)
        await add_task(store)


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
