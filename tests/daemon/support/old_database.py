"""Databases of earlier versions, as they were written by those versions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

_DATA: Final = Path(__file__).parents[1] / "data"
_COLUMNS_OF_VERSION_1: Final = {
    "tasks": "number, id, state, request, asked_device, os, capabilities, timeout, idempotency_key, device, created, started, ended, "
    "error, result_size, retry_of",
    "results": "task, part, body",
    "departures": 'number, task, device, chosen, "left"',
}


def write_old_database(path: Path, *changes: str) -> None:
    """Write a database of version 1, with a task in each state, a result in pieces and departures; then execute further statements."""
    path.touch(0o600)
    with closing(sqlite3.connect(path)) as database:
        database.executescript((_DATA / "version_1.sql").read_text("utf-8"))
        # The version that wrote it left it in this mode.
        database.execute("PRAGMA journal_mode = WAL")
        for change in changes:
            database.execute(change)
        database.commit()


def version_of(path: Path) -> int:
    """The version of a database's schema."""
    with closing(sqlite3.connect(path)) as database:
        [version] = database.execute("PRAGMA user_version").fetchone()
    return int(version)


def dump(path: Path) -> str:
    """Everything in a database, as SQL."""
    with closing(sqlite3.connect(path)) as database:
        return "\n".join(database.iterdump())


def rows_of_version_1(path: Path) -> list[tuple[object, ...]]:
    """What a database contains in the columns of version 1."""
    with closing(sqlite3.connect(path)) as database:
        return [
            row
            for table, columns in _COLUMNS_OF_VERSION_1.items()
            for row in database.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2")  # noqa: S608
        ]
