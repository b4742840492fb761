"""The daemon's database in PostgreSQL: a schema for each cluster of daemons."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NoReturn

import trio
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, event, inspect, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateSchema

from galaxy_trio.daemon.store.database import MAX_READERS, DatabaseAway, Engines, StoreError
from galaxy_trio.daemon.store.location import POSTGRESQL
from galaxy_trio.daemon.store.migrations import upgrade
from galaxy_trio.daemon.store.notifications import follow_commits
from galaxy_trio.daemon.store.postgresql_sessions import (
    REASONS,
    PostgresqlSessions,
    is_of_connection,
    reason_of,
    session_settings,
)
from galaxy_trio.daemon.store.schema import METADATA, TASKS, VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    import psycopg
    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import IsolationLevel

    from galaxy_trio.daemon.store.location import PostgresqlLocation


logger: Final = logging.getLogger(__name__)

_SCHEMA_VERSION: Final = Table("schema_version", MetaData(), Column("version", Integer, nullable=False))
_TEMPORARY: Final = ("25P03", "40001", "40P01", "55P03")
"""The SQLSTATEs of transactions that the server undid because of others, or of a pause."""


class Postgresql(PostgresqlSessions):
    """A schema in a PostgreSQL database, which any number of daemons may use at the same time."""

    def __init__(self, location: PostgresqlLocation) -> None:
        super().__init__(location)
        self.is_shared: Final = True

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Engines]:
        """See `Database.open`."""
        writing = self._make_engine(1, "READ COMMITTED")
        reading = self._make_engine(MAX_READERS, "REPEATABLE READ")
        renewing = self._make_engine(1, "READ COMMITTED")
        try:
            await trio.to_thread.run_sync(self._create_tables, writing)
            yield Engines(writing, reading, renewing)
        finally:
            # It closes sockets and waits for nothing.
            for engine in (writing, reading, renewing):
                engine.dispose()

    def check(self) -> None:
        """See `Database.check`."""
        engine = self._make_engine(1, "READ COMMITTED")
        try:
            with engine.connect() as connection:
                self._check(connection)
        except SQLAlchemyError as error:
            raise self.explain(error) from error
        finally:
            engine.dispose()

    def order_events(self, connection: Connection) -> None:
        """See `Database.order_events`."""
        connection.execute(_ORDER_EVENTS, {"lock": f"galaxy_trio {self.cluster} events", "channel": self.cluster})

    def report_events(self) -> None:
        """See `Database.report_events`. The server notifies this process as well."""

    async def follow_events(self, on_commit: Callable[[], None]) -> NoReturn:
        """See `Database.follow_events` and `notifications.follow_commits`."""
        await follow_commits(self, on_commit)

    def explain(self, error: SQLAlchemyError) -> StoreError:
        """See `Database.explain`."""
        cause = error.orig if isinstance(error, DBAPIError) else None
        kind = DatabaseAway if is_of_connection(cause) else StoreError
        return kind(f"{self} failed: {reason_of(cause or error)}")

    def is_temporary(self, error: Exception) -> bool:
        """See `Database.is_temporary`."""
        cause = error.orig if isinstance(error, DBAPIError) else None
        return is_of_connection(cause) or getattr(cause, "sqlstate", None) in _TEMPORARY

    def _make_engine(self, connections: int, isolation_level: IsolationLevel) -> Engine:
        engine = create_engine(
            POSTGRESQL,
            connect_args=self.parameters,
            pool_size=connections,
            max_overflow=0,
            # The server may have been restarted since the last transaction.
            pool_pre_ping=True,
            hide_parameters=True,
            use_native_hstore=False,
            isolation_level=isolation_level,
        )
        event.listen(engine, "connect", self._begin_session)
        return engine

    def _begin_session(self, connection: psycopg.Connection, _record: object) -> None:
        connection.autocommit = True
        connection.execute(session_settings(self.cluster, self.lease))
        connection.autocommit = False

    def _create_tables(self, engine: Engine) -> None:
        try:
            with engine.begin() as connection:
                # Several daemons may start at this moment.
                connection.execute(_LOCK_TABLES, {"name": f"galaxy_trio {self.cluster} tables"})
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
            raise StoreError(f"{self} failed: {REASONS['25006']}")
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
        # It needs the permission to write, and writes nothing.
        connection.execute(select(TASKS.c.id, TASKS.c.request).limit(1).with_for_update())
        return version


_ORDER_EVENTS: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:lock, 0)), pg_notify(:channel, '')")
"""The server sends the notification after the commit."""
_LOCK_TABLES: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
_SERVER: Final = text(
    "SELECT current_setting('server_encoding'), current_setting('transaction_read_only'), current_user, "
    "has_database_privilege(current_database(), 'CREATE')"
)
_SCHEMA: Final = text(
    "SELECT has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE'), "
    "ARRAY(SELECT relname::text FROM pg_class WHERE relnamespace = pg_namespace.oid AND relkind IN ('r', 'p', 'v', 'm')) "
    "FROM pg_namespace WHERE nspname = :name"
)
