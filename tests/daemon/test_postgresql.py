"""The daemon's database in PostgreSQL: the reasons why it cannot be used, its schema, and its password."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text

from galaxy_trio.daemon.store import postgresql as dialect
from galaxy_trio.daemon.store import postgresql_sessions
from galaxy_trio.daemon.store.dialects import database_at
from galaxy_trio.daemon.store.location import POSTGRESQL, PostgresqlLocation
from galaxy_trio.daemon.store.schema import VERSION
from galaxy_trio.daemon.store.store import open_store
from tests.daemon.support.postgresql import PostgresqlServer, unique_name
from tests.daemon.support.refusals import error_of_opening, refusal_of
from tests.daemon.support.store import add_task, queued_tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection


pytestmark = pytest.mark.daemon


@pytest.fixture(scope="module")
def with_password(postgresql: PostgresqlServer) -> str:
    """A database whose user of the same name needs the password ``sesame/@1``."""
    postgresql.execute("CREATE ROLE with_password LOGIN PASSWORD 'sesame/@1'")
    postgresql.execute("CREATE DATABASE with_password OWNER with_password")
    return "with_password"


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
    assert sentence in await refusal_of(PostgresqlLocation(prepare(postgresql)))


@pytest.mark.parametrize(
    "message",
    [
        'root certificate file "/root.crt" does not exist',
        "server does not support SSL, but SSL was required",
        'server certificate for "a" does not match host name "b"',
    ],
)
def test_advice_about_encryption_is_not_to_check_whether_the_server_runs(message: str) -> None:
    reason = postgresql_sessions.reason_of(psycopg.OperationalError(f"connection failed: {message}"))
    assert reason == f"{message}: correct sslmode and sslrootcert in the URL, or the server's certificate"


@pytest.mark.parametrize(
    "url", ["u:12/sesame@h/d", "u:1@sesame@h/d", "u:1:sesame@h/d", "u:1@h:sesame/d", "u:%sesame@h/d", "u@h/d?sesame=1"]
)
async def test_invalid_url_is_refused_and_not_shown(postgresql: PostgresqlServer, url: str) -> None:
    assert (await refusal_of(PostgresqlLocation(POSTGRESQL + url))).startswith(
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
    assert sentence in await refusal_of(location)
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
    assert "division by zero" in await error_of_opening(location)
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
    assert f'run GRANT USAGE, CREATE ON SCHEMA "{cluster}" TO "{user}"' in await refusal_of(location)
    postgresql.execute(f"GRANT USAGE ON SCHEMA {cluster} TO {user}")
    assert "run GRANT USAGE, CREATE ON SCHEMA" in await refusal_of(location)
    postgresql.execute(f"GRANT CREATE ON SCHEMA {cluster} TO {user}")
    database_at(location).check()
    async with open_store(location) as store:
        await add_task(store)
    postgresql.execute(f"ALTER TABLE {cluster}.tasks OWNER TO postgres")
    assert "permission denied for table tasks: grant the permission to the user" in await refusal_of(location)


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
    postgresql: PostgresqlServer,
    with_password: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

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
    assert "sesame" not in caplog.text


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
    for module in (dialect, postgresql_sessions):
        monkeypatch.delitem(sys.modules, module.__name__)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert 'pip install "galaxy_trio[postgres]"' in await refusal_of(PostgresqlLocation(POSTGRESQL))
