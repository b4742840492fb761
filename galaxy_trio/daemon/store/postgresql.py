"""The daemon's database in PostgreSQL: a schema for each cluster of daemons."""

from __future__ import annotations

import logging
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
import trio
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, event, inspect, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateSchema

from galaxy_trio.daemon.store.database import DatabaseInUse, Engines, StoreError
from galaxy_trio.daemon.store.location import POSTGRESQL
from galaxy_trio.daemon.store.migrations import upgrade
from galaxy_trio.daemon.store.schema import METADATA, TASKS, VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.location import PostgresqlLocation

logger: Final = logging.getLogger(__name__)

_MAX_READERS: Final = 4
_CLIENT: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "client_encoding": "utf8",
    "fallback_application_name": "galaxy_trio",
}
"""Options of the connection, of any types, which the URL may give as well: a server that does not answer is noticed within 10 s."""
_LOCK_TIMEOUT: Final = 2
"""Seconds to wait until the server has noticed that an earlier daemon has ended."""
_SESSION: Final = {
    # A daemon that is stopped inside a transaction would block the others.
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    # A plan for any values would use no index for a column that may be NULL.
    "plan_cache_mode": "force_custom_plan",
    # The server notices a daemon whose machine does not answer, and releases its locks.
    "tcp_keepalives_idle": "5s",
    "tcp_keepalives_interval": "2s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
}
_DURABLE: Final = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
"""What is committed must survive a crash of the server, whatever its configuration; one that waits for a standby stays."""
_SHOWN: Final = ("host", "port", "dbname", "user", "service")
_SCHEMA_VERSION: Final = Table("schema_version", MetaData(), Column("version", Integer, nullable=False))
_NOT_A_URL: Final = (
    "the URL of the database is invalid (it is not shown, for it may contain a password): write "
    f"{POSTGRESQL}USER@HOST:PORT/DATABASE, and in a password %40 for @, %2F for /, %3A for :, %3F for ?, %25 for %"
)
_REASONS: Final = {
    "25006": "it is read-only: connect to the primary server, not to a standby",
    "25P03": "the daemon paused for 5 s in a transaction: check whether its machine is overloaded",
    "42P01": "one of its tables was removed: restore a backup, or restart the daemon if the whole schema was removed",
    "53100": "the server's disk is full: free some space",
    "55P03": "another program has locked a table for 5 s: stop that program",
    "57014": "a statement took 30 s, and was stopped: check whether the server is overloaded",
}
"""Reasons by SQLSTATE."""
_TEMPORARY: Final = ("40001", "40P01")
"""The SQLSTATEs of transactions that the server undid because of others."""
_ADVICE: Final = (
    (r"^role .* does not exist", "create it with createuser, or configure another user"),
    (r"^database .* does not exist", "create it with createdb, or configure another one"),
    (r"^password authentication failed", "correct the password, which comes from the URL, PGPASSWORD or a passfile"),
    (r"no password supplied", "give a password in a passfile (~/.pgpass, or the one that PGPASSFILE names) or in PGPASSWORD"),
    (r"no pg_hba.conf entry", "let the user connect in the server's pg_hba.conf"),
    (r"too many clients|connection slots", "raise max_connections of the server"),
    (r"^invalid|^definition of service", "correct the URL of the database"),
)  # fmt: skip
"""What to do, by the beginning of the message: the driver tells no SQLSTATE of a refused connection."""
_CHECK_SERVER: Final = "check that the server runs, and that this machine can reach it"


class Postgresql:
    """A schema in a PostgreSQL database.

    One daemon at a time uses it: the session that writes holds an advisory lock. A daemon that has lost this session has lost the lock with
    it, and can write again only if it gets the lock again.
    """

    def __init__(self, location: PostgresqlLocation) -> None:
        self.cluster: Final = location.cluster
        self._parameters = _CLIENT | _parse(location.url)

    def __str__(self) -> str:
        shown = {key: self._parameters[key] for key in _SHOWN if key in self._parameters}
        return f"the database {make_conninfo(**shown)}".rstrip()

    def connection_string(self) -> bytes:
        """The driver's parameters, which may contain a password."""
        return make_conninfo(**self._parameters).encode()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Engines]:
        """See `Database.open`."""
        writing = self._make_writing()
        reading = self._make_engine(_MAX_READERS, isolation_level="REPEATABLE READ")
        event.listen(reading, "connect", self._begin_session)
        try:
            await trio.to_thread.run_sync(self._create_tables, writing)
            yield Engines(writing, reading)
        finally:
            # It closes sockets and waits for nothing.
            for engine in (writing, reading):
                engine.dispose()

    def check(self) -> None:
        """See `Database.check`."""
        engine = self._make_writing()
        try:
            with engine.connect() as connection:
                self._check(connection)
        except SQLAlchemyError as error:
            raise self.explain(error) from error
        finally:
            engine.dispose()

    def explain(self, error: SQLAlchemyError) -> StoreError:
        """See `Database.explain`."""
        cause = error.orig if isinstance(error, DBAPIError) else None
        return StoreError(f"{self} failed: {reason_of(cause or error)}")

    def is_temporary(self, error: Exception) -> bool:
        """See `Database.is_temporary`."""
        cause = error.orig if isinstance(error, DBAPIError) else None
        return _is_of_connection(cause) or getattr(cause, "sqlstate", None) in _TEMPORARY

    def _make_engine(self, connections: int, **more: Any) -> Engine:  # Any: SQLAlchemy's options
        return create_engine(
            POSTGRESQL,
            connect_args=self._parameters,
            pool_size=connections,
            max_overflow=0,
            # The server may have been restarted since the last transaction.
            pool_pre_ping=True,
            hide_parameters=True,
            use_native_hstore=False,
            **more,
        )

    def _make_writing(self) -> Engine:
        engine = self._make_engine(1, isolation_level="READ COMMITTED")
        event.listen(engine, "connect", self._begin_writing_session)
        return engine

    def _begin_writing_session(self, connection: psycopg.Connection, _record: object) -> None:
        connection.autocommit = True
        connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}s'".encode())
        try:
            connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"galaxy_trio {self.cluster}"])
        except psycopg.errors.LockNotAvailable as error:
            connection.close()
            raise DatabaseInUse(
                f"another daemon uses {self}, cluster {self.cluster}: stop it, or configure another database or cluster"
            ) from error
        self._begin_session(connection, _record)

    def _begin_session(self, connection: psycopg.Connection, _record: object) -> None:
        connection.autocommit = True
        connection.execute(session_settings(self.cluster))
        connection.autocommit = False

    def _create_tables(self, engine: Engine) -> None:
        try:
            with engine.begin() as connection:
                found = self._check(connection)
                if not found:
                    # An administrator may have made it for a user that may not.
                    if not inspect(connection).has_schema(self.cluster):
                        connection.execute(CreateSchema(self.cluster))
                    METADATA.create_all(connection, checkfirst=False)
                    _SCHEMA_VERSION.create(connection, checkfirst=False)
                    connection.execute(_SCHEMA_VERSION.insert().values(version=VERSION))
                elif found < VERSION:
                    upgrade(connection, found)
                    connection.execute(_SCHEMA_VERSION.update().values(version=VERSION))
        except SQLAlchemyError as error:
            raise self.explain(error) from error
        if 0 < found < VERSION:
            logger.info("%s was upgraded from version %d to %d", self, found, VERSION)

    def _check(self, connection: Connection) -> int:
        """Check the schema without changing it. Returns its version, 0 if its tables have to be created.

        Raises:
            StoreError: The user may not use or create it, or it belongs to a newer version or to another program.
        """
        schema = f"schema {self.cluster}"
        encoding, read_only, user, may_create = connection.execute(_SERVER).one()
        if encoding != "UTF8":
            raise StoreError(f"{self} has the encoding {encoding}: create one with the encoding UTF8")
        if read_only == "on":
            raise StoreError(f"{self} failed: {_REASONS['25006']}")
        found = connection.execute(_SCHEMA, {"name": self.cluster}).one_or_none()
        if found is None:
            if not may_create:
                raise StoreError(
                    f'{self} has no {schema}, and the user may not create it: run CREATE SCHEMA "{self.cluster}" '
                    f'AUTHORIZATION "{user}" in the database'
                )
            return 0
        may_use, may_create, tables = found
        if not may_use or not (tables or may_create):
            raise StoreError(
                f'the user may not use the {schema} of {self}: run GRANT USAGE, CREATE ON SCHEMA "{self.cluster}" '
                f'TO "{user}" in the database'
            )
        if not tables:
            return 0
        if _SCHEMA_VERSION.name not in tables:
            raise StoreError(f"the {schema} of {self} belongs to another program: configure another cluster")
        version: int = connection.execute(select(_SCHEMA_VERSION.c.version)).scalar_one()
        if version > VERSION:
            raise StoreError(
                f"the {schema} of {self} was made by a newer galaxy_trio: install that version, or configure another cluster"
            )
        connection.execute(select(TASKS.c.id, TASKS.c.request).limit(1))
        return version


_SERVER: Final = text(
    "SELECT current_setting('server_encoding'), current_setting('transaction_read_only'), current_user, "
    "has_database_privilege(current_database(), 'CREATE')"
)
_SCHEMA: Final = text(
    "SELECT has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE'), "
    "ARRAY(SELECT relname::text FROM pg_class WHERE relnamespace = pg_namespace.oid AND relkind IN ('r', 'p', 'v', 'm')) "
    "FROM pg_namespace WHERE nspname = :name"
)


def session_settings(cluster: str) -> bytes:
    """The statements with which each session begins."""
    settings = [
        sql.SQL("SET {} = {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in _SESSION.items()
    ]
    path = sql.SQL("SET search_path = {}").format(sql.Identifier(cluster))
    return sql.SQL("; ").join([path, *settings, sql.SQL(_DURABLE)]).as_bytes(None)


def _parse(url: str) -> dict[str, Any]:
    """The parameters in a URL.

    Raises:
        StoreError: It is invalid. Neither the message nor the chain shows any of it: a password may be where the driver sees a host.
    """
    user, _, _ = url.removeprefix(POSTGRESQL).partition("?")[0].rpartition("@")
    if "@" not in user and "/" not in user and user.count(":") <= 1:
        parameters: dict[str, Any] | None
        try:
            parameters = conninfo_to_dict(url.replace(POSTGRESQL, "postgresql://", 1))
        except psycopg.Error:
            parameters = None
        if parameters is not None and re.fullmatch(r"[0-9,]*", str(parameters.get("port", ""))):
            return parameters
    raise StoreError(_NOT_A_URL)


def reason_of(cause: BaseException) -> str:
    """An error of the driver, as a reason and what to do."""
    state: str | None = getattr(cause, "sqlstate", None)
    if state in _REASONS:
        return _REASONS[state]
    # Further lines repeat it, or give the driver's own advice.
    message = str(cause).strip().partition("\n")[0]
    message = re.sub(r"^connection (failed|is bad): (connection to server .*? failed: )?(FATAL: *)?", "", message)
    if state == "42501":
        return f"{message}: grant the permission to the user"
    if state is None:
        for pattern, advice in _ADVICE:
            if re.search(pattern, message):
                return f"{message}: {advice}"
    return f"{message}: {_CHECK_SERVER}" if _is_of_connection(cause) else message


def _is_of_connection(cause: BaseException | None) -> bool:
    """Whether the connection was lost, or cannot be made."""
    return isinstance(cause, psycopg.OperationalError) and (cause.sqlstate or "08").startswith(("08", "57P"))
