"""Copies an SQLite database next to itself, before it is upgraded."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path


def back_up(path: Path, version: int) -> Path:
    """Copy a database of a version, and return the copy's path. The copy is complete and on disk, or does not exist under this name.

    Raises:
        OSError: The copy cannot be written.
        sqlite3.Error: The database cannot be read, or the copy cannot be written.
    """
    # Like SQLite's further files, it is next to the file, not next to a symbolic link.
    real = Path(os.path.realpath(path))
    backup = real.with_name(f"{real.name}.version-{version}")
    unfinished = backup.with_name(f"{backup.name}.unfinished")
    # One may be left of a daemon that was killed.
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as target:
            # Without a journal next to it, which could be left as well.
            target.execute("PRAGMA journal_mode = OFF")
            source.backup(target)
        _sync(unfinished)
        unfinished.replace(backup)
    except BaseException:
        # Whatever it was, it is raised again.
        unfinished.unlink(missing_ok=True)
        raise
    _sync(backup.parent)
    return backup


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on disk."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
