"""The daemon's database: its tables, and how SQLite is asked to keep them."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    URL,
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    text,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from galaxy_trio import GalaxyError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sqlalchemy import Connection

VERSION: Final = 1
_BUSY: Final = 5.0
"""Seconds to wait for whoever else looks at the file, such as a backup."""

METADATA = MetaData()

TASKS = Table(
    "tasks",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("asked_device", Text),
    Column("os", Text),
    Column("capabilities", Text, nullable=False),
    Column("timeout", Float, nullable=False),
    Column("idempotency_key", Text, unique=True),
    Column("device", Text),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("error", Text),
    Column("result_size", Integer),
    Column("retry_of", Text),
    Index("tasks_by_state", "state", "number"),
    Index("tasks_by_device", "device", "number"),
    sqlite_autoincrement=True,
)
"""A number is never used again: pages of a list hold, whatever is forgotten meanwhile."""

IS_QUEUED: Final = TASKS.c.state == text("'queued'")
"""Written out, or SQLite would not know that the index below has what is looked for."""

TASKS_QUEUED: Final = Index(
    "tasks_queued",
    TASKS.c.asked_device,
    TASKS.c.os,
    TASKS.c.capabilities,
    TASKS.c.number,
    sqlite_where=IS_QUEUED,
)
"""The tasks that wait, by what they need of a device, in order: one is found without a look at the others."""

RESULTS = Table(
    "results",
    METADATA,
    Column("task", Integer, ForeignKey("tasks.number", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
"""A result, in pieces: it is never needed as a whole."""


class StoreError(GalaxyError):
    """The database could not be read or written; says why, and what helps. What was accepted before stays."""


_REASONS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: make room",
    sqlite3.SQLITE_READONLY: "it, or its directory, is read-only: give the daemon's user the right to write there",
    sqlite3.SQLITE_CORRUPT: "it is damaged: put back a copy of it, or move it away to begin with none",
    sqlite3.SQLITE_NOTADB: "it is no database: name another file, or move this one away",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: see that the daemon's user may read and write it and its directory",
    sqlite3.SQLITE_BUSY: "something else holds it: end what has it open",
    sqlite3.SQLITE_IOERR: "the disk fails, or is full",
}
_PRIMARY: Final = 0xFF
"""The bits of SQLite's error codes that say the kind."""


def explain(path: Path, error: SQLAlchemyError) -> StoreError:
    """What the database said, as a sentence for who runs the daemon."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    code: int | None = getattr(cause, "sqlite_errorcode", None)
    reason = None if code is None else _REASONS.get(code & _PRIMARY)
    return StoreError(f"the database {path} fails: {reason or cause or error}")


@contextmanager
def only_user(path: Path) -> Generator[None]:
    """Be the only daemon with this database, for the length of the block. The lock goes with the process, however that ends.

    Raises:
        StoreError: There is another one, or the directory does not do.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        number = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the database {path} cannot be locked: {lock}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"another daemon uses the database {path}: stop it, or name another file") from error
        yield
    finally:
        os.close(number)


def connect(path: Path) -> Engine:
    """Open the database, which is made if there is none, for its owner alone.

    Raises:
        StoreError: It does not do.
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"the database {path} cannot be opened: {error.strerror}") from error
    url = URL.create("sqlite", database=str(path))
    looking = create_engine(url)
    engine = create_engine(url, connect_args={"timeout": _BUSY, "check_same_thread": False})
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    try:
        # Before anything of it is changed, its journal's mode included.
        with looking.connect() as connection:
            is_new = _check(path, connection)
        with engine.begin() as connection:
            if is_new:
                METADATA.create_all(connection, checkfirst=False)
                connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
            else:
                TASKS_QUEUED.create(connection, checkfirst=True)
    except SQLAlchemyError as error:
        engine.dispose()
        raise explain(path, error) from error
    finally:
        looking.dispose()
    return engine


def _check(path: Path, connection: Connection) -> bool:
    """Whether the database is a new one; raises if it is none of ours."""
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if version > VERSION:
        raise StoreError(f"the database {path} is of a newer galaxy_trio: install that one, or name another file")
    if version == VERSION:
        # It reads the table's first pages, so that a file that is damaged there is told now.
        connection.execute(TASKS.select().limit(1))
        return False
    if connection.exec_driver_sql("SELECT 1 FROM sqlite_master").first() is not None:
        raise StoreError(f"the database {path} is another program's: name another file")
    return True


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    # Transactions begin where SQLAlchemy says, and not where sqlite3 guesses.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes", True) else "BEGIN")
