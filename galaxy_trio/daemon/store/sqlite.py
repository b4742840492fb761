"""The daemon's database as a file of SQLite: the default."""

from __future__ import annotations

import logging
import math
import sqlite3
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

import trio
from sqlalchemy import URL, Engine, create_engine, event, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from galaxy_trio.daemon.store.backup import back_up
from galaxy_trio.daemon.store.database import Engines, StoreError
from galaxy_trio.daemon.store.migrations import upgrade
from galaxy_trio.daemon.store.schema import METADATA, TASKS, VERSION
from galaxy_trio.daemon.store.sqlite_file import check_directory, lock

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from sqlalchemy import Connection

logger: Final = logging.getLogger(__name__)

_BUSY: Final = 5.0
"""Seconds to wait for other programs that hold the file, such as a backup."""
_REASONS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "the file or its directory is read-only: give the daemon's user permission to write there",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore a backup, or move it away to start with an empty one",
    sqlite3.SQLITE_NOTADB: "the file is not a database: configure another path, or move the file away",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: give the daemon's user permission to read and write it and its directory",
    sqlite3.SQLITE_BUSY: "another program has locked it: stop that program",
    sqlite3.SQLITE_IOERR: "the disk reports an error, or is full: check the disk",
}
_TEMPORARY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_PRIMARY: Final = 0xFF
"""The bits of an SQLite error code that hold the primary code."""


class Sqlite:
    """A file of SQLite."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_shared: Final = False
        self.lease: Final = math.inf
        self._committed = trio.Event()

    def __str__(self) -> str:
        return f"the database {self._path}"

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Engines]:
        """See `Database.open`."""
        with lock(self._path):
            engine = await trio.to_thread.run_sync(self._connect)
            try:
                yield Engines(engine, reading=engine.execution_options(writes=False), renewing=engine)
            finally:
                # It closes files and waits for nothing.
                engine.dispose()

    def check(self) -> None:
        """See `Database.check`."""
        check_directory(self._path)
        if self._path.exists():
            with lock(self._path):
                self._check_content()

    def order_events(self, connection: Connection) -> None:
        """See `Database.order_events`. SQLite has one transaction that writes, at a time."""

    def report_events(self) -> None:
        """See `Database.report_events`."""
        self._committed.set()
        self._committed = trio.Event()

    async def follow_events(self, on_commit: Callable[[], None]) -> NoReturn:
        """See `Database.follow_events`."""
        while True:
            await self._committed.wait()
            on_commit()

    def explain(self, error: SQLAlchemyError) -> StoreError:
        """See `Database.explain`."""
        cause = error.orig if isinstance(error, DBAPIError) else None
        code = _primary_code(error)
        reason = None if code is None else _REASONS.get(code)
        return StoreError(f"{self} failed: {reason or cause or error}")

    def is_temporary(self, error: Exception) -> bool:
        """See `Database.is_temporary`."""
        return isinstance(error, DBAPIError) and _primary_code(error) in _TEMPORARY

    def _connect(self) -> Engine:
        """Open the database inside the block of its `lock`, and create its tables if it is empty. Upgrades one of an older version."""
        # A foreign file must not be changed, not even its journal mode.
        found = self._check_content()
        backup = self._back_up(found) if 0 < found < VERSION else None
        engine = create_engine(_url(self._path), connect_args={"timeout": _BUSY, "check_same_thread": False})
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", partial(_on_begin, self._path, self._path.stat()))
        try:
            with engine.begin() as connection:
                if not found:
                    METADATA.create_all(connection, checkfirst=False)
                elif found < VERSION:
                    upgrade(connection, found)
                if found != VERSION:
                    connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
        except SQLAlchemyError as error:
            engine.dispose()
            raise self.explain(error) from error
        if backup is not None:
            logger.info("%s was upgraded from version %d to %d; its copy is %s", self, found, VERSION, backup)
        return engine

    def _back_up(self, version: int) -> Path:
        try:
            return back_up(self._path, version)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self} must be upgraded, and cannot be copied before: {error}: free some space for a copy next to it, "
                "or give the daemon's user permission to write there"
            ) from error

    def _check_content(self) -> int:
        """Check an existing database inside the block of its `lock`, without changing it. Returns its version, 0 if it is new."""
        engine = create_engine(_url(self._path))
        try:
            with engine.connect() as connection:
                return _check(self._path, connection)
        except SQLAlchemyError as error:
            raise self.explain(error) from error
        finally:
            engine.dispose()


def _primary_code(error: SQLAlchemyError) -> int | None:
    code: int | None = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY


def _url(path: Path) -> URL:
    return URL.create("sqlite", database=str(path))


def _check(path: Path, connection: Connection) -> int:
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if version > VERSION:
        raise StoreError(
            f"the database {path} was made by a newer galaxy_trio: install that version, or configure another path"
        )
    if version > 0:
        # This reads the table's first pages, so that damage there is reported now.
        connection.execute(select(TASKS.c.id, TASKS.c.request).limit(1))
        return version
    if connection.exec_driver_sql("SELECT 1 FROM sqlite_master").first() is not None:
        raise StoreError(f"the database {path} belongs to another program: configure another path")
    return 0


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    # SQLAlchemy begins the transactions; by default, the sqlite3 module would do it as well.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(path: Path, opened: os.stat_result, connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", True)
    if writes:
        _check_present(path, opened)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_present(path: Path, opened: os.stat_result) -> None:
    """Refuse to write to a file without a name: it could never be opened again.

    Raises:
        StoreError: The file has no longer the name under which it was opened.
    """
    with suppress(FileNotFoundError):
        found = path.stat()
        if (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino):
            return
    raise StoreError(f"the database {path} was deleted or replaced while the daemon used it: restart the daemon")
